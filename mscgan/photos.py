"""Photographs that users bring, of any kind that Pillow reads, as 8-bit RGB pixels the right way up."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from mscgan.data.rgb import rgb


class Photo(NamedTuple):
    """A photograph, upright.

    A large one is reduced while it is decoded: `pixels` may be smaller than `size`, of the same shape.
    """

    pixels: np.ndarray  # (H, W, 3) uint8
    size: tuple[int, int]  # width, height of the file, upright; coordinates of a pose in it are in these pixels


def read_photo(source: Path | bytes, name: str = "") -> Photo:
    """A file, or its bytes (an upload, which `name` is called in messages) -> its pixels.

    Raises:
        UserError: no such file, no picture, damaged, or more pixels than the limit; says what to do.
    """
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
        picture = rgb(ImageOps.exif_transpose(file))
    return Photo(np.array(picture), picture.size)
