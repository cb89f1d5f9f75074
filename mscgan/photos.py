"""Photographs that users bring, of any kind that Pillow reads, as 8-bit RGB pixels the right way up.

What comes may be hostile: only the kinds in FORMATS are tried, none of which starts another program (EPS would), and
the size is looked at before a pixel is decoded.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mscgan import files
from mscgan.data.rgb import rgb
from mscgan.errors import UserError

# Pillow's names of the kinds that photographs are kept in; "JPEG" has the MPO of phones in it.
FORMATS = (
    "JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "DIB", "JPEG2000", "PPM", "TGA", "PCX", "PSD", "QOI", "SGI",
)  # fmt: skip
ORIENTATION = 0x0112  # EXIF tag
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
OTHER_ENDINGS = {".heic", ".heif", ".hif", ".mpo"}  # of what FORMATS has not, by name
MOST_BYTES = 256 << 20
MOST_PIXELS = 120_000_000  # the largest pictures that phones take have 108 million; 0.5 GB while it is decoded
SLIMMEST = 20  # times as wide as high, or as high as wide: whole panoramas have up to 16
ENOUGH = 2048  # pixels of the longer side: what has twice as many or more is reduced by a whole factor

# All that Pillow raises for files that are broken.
_BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError, struct.error,
    zlib.error,
)  # fmt: skip


class Photo(NamedTuple):
    """A photograph, upright.

    A large one is reduced while it is decoded: `pixels` may be smaller than `size`, of the same shape.
    """

    pixels: np.ndarray  # (H, W, 3) uint8
    size: tuple[int, int]  # width, height of the file, upright; coordinates of a pose in it are in these pixels


def endings() -> set[str]:
    """How the names of the files end that `read_photo` reads, in lower case."""
    return {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS} | OTHER_ENDINGS


def read_photo(source: Path | bytes, name: str = "") -> Photo:
    """A file, or its bytes (an upload, which `name` is called in messages) -> its pixels.

    EXIF turns it, what is transparent lies on white, of several frames it is the first.

    Raises:
        UserError: no such file, no picture, damaged, a strip, or more bytes or pixels than the limit; says what to do.
    """
    data, name = _bytes(source, name)
    with _opened(data, name) as file:
        size = file.size
        if max(size) // ENOUGH > 1:
            file.draft(None, (size[0] * ENOUGH // max(size), size[1] * ENOUGH // max(size)))
        turned = _turned(file)
        picture = rgb(ImageOps.exif_transpose(file))
    if (factor := max(picture.size) // ENOUGH) > 1:  # no JPEG, or one that is still larger than need be
        picture = picture.reduce(factor)
    return Photo(np.array(picture), size[::-1] if turned else size)


def photo_size(source: Path | bytes, name: str = "") -> tuple[int, int]:
    """(width, height) that `read_photo` would give, from the head of the file; that the rest is whole is not looked at.

    Raises:
        UserError: as `read_photo`, as far as the head tells.
    """
    data, name = _bytes(source, name)
    with _opened(data, name) as file:
        return file.size[::-1] if _turned(file) else file.size


def _turned(file: Image.Image) -> bool:
    """Whether EXIF will turn it by a quarter, which swaps width and height; Pillow gives those of a TIFF as turned."""
    return file.format != "TIFF" and file.getexif().get(ORIENTATION) in (5, 6, 7, 8)


def _bytes(source: Path | bytes, name: str) -> tuple[bytes, str]:
    """What is in the file, and what messages call it."""
    name = name or ("the picture" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else _content(source, name)
    if len(data) > MOST_BYTES:
        raise UserError(f"{name} has {len(data):,} bytes, where {MOST_BYTES:,} are the most; save it smaller")
    if not data:
        raise UserError(f"{name} is empty; copy it again")
    return data, name


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """The picture, its pixels not yet decoded; what fails inside of the block is said in words."""
    formats = _formats(data, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels, and of damage that costs none
            with Image.open(io.BytesIO(data), formats=formats) as file:
                if file.width * file.height > MOST_PIXELS:
                    raise UserError(_too_large(name, f"{file.width:,}x{file.height:,} pixels"))
                if max(file.size) > SLIMMEST * min(file.size):
                    raise UserError(_too_slim(name, *file.size))
                yield file
    except UserError:  # which is a ValueError
        raise
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise UserError(f"{name} is no picture of a known kind ({kinds}, HEIC), or its head is damaged") from error
    except Image.DecompressionBombError as error:
        raise UserError(_too_large(name, "far more pixels")) from error
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name} cannot be decoded ({reason}); give a whole picture, best a JPEG or PNG") from error


def _content(path: Path, name: str) -> bytes:
    try:
        return files.read(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"no image {name!r}; give the file of a picture") from error
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}; give the file of a picture") from error


def _formats(data: bytes, name: str) -> tuple[str, ...]:
    """What to try, with the plug-in for HEIC registered where that is what came."""
    brands = data[8:64] if data[4:8] == b"ftyp" else b""
    if not any(brand in brands for brand in HEIC):
        return FORMATS
    try:
        import pillow_heif
    except ImportError as error:
        raise UserError(
            f"{name} is HEIC, which Pillow reads with a plug-in: pip install 'mscgan[heic]', or save it as JPEG"
        ) from error
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _too_large(name: str, came: str) -> str:
    return f"{name} has {came}, where {MOST_PIXELS:,} are the most; make it smaller first"


def _too_slim(name: str, width: int, height: int) -> str:
    how = "wide as high" if width > height else "high as wide"
    return (
        f"{name} is {width:,}x{height:,} pixels (width x height), more than {SLIMMEST} times as {how}: such a "
        "strip shows no person; give a photograph of a usual shape"
    )
