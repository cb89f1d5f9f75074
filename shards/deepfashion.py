"""DeepFashion, In-shop Clothes Retrieval: 256x256 pictures, either with the flat names of the public keypoint files,
`fashionWOMENDressesid0000000202_1front.jpg`, or in the original tree, `WOMEN/Dresses/id_00000002/02_1_front.jpg`."""

import os
import re
from pathlib import Path

from mscgan.errors import UserError

NAME = "deepfashion"
HEIGHT, WIDTH = 256, 256
PLACES = "in it or anywhere below"
TREE = re.compile(r"(?:.*/)?(MEN|WOMEN)/([^/]+)/id_(\d{8})/(\d{2})_(\d+)_(\w+\.jpg)")
# category, item and colour: a person in an outfit. Ten digits must follow "id", which is also found in "2side.jpg".
OUTFIT = re.compile(r"(.*id\d{10})_")


def flat(name: str) -> str:
    """The flat name, by which annotation, pair list and file are matched."""
    found = TREE.fullmatch(name)
    if not found:
        return name
    gender, category, item, colour, number, view = found.groups()
    return f"fashion{gender}{category}id{item}{colour}_{number}{view}"


def person(name: str) -> str | None:
    """Category, item and colour of a flat name.

    Raises:
        UserError: not a name of this data set.
    """
    found = OUTFIT.match(name)
    if not found:
        raise UserError(f"{name!r} is not a DeepFashion name such as fashionWOMENDressesid0000000202_1front.jpg")
    return found[1]


def item(person: str) -> str:
    """What a held-out person must not share with train: the garment, whatever its colour (the last two digits)."""
    return person[:-2]


def files(folder: Path) -> dict[str, Path]:
    """All .jpg below a folder, flat or in the original tree, by flat name."""
    found = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".jpg"):
                path = Path(parent, name)
                found.setdefault(flat(path.as_posix()) if TREE.fullmatch(path.as_posix()) else name, path)
    return found
