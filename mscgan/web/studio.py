"""What the page works with, without HTTP: each function takes what came from the browser and returns what goes to it.

A picture goes to the browser as a data: URI and comes back as base64; keypoints are 18 [x, y] in pixels of the model's
frame, a missing joint [-1, -1].
"""

import base64
import binascii
import io
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mscgan import pose
from mscgan.data.read import open_shards
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.estimators import ESTIMATORS, Estimator, largest_first, open_estimator
from mscgan.framing import Box, cut, person_box, place, shaped
from mscgan.keys import Data
from mscgan.photos import read_photo
from mscgan.pictures import COLOURS, SKELETON, to_uint8
from mscgan.pose_checks import odd
from mscgan.pose_formats import parse
from mscgan.trained import Trained
from mscgan.user_inputs import to_frame

SHOWN = 640  # pixels: the frame is enlarged by the largest whole factor that stays within it, to put joints on
MOST_PHOTO = 32 << 20  # bytes of a picture file
PEOPLE = 24  # of the shards in one answer
MOST_FOUND = 9  # people in a photograph to choose from

# Somebody who stands before the camera: x from the middle and y from the top, in heights of the frame.
STANDING = (
    (0, 0.14), (0, 0.23),
    (-0.085, 0.235), (-0.12, 0.36), (-0.135, 0.475), (0.085, 0.235), (0.12, 0.36), (0.135, 0.475),
    (-0.055, 0.5), (-0.06, 0.69), (-0.065, 0.88), (0.055, 0.5), (0.06, 0.69), (0.065, 0.88),
    (-0.018, 0.122), (0.018, 0.122), (-0.042, 0.132), (0.042, 0.132),
)  # fmt: skip


@dataclass(frozen=True)
class Studio:
    """A trained run with what may be there beside it; where something is not, the sentence says why."""

    name: str  # of the run
    trained: Trained
    estimator: Estimator | None
    no_estimator: str
    shards: ShardSet | None
    no_shards: str


def open_studio(run: Path, trained: Trained, estimator: str) -> Studio:
    """estimator: a name of ESTIMATORS, whose weights may be missing, or a path.

    Raises:
        UserError: the path is no estimator.
    """
    found, no_estimator, shards, no_shards = None, "", None, ""
    try:
        found = open_estimator(estimator)
    except UserError as error:
        if estimator not in ESTIMATORS:
            raise
        no_estimator = str(error)
    try:
        shards = open_shards(trained.config.data, "test")
    except (UserError, OSError) as error:
        no_shards = str(error)
    return Studio(run.resolve().name, trained, found, no_estimator, shards, no_shards)


def warm_up(studio: Studio) -> None:
    """One picture that nobody sees: the first is slow, and a network that makes none is found before any page is open.

    Raises:
        UserError: it makes none.
    """
    data = studio.trained.config.data
    gray = torch.full((1, data.height, data.width, 3), 128, dtype=torch.uint8)
    for one in studio.trained.images(gray, torch.tensor([_standing(data.height, data.width)])).values():
        to_uint8(one)


def facts(studio: Studio) -> dict:
    """What the page has to know before anything is chosen."""
    data = studio.trained.config.data
    return {
        "run": studio.name,
        "family": studio.trained.config.family,
        "width": data.width,
        "height": data.height,
        "joints": pose.JOINTS,
        "flip": pose.FLIP,
        "skeleton": SKELETON,
        "colours": COLOURS,
        "standing": _standing(data.height, data.width),
        "no_estimator": studio.no_estimator,
        "most_bytes": MOST_PHOTO,
        "people": len(studio.shards) if studio.shards else 0,
        "people_of": f"the {studio.shards.split} split of {studio.shards.dataset}" if studio.shards else "",
    }


def people(studio: Studio, start: int) -> dict:
    """Images of the shards from place `start` on: the first of each person, then the second of each, and so on."""
    if studio.shards is None:
        raise UserError(studio.no_shards)
    shown = _in_turn(studio.shards.persons)[start : start + PEOPLE]
    found = [
        {
            "name": studio.shards.names[i],
            "image": _uri(studio.shards.read(int(i)), "jpeg"),
            "keypoints": _listed(studio.shards.keypoints[i], studio.shards),
        }
        for i in shown
    ]
    return {"people": found}


