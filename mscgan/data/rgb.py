"""A picture of any kind that a JPEG or PNG can be, with 8 bits of red, green and blue."""

import numpy as np
from PIL import Image


def rgb(picture: Image.Image) -> Image.Image:
    """The picture in Pillow's mode RGB.

    Sixteen bits of grey keep their upper eight, as Pillow does by itself for 16-bit colour; its `convert` would make
    all that is above 255 white.
    """
    if picture.mode.startswith("I"):  # I;16 and its like, and I, in which older versions hold the same numbers
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture.convert("RGB")
