"""MoveNet's poses: places and presence by small graphs, and the trained network on photographs where both are there."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import skimage.data
import torch
from PIL import Image

from mscgan import weights
from mscgan.data.annotations import read
from mscgan.errors import UserError
from mscgan.estimators import Person, open_estimator
from mscgan.movenet import estimate as module
from mscgan.movenet.estimate import FEWEST, FROM_COCO, PRESENT, load_movenet, load_network, whole
from mscgan.movenet.published import TOPOLOGY, to_safetensors
from mscgan.pose import FLIP, JOINTS
from shards.synthetic import person
from tests.movenet_factory import need_weights, node, put, put_answer

DATA = Path(__file__).parents[1].parent / "shared/data"
COCO = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
).split()


def answer(scores: float = 0.9) -> np.ndarray:
    """(17, 3): joints spread over the square, from a tenth to nine tenths of it."""
    spread = np.linspace(0.1, 0.9, 17)
    return np.stack([spread, spread[::-1], np.full(17, scores)], 1)


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def found_by(monkeypatch, folder, rows: np.ndarray, height: int = 200, width: int = 100) -> list[Person]:
    put_answer(monkeypatch, folder, rows)
    return load_movenet()(image(height, width))


def test_cocos_joints_are_taken_by_their_names():
    assert {JOINTS[ours]: COCO[theirs].replace("_", " ") for ours, theirs in FROM_COCO.items()} == {
        name: name for name in JOINTS if name != "neck"
    }


def test_the_neck_is_the_middle_of_the_shoulders_and_missing_without_one_of_them(monkeypatch, tmp_path):
    rows = answer()
    rows[5:7, 2] = 0.8, 0.5
    (one,) = found_by(monkeypatch, tmp_path, rows)
    assert one.keypoints[1].tolist() == pytest.approx(one.keypoints[[2, 5]].mean(0).tolist())
    assert one.scores[[1, 2, 5]].tolist() == pytest.approx([0.5, 0.5, 0.8])
    assert one.score == pytest.approx(rows[:, 2].mean(), abs=1e-6)
    rows[6, 2] = 0.29
    (one,) = found_by(monkeypatch, tmp_path, rows)
    missing = (one.keypoints == -1).all(1)
    assert np.flatnonzero(missing).tolist() == [1, 2] and (one.scores[missing] == 0).all()


def test_joints_are_in_the_pixels_of_an_image_of_any_size(monkeypatch, tmp_path):
    """The nose in a quarter of the square's width and half its height: the square is the image's with black beside."""
    rows = answer()
    rows[0, :2] = 0.5, 0.25
    for (height, width), nose in {
        (192, 192): (48, 96), (100, 200): (50, 50), (200, 120): (10, 100), (1000, 700): (100, 500), (7, 8): (2, 4),
    }.items():  # fmt: skip
        (one,) = found_by(monkeypatch, tmp_path, rows, height, width)
        assert one.keypoints.dtype == one.scores.dtype == np.float32
        # Edges of the scaled image lie at whole pixels of the square; above or beside it is at most one of the image.
        assert one.keypoints[0] == pytest.approx(nose, abs=1)
        assert (one.keypoints >= 0).all() and (one.keypoints < [width, height]).all()


def test_nobody_is_found_where_fewer_than_five_joints_are(monkeypatch, tmp_path):
    rows = answer(PRESENT - 0.01)
    rows[[5, 6, 11], 2] = 0.9  # both shoulders, so the neck too
    assert found_by(monkeypatch, tmp_path, rows) == []
    rows[12, 2] = 0.9
    (one,) = found_by(monkeypatch, tmp_path, rows)
    assert (one.keypoints != -1).all(1).sum() == 5


def test_a_small_person_is_looked_at_again_from_near(monkeypatch, tmp_path):
    """Joints over 0.4 of the first square: the second is 0.6 of it, around their middle, and holds the same answer."""
    rows = answer()
    places = rows[:, :2] - 0.1  # from 0 to .8
    rows[:, :2] = 0.3 + places / 2
    (near,) = found_by(monkeypatch, tmp_path, rows, 1000, 1000)
    extent = np.ptp(near.keypoints, axis=0)
    assert extent == pytest.approx([240, 240], abs=2) and near.keypoints.mean(0) == pytest.approx([500, 500], abs=20)
    rows[:, :2] = 0.2 + places * 0.625  # the second would be 0.75 of the first, which is not worth it
    (far,) = found_by(monkeypatch, tmp_path, rows, 1000, 1000)
    assert np.ptp(far.keypoints, axis=0) == pytest.approx([500, 500], abs=2)


def test_joints_outside_the_image_are_moved_to_its_edge(monkeypatch, tmp_path):
    rows = answer()
    for place, edge in ((-0.4, (0, 0)), (0.0, (0, 0)), (1.4, (99, 199))):
        rows[:, :2] = place
        (one,) = found_by(monkeypatch, tmp_path, rows)
        assert one.keypoints == pytest.approx(np.tile(edge, (18, 1)), abs=1)
        assert (one.keypoints >= 0).all() and (one.keypoints <= [99, 199]).all()
    assert len(found_by(monkeypatch, tmp_path, answer(), 1, 4000)) == 1


def brightest(monkeypatch, folder) -> None:
    """A network whose 17 joints are all the brightest pixel's centre."""
    constants = {
        "axis": torch.tensor(0, dtype=torch.int32),
        "flat": torch.tensor([192 * 192, 3], dtype=torch.int32),
        "row": torch.tensor(192, dtype=torch.int32),
        "half": torch.tensor(0.5),
        "side": torch.tensor(192.0),
        "same": torch.zeros(1, 1, 17, 3, 1, dtype=torch.int32) + torch.arange(3, dtype=torch.int32)[:, None],
        "score": torch.tensor([0.9]),
        "last": torch.tensor(0, dtype=torch.int32),
    }
    nodes = [node(name, "Const") for name in constants] + [
        node("x", "Placeholder"),
        node("pixels", "Reshape", "x", "flat"),
        node("best", "ArgMax", "pixels", "axis", output_type="DT_INT32"),
        node("channels", "Unpack", "best", axis=0),
        node("y", "FloorDiv", "channels", "row"),
        node("rows", "Mul", "y", "row"),
        node("xs", "Sub", "channels", "rows"),
        node("yx", "Pack", "y", "xs", axis=0),
        node("floats", "Cast", "yx", DstT="DT_FLOAT"),
        node("centre", "AddV2", "floats", "half"),
        node("place", "RealDiv", "centre", "side"),
        node("three", "ConcatV2", "place", "score", "last"),
        node("out", "GatherNd", "three", "same"),
    ]
    put(monkeypatch, folder, nodes, constants)


