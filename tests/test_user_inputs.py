"""Photographs and poses that users bring: what fits is taken as it is, what does not is moved or refused."""

import json

import numpy as np
import pytest
from PIL import Image

from mscgan.errors import UserError
from mscgan.estimators import Person
from mscgan.user_inputs import photo_pose, pictures_in, plain, read_image, read_poses
from tests.pose_factory import BODY_25, COCO_18, expected, flat, standing, triples

HEIGHT, WIDTH = 64, 32
POINTS = [[float(v) for v in point] for point in standing(HEIGHT, WIDTH)[:17]] + [[-1, -1]]


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


@pytest.mark.parametrize("name", ["none.jpg", "", "words.jpg"])
def test_what_is_no_image_is_refused_in_one_line(tmp_path, name):
    (tmp_path / "words.jpg").write_text("hello")
    with pytest.raises(UserError, match="no image|not a plain file|no picture") as caught:
        read_image(tmp_path / name, HEIGHT, WIDTH)
    assert "\n" not in str(caught.value)


ROW = "a:b.jpg: {}: {}".format(*([point[axis] for point in POINTS] for axis in (1, 0)))
OPENPOSE = {"people": [{"pose_keypoints_2d": flat(triples(BODY_25))}]}


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
def test_a_pose_that_lies_in_the_frame_is_taken_as_it_is(tmp_path, text):
    file = tmp_path / "pose.txt"
    file.write_text(text)
    for given in (text, str(file)):
        [(_, pose, photo, _)] = read_poses(given, HEIGHT, WIDTH)
        assert photo is None and pose.dtype == np.float32
        assert pose.tolist() == POINTS


def test_a_pose_of_a_larger_frame_of_the_same_shape_is_scaled_with_it():
    points = (np.array(POINTS) * 10).tolist()[:17] + [[-1, -1]]
    [target] = read_poses(json.dumps({"keypoints": points, "width": 320, "height": 640}), HEIGHT, WIDTH)
    assert target.keypoints == pytest.approx(np.where(np.array(POINTS) == -1, -1, np.array(POINTS) - 0.45), abs=0.01)
    assert "scaled from 320x640 to 32x64" in target.note


@pytest.mark.parametrize("size", [{}, {"canvas_width": 640, "canvas_height": 480}], ids=["unknown size", "a canvas"])
def test_a_pose_of_a_photograph_lands_at_the_size_that_the_networks_know(size):
    far = [[x + 300, y + 100, c] for x, y, c in triples(COCO_18)]
    [target] = read_poses(json.dumps({"people": [{"pose_keypoints_2d": flat(far)}]} | size), 128, 64)
    top, bottom = target.keypoints[:, 1].min(), target.keypoints[:, 1].max()
    assert ((top + 0.5) / 128, 1 - (bottom + 0.5) / 128) == pytest.approx((0.08, 0.10), abs=0.02)
    assert "taken from the box" in target.note and "around the person" in target.note


def two(**more) -> str:
    """A small person, and one who is four times as large."""
    small = [[x / 4 + 1, y / 4 + 1, c] for x, y, c in triples(COCO_18)]
    people = [{"pose_keypoints_2d": flat(points)} for points in (small, triples(COCO_18))]
    return json.dumps({"people": people} | more)


def test_of_several_people_it_is_the_largest_or_the_one_asked_for():
    height, width = 256, 256  # both lie in it
    [largest] = read_poses(two(), height, width)
    assert (largest.keypoints == expected()).all()
    assert "2 people (1 at 37,103 to 63,199, 2 at 10,27 to 17,51): the largest; another by --person" in largest.note
    [second] = read_poses(two(), height, width, person=2)
    assert second.keypoints == pytest.approx(expected() / 4 + 1)
    with pytest.raises(UserError, match="the pose shows 2 people .*; there is no person 3"):
        read_poses(two(), height, width, person=3)


def test_of_a_file_of_many_images_it_is_every_one_that_shows_somebody_or_the_one_named():
    nobody = f"b.jpg: {[-1] * 18}: {[-1] * 18}"
    text = "\n".join([ROW.replace("a:b.jpg", "a.jpg"), nobody, ROW.replace("a:b.jpg", "c/d.jpg")])
    assert [target.name for target in read_poses(text, HEIGHT, WIDTH)] == ["a", "d"]
    assert "1 of its images show nobody" in read_poses(text, HEIGHT, WIDTH)[-1].note
    for name in ("c/d.jpg", "d.jpg", "d"):
        assert [target.name for target in read_poses(text, HEIGHT, WIDTH, image=name)] == ["d"]
    with pytest.raises(UserError, match="the pose has no image 'e.png'; it has b.jpg, a.jpg"):
        read_poses(text, HEIGHT, WIDTH, image="e.png")


def test_an_odd_pose_is_refused_unless_it_is_asked_for():
    swapped = json.dumps([[y, x] for x, y in expected().tolist()])
    with pytest.raises(UserError, match=r"the pose is a list of .* x and y swapped.* with --any-pose"):
        read_poses(swapped, 256, 256)
    [target] = read_poses(swapped, 256, 256, any_pose=True)
    assert (target.keypoints == expected()[:, ::-1]).all() and "look wrong" in target.note


