"""A user's own pictures: which files of a folder are some, how large they are, and which are there twice."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mscgan.errors import UserError
from mscgan.photos import endings, photo_size
from shards.digest import file_sha256, sha256
from shards.persons import some
from shards.photographs import READERS

SAID = 5  # of the pictures that cannot be read


@dataclass(frozen=True)
class OwnPicture:
    """name: its path in the user's folder, with `/`. size: (width, height) of the upright picture."""

    name: str
    path: Path
    sha256: str
    size: tuple[int, int]


def list_pictures(folder: Path) -> tuple[list[str], list[str]]:
    """The names of all pictures in and below a folder, and those of the other files; hidden ones are passed over, and
    links to folders not followed.

    Raises:
        UserError: no such folder, or no picture in it; or a name that no list can have.
    """
    if not folder.is_dir():
        raise UserError(f"--images {folder} is not a folder; give the folder of your pictures")
    of_pictures = endings()
    names: dict[bool, list[str]] = {True: [], False: []}
    for parent, folders, files in os.walk(folder, onerror=_refuse_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            path = Path(parent, name)
            names[path.suffix.lower() in of_pictures].append(path.relative_to(folder).as_posix())
    for name in names[True]:
        if len(name.splitlines()) != 1 or name != name.strip() or not name.isprintable():
            raise UserError(f"{folder}: the name {name!r} has characters that no list can have; rename the file")
    if not names[True]:
        raise UserError(
            f"--images {folder} has no picture, but {some(names[False]) or 'nothing'}; the name of one ends with "
            ".jpg, .png, .webp or another ending that Pillow knows"
        )
    return names[True], names[False]


def read_pictures(folder: Path, names: list[str]) -> list[OwnPicture]:
    """Their sizes and checksums.

    Raises:
        UserError: some cannot be read, or are no pictures; names the first few, and says how many there are.
    """

    def read(name: str) -> OwnPicture | UserError:
        path = folder / name
        try:
            size = photo_size(path)
            return OwnPicture(name, path, file_sha256(path), size)
        except UserError as error:
            return error

    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(read, names))
    broken = [error for error in found if isinstance(error, UserError)]
    if len(broken) == 1:
        raise broken[0]
    if broken:
        said = ". ".join(str(error) for error in broken[:SAID])
        more = f". And {len(broken) - SAID:,} more like these" if len(broken) > SAID else ""
        raise UserError(f"{len(broken):,} of {len(found):,} pictures cannot be taken: {said}{more}")
    return [picture for picture in found if not isinstance(picture, UserError)]


def fingerprint(pictures: list[OwnPicture]) -> str:
    """Another where a name or a picture's bytes are."""
    return sha256(json.dumps([[picture.name, picture.sha256] for picture in pictures]).encode())


def _refuse_unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}; mend that, or move it out of --images")
