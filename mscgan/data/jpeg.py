"""The one judge of a JPEG: build, verify, training and evaluation take an image if `check` does and its pixels decode.

`check` looks at the structure (ITU-T T.81, annex B): segments must lead from the start marker to one frame of a kind
that every decoder here takes, and on over the scans to the end. That is stricter than libjpeg, which passes over what
stands between two segments, and it has to be. DALI's own parser refuses such an image, and DALI 2.4 may crash the
process when it does (a use after free, seen with two or more threads), while a failure behind the header is an ordinary
error. Pixels are decoded by libjpeg-turbo, in training by way of DALI and elsewhere of Pillow: of 8,145 damaged images
that passed `check` DALI refused none that Pillow took, and Pillow one that DALI took.
"""

import io
import re
import struct

import numpy as np
from PIL import Image

LARGEST = 16 << 20  # bytes; a 256x256 JPEG has 20 kB

_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended sequential, progressive (T.81, table B.1)
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)  # lossless, arithmetic, differential
_NO_SEGMENT = (0x00, 0x01, *range(0xD0, 0xDA))  # markers that may not stand between the segments
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_BEHIND_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # a marker that is not of the scan itself


def check(data: bytes, height: int, width: int) -> None:
    """Takes a JPEG of this size whose structure is whole; its pixels are not decoded.

    Raises:
        ValueError: it is something else; says why in a line.
    """
    if len(data) > LARGEST:
        raise ValueError(f"{len(data):,} bytes, where {LARGEST:,} are the most")
    found = size(data)
    if found != (height, width):
        raise ValueError(f"{found[0]}x{found[1]} (height x width), expected {height}x{width}")


def decode(data: bytes, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB, as the pixels lie: EXIF's orientation is not applied, as nowhere in this project.

    Raises:
        ValueError: as `check`, or the pixels cannot be decoded.
    """
    check(data, height, width)
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, struct.error) as error:  # all that Pillow raises for a broken JPEG
        raise ValueError(f"broken image data ({' '.join(str(error).split())})") from error


def size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels, of a JPEG whose structure is whole.

    Raises:
        ValueError: not a JPEG, a broken or cut one, or a kind of JPEG that is not taken.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG" if data else "empty")
    found, scanned, at = None, False, 2
    try:
        while True:
            if data[at] != 0xFF:
                raise ValueError(f"broken JPEG structure at byte {at}")
            while data[at] == 0xFF:  # any number of fill bytes
                at += 1
            marker = data[at]
            if marker == _END and scanned:
                break
            length = int.from_bytes(data[at + 1 : at + 3], "big")
            if marker in _NO_SEGMENT or length < 2 or at + 1 + length > len(data):
                raise ValueError(f"broken JPEG structure at byte {at}")
            if marker in _OTHER_FRAMES:
                raise ValueError("a lossless, arithmetic or hierarchical JPEG")
            if marker == _APP1 and length < 8:
                raise ValueError(f"broken EXIF segment at byte {at}")
            if marker in _FRAMES:
                if found is not None:
                    raise ValueError(f"a second frame at byte {at}")
                precision, components = data[at + 3], data[at + 8]
                if precision != 8 or components not in (1, 3) or length != 8 + 3 * components:
                    raise ValueError(f"a JPEG of {components} components with {precision} bits, expected 1 or 3 with 8")
                found = int.from_bytes(data[at + 4 : at + 6], "big"), int.from_bytes(data[at + 6 : at + 8], "big")
            at += 1 + length
            if marker == _SCAN:
                behind = _BEHIND_SCAN.search(data, at)
                scanned, at = True, behind.start() if behind else len(data)
    except IndexError:
        raise ValueError("the JPEG is cut off") from None
    if found is None:
        raise ValueError("a JPEG without a frame")
    return found
