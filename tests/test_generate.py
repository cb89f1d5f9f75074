"""The generate command: what is written, and what is said to mistakes, on a small untrained run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mscgan import trained
from mscgan.errors import run
from mscgan.generate import main
from mscgan.pictures import to_uint8
from tests.run_factory import points, write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of an untrained run of the demo's size; its shards lie beside it."""
    return write_run(tmp_path_factory.mktemp("generate"), persons=3, views=2)


def test_the_command_puts_a_persons_own_image_into_a_pose(made, tmp_path):
    pixels = np.random.default_rng(8).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "me.png")
    (tmp_path / "pose.json").write_text(json.dumps(points()[0].tolist()))
    words = ["--run", made, "--image", tmp_path / "me.png", "--keypoints", tmp_path / "pose.json"]
    done = subprocess.run(
        [sys.executable, "-m", "mscgan.generate", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
    )
    out = made / "me-in-new-pose.png"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\n", "")
    images = trained.load(made).images(torch.from_numpy(pixels)[None], torch.from_numpy(points()))
    difference = np.array(Image.open(out)).astype(int) - to_uint8(images["stage II"])[0]
    assert abs(difference).max() <= 1  # another number of threads may round otherwise


def exit_code(monkeypatch, *words: object) -> int:
    """Of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["generate", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        run(main)
    return left.value.code or 0


def test_the_command_writes_a_grid_of_pairs(made, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "grid.png"
    assert exit_code(monkeypatch, "--run", made, "--pairs", 2, "--split", "train", "--out", out) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as picture:
        assert picture.size == (4 + 5 * 132, 48 + 2 * 260)  # a title, the columns, two rows


def test_the_command_says_what_it_did_to_an_image_of_another_size(made, tmp_path, monkeypatch, capsys):
    Image.new("RGB", (64, 128)).save(tmp_path / "me.png")
    words = ["--keypoints", json.dumps(points()[0].tolist()), "--out", tmp_path / "out.png"]
    assert exit_code(monkeypatch, "--run", made, "--image", tmp_path / "me.png", *words) == 0
    assert "me.png is 64x128 (width x height): scaled to 32x64\n" in capsys.readouterr().err
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (32, 64)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--image", "me.png", "--keypoints", "[[1, 2], [3, 4]]"], "the pose has 2 keypoints; expected"),
        (["--image", "other.png", "--keypoints", "[[1, 2], [3, 4]]"], "no image 'other.png'"),
        (["--image", "me.png"], "give --image with --keypoints, or --pairs alone"),
        (["--pairs", "2", "--image", "me.png", "--keypoints", "[]"], "give --image with --keypoints, or --pairs alone"),
        (["--pairs", "2", "--out", "a.jpg"], "--out a.jpg: pictures are written as PNG"),
        (["--pairs", "2", "--out", "me.png/a.png"], "cannot write me.png/a.png"),
        (["--pairs", "2", "--out", "folder.png"], "folder.png is a folder"),
        (["--pairs", "2", "--data", "shards"], "no shard folder 'shards'"),
        (["--image", "me.png", "--keypoints", "pose.json"], "no pose file 'pose.json'"),
        (["--pairs", "2", "--run", "nothing"], "no run folder 'nothing'; give the folder of a run"),
        (["--pairs", "99"], "99 pairs asked for"),
        (["--pairs", "2", "--split", "validation"], "has no split 'validation'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(made, tmp_path, monkeypatch, capsys, words, reason):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trained, "load", lambda folder: pytest.fail("the networks were built"))
    Path("folder.png").mkdir()
    Image.new("RGB", (32, 64)).save("me.png")
    assert exit_code(monkeypatch, "--run", made, *words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and reason in said.err and said.err.count("\n") == 1
