"""Images and poses that users bring: what fits is taken as it is, what does not is moved or refused with a reason."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mscgan.errors import UserError
from mscgan.user_inputs import read_image, read_pose

HEIGHT, WIDTH = 64, 32
POINTS = [[float(1 + i), float(2 + 3 * i)] for i in range(17)] + [[-1, -1]]


def picture(path, width: int, height: int, **options):
    """A left half red, a right half blue, saved to path."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    Image.fromarray(pixels).save(path, **options)
    return path, pixels


def test_an_image_of_the_models_size_is_taken_as_it_is(tmp_path):
    path, pixels = picture(tmp_path / "a.png", WIDTH, HEIGHT)
    image, note = read_image(path, HEIGHT, WIDTH)
    assert (image == pixels).all() and image.dtype == np.uint8 and note == ""


def test_an_image_of_the_same_shape_is_scaled_and_this_is_said(tmp_path):
    path, _ = picture(tmp_path / "a.jpg", 4 * WIDTH, 4 * HEIGHT, quality=95)
    image, note = read_image(path, HEIGHT, WIDTH)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image[32, 4, 0] > 240 and image[32, 28, 2] > 240
    assert "128x256 (width x height): scaled to 32x64" in note and "centred" not in note


def test_an_image_of_another_shape_is_centred_with_its_edges_repeated(tmp_path):
    path, pixels = picture(tmp_path / "a.png", 64, 64)
    image, note = read_image(path, HEIGHT, WIDTH)
    assert (image[:16] == image[16]).all() and (image[48:] == image[47]).all()
    assert "scaled to 32x32 and centred in the model's 32x64" in note
    tall, _ = picture(tmp_path / "b.png", 8, 64)
    image, _ = read_image(tall, HEIGHT, WIDTH)
    assert (image[:, :16] == (255, 0, 0)).all() and (image[:, 16:] == (0, 0, 255)).all()


def test_an_image_is_turned_upright_by_its_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    path, _ = picture(tmp_path / "a.jpg", HEIGHT, WIDTH, exif=exif, quality=95)
    image, note = read_image(path, HEIGHT, WIDTH)
    assert note == ""
    assert image[4, 16, 0] > 240 and image[60, 16, 2] > 240  # the left half is on top now


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    body = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def half_a_jpeg() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(out, "JPEG")
    return out.getvalue()[: out.tell() // 2]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a not a picture", "neither JPEG nor PNG"),
        (b"", "neither JPEG nor PNG"),
        (half_a_jpeg(), "cannot be decoded"),
        (png_of(32, 64), "cannot be decoded"),
        (png_of(60_000, 60_000), "cannot be decoded"),
    ],
    ids=["text", "empty", "cut", "no pixels", "huge"],
)
def test_a_broken_image_is_refused_in_one_line(tmp_path, data, reason):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(UserError, match=reason) as caught:
        read_image(path, HEIGHT, WIDTH)
    assert "\n" not in str(caught.value)


def test_an_image_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no image"):
        read_image(tmp_path, HEIGHT, WIDTH)


ROW = "a:b.jpg: {}: {}".format(*([point[axis] for point in POINTS] for axis in (1, 0)))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(POINTS),
        json.dumps({"name": "a.jpg", "person": "7", "keypoints": POINTS}),
        json.dumps({"keypoints": POINTS, "width": WIDTH, "height": HEIGHT}),
        ROW,
        f"name:keypoints_y:keypoints_x\n{ROW}\n",
    ],
    ids=["list", "object", "object with its frame", "row", "header and row"],
)
def test_every_form_of_a_pose_gives_the_same_points(tmp_path, text):
    file = tmp_path / "pose.txt"
    file.write_text(text)
    for given in (text, str(file)):
        pose = read_pose(given, HEIGHT, WIDTH)
        assert pose.dtype == np.float32
        assert pose.tolist() == POINTS


def test_a_pose_of_another_frame_moves_as_the_image_would(tmp_path):
    # A white spot in a black image of 96x64: that is scaled to 32x21 and centred, and the joint stays on the spot.
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[30:33, 60:63] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image, _ = read_image(tmp_path / "a.png", HEIGHT, WIDTH)
    pose = read_pose(json.dumps({"keypoints": [[61, 31]] * 17 + [[-1, -1]], "width": 96, "height": 64}), HEIGHT, WIDTH)
    row, column = np.unravel_index(image[..., 0].argmax(), (HEIGHT, WIDTH))
    assert pose[0] == pytest.approx([column, row], abs=0.51)
    assert pose[17].tolist() == [-1, -1]


def test_points_at_the_edge_of_their_frame_stay_in_the_models(tmp_path):
    corners = [[0, 0], [959, 1919]] * 9
    pose = read_pose(json.dumps({"keypoints": corners, "width": 960, "height": 1920}), HEIGHT, WIDTH)
    assert pose[:2].tolist() == [[0, 0], [WIDTH - 1, HEIGHT - 1]]


def changed(point) -> str:
    return json.dumps([point, *POINTS[1:]])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps(POINTS[:17]), "17 keypoints"),
        (json.dumps([*POINTS, [1, 1]]), "19 keypoints"),
        (json.dumps({"keypoints": 3}), "has int"),
        ('{"points": []}', 'no "keypoints"'),
        ("[[1, 2], ", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (changed([1]), "keypoint 0 is not two numbers"),
        (changed(["1", 2]), "keypoint 0 is not two numbers"),
        (changed([True, 2]), "keypoint 0 is not two numbers"),
        (changed([float("nan"), 2]), "keypoint 0 is .* outside"),
        (changed([10**300, 2]), "keypoint 0 is .* outside"),
        (changed([WIDTH, 2]), "outside its frame of 32x64"),
        (changed([-1, 5]), "outside its frame"),
        (json.dumps([[-1, -1]] * 18), "every joint is missing"),
        (json.dumps({"keypoints": POINTS, "width": 64}), "only one of width and height"),
        (json.dumps({"keypoints": POINTS, "width": 64, "height": 0}), "whole numbers > 0"),
        ("a.jpg: [1, 2]: [3]", "not lists of the same length"),
        ("a.jpg: [1, 2]: [3, 4]", "2 keypoints"),
        ("a.jpg: [1, 2: [3, 4]", "a column is not a list"),
        ("a.jpg [1, 2]", "1 columns"),
        (f"{ROW}\n{ROW}", "2 rows"),
        ("pose.json", "no pose file"),
        ("", "no pose file"),
    ],
)
def test_what_is_no_pose_is_refused_in_one_line(text, reason):
    with pytest.raises(UserError, match=reason) as caught:
        read_pose(text, HEIGHT, WIDTH)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_file_that_is_no_text_or_no_single_pose_is_refused(tmp_path):
    path = tmp_path / "pose.bin"
    path.write_bytes(b"\xff\xfe\x00[1]")
    with pytest.raises(UserError, match="is not text"):
        read_pose(str(path), HEIGHT, WIDTH)
    path.write_bytes(b" " * (2 << 20))
    with pytest.raises(UserError, match="not one pose"):
        read_pose(str(path), HEIGHT, WIDTH)
