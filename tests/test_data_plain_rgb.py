"""Every kind of file that is no 8-bit RGB picture is refused with what it is; the pixels of one are as they lie."""

import io
import os
import signal
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mscgan.data.plain_rgb import pixels, size

NOISE = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)


def png(mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(file, "PNG", **options)
    return file.getvalue()


def jpeg(mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def deep_png():
    """A PNG of 8x12 pixels with 16 bits of red, green and blue, which Pillow does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in NOISE.astype(np.uint16) * 257)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 8, 12, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def animated():
    return png(save_all=True, append_images=[Image.fromarray(255 - NOISE)])


def gif():
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, "GIF")
    return file.getvalue()


HEADS = {
    "grey PNG": (png("L"), "is grey"),
    "grey JPEG": (jpeg("L"), "is grey"),
    "black and white": (png("1"), "is black and white"),
    "alpha": (png("RGBA"), "is RGB with alpha"),
    "grey alpha": (png("LA"), "is grey with alpha"),
    "palette": (png("P"), "is of palette colours"),
    "CMYK": (jpeg("CMYK"), "is CMYK"),
    "16-bit grey": (png("I;16"), "has 16 bits a channel"),
    "16-bit colour": (deep_png(), "has 16 bits a channel"),
    "transparent": (png(transparency=(0, 0, 0)), "has a transparent colour"),
    "animated": (animated(), "is animated"),
    "GIF": (gif(), "is neither JPEG nor PNG"),
    "text": (b"<html>404</html>", "is neither JPEG nor PNG"),
    "no bytes": (b"", r"is empty \(0 bytes\)"),
    "head cut": (png()[:20], "is neither JPEG nor PNG, or its head is cut off|damaged"),
}


@pytest.mark.parametrize("data, words", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("reads", [size, pixels])
def test_what_is_no_8_bit_RGB_is_told_by_its_head(tmp_path, data, words, reads):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words):
        reads(path)


@pytest.mark.parametrize("data", [png()[:-40], jpeg()[:-40], png()[:60] + b"????" + png()[64:]], ids=str)
def test_a_cut_or_damaged_picture_is_refused_when_its_pixels_are_read(tmp_path, data):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert size(path) == (12, 8)
    with pytest.raises(ValueError, match="is cut off or damaged"):
        pixels(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing"])
def test_what_is_no_plain_file_is_refused_and_waits_for_nobody(tmp_path, kind):
    path = tmp_path / "a.png"
    {"folder": os.mkdir, "pipe": os.mkfifo, "nothing": lambda path: None}[kind](path)
    signal.alarm(20)  # ends a wait for the pipe's other end, and the tests with it
    try:
        with pytest.raises(ValueError, match="cannot be read: (not a plain file|No such file|Is a directory)"):
            size(path)
    finally:
        signal.alarm(0)


def test_the_pixels_are_as_they_lie(tmp_path):
    path = tmp_path / "a.jpg"  # by its content, whatever its name says
    turned = Image.Exif()
    turned[0x0112] = 6
    path.write_bytes(png(exif=turned))
    assert size(path) == (12, 8)
    np.testing.assert_array_equal(pixels(path), NOISE)
