"""How an image of any size, and a pose in it, come into the frame of a model: the one rule for what users bring.

Both are scaled by one factor until they fit, their shape kept, and centred; what is left of the frame repeats the
image's edges. Nothing is cropped. So a picture of 256x176 lies in a frame of 256x256 between two bands of 40 pixels.
"""

import numpy as np
from PIL import Image


def fit(size: tuple[int, int], height: int, width: int) -> tuple[int, int, int, int]:
    """Width, height, left and top that an image of `size` (width, height) has in a frame of height x width."""
    scale = min(width / size[0], height / size[1])
    inner_width = min(width, max(1, round(size[0] * scale)))
    inner_height = min(height, max(1, round(size[1] * scale)))
    return inner_width, inner_height, (width - inner_width) // 2, (height - inner_height) // 2


def place_image(pixels: np.ndarray, size: tuple[int, int], height: int, width: int) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (height, width, 3).

    size: (width, height) of the image that the pixels are of; they may be fewer, of the same shape (Photo).
    """
    inner_width, inner_height, left, top = fit(size, height, width)
    if pixels.shape[:2] != (inner_height, inner_width):
        resized = Image.fromarray(pixels).resize((inner_width, inner_height), Image.Resampling.BICUBIC)
        pixels = np.array(resized)
    padding = ((top, height - inner_height - top), (left, width - inner_width - left), (0, 0))
    return np.pad(pixels, padding, mode="edge")


def place_points(points: np.ndarray, size: tuple[int, int], height: int, width: int) -> np.ndarray:
    """(K, 2) float32 (x, y) in pixels of an image of `size` (width, height) -> where `place_image` puts them. A missing
    one stays (-1, -1)."""
    if size == (width, height):
        return points
    inner_width, inner_height, left, top = fit(size, height, width)
    scale = np.array([inner_width / size[0], inner_height / size[1]], np.float32)
    moved = (points + 0.5) * scale - 0.5 + np.array([left, top], np.float32)  # pixel centres lie at + 0.5
    moved = moved.clip(0, [width - 1, height - 1])
    return np.where((points == -1).all(1, keepdims=True), np.float32(-1), moved).astype(np.float32)
