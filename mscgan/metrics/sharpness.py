"""How sharp an image is; it says nothing on whether the detail is the right one."""

import numpy as np
from skimage.color import rgb2gray
from skimage.filters import laplace


def sharpness(image: np.ndarray) -> float:
    """The variance of the Laplacian (4 neighbours) of the grey image in [0, 1]; 0 for a constant one.

    image: (H, W, 3) uint8. After Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy".
    """
    return float(laplace(rgb2gray(image)).var())
