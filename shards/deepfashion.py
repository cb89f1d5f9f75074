"""DeepFashion, In-shop Clothes Retrieval: 256x256 pictures, either with the flat names of the public keypoint files or
in the original tree (mscgan/data/names.py)."""

import os
from pathlib import Path

from mscgan.data.names import OUTFIT, TREE, flat
from mscgan.errors import UserError

NAME = "deepfashion"
HEIGHT, WIDTH = 256, 256
PLACES = "in it or anywhere below"


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
