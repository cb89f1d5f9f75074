"""The header check against Pillow's encoder: all it writes passes, and damage is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from mscgan.data import jpeg


def encode(mode: str = "RGB", **options) -> bytes:
    channels = {"L": (), "RGB": (3,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (48, 20, *channels), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels, mode=mode).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"comment": b"\xff\xda"}])
def test_the_size_is_read_from_every_kind_that_pillow_writes(mode, options):
    assert jpeg.size(encode(mode, **options)) == (48, 20)


def test_exif_and_fill_bytes_are_passed_over():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a viewer would turn it; the stored size counts
    data = encode(exif=exif)
    assert jpeg.size(data) == (48, 20)
    assert jpeg.size(data[:2] + b"\xff\xff" + data[2:]) == (48, 20)


def test_every_cut_before_the_scan_is_refused():
    data = encode()
    scan = data.index(b"\xff\xda")
    for length in range(scan + 12):
        with pytest.raises(ValueError, match="JPEG|empty"):
            jpeg.size(data[:length])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"GIF89a", "not a JPEG"),
        (encode().replace(b"\xff\xc0", b"\xff\xc3"), "lossless"),
        (encode().replace(b"\xff\xc0", b"\xff\xfe"), "without a frame"),
        (encode().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "12 bits"),
        (encode().replace(b"\xff\xdb", b"\x00\xdb", 1), "broken JPEG header"),
    ],
)
def test_what_is_refused_is_named(data, reason):
    with pytest.raises(ValueError, match=reason):
        jpeg.size(data)
