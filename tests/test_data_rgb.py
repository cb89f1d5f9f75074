"""Any kind of PNG has the same red, green and blue: known values, and sixteen bits of grey that are not white."""

import io

import numpy as np
import pytest
from PIL import Image

from mscgan.data.rgb import rgb
from mscgan.user_inputs import read_image
from shards.photographs import photograph

GREY = np.tile(np.arange(64, dtype=np.uint16)[:, None] * 4, (1, 32))  # 0 to 252, down the picture


def png(mode: str) -> bytes:
    """The same greys as a PNG of this mode, read back in it."""
    pictures = {
        "I;16": lambda: Image.fromarray(GREY * 257),
        "L": lambda: Image.fromarray(GREY.astype(np.uint8)),
        "LA": lambda: Image.fromarray(GREY.astype(np.uint8)).convert("LA"),
        "P": lambda: Image.fromarray(GREY.astype(np.uint8)).convert("P"),
        "RGB": lambda: Image.fromarray(GREY.astype(np.uint8)).convert("RGB"),
        "RGBA": lambda: Image.fromarray(GREY.astype(np.uint8)).convert("RGBA"),
    }
    out = io.BytesIO()
    pictures[mode]().save(out, "PNG")
    assert Image.open(io.BytesIO(out.getvalue())).mode == mode
    return out.getvalue()


MODES = ["I;16", "L", "LA", "P", "RGB", "RGBA"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_the_same_pixels(mode, tmp_path):
    made = np.array(rgb(Image.open(io.BytesIO(png(mode)))))
    assert made.dtype == np.uint8 and (made == GREY[..., None]).all()
    path = tmp_path / "a.png"
    path.write_bytes(png(mode))
    assert (read_image(path, 64, 32)[0] == GREY[..., None]).all()
    stored = np.array(Image.open(io.BytesIO(photograph((str(path), "a.png", []), 64, 32).jpeg)), int)
    assert stored.shape == (64, 32, 3) and np.abs(stored - GREY[..., None]).max() <= 4


@pytest.mark.parametrize(("mode", "type"), [("I;16", "<u2"), ("I;16B", ">u2"), ("I", "<i4")])
def test_sixteen_bits_of_grey_keep_their_upper_eight(mode, type):
    values = np.array([[0, 255, 256, 257, 511, 32768, 65279, 65535]], type)
    picture = Image.frombytes(mode, (8, 1), values.tobytes())
    assert np.array(rgb(picture))[0, :, 0].tolist() == [0, 0, 1, 1, 1, 128, 254, 255]
