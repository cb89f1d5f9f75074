import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mscgan import estimators, files, poses, poses_folder, poses_score
from mscgan.data import annotations
from mscgan.errors import UserError
from mscgan.estimators import Person
from mscgan.user_inputs import read_poses
from tests.ranks import exit_codes, logged, start_ranks
from tests.run_factory import write_run
from tests.shard_factory import write_shards
from tests.test_paf_decode import STANDING


class Estimating:
    """Finds STANDING in every image that is not black; a second, lesser person where there is blue. Counts."""

    def __init__(self):
        self.seen = 0

    def __call__(self, image: np.ndarray) -> list[Person]:
        self.seen += 1
        height = image.shape[0]
        keypoints = ((STANDING + 0.5) * height / 128 - 0.5).astype(np.float32)
        keypoints[17] = -1
        first = Person(keypoints, np.ones(18, np.float32), 9.0)
        return [first, first._replace(score=1.0)][: int(image.max() > 0) + int(image[..., 2].max() > 0)]


@pytest.fixture
def estimating(monkeypatch) -> Estimating:
    found = Estimating()
    for module in (poses, poses_folder, estimators):
        monkeypatch.setattr(module, "open_estimator", lambda name: found)
    return found


def picture(path: Path, height: int = 128, colour: tuple[int, int, int] = (90, 60, 0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (height // 2, height), colour).save(path)
    return path


def call(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["poses", *map(str, arguments)])
    poses.main()


def test_a_pose_is_written_as_generate_reads_it_with_a_picture(estimating, monkeypatch, tmp_path, capsys):
    image = picture(tmp_path / "a.png", 256)
    call(monkeypatch, "--image", image, "--out", tmp_path / "pose.json", "--picture", tmp_path / "p.png")
    written = json.loads((tmp_path / "pose.json").read_text())
    assert (written["width"], written["height"], len(written["scores"])) == (128, 256, 18)
    read = read_poses(str(tmp_path / "pose.json"), 128, 64)[0].keypoints  # in a model's frame, half as large
    np.testing.assert_allclose(read[:17], STANDING[:17], atol=0.01)
    assert (read[17] == -1).all()
    shown = np.array(Image.open(tmp_path / "p.png"))
    assert shown.shape[1] > 2 * 256 and capsys.readouterr().out.split() == [
        str(tmp_path / "pose.json"), str(tmp_path / "p.png"),
    ]  # fmt: skip


def test_several_images_get_a_file_each_and_who_is_not_found_is_said(estimating, monkeypatch, tmp_path, capsys):
    images = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", colour=(0, 0, 0)),
              picture(tmp_path / "c.png", 64, (1, 1, 200))]  # fmt: skip
    call(monkeypatch, "--image", *images, "--out", tmp_path / "made", "--picture", tmp_path / "p.png")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["a.json", "c.json"]
    said = capsys.readouterr().err
    assert "b.png: nobody was found" in said and "c.png: 2 people" in said and "a.png" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image", "black.png", "--out", "x.json"], "nobody was found, so nothing is written"),
        (["--image", "a.png"], "nothing to write; give --out"),
        (["--image", "a.png", "--picture", "p.jpg"], "written as PNG"),
        (["--image", "a.png", "--picture", "a.png"], "a.png would be written over, .* give another place with --pict"),
        (["--image", "a.png", "--out", "a.png"], "a.png would be written over, .* give another place with --out"),
        (["--image", "a.png", "more/a.png", "--out", "made"], "two of the images have one name"),
        (["--image", "a.png", "black.png", "--out", "a.png"], "is a file, and 2 images get a folder"),
        (["--folder", ".", "--picture", "p.png"], "--picture does nothing here: it goes with --image"),
        (
            ["--image", "a.png", "--out", "x.json", "--split", "train"],
            "--split does nothing here: it goes with --score",
        ),
        (["--folder", "."], "no --out"),
        (["--folder", "none", "--out", "x.csv"], "none is not a folder"),
        (["--folder", "empty", "--out", "x.csv"], "has no image"),
        (["--folder", "colon", "--out", "x.csv"], "a:b.png: a colon"),
        (["--folder", ".", "--out", "there.csv"], "there.csv is there already"),
        (["--score", ".", "--out", "x.csv"], "writes no file"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(arguments, said, estimating, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, colour in (
        ("black.png", (0, 0, 0)),
        ("a.png", (9, 9, 0)),
        ("more/a.png", (9, 9, 0)),
        ("colon/a:b.png", (9,) * 3),
    ):
        picture(tmp_path / name, colour=colour)
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").touch()
    before = sorted(tmp_path.rglob("*"))
    if "there.csv" in arguments or arguments == ["--folder", "."]:
        (tmp_path / "colon/a:b.png").unlink()
        before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=said):
        call(monkeypatch, *arguments)
    assert sorted(tmp_path.rglob("*")) == before


def folder_of(tmp_path: Path, count: int = 5) -> Path:
    for i in range(count):
        picture(tmp_path / f"images/{i % 2}/{i}.jpg", 128 + i, (0, 0, 0) if i == 3 else (90, 60, 0))
    (tmp_path / "images/notes.txt").write_text("no image")
    return tmp_path / "images"


def test_a_folder_becomes_the_fields_file_with_truncated_places(estimating, monkeypatch, tmp_path, capsys):
    call(monkeypatch, "--folder", folder_of(tmp_path), "--out", tmp_path / "a.csv")
    rows = {row.name: np.array(row.keypoints) for row in annotations.read(tmp_path / "a.csv", 140, 70)}
    assert list(rows) == ["0/0.jpg", "0/2.jpg", "0/4.jpg", "1/1.jpg", "1/3.jpg"]
    assert (rows["1/3.jpg"] == -1).all() and "nobody was found in 1" in capsys.readouterr().out
    expected = np.trunc((STANDING[:17] + 0.5) * 132 / 128 - 0.5)  # of 33.03 and 33.97 alike 33
    np.testing.assert_array_equal(rows["0/4.jpg"][:17], expected)
    line = (tmp_path / "a.csv").read_text().splitlines()[1]
    assert line.startswith("0/0.jpg: [16, 28, ") and ": [32, 32, " in line  # y first
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_killed_search_goes_on_where_it_was(estimating, monkeypatch, tmp_path):
    images, real = folder_of(tmp_path), files.append

    def killed(path, content):
        real(path, content)
        if estimating.seen == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        call(monkeypatch, "--folder", images, "--out", tmp_path / "a.csv")
    assert estimating.seen == 3 and not (tmp_path / "a.csv").exists()
    picture(images / "0/0.jpg", 160)  # was done, and is another one now
    (part,) = tmp_path.glob(".a.csv.*/*.jsonl")
    with part.open("a") as file:
        file.write('["1/1.jpg", [1')  # a line that broke off
    monkeypatch.setattr(files, "append", real)
    call(monkeypatch, "--folder", images, "--out", tmp_path / "a.csv")
    assert estimating.seen == 3 + 3
    assert len(annotations.read(tmp_path / "a.csv", 160, 80)) == 5


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_kept(estimating, monkeypatch, tmp_path):
    images = folder_of(tmp_path)
    (images / "0/2.jpg").write_bytes(b"none")
    with pytest.raises(UserError, match="2.jpg"):
        call(monkeypatch, "--folder", images, "--out", tmp_path / "a.csv")
    picture(images / "0/2.jpg")
    call(monkeypatch, "--folder", images, "--out", tmp_path / "a.csv")
    assert len(annotations.read(tmp_path / "a.csv", 140, 70)) == 5


def test_two_ranks_share_a_folder_and_write_what_one_does(tmp_path):
    """With a network that knows nothing yet, which finds whom it finds."""
    run, images = write_run(tmp_path, 2, 2, "paf", "pose"), folder_of(tmp_path)
    command = [sys.executable, "-m", "mscgan.paf", "--estimator", run, "--folder", images, "--out"]
    codes = exit_codes(start_ranks([[*command, tmp_path / "two.csv"]] * 2, tmp_path / "logs", CUDA_VISIBLE_DEVICES=""))
    assert codes == [0, 0], logged(tmp_path / "logs")
    assert exit_codes(start_ranks([[*command, tmp_path / "one.csv"]], tmp_path / "alone", CUDA_VISIBLE_DEVICES="")) == [
        0
    ]
    assert (tmp_path / "two.csv").read_text() == (tmp_path / "one.csv").read_text()
    assert "5 images" in (tmp_path / "logs/0.out").read_text() and not (tmp_path / "logs/1.out").read_text()


def test_a_score_stands_beside_that_of_the_mean_pose(monkeypatch, tmp_path, capsys):
    shards = write_shards(tmp_path, persons=2, views=2)
    whole = poses_score.ShardSet(shards, "test")
    left = iter(whole.keypoints)
    right = iter([True, False, True, True])

    def estimate(image: np.ndarray) -> list[Person]:
        true = next(left)
        return [Person(true, np.ones(18), 1.0)] if next(right) else []

    monkeypatch.setattr(estimators, "open_estimator", lambda name: estimate)
    call(monkeypatch, "--score", shards, "--estimator", "movenet")
    printed = capsys.readouterr().out
    there = (whole.keypoints != -1).all(-1)
    counted = there[:, [1, 2, 5]].any(1) & there[:, [8, 11]].any(1)
    joints = there.sum(1) * counted
    share = joints[[0, 2, 3]].sum() / joints.sum()
    assert (
        f"movenet: {share:.3f}; nobody found in 1 images" in printed and "the mean pose of the train split" in printed
    )


def test_the_mean_pose_is_over_those_who_show_the_joint():
    keypoints = np.array([[[1, 2], [-1, -1]], [[3, 6], [-1, -1]], [[-1, -1], [-1, -1]]], np.float32)
    np.testing.assert_array_equal(poses_score.mean_pose(keypoints), [[2, 4], [-1, -1]])