def test_one_odd_row_of_many_is_said_and_refuses_no_file():
    odd = "z.jpg: {}: {}".format(*([point[axis] for point in POINTS] for axis in (0, 1)))  # x and y swapped
    rows = [ROW.replace("a:b", f"{i}") for i in range(5)]
    targets = read_poses("\n".join([*rows, odd]), HEIGHT, WIDTH)
    assert len(targets) == 6 and "1 of its poses look wrong: the pose, z.jpg" in targets[-1].note
    with pytest.raises(UserError, match="x and y swapped"):
        read_poses("\n".join([rows[0], odd]), HEIGHT, WIDTH)


def test_a_pose_of_too_few_joints_to_be_placed_is_left_out_of_many_and_refused_alone():
    nose = [[500, 500], *[[-1, -1]] * 17]
    row = "n.jpg: {}: {}".format(*([point[axis] for point in nose] for axis in (1, 0)))
    targets = read_poses(f"{ROW}\n{row}", HEIGHT, WIDTH)
    assert len(targets) == 1 and "1 of its poses are left out: the pose, n.jpg: 1 of 18 joints" in targets[0].note
    with pytest.raises(UserError, match="the pose: 1 of 18 joints were found: too few"):
        read_poses(json.dumps(nose), HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps([[-1, -1]] * 18), "has nobody with a joint; was a person found"),
        (json.dumps({"people": []}), "is OpenPose JSON and has nobody with a joint"),
        (json.dumps([[0.1, 0.2]] * 18), "all coordinates in 0..1"),
        ("pose.json", "no pose file 'pose.json'"),
        ("", "no pose file ''"),
    ],
)
def test_what_is_no_pose_is_refused_in_one_line(text, reason):
    with pytest.raises(UserError, match=reason) as caught:
        read_poses(text, HEIGHT, WIDTH)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_file_that_is_no_text_or_too_large_or_a_folder_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "pose.bin"
    path.write_bytes(b"\xff\xfe\x00[1]")
    with pytest.raises(UserError, match="is not text; give a pose file, or a photograph with --pose-of"):
        read_poses(str(path), HEIGHT, WIDTH)
    monkeypatch.setattr("mscgan.user_inputs.MOST_BYTES", 3)
    with pytest.raises(UserError, match="6 bytes, where 3 are the most"):
        read_poses(str(path), HEIGHT, WIDTH)
    with pytest.raises(UserError, match="not a plain file"):
        read_poses(str(tmp_path), HEIGHT, WIDTH)


def finds(*people: np.ndarray):
    """An estimator that finds these."""
    return lambda image: [Person(points.astype(np.float32), np.ones(18, np.float32), 1.0) for points in people]


def test_the_pose_of_a_photograph_moves_as_its_pixels(tmp_path):
    # A white spot where the nose is: it stays under the nose.
    pixels = np.zeros((220, 300, 3), np.uint8)
    pixels[104:109, 148:153] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    far = expected() + [100, 0]
    target = photo_pose(tmp_path / "a.png", finds(far), 128, 64)
    spot = target.photo[..., 0].astype(float)
    rows, columns = np.mgrid[:128, :64]
    centre = (columns * spot).sum() / spot.sum(), (rows * spot).sum() / spot.sum()
    assert target.keypoints[0] == pytest.approx(centre, abs=0.3)
    top, bottom = target.keypoints[:, 1].min(), target.keypoints[:, 1].max()
    assert ((top + 0.5) / 128, 1 - (bottom + 0.5) / 128) == pytest.approx((0.08, 0.10), abs=0.02)
    assert target.name == "a" and "18 of 18 joints; taken from the box" in target.note


def test_the_pose_of_a_photograph_of_the_models_size_is_taken_as_it_is(tmp_path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    target = photo_pose(tmp_path / "a.png", finds(np.array(POINTS)), HEIGHT, WIDTH)
    assert target.keypoints.tolist() == POINTS and target.photo.shape == (HEIGHT, WIDTH, 3)


def test_nobody_in_a_photograph_is_said_and_of_several_the_largest_is_taken(tmp_path):
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"nobody was found in .*a.png; give a photograph"):
        photo_pose(tmp_path / "a.png", finds(), 256, 256)
    people = finds(expected() / 2, expected())
    assert "2 people" in photo_pose(tmp_path / "a.png", people, 256, 256).note
    first, second = (photo_pose(tmp_path / "a.png", people, 256, 256, person=i).note for i in (1, 2))
    assert "the box" in first and first.split("the box")[1] != second.split("the box")[1]
    with pytest.raises(UserError, match="there is no person 3"):
        photo_pose(tmp_path / "a.png", people, 256, 256, person=3)


@pytest.mark.parametrize(
    ("name", "safe"),
    [("../../etc/passwd", "passwd"), ("a b:c.jpg", "a-b-c"), ("..", ""), ("x" * 300, "x" * 80), ("née.jpg", "née")],
)
def test_a_name_from_a_file_is_made_a_plain_one(name, safe):
    assert plain(name) == safe


def test_the_photographs_of_a_folder_are_told_by_endings_of_any_case(tmp_path):
    names = ["a.JPG", "b.mpo", "c.hif", "d.webp"]
    for name in (*names, "e.json", "f.txt", ".g.png"):
        (tmp_path / name).touch()
    assert [path.name for path in pictures_in(tmp_path)] == names
