"""The place behind a drawn person."""

from functools import lru_cache

import numpy as np
from PIL import Image

from shards.synthetic_look import Look


@lru_cache(maxsize=1)  # a person's views follow each other
def place(look: Look, width: int, height: int) -> Image.Image:
    """The wall or greenery behind and the floor, soft in contrast so that the person stands out."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / height
    x, y = x + look.phase, y + 0.3 * look.phase
    if look.place == "gradient":
        shade = 1.12 - 0.3 * y
    elif look.place == "bricks":
        row = np.floor(y / 0.06)
        mortar = (y % 0.06 < 0.008) | ((x + 0.07 * (row % 2)) % 0.14 < 0.008)
        shade = 1 - 0.16 * mortar + 0.05 * np.sin(12.9 * row + 37.7 * np.floor((x + 0.07 * (row % 2)) / 0.14))
    elif look.place == "panels":
        shade = 1 - 0.14 * (x % 0.22 < 0.012) + 0.04 * np.sin(5 * np.floor(x / 0.22))
    elif look.place == "fence":
        shade = 1 - 0.12 * (x % 0.08 < 0.035)
    elif look.place == "leaves":
        shade = 1 + 0.06 * (np.sin(17 * x + 3 * np.sin(11 * y)) + np.sin(19 * y + 3 * np.sin(13 * x)))
    else:
        shade = np.ones_like(x)
    picture = np.float32(look.wall) * shade[..., None]
    rows = np.arange(height) / height
    floor = rows > look.horizon
    picture[floor] = np.float32(look.floor) * (0.9 + 0.5 * (rows[floor, None, None] - look.horizon))
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
