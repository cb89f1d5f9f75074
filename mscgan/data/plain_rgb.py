"""Pictures that are taken as they lie: JPEG or PNG with 8 bits of red, green and blue. Anything else is refused with
what it is, since a conversion that nobody asked for changes a score."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mscgan import files

_KINDS = {  # Pillow's modes
    "1": "black and white", "L": "grey", "LA": "grey with alpha", "I": "16-bit grey", "I;16": "16-bit grey",
    "P": "of palette colours", "PA": "of palette colours", "RGBA": "RGB with alpha", "CMYK": "CMYK",
}  # fmt: skip
_DEPTH = 24  # the byte of a PNG that holds the bits a channel (PNG specification, IHDR)


def size(path: Path) -> tuple[int, int]:
    """(height, width) by the head of a picture; its pixels are not decoded.

    Raises:
        ValueError: it is no such picture; says in a few words what it is.
    """
    with _opened(path) as picture:
        return picture.height, picture.width


def pixels(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 as they lie: EXIF's orientation is not applied, as nowhere in this project.

    Raises:
        ValueError: as `size`, or the file is cut off or damaged.
    """
    with _opened(path) as picture:
        return np.array(picture)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    other = ""
    try:
        with files.open_plain(path) as file:
            empty, depth = not os.fstat(file.fileno()).st_size, file.read(_DEPTH + 1)[_DEPTH:]
            if not empty:
                file.seek(0)
                with Image.open(file, formats=("JPEG", "PNG")) as picture:
                    other = _other_kind(picture, depth)
                    if not other:
                        yield picture
    except UnidentifiedImageError as error:
        raise ValueError("is neither JPEG nor PNG, or its head is cut off") from error
    except OSError as error:  # Pillow's, for a damaged file, has no strerror
        raise ValueError(f"cannot be read: {error.strerror}" if error.strerror else _damaged(error)) from error
    except (SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(_damaged(error)) from error
    if empty or other:
        raise ValueError(other or "is empty (0 bytes)")


def _damaged(error: Exception) -> str:
    return f"is cut off or damaged ({' '.join(str(error).split())})"


def _other_kind(picture: Image.Image, depth: bytes) -> str:
    """What a picture is instead of 8-bit RGB; "" where it is that."""
    if getattr(picture, "is_animated", False):
        return "is animated or holds several pictures"
    if picture.format == "PNG" and depth == b"\x10":
        return "has 16 bits a channel"
    if picture.mode != "RGB":
        return f"is {_KINDS.get(picture.mode, picture.mode)}"
    return "has a transparent colour" if "transparency" in picture.info else ""
