"""What users bring to `generate`: an image of any size, and a pose as JSON or as a row of the field's CSV.

An image is turned upright (EXIF), scaled to fit the model's frame and, where its shape is another, centred with its
edges repeated. Nothing is cropped. A pose is in pixels of the model's frame, unless its JSON says of which frame:
    [[x, y], ... 18]
    {"keypoints": [[x, y], ... 18], "width": 480, "height": 960}          (it moves as an image of that size would)
    NAME: [y, ... 18]: [x, ... 18]                                          (the row of the field's annotation CSV)
A joint that is not seen is (-1, -1).
"""

import json
import os
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mscgan.data.rgb import rgb
from mscgan.data.shards import JOINTS
from mscgan.errors import UserError

_MAX_POSE = 1 << 20  # bytes of a pose file
_FORMS = 'expected JSON [[x, y], ...] of 18 points, {"keypoints": [...]}, or a CSV row NAME: [18 y]: [18 x]'


def read_image(path: Path, height: int, width: int) -> tuple[np.ndarray, str]:
    """A JPEG or PNG -> (height, width, 3) uint8, and a note on what was done to it ("" where nothing was).

    Raises:
        UserError: no such file, not a whole JPEG or PNG, or beyond Pillow's limit of pixels.
    """
    if not path.is_file():
        raise UserError(f"no image {str(path)!r}; give a JPEG or PNG file")
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as file:
            image = rgb(ImageOps.exif_transpose(file))
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is neither JPEG nor PNG; convert it first") from error
    # All that Pillow raises for files that are broken.
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be decoded ({error}); give a whole JPEG or PNG") from error
    came = f"{image.width}x{image.height}"
    if image.size == (width, height):
        return np.array(image), ""
    inner_width, inner_height, left, top = _fit(image.width, image.height, width, height)
    inner = np.array(image.resize((inner_width, inner_height), Image.Resampling.BICUBIC))
    padding = ((top, height - inner_height - top), (left, width - inner_width - left), (0, 0))
    note = f"{path} is {came} (width x height): scaled to {inner_width}x{inner_height}"
    if (inner_width, inner_height) != (width, height):
        note += f" and centred in the model's {width}x{height}, its edges repeated; best crop it to the person first"
    return np.pad(inner, padding, mode="edge"), note


def read_pose(given: str, height: int, width: int) -> np.ndarray:
    """A file's path, or the text itself -> (18, 2) float32 (x, y) in the model's frame of height x width.

    Raises:
        UserError: unreadable text, not 18 points, a point outside its frame, or no joint at all.
    """
    text, name = given, "the pose"
    if os.path.isfile(given):
        name = given
        with open(given, "rb") as file:
            data = file.read(_MAX_POSE + 1)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not text; {_FORMS}") from error
        if len(data) > _MAX_POSE:
            raise UserError(f"{name} is above {_MAX_POSE} bytes, so it is not one pose; {_FORMS}")
    elif not any(mark in given for mark in "[{"):
        raise UserError(f"no pose file {given!r}; {_FORMS}, as a file or as the text itself")
    frame = (width, height)
    if text.lstrip().startswith(("[", "{")):
        points, frame = _from_json(text, name, frame)
    else:
        points = _from_row(text, name)
    return _place(_checked(points, name, frame), frame, height, width)


def _from_json(text: str, name: str, frame: tuple[int, int]) -> tuple[list, tuple[int, int]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not JSON ({error}); {_FORMS}") from error
    if not isinstance(value, dict):
        return value, frame
    if "keypoints" not in value:
        raise UserError(f'{name} has no "keypoints"; {_FORMS}')
    if ("width" in value) != ("height" in value):
        raise UserError(f"{name} has only one of width and height; give both, or none for the model's own frame")
    if "width" in value:
        frame = (value["width"], value["height"])
        if not all(type(side) is int and 0 < side < 1_000_000 for side in frame):
            raise UserError(f"{name}: width and height are {frame[0]!r} and {frame[1]!r}; expected whole numbers > 0")
    return value["keypoints"], frame


def _from_row(text: str, name: str) -> list:
    """The points of a `NAME: [ys]: [xs]` row; a header line above it is passed over."""
    rows = [row for row in text.splitlines() if row.strip() and row.strip() != "name:keypoints_y:keypoints_x"]
    if len(rows) != 1:
        raise UserError(f"{name} has {len(rows)} rows; give one row, in a file of its own or as the text itself")
    columns = rows[0].rsplit(":", 2)
    if len(columns) != 3:
        raise UserError(f"{name} has {len(columns)} columns between colons; {_FORMS}")
    try:
        ys, xs = json.loads(columns[1]), json.loads(columns[2])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: a column is not a list ({error}); {_FORMS}") from error
    if not isinstance(ys, list) or not isinstance(xs, list) or len(ys) != len(xs):
        raise UserError(f"{name}: its two columns are not lists of the same length; {_FORMS}")
    return [[x, y] for x, y in zip(xs, ys, strict=True)]


def _checked(points: object, name: str, frame: tuple[int, int]) -> np.ndarray:
    if not isinstance(points, list) or len(points) != JOINTS:
        came = f"{len(points)} keypoints" if isinstance(points, list) else type(points).__name__
        raise UserError(f"{name} has {came}; {_FORMS}")
    for i, point in enumerate(points):
        if not isinstance(point, list) or len(point) != 2 or not all(type(v) in (int, float) for v in point):
            raise UserError(f"{name}: keypoint {i} is not two numbers [x, y]; {_FORMS}")
        inside = 0 <= point[0] < frame[0] and 0 <= point[1] < frame[1]
        if not inside and point != [-1, -1]:
            raise UserError(
                f"{name}: keypoint {i} is {str(point)[:60]}, outside its frame of {frame[0]}x{frame[1]} "
                '(width x height); a missing joint is [-1, -1], and JSON may give its own frame as "width" and "height"'
            )
    if all(point == [-1, -1] for point in points):
        raise UserError(f"{name}: every joint is missing, so there is no pose; was a person found in that image?")
    return np.array(points, np.float32)


def _place(points: np.ndarray, frame: tuple[int, int], height: int, width: int) -> np.ndarray:
    """Moves points from their frame into the model's, as `read_image` moves the pixels."""
    if frame == (width, height):
        return points
    inner_width, inner_height, left, top = _fit(*frame, width, height)
    scale = np.array([inner_width / frame[0], inner_height / frame[1]], np.float32)
    moved = (points + 0.5) * scale - 0.5 + np.array([left, top], np.float32)  # pixel centres lie at + 0.5
    moved = moved.clip(0, [width - 1, height - 1])
    return np.where(points == -1, np.float32(-1), moved).astype(np.float32)


def _fit(width: int, height: int, frame_width: int, frame_height: int) -> tuple[int, int, int, int]:
    """Width, height, left and top of an image scaled, its shape kept, to fit a frame and centred in it."""
    scale = min(frame_width / width, frame_height / height)
    inner_width = min(frame_width, max(1, round(width * scale)))
    inner_height = min(frame_height, max(1, round(height * scale)))
    return inner_width, inner_height, (frame_width - inner_width) // 2, (frame_height - inner_height) // 2