@pytest.mark.parametrize("size", [(192, 192), (300, 200), (64, 128), (1100, 750)])
def test_what_is_seen_is_the_image_where_it_is(monkeypatch, tmp_path, size):
    """A bright spot is found again through squares that hold the image, cut it, or reach beyond it."""
    brightest(monkeypatch, tmp_path)
    look = load_network()
    height, width = size
    spot = np.array([width * 0.6, height * 0.4]).round()
    picture = np.full((*size, 3), 20, np.uint8)
    radius = max(size) / 100
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    picture[np.linalg.norm(grid - spot, axis=-1) <= radius + 1] = 255
    for square in (
        whole(picture),
        (width - min(size), height - min(size), min(size)),
        (-width // 2, -height // 3, 2 * max(size)),
        (*(spot.astype(int) - 20), 40),
    ):
        points, _ = look(picture, square)
        assert points[0] == pytest.approx(spot + 0.5, abs=radius + 2 + square[2] / 192)
    picture[:] = 0
    picture[0, 0] = 255
    assert look(picture, whole(picture))[0][0] == pytest.approx([0, 0], abs=1 + max(size) / 192)


def test_one_thread_is_taken_and_the_others_come_back(monkeypatch, tmp_path):
    put_answer(monkeypatch, tmp_path, answer())
    seen, threads, runs = [], torch.get_num_threads(), module.run_graph
    monkeypatch.setattr(module, "run_graph", lambda *given: seen.append(torch.get_num_threads()) or runs(*given))
    try:
        torch.set_num_threads(2)
        load_movenet()(image(64, 64))
        assert seen == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(monkeypatch, tmp_path, wrong):
    put_answer(monkeypatch, tmp_path, answer())
    with pytest.raises(UserError, match="an image is .*; expected uint8 \\(H, W, 3\\)"):
        load_movenet()(wrong)


def test_without_weights_it_is_said_how_to_bring_them(monkeypatch, tmp_path):
    monkeypatch.setenv("MSCGAN_WEIGHTS", str(tmp_path))
    with pytest.raises(weights.Missing, match="fetch movenet"):
        open_estimator("movenet")


def test_the_published_files_become_one_that_holds_the_same_numbers():
    halves, whole_numbers = np.array([[0.5, -2]], "<f2"), np.array([3, -4, 5], "<i4")
    entries = [
        {"name": "a/b", "shape": [1, 2], "dtype": "float32", "quantization": {"dtype": "float16"}},
        {"name": "c", "shape": [3], "dtype": "int32"},
    ]
    text = json.dumps({"weightsManifest": [{"weights": entries}]}).encode()
    content = to_safetensors(text, halves.tobytes() + whole_numbers.tobytes())
    state = safetensors.torch.load(content)
    assert state.pop(TOPOLOGY).numpy().tobytes() == text
    assert {name: value.tolist() for name, value in state.items()} == {"a/b": [[0.5, -2]], "c": [3, -4, 5]}
    assert content == to_safetensors(text, halves.tobytes() + whole_numbers.tobytes())
    with pytest.raises(AssertionError, match="1 bytes belong to no constant"):
        to_safetensors(text, halves.tobytes() + whole_numbers.tobytes() + b"x")


# With the trained weights


def photographs(folder: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and their (18, 2) annotations."""
    images, annotations, height, width = {
        "market1501": ("bounding_box_train", "market-annotation-train.csv", 128, 64),
        "deepfashion": ("images", "fasion-annotation-test.csv", 256, 256),
    }[folder]
    if not (DATA / folder).is_dir():
        pytest.skip("no photographs in ../shared/data")
    rows = {row.name: np.array(row.keypoints, float) for row in read(DATA / folder / annotations, height, width)}
    files = sorted((DATA / folder / images).rglob("*.jpg"))
    return [(np.array(Image.open(file).convert("RGB")), rows[file.name]) for file in files if file.name in rows]


def drawn(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The project's own people at 256x256."""
    samples = [person((number, 0), views=1, seed=0, height=256, width=256) for number in range(count)]
    return [(np.array(Image.open(io.BytesIO(one.jpeg)).convert("RGB")), np.array(one.keypoints)) for one in samples]


def measured(people: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Shares of the annotated joints within 0.1 of the pose's extent and within 0.2 of neck to mid-hip, wherever the
    network has them; recall and precision of their presence; and the share of people that are found at all."""
    look = load_network()
    near, near_torso, annotated, of_torso, both, present, found = np.zeros(7)
    for picture, truth in people:
        points, scores = look(picture, whole(picture))
        there, seen = (truth != -1).all(1), scores > PRESENT
        apart = np.linalg.norm(points - truth, axis=1)
        found += seen.sum() >= FEWEST
        annotated += there.sum()
        near += (there & (apart <= 0.1 * np.ptp(truth[there], axis=0).max())).sum()
        both, present = both + (there & seen).sum(), present + seen.sum()
        if there[[1, 8, 11]].all():
            torso = np.linalg.norm(truth[1] - truth[[8, 11]].mean(0))
            near_torso += (there & (apart <= 0.2 * torso)).sum()
            of_torso += there.sum()
    return [near / annotated, near_torso / of_torso, both / annotated, both / present, found / len(people)]


@pytest.mark.parametrize(
    "folder, count, known",
    [("market1501", 187, [0.955, 0.936, 0.967, 0.841, 1]), ("deepfashion", 189, [0.984, 0.981, 0.975, 0.940, 1])],
)
def test_joints_of_photographs_are_found_as_often_as_known(folder, count, known):
    need_weights()
    people = photographs(folder)
    assert len(people) == count and measured(people) == pytest.approx(known, abs=0.002)


def test_the_projects_own_people_are_found():
    need_weights()
    assert measured(drawn(20))[0] > 0.8


def test_a_mirrored_image_has_the_mirrored_pose():
    need_weights()
    estimate = load_movenet()
    for picture, _ in drawn(3):
        (one,), (other,) = estimate(picture), estimate(picture[:, ::-1].copy())
        mirrored = other.keypoints[list(FLIP)]
        both = (one.keypoints != -1).all(1) & (mirrored != -1).all(1)
        apart = np.abs(one.keypoints - np.stack([255 - mirrored[:, 0], mirrored[:, 1]], 1))[both].max(1)
        assert both.sum() >= 10 and np.median(apart) < 4


def test_a_person_in_a_large_picture_is_found_where_it_is():
    need_weights()
    estimate = load_movenet()
    right = every = 0
    for number, (picture, truth) in enumerate(drawn(10)):
        large = np.full((768, 1024, 3), 128, np.uint8)
        corner = np.array([80 * number, 40 * number])
        large[corner[1] : corner[1] + 256, corner[0] : corner[0] + 256] = picture
        there = (truth != -1).all(1)
        every += there.sum()
        for one in estimate(large):
            right += (there & (np.linalg.norm(one.keypoints - truth - corner, axis=1) < 20)).sum()
    assert right / every > 0.7


@pytest.mark.parametrize("name", ["grass", "brick", "coins", "moon", "page", "text", "noise", "black"])
def test_pictures_of_nobody_have_nobody(name):
    need_weights()
    made = {"noise": image(256, 256), "black": np.zeros((300, 100, 3), np.uint8)}
    grey = made[name] if name in made else getattr(skimage.data, name)()
    assert load_movenet()(grey if grey.ndim == 3 else np.stack([grey] * 3, -1)) == []