def images(studio: Studio, text: bytes) -> dict:
    """{"image": base64 of a picture in the frame, "keypoints": 18 [x, y]} -> what the family makes, the answer last.

    Raises:
        UserError: it is something else, or the networks make no picture of it.
    """
    wanted = _json(text)
    if not isinstance(wanted, dict) or not isinstance(wanted.get("image"), str) or "keypoints" not in wanted:
        raise UserError('expected {"image": base64 of a picture, "keypoints": 18 points [x, y]}')
    try:
        picture = base64.b64decode(wanted["image"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"the image is not base64 ({error})") from error
    x = read_photo(picture, "the image").pixels
    keypoints = _points(wanted["keypoints"], studio)
    start = time.perf_counter()
    made = studio.trained.images(torch.from_numpy(x)[None], torch.from_numpy(keypoints)[None])
    pictures = {title: to_uint8(one)[0] for title, one in made.items()}
    milliseconds = 1000 * (time.perf_counter() - start)
    return {
        "images": [{"title": title, "image": _uri(_png(pixels), "png")} for title, pixels in pictures.items()],
        "milliseconds": round(milliseconds, 1),
    }


def photo(studio: Studio, data: bytes, person: int, box: Box | None) -> dict:
    """A picture file -> the frame that the model sees, the same enlarged to put joints on, and the pose found in it.

    Args:
        person: which of those found, the largest being 0.
        box: the part of the picture to take, in pixels of the "size" that an answer gives; without it the person, with
            the margins of the data sets; or the whole picture where nobody is found, or where it has the frame's size.

    Raises:
        UserError: it is no picture that can be read, or the box shows nothing of it.
    """
    frame, note = studio.trained.config.data, ""
    pixels = read_photo(data, "the picture").pixels
    height, width = pixels.shape[:2]
    people = studio.estimator(pixels) if studio.estimator else []
    found = largest_first(one.keypoints for one in people)[:MOST_FOUND]
    keypoints = found[min(person, len(found) - 1)] if found else None
    if box is not None:
        box = _checked(box, height, width)
    elif keypoints is not None and (height, width) != (frame.height, frame.width):
        try:
            box = person_box(keypoints, frame.height, frame.width)
        except UserError:
            note = "too few joints were found to say how large the person is, so the whole picture is taken"
    box = shaped(box or (0, 0, width, height), frame.height, frame.width)
    larger = max(1, SHOWN // frame.height)
    return {
        "image": _uri(_png(cut(pixels, box, frame.height, frame.width)), "png"),
        "shown": _uri(_jpeg(cut(pixels, box, frame.height * larger, frame.width * larger)), "jpeg"),
        "keypoints": None if keypoints is None else _listed(place(keypoints, box, frame.height, frame.width), frame),
        "people": len(found),
        "size": [width, height],
        "box": box,
        "note": note,
    }


def _checked(box: Box, height: int, width: int) -> Box:
    """A box that came from the browser. Raises UserError: it is none, or far larger than the picture."""
    left, top, right, bottom = box
    far = 8 * max(height, width)
    if not (-far < left < right < far and -far < top < bottom < far and min(right - left, bottom - top) >= 1):
        raise UserError("the box is to be left,top,right,bottom in pixels of the picture, and at least a pixel wide")
    return box


def pose_of_text(studio: Studio, text: bytes) -> dict:
    """The text of a pose file of any kind -> the pose in the model's frame, of the largest person of its first image.

    Raises:
        UserError: no kind that is known, or nobody in it.
    """
    data = studio.trained.config.data
    form, images = parse(text.decode("utf-8-sig", "replace"), "the pose")
    image = next((image for image in images if image.people), None)
    if image is None:
        raise UserError(f"this is {form} and has nobody with a joint; was a person found in that image?")
    keypoints = largest_first(image.people)[0]
    placed, moved = to_frame(keypoints, image.frame, data.height, data.width)
    strange = odd(keypoints)
    notes = [f"taken for {form}", moved, f"but {strange}" if strange else ""]
    return {"keypoints": _listed(placed, data), "note": "; ".join(filter(None, notes))}


def _json(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"what came is not JSON ({error})") from error


def _points(value: object, studio: Studio) -> np.ndarray:
    """What the page holds as a pose -> (18, 2) float32 in the model's frame."""
    data = studio.trained.config.data
    if not isinstance(value, list) or len(value) != len(pose.JOINTS):
        raise UserError(f"the keypoints are no list of {len(pose.JOINTS)} points [x, y]")
    for joint, point in zip(pose.JOINTS, value, strict=True):
        numbers = isinstance(point, list) and len(point) == 2 and all(type(side) in (int, float) for side in point)
        if not numbers or (point != [-1, -1] and not (0 <= point[0] < data.width and 0 <= point[1] < data.height)):
            raise UserError(f"the {joint} is no point [x, y] inside {data.width}x{data.height}, nor [-1, -1]")
    if all(point == [-1, -1] for point in value):
        raise UserError("every joint is missing, so there is no pose")
    return np.array(value, np.float32)


def _standing(height: int, width: int) -> list[list[float]]:
    """The pose to begin with, in a frame of that size."""
    scale = min(height, 3 * width)
    points = np.array(STANDING) * scale + [(width - 1) / 2, (height - scale) / 2 - 0.5]
    return np.round(points, 2).tolist()


def _in_turn(persons: list[str]) -> np.ndarray:
    """The numbers of all images: the first of each person, then the second of each, and so on."""
    before: Counter[str] = Counter()
    turns = []
    for person in persons:
        turns.append(before[person])
        before[person] += 1
    return np.argsort(turns, kind="stable")


def _listed(keypoints: np.ndarray, frame: Data | ShardSet) -> list[list[float]]:
    """For the page, whose joints lie between the middles of the frame's outermost pixels."""
    inside = keypoints.astype(float).clip(0, [frame.width - 1, frame.height - 1])
    return np.where((keypoints != -1).all(1, keepdims=True), inside, -1).round(2).tolist()


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=3)
    return out.getvalue()


def _jpeg(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=88)
    return out.getvalue()


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
