"""A photograph and its keypoints brought into the model's frame: which part of it is taken, and how both move there.

A box is (left, top, right, bottom) in pixels of the photograph, of the frame's shape; it may reach beyond the
photograph, whose edges are then repeated. All is plain NumPy and Pillow, of arrays: no file is read here.
"""

import math

import numpy as np
from PIL import Image

from mscgan.errors import UserError

Box = tuple[float, float, float, float]

# Where the joints lie in the frames that the networks know: the share of the frame's height above the highest and below
# the lowest joint, by the lowest kind of joint that was found. Medians of the public keypoint files, of the rows with
# hips and shoulders: Market-1501's train file (12,116 rows, 128x64), DeepFashion's test file (3,264 rows, 256x256).
# "shoulders": of the same rows, as if nothing below them had been found.
MARKET = {"ankles": (0.08, 0.10), "knees": (0.08, 0.17), "hips": (0.08, 0.48), "shoulders": (0.08, 0.79)}
DEEPFASHION = {"ankles": (0.09, 0.11), "knees": (0.10, 0.02), "hips": (0.11, 0.17), "shoulders": (0.11, 0.70)}
# The share above the highest joint where no joint of the head was found.
HEADLESS = 0.19
LOWEST = {"ankles": (10, 13), "knees": (9, 12), "hips": (8, 11)}
HEAD = (0, 14, 15, 16, 17)
WIDEST = 0.95  # of the frame's width, that the joints may take: 95 % of Market-1501's rows are below


def person_box(keypoints: np.ndarray, height: int, width: int) -> Box:
    """The part of a photograph that shows the person as the data sets' images show theirs.

    keypoints: (18, 2) (x, y) in pixels of the photograph, missing (-1, -1). height, width: the model's frame; one that
    is as narrow as Market-1501's takes its margins, a wider one DeepFashion's. The joints are in the middle from left
    to right.

    Raises:
        UserError: fewer than two joints, or all in one place.
    """
    there = keypoints[(keypoints != -1).all(1)]
    if len(there) < 2:
        raise UserError(f"{len(there)} of 18 joints were found: too few to say how large the person is")
    (left, top), (right, bottom) = there.min(0), there.max(0) + 1  # a joint is somewhere in its pixel
    lowest = next((name for name, joints in LOWEST.items() if _any(keypoints, joints)), "shoulders")
    above, below = (MARKET if height > 1.7 * width else DEEPFASHION)[lowest]
    if not _any(keypoints, HEAD):
        above = HEADLESS
    box_height = max((bottom - top) / (1 - above - below), (right - left) / WIDEST * height / width)
    if max(right - left, bottom - top) < 4:
        raise UserError("all joints are in one place, so nothing says how large the person is")
    # What is over, where the width decides, is shared as the margins are.
    box_top = top - (box_height - (bottom - top)) * above / (above + below)
    box_left = (left + right) / 2 - box_height * width / height / 2
    return float(box_left), float(box_top), float(box_left + box_height * width / height), float(box_top + box_height)


def whole_box(image_width: float, image_height: float, height: int, width: int) -> Box:
    """The smallest box of the frame's shape around the whole image, which is in its middle."""
    box_height = max(image_height, image_width * height / width)
    box_width = box_height * width / height
    left, top = (image_width - box_width) / 2, (image_height - box_height) / 2
    return left, top, left + box_width, top + box_height


def shaped(box: Box, height: int, width: int) -> Box:
    """A box that a user chose, grown to the frame's shape around its middle."""
    left, top, right, bottom = box
    around = whole_box(right - left, bottom - top, height, width)
    return left + around[0], top + around[1], left + around[2], top + around[3]


def scaled(box: Box, factor: float) -> Box:
    """The same part of a photograph that has `factor` times as many pixels a side."""
    left, top, right, bottom = box
    return left * factor, top * factor, right * factor, bottom * factor


def cut(pixels: np.ndarray, box: Box, height: int, width: int) -> np.ndarray:
    """The part of a photograph (H, W, 3) uint8, scaled (bicubic) to the frame: (height, width, 3) uint8.

    Raises:
        UserError: the box shows nothing of the photograph.
    """
    (top, bottom), (left, right) = (
        _inside(box[side], box[side + 2], pixels.shape[axis], frame)
        for side, axis, frame in ((1, 0, height), (0, 1, width))
    )
    if bottom <= top or right <= left:
        raise UserError(f"the box {_said(box)} has nothing of the {pixels.shape[1]}x{pixels.shape[0]} photograph in it")
    across, down = (box[2] - box[0]) / width, (box[3] - box[1]) / height
    source = (
        max(0, box[0] + left * across),
        max(0, box[1] + top * down),
        min(pixels.shape[1], box[0] + right * across),
        min(pixels.shape[0], box[1] + bottom * down),
    )
    inner = Image.fromarray(pixels).resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=source)
    return np.pad(np.array(inner), ((top, height - bottom), (left, width - right), (0, 0)), mode="edge")


def place(keypoints: np.ndarray, box: Box, height: int, width: int) -> np.ndarray:
    """Keypoints of the photograph -> of the frame, (18, 2) float32, as `cut` moves the pixels. A joint that the box
    leaves out is missing, (-1, -1)."""
    corner = np.array(box[:2])
    scale = np.array([width / (box[2] - box[0]), height / (box[3] - box[1])])
    moved = (keypoints + 0.5 - corner) * scale - 0.5  # a pixel's centre lies half a pixel inside it
    there = (keypoints != -1).all(1) & (moved >= -0.5).all(1) & (moved <= [width - 0.5, height - 0.5]).all(1)
    return np.where(there[:, None], moved.clip(0, [width - 1, height - 1]), -1).astype(np.float32)


def _any(keypoints: np.ndarray, joints: tuple[int, ...]) -> bool:
    return bool((keypoints[list(joints)] != -1).all(1).any())


def _inside(start: float, end: float, length: int, frame: int) -> tuple[int, int]:
    """First and last + 1 of the frame's pixels that lie in the photograph as a whole, along one side; the one in its
    middle where it is too narrow for any."""
    scale = frame / (end - start)
    nearly = 1e-6  # of a pixel, which rounding may cost
    first, last = -start * scale, (length - start) * scale
    inside = max(0, math.ceil(first - nearly)), min(frame, math.floor(last + nearly))
    if inside[0] < inside[1] or last <= 0 or first >= frame:
        return inside
    middle = min(frame - 1, math.floor((max(0, first) + min(frame, last)) / 2))
    return middle, middle + 1


def _said(box: Box) -> str:
    return ",".join(f"{side:.0f}" for side in box)
