"""How sharp an image is; it says nothing on whether the detail is the right one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mscgan.metrics.ssim import check_images

GREY = (0.2125, 0.7154, 0.0721)  # of red, green and blue: ITU-R BT.709, as scikit-image's rgb2gray


def sharpness(images: Tensor) -> Tensor:
    """The variance of the Laplacian (4 neighbours) of the grey image in [0, 1]: (N,) float64; 0 for a constant one.

    images: (N, H, W, 3) uint8. After Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy". Past an
    edge the image goes on with its last pixel.

    Raises:
        UserError: another dtype or shape.
    """
    check_images(images)
    grey = images.double() @ torch.tensor(GREY, dtype=torch.float64, device=images.device) / 255
    wide = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    beside = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]
    laplacian = beside - 4 * grey
    # Row by row, as in ssim.py.
    mean = laplacian.mean(-1).mean(-1)
    return (laplacian - mean[:, None, None]).square_().mean(-1).mean(-1)
