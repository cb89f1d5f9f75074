"""Photographs of every kind come as the same upright RGB pixels; what is hostile or broken is one line."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from mscgan import photos
from mscgan.errors import UserError
from mscgan.photos import FORMATS, photo_size, read_photo
from shards.photographs import photograph

HEIGHT, WIDTH = 48, 32
CORNERS = np.zeros((HEIGHT, WIDTH, 3), np.uint8)  # red, green over blue, white
CORNERS[:24, :16], CORNERS[:24, 16:], CORNERS[24:, :16], CORNERS[24:, 16:] = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255),
)  # fmt: skip


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def corners(pixels: np.ndarray) -> np.ndarray:
    """(4, 3): in the middle of each quarter, row by row."""
    height, width = pixels.shape[:2]
    return np.array([pixels[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)], int)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "PSD"])  # which Pillow does not write
def test_every_kind_gives_the_same_picture(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    photo = read_photo(saved(Image.fromarray(CORNERS), kind))
    assert photo.size == (WIDTH, HEIGHT) and photo.pixels.dtype == np.uint8
    assert np.abs(corners(photo.pixels) - corners(CORNERS)).max() < 12


def test_heic_is_read_by_its_plug_in_and_without_it_the_command_that_brings_it_is_named(monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    heif.register_heif_opener()
    data = saved(Image.fromarray(CORNERS), "HEIF", quality=90)
    monkeypatch.delitem(Image.OPEN, "HEIF")  # as in a process that has read none
    assert np.abs(corners(read_photo(data).pixels) - corners(CORNERS)).max() < 12
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"me.heic is HEIC, .*: pip install 'mscgan\[heic\]', or save it as JPEG"):
        read_photo(data, "me.heic")


def test_of_an_animation_it_is_the_first_frame():
    first = Image.fromarray(CORNERS)
    for kind in ("GIF", "WEBP", "TIFF"):
        data = saved(first, kind, save_all=True, append_images=[Image.new("RGB", first.size, "black")])
        assert np.abs(corners(read_photo(data).pixels) - corners(CORNERS)).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (2, np.fliplr),
        (3, lambda pixels: np.rot90(pixels, 2)),
        (5, lambda pixels: pixels.transpose(1, 0, 2)),
        (6, lambda pixels: np.rot90(pixels, -1)),
        (8, np.rot90),
    ],
)
def test_exif_turns_it(kind, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(CORNERS), kind, exif=exif)
    photo = read_photo(data)
    upright = turn(CORNERS)
    assert photo.pixels.shape == upright.shape and photo.size == (upright.shape[1], upright.shape[0])
    assert photo_size(data) == photo.size
    assert np.abs(corners(photo.pixels) - corners(upright)).max() < 12


def palette_with_a_hidden_red() -> Image.Image:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(0, (0, 0, 2, 4))
    return picture


def half(mode: str, hidden: tuple, shown: tuple) -> Image.Image:
    picture = Image.new(mode, (4, 4), shown)
    picture.paste(hidden, (0, 0, 2, 4))
    return picture


HIDDEN = {  # name: (file, the right half's colour)
    "RGBA": (saved(half("RGBA", (255, 0, 0, 0), (0, 0, 255, 255)), "PNG"), (0, 0, 255)),
    "LA": (saved(half("LA", (9, 0), (40, 255)), "PNG"), (40, 40, 40)),
    "palette": (saved(palette_with_a_hidden_red(), "PNG", transparency=0), (0, 0, 255)),
    "palette of a GIF": (saved(palette_with_a_hidden_red(), "GIF", transparency=0), (0, 0, 255)),
    "one colour": (saved(half("RGB", (255, 0, 0), (0, 0, 255)), "PNG", transparency=(255, 0, 0)), (0, 0, 255)),
    "one of 16 bits": (
        saved(Image.fromarray(np.array([[9 << 8, 9 << 8, 40 << 8, 41 << 8]] * 4, np.uint16)), "PNG",
              transparency=9 << 8), (40, 40, 40)),
    "WebP": (saved(half("RGBA", (255, 0, 0, 0), (0, 0, 255, 255)), "WEBP", lossless=True, exact=True), (0, 0, 255)),
    "half of it": (saved(half("RGBA", (255, 0, 0, 0), (0, 0, 0, 128)), "PNG"), (127, 127, 127)),
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_transparent_is_white_whatever_its_hidden_colour(name):
    data, shown = HIDDEN[name]
    pixels = read_photo(data).pixels
    assert (pixels[:, :2] == 255).all() and np.abs(pixels[1, 2].astype(int) - shown).max() <= 1


def test_build_puts_what_is_transparent_on_white_too(tmp_path):
    path = tmp_path / "a.png"
    half("RGBA", (255, 0, 0, 0), (0, 0, 255, 255)).resize((32, 64), Image.Resampling.NEAREST).save(path)
    stored = Image.open(io.BytesIO(photograph((str(path), "a.png", []), 64, 32).jpeg))
    assert np.array(stored)[:, :12].min() > 245


GREYS = np.array([[0, 0x1234, 0x80FF, 0xFFFF]], np.uint16)


@pytest.mark.parametrize(("kind", "type"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("PPM", "<u2")])
def test_sixteen_bits_of_grey_keep_their_upper_eight(kind, type):
    mode = "I;16B" if type == ">u2" else "I;16"
    picture = Image.frombytes(mode, (4, 1), GREYS.astype(type).tobytes())
    assert read_photo(saved(picture, kind)).pixels[0, :, 1].tolist() == [0, 0x12, 0x80, 0xFF]


def test_one_bit_and_cmyk_are_the_colours_that_they_mean():
    bits = Image.fromarray(CORNERS[..., 1]).convert("1")
    assert corners(read_photo(saved(bits, "TIFF")).pixels)[:, 0].tolist() == [0, 255, 0, 255]
    for kind in ("JPEG", "TIFF"):
        ink = saved(Image.fromarray(CORNERS).convert("CMYK"), kind)
        assert np.abs(corners(read_photo(ink).pixels) - corners(CORNERS)).max() < 12


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (Image.new("F", (2, 2), 0.5), "grey is in fractions"),
        (Image.new("I", (2, 2), 70_000), "its grey goes from 70000 to 70000"),
    ],
)
def test_grey_of_which_nobody_says_what_is_white_is_refused(picture, reason):
    with pytest.raises(UserError, match=reason):
        read_photo(saved(picture, "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_one_is_reduced_and_its_own_size_is_kept(kind, monkeypatch):
    monkeypatch.setattr(photos, "ENOUGH", 48)
    large = Image.fromarray(CORNERS).resize((31 * 9, 48 * 9), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = read_photo(saved(large, kind, exif=exif))
    assert photo.size == (48 * 9, 31 * 9)
    assert 48 <= photo.pixels.shape[1] < 96 and photo.pixels.shape[1] / photo.pixels.shape[0] == pytest.approx(
        photo.size[0] / photo.size[1], rel=0.02
    )
    assert np.abs(corners(photo.pixels) - corners(np.rot90(CORNERS, -1))).max() < 12


def test_a_jpeg_is_reduced_while_it_is_decoded(monkeypatch):
    from PIL import JpegImagePlugin

    decoded = []
    load = JpegImagePlugin.JpegImageFile.load
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", lambda self: (decoded.append(self.size), load(self))[1])
    read_photo(saved(Image.new("RGB", (8192, 4096)), "JPEG"))
    assert set(decoded) == {(2048, 1024)}


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    body = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


NOISE = saved(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(ran) (w) file closefile\nshowpage\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty; copy it again"),
        (b"<html>404</html>", "it is no picture of a known kind"),
        (POSTSCRIPT, "it is no picture of a known kind"),
        (b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(POSTSCRIPT)) + bytes(20) + POSTSCRIPT, "it is no picture of"),
        (b"%PDF-1.7\n" + NOISE, "it is no picture of a known kind"),
        (NOISE[: len(NOISE) // 2], "it cannot be decoded .*truncated"),
        (saved(Image.fromarray(CORNERS), "TIFF")[:-99], "it cannot be decoded|no picture"),
        (png_of(32, 64), "it cannot be decoded"),
        (png_of(13_000, 10_000), "it has 13,000x10,000 pixels, where 120,000,000 are the most"),
        (png_of(60_000, 60_000), "it has far more pixels, where 120,000,000 are the most"),
        (png_of(20_000, 1), r"it is 20,000x1 pixels \(width x height\), more than 20 times as wide as high: such a"),
        (png_of(10, 201), "it is 10x201 pixels .*, more than 20 times as high as wide: such a strip"),
    ],
    ids=[
        "empty",
        "text",
        "EPS",
        "EPS with a preview",
        "PDF",
        "cut JPEG",
        "cut TIFF",
        "no pixels",
        "many",
        "bomb",
        "low",
        "thin",
    ],
)
def test_what_is_no_whole_picture_is_one_line(data, reason, recwarn):
    with pytest.raises(UserError, match=reason) as caught:
        read_photo(data, "it")
    assert "\n" not in str(caught.value) and not recwarn


def test_a_picture_with_something_behind_it_is_only_the_picture():
    assert (read_photo(saved(Image.fromarray(CORNERS), "PNG") + POSTSCRIPT).pixels == CORNERS).all()


def test_more_bytes_than_the_limit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "MOST_BYTES", 999)
    (tmp_path / "a.png").write_bytes(bytes(1000))
    with pytest.raises(UserError, match=r"a.png cannot be read: 1,000 bytes, where 999 are the most"):
        read_photo(tmp_path / "a.png")
    with pytest.raises(UserError, match="it has 1,000 bytes, where 999 are the most"):
        read_photo(bytes(1000), "it")


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", "not a plain file"), ("", "not a plain file"), ("none.jpg", "no image")):
        with pytest.raises(UserError, match=reason):
            read_photo(tmp_path / name)


def test_no_kind_that_starts_a_program_is_tried():
    assert not {"EPS", "WMF", "PCD", "MIC", "FPX"} & set(FORMATS)


def test_a_thousand_damaged_pictures_are_a_thousand_lines():
    # In a process of its own: libtiff writes to stderr by itself.
    code = """if True:
        import io, random
        from PIL import Image
        from mscgan.errors import UserError
        from mscgan.photos import FORMATS, photo_size, read_photo
        whole = []
        for kind in FORMATS:
            if kind not in ("PSD", "AVIF"):  # AVIF is slow to write
                out = io.BytesIO()
                Image.effect_noise((24, 24), 60).convert("RGB").save(out, kind)
                whole.append(out.getvalue())
        chance = random.Random(0)
        for i in range(1000):
            data = bytearray(whole[i % len(whole)])
            for _ in range(chance.choice((1, 4, 16))):
                data[chance.randrange(min(len(data), chance.choice((40, 400, len(data)))))] = chance.randrange(256)
            try:
                read_photo(bytes(data[: chance.choice((len(data), chance.randrange(len(data))))]))
            except UserError as error:
                assert "\\n" not in str(error)
        print("done")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout == "done\n", done.stderr[-500:]
