"""Market-1501: 128x64 pictures named `0002_c1s1_000451_03.jpg` (person, camera and sequence, frame, box)."""

import re
from pathlib import Path

from mscgan.errors import UserError

NAME = "market1501"
HEIGHT, WIDTH = 128, 64
PLACES = "in it, or in its folders bounding_box_train and bounding_box_test"


def flat(name: str) -> str:
    """The name by which annotation, pair list and file are matched."""
    return name


def person(name: str) -> str | None:
    """Who it is, or None for junk (`-1`) and distractors (`0000`).

    Raises:
        UserError: not a name of this data set.
    """
    if name.startswith(("-1", "0000")):
        return None
    if not re.match(r"\d{4}_", name):
        raise UserError(f"{name!r} is not a Market-1501 name such as 0002_c1s1_000451_03.jpg")
    return name.split("_")[0]


def item(person: str) -> str:
    """What a held-out person must not share with train: the person."""
    return person


def files(folder: Path) -> dict[str, Path]:
    """Pictures of a folder, and of bounding_box_train and bounding_box_test within it, by name."""
    folders = [folder, folder / "bounding_box_train", folder / "bounding_box_test"]
    return {p.name: p for f in reversed(folders) if f.is_dir() for p in sorted(f.iterdir()) if p.suffix == ".jpg"}
