"""A user's picture and its keypoints in the frame of the shards."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mscgan.framing import Box, cut, person_box, place, scaled, whole_box
from mscgan.photos import read_photo
from shards.find_poses import content
from shards.own_pictures import OwnPicture
from shards.photographs import as_it_is
from shards.write import Sample

CROPS = ("whole", "auto")
SMALL = 0.5  # of the frame's height, between the highest and the lowest joint; in the field's data sets it is about .8


@dataclass(frozen=True)
class Posed:
    """A picture that takes part. key: of the shards. keypoints: 18 [x, y] in pixels of the upright picture, [-1, -1]
    where missing. box: what of it is shown."""

    key: str
    picture: OwnPicture
    person: str
    keypoints: list
    box: Box


def box_of(picture: OwnPicture, keypoints: list, height: int, width: int, crop: str) -> Box:
    """What of a picture comes into the frame: all of it, or the person with the margins of the field's data sets."""
    if crop == "auto":
        return person_box(np.array(keypoints, float), height, width)
    return whole_box(*picture.size, height, width)


def framed(posed: Posed, height: int, width: int) -> Sample:
    """The picture in the frame, a JPEG; its own bytes where they are that already.

    Raises:
        UserError: it is damaged, or was changed since the plan.
    """
    picture = posed.picture
    name = f"{posed.key}.jpg"
    data = content(picture.path, picture.sha256)
    if posed.box == (0, 0, width, height) and picture.size == (width, height) and as_it_is(data, height, width):
        return Sample(name, posed.keypoints, data)
    photo = read_photo(data, str(picture.path))
    pixels = cut(photo.pixels, scaled(posed.box, photo.pixels.shape[1] / picture.size[0]), height, width)
    keypoints = place(np.array(posed.keypoints, float), posed.box, height, width)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return Sample(name, keypoints.astype(float).round(2).tolist(), file.getvalue())


def sizes(taken: list[Posed], height: int, width: int, crop: str) -> list[str]:
    """What becomes of the pictures' sizes, and a warning where people get small."""
    (narrow, low), (wide, high) = (f([posed.picture.size for posed in taken], axis=0) for f in (np.min, np.max))
    how = "the person cut out" if crop == "auto" else "the whole picture scaled to fit"
    lines = [f"pictures of {narrow}x{low} to {wide}x{high} (width x height) come into {width}x{height}, {how}"]
    extents = []
    for posed in taken:
        there = [y for _, y in posed.keypoints if y != -1]
        extents.append((max(there) - min(there)) / (posed.box[3] - posed.box[1]))
    if (middle := float(np.median(extents))) < SMALL and crop == "whole":
        lines.append(
            f"warning: half of the people are less than {100 * middle:.0f} % of the frame high; --crop auto cuts the "
            "person out of each picture"
        )
    return lines
