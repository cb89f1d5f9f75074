"""The judge of a JPEG: what Pillow writes passes, damage is refused, and build, verify and training say the same."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from mscgan.data import jpeg
from mscgan.data.loader import Loader
from mscgan.data.read import read_images
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from shards.photographs import photograph
from shards.verify import verify
from tests.shard_factory import jpeg as picture
from tests.shard_factory import write_shards


def encode(mode: str = "RGB", **options) -> bytes:
    channels = {"L": (), "RGB": (3,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (48, 20, *channels), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels, mode=mode).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"comment": b"\xff\xda"}])
def test_the_size_is_read_from_every_kind_that_pillow_writes(mode, options):
    data = encode(mode, **options)
    assert jpeg.size(data) == (48, 20)
    assert (jpeg.decode(data, 48, 20) == np.array(Image.open(io.BytesIO(data)).convert("RGB"))).all()


def test_exif_and_fill_bytes_are_passed_over():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a viewer would turn it; the stored size counts
    data = encode(exif=exif)
    assert jpeg.size(data) == (48, 20)
    assert jpeg.size(data[:2] + b"\xff\xff" + data[2:]) == (48, 20)


def test_every_cut_is_refused():
    data = encode()
    for length in range(len(data)):
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
        (encode("CMYK"), "4 components"),
        (encode().replace(b"\xff\xc0", 2 * encode()[158:177] + b"\xff\xc0"), "a second frame"),
        (encode().replace(b"\xff\xdb", b"\x00\xdb", 1), "broken JPEG structure"),
    ],
)
def test_what_is_refused_is_named(data, reason):
    with pytest.raises(ValueError, match=reason):
        jpeg.size(data)


WHOLE = picture(4, 64, 32)
FRAME, SCAN = WHOLE.index(b"\xff\xc0"), WHOLE.index(b"\xff\xda")
# `jpegtran -arithmetic` of a red and a blue half, 64x32.
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeX"
    "BkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/yQARCABA"
    "ACADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD+kCZjHxgZ5MZ14sT/2Q=="
)


def saved(kind: str, mode: str = "RGB", **options) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(WHOLE)).convert(mode).save(out, kind, **options)
    return out.getvalue()


def before(at: int, junk: bytes) -> bytes:
    return WHOLE[:at] + junk + WHOLE[at:]


TAKEN = {
    "baseline": WHOLE,
    "progressive": saved("JPEG", progressive=True),
    "grey": saved("JPEG", "L"),
    "fill bytes before a marker": before(FRAME, b"\xff\xff\xff"),
    "comment, empty": before(2, b"\xff\xfe\x00\x02"),
    "APP1, not of EXIF": before(2, b"\xff\xe1\x00\x10http://ns.ado\x00"),
    "junk behind its end": WHOLE + b"junk",
}
REFUSED = {
    "arithmetic": (ARITHMETIC, "a lossless, arithmetic or hierarchical JPEG"),
    "empty APP1": (before(2, b"\xff\xe1\x00\x02"), "broken EXIF segment at byte 3"),
    "junk before a marker": (before(FRAME, b"\x12\x34"), f"broken JPEG structure at byte {FRAME}"),
    "restart marker in the header": (before(FRAME, b"\xff\xd0"), f"broken JPEG structure at byte {FRAME + 1}"),
    "CMYK": (saved("JPEG", "CMYK"), "a JPEG of 4 components"),
    "12 bits": (WHOLE[: FRAME + 4] + b"\x0c" + WHOLE[FRAME + 5 :], "3 components with 12 bits"),
    "another size": (picture(4, 32, 32), r"32x32 \(height x width\), expected 64x32"),
    "60,000 pixels high": (WHOLE[: FRAME + 5] + b"\xea\x60" + WHOLE[FRAME + 7 :], "60000x32"),
    "cut in the header": (WHOLE[: SCAN - 30], "cut off|broken JPEG structure"),
    "cut in the scan": (WHOLE[: (SCAN + len(WHOLE)) // 2], "cut off"),
    "cut before its end": (WHOLE[:-2], "cut off"),
    "without its tables": (WHOLE.replace(b"\xff\xdb", b"\xff\xfe"), "broken image data"),
    "a table in the scan": (before(SCAN + 100, b"\xff\xc4"), "broken JPEG structure"),
    "PNG": (saved("PNG"), "not a JPEG"),
    "empty": (b"", "empty"),
}


@pytest.mark.parametrize("kind", [*TAKEN, *REFUSED])
def test_the_judge_takes_or_refuses_with_a_reason(kind):
    if kind in TAKEN:
        assert jpeg.decode(TAKEN[kind], 64, 32).shape == (64, 32, 3)
        return
    data, reason = REFUSED[kind]
    with pytest.raises(ValueError, match=reason) as caught:
        jpeg.decode(data, 64, 32)
    assert "\n" not in str(caught.value)


def test_training_verify_and_evaluation_refuse_what_the_judge_refuses(tmp_path, capfd):
    data = [*TAKEN.values(), *(data for data, _ in REFUSED.values())]
    images = {2 * n: jpg for n, jpg in enumerate(data)}  # each beside a whole one, so that every decoder meets it
    refused = {2 * n for n in range(len(TAKEN), len(data))}
    root = write_shards(tmp_path / "shards", len(data), 2, tars=1, splits=("train",), images=images)
    shards = ShardSet(root, "train")
    batches = Loader(shards, 6, 0, 1, 3, 0.5, "cpu", max_corrupt=len(data))
    for _ in range(len(shards.pairs) // 6 + 1):
        next(batches)
    said = re.findall(r"cannot decode \S+_(\d+): .*; its pairs", capfd.readouterr().err)
    assert sorted(map(int, said)) == sorted(refused)
    faults, _ = verify(root, workers=1)
    assert {int(re.search(r"_(\d+): bad image: ", fault)[1]) for fault in faults} == refused
    for i in images:
        if i in refused:
            with pytest.raises(UserError, match=f"{shards.locate(i)} cannot be decoded"):
                read_images(shards, np.array([i]))
        else:
            read_images(shards, np.array([i]))


@pytest.mark.parametrize("kind", [*TAKEN, *REFUSED])
def test_build_writes_only_what_the_judge_takes(kind, tmp_path):
    """Own bytes where they are taken as they are; else what Pillow reads is saved again, or the picture refused."""
    path = tmp_path / "a.jpg"
    path.write_bytes(TAKEN[kind] if kind in TAKEN else REFUSED[kind][0])
    if kind in ("arithmetic", "empty APP1", "junk before a marker", "restart marker in the header", "CMYK", "PNG"):
        made = photograph((str(path), "a.jpg", []), 64, 32).jpeg
        assert made != path.read_bytes()
        expected = np.array(Image.open(path).convert("RGB"), int)
        assert np.abs(jpeg.decode(made, 64, 32) - expected).mean() < 3
    elif kind in REFUSED:
        with pytest.raises(UserError, match="a.jpg is "):
            photograph((str(path), "a.jpg", []), 64, 32)
    else:
        assert (photograph((str(path), "a.jpg", []), 64, 32).jpeg == path.read_bytes()) == (kind != "grey")
