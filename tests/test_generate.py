"""The generate command: what is written, and what is said to mistakes, on a small untrained run.

The estimator is a tiny one, in sight: it finds whoever it is told to. Real ones have tests of their own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mscgan import generate, results, trained
from mscgan.errors import UserError, run
from mscgan.estimators import Person
from mscgan.framing import person_box, place
from mscgan.generate import main
from mscgan.pictures import to_uint8
from tests.pose_factory import BODY_25, COCO_17, expected, flat, standing, triples
from tests.run_factory import write_run

POSE = standing(64, 32)
TEXT = json.dumps(POSE.tolist())
OPENPOSE = json.dumps({"people": [{"pose_keypoints_2d": flat(triples(BODY_25))}]})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of an untrained run of the demo's size; its shards lie beside it."""
    return write_run(tmp_path_factory.mktemp("generate"), persons=3, views=2)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The current folder, with a photograph of somebody, me.png, of the model's size."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(8).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("me.png")
    return tmp_path


@pytest.fixture
def finds(monkeypatch):
    """Says whom the estimator finds in every photograph, and how often one was opened."""
    opened: list[str] = []

    def people(*keypoints: np.ndarray) -> list[str]:
        found = [Person(points.astype(np.float32), np.ones(18, np.float32), 1.0) for points in keypoints]
        monkeypatch.setattr(generate, "open_estimator", lambda name: (opened.append(name), lambda image: found)[1])
        return opened

    return people


def exit_code(monkeypatch, *words: object) -> int:
    """Of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["generate", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        run(main)
    return left.value.code or 0


def answer(made: Path, pixels: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    images = trained.load(made).images(torch.from_numpy(pixels)[None], torch.from_numpy(keypoints)[None])
    return to_uint8(images["stage II"])[0].astype(int)


def opened(path: Path | str) -> np.ndarray:
    return np.array(Image.open(path))


def test_the_command_puts_a_persons_own_image_into_a_pose(made, here):
    Path("pose.json").write_text(TEXT)
    words = ["--run", made, "--image", "me.png", "--keypoints", here / "pose.json"]
    done = subprocess.run(
        [sys.executable, "-m", "mscgan.generate", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    out = made / "me-as-pose.png"
    assert (done.returncode, done.stdout) == (0, f"{out}\n{made}/shown/me-as-pose.png\n")
    assert done.stderr == f"{here}/pose.json, 18 of 18 joints: a list of OpenPose's 18 joints ([x, y])\n"
    # Another number of threads may round otherwise.
    assert abs(opened(out) - answer(made, opened("me.png"), POSE)).max() <= 1


def test_the_picture_beside_shows_source_pose_and_result(made, here, monkeypatch):
    assert exit_code(monkeypatch, "--run", made, "--image", "me.png", "--keypoints", TEXT, "--out", "a.png") == 0
    beside = opened("shown/a.png")
    cells = [beside[48 : 48 + 256, 4 + 132 * i : 4 + 132 * i + 128] for i in range(3)]
    for cell, path in ((cells[0], "me.png"), (cells[2], "a.png")):
        small = np.array(Image.fromarray(cell).resize((32, 64), Image.Resampling.BOX), int)
        assert abs(small - opened(path)).mean() < 30  # of another image: 72
    x, y = (POSE[10] * 4 + 1.5).astype(int)  # the right ankle
    assert cells[1][y, x].max() > 150 and cells[1][:8].max() == 0


def test_an_own_image_takes_the_pose_of_another(made, here, monkeypatch, capsys, finds):
    opened_names = finds(expected() + [100, 0])
    Image.new("RGB", (300, 220), "green").save("other.jpg")
    words = ["--image", "me.png", "--pose-of", "other.jpg", "--estimator", "paf", "--out", "a.png"]
    assert exit_code(monkeypatch, "--run", made, *words) == 0
    assert opened_names == ["paf"]
    keypoints = place(expected() + [100, 0], person_box(expected() + [100, 0], 64, 32), 64, 32)
    assert abs(opened("a.png") - answer(made, opened("me.png"), keypoints)).max() <= 1
    assert "other.jpg, 18 of 18 joints; taken from the box" in capsys.readouterr().err
    pose = opened("shown/a.png")[48 : 48 + 256, 136 : 136 + 128]
    assert pose[5, 5].tolist() == pytest.approx([0, 77, 0], abs=3)  # drawn on the photograph, darkened


def test_a_second_pose_never_takes_the_place_of_the_first(made, here, monkeypatch, capsys):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "wave.json").write_text(TEXT if folder == "a" else OPENPOSE)
    for given in ("a/wave.json", "b/wave.json", TEXT, OPENPOSE):
        words = ["--image", "me.png", "--keypoints", given, "--out", "new"]
        assert exit_code(monkeypatch, "--run", made, *words) == 0
    names = ["me-as-wave.png", "me-as-wave-2.png", "me-as-pose-1.png", "me-as-pose-1-2.png"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[::2] == [f"new/{name}" for name in names]
    assert printed[1::2] == [f"new/shown/{name}" for name in names]
    first, second = opened("new/me-as-wave.png"), opened("new/me-as-wave-2.png")
    assert (opened("new/me-as-pose-1.png") == first).all() and (first != second).any()
    words = ["--image", "me.png", "--keypoints", "a/wave.json", "b/wave.json", "--out", "both"]
    assert exit_code(monkeypatch, "--run", made, *words) == 0
    assert (opened("both/me-as-wave.png") == first).all() and (opened("both/me-as-wave-2.png") == second).all()


def test_many_poses_are_a_picture_each_or_one_side_by_side(made, here, monkeypatch, capsys, finds):
    finds(expected())
    Path("photos").mkdir()
    for name in ("b.jpg", "a.png", ".hidden.png", "notes.md"):
        (Path("photos") / name).write_bytes(b"")
        if name[-2:] != "md":
            Image.new("RGB", (120, 220)).save(Path("photos") / name)
    ys, xs = (POSE[:, axis].tolist() for axis in (1, 0))
    Path("p.csv").write_text("name:keypoints_y:keypoints_x\n" + "".join(f"c{i}.jpg: {ys}: {xs}\n" for i in range(20)))
    words = ["--image", "me.png", "--pose-of", "photos", "p.csv", "--keypoints", TEXT]
    assert exit_code(monkeypatch, "--run", made, *words, "--out", "many") == 0
    names = ["a", "b", *(f"c{i}" for i in range(20)), "pose-23"]
    assert capsys.readouterr().out.splitlines()[::2] == [f"many/me-as-{name}.png" for name in names]
    assert exit_code(monkeypatch, "--run", made, *words, "--out", "strip.png") == 0
    said = capsys.readouterr()
    assert said.out == "strip.png\n"
    assert said.err.count("\n") == 8 and "... and 16 more" in said.err
    strip = opened("strip.png")
    assert strip.shape == (24 + 2 * 260, 4 + 24 * 132, 3)
    last = strip[24 + 260 : 24 + 260 + 256, 4 + 23 * 132 : 4 + 23 * 132 + 128]
    small = np.array(Image.fromarray(last).resize((32, 64), Image.Resampling.BOX), int)
    assert abs(small - opened("many/me-as-pose-23.png")).mean() < 6


def test_what_shows_nobody_is_left_out_of_several_and_said(made, here, monkeypatch, capsys, finds):
    finds(expected())
    Path("poses").mkdir()
    Path("poses/1.json").write_text(TEXT)
    Path("poses/2.json").write_text('{"people": []}')
    words = ["--run", made, "--image", "me.png", "--keypoints", "poses", "--out", "new"]
    assert exit_code(monkeypatch, *words) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[::2] == ["new/me-as-1.png"]
    assert "left out: poses/2.json is OpenPose JSON and has nobody with a joint" in said.err
    Path("poses/1.json").unlink()
    assert exit_code(monkeypatch, *words) == 2
    assert "error: poses/2.json is OpenPose JSON and has nobody" in capsys.readouterr().err


def test_a_photograph_of_nobody_is_left_out_of_several_too(made, here, monkeypatch, capsys, finds):
    one_joint = np.full((18, 2), -1)
    one_joint[0] = 5
    finds(one_joint)
    Image.new("RGB", (120, 220)).save("a.jpg")
    words = ["--run", made, "--image", "me.png", "--pose-of", "a.jpg", "--out", "new"]
    assert exit_code(monkeypatch, *words) == 2
    assert "error: a.jpg: 1 of 18 joints were found" in capsys.readouterr().err
    assert exit_code(monkeypatch, *words, "--keypoints", TEXT) == 0
    assert "left out: a.jpg: 1 of 18 joints were found" in capsys.readouterr().err


def test_every_picture_with_too_few_people_is_named_and_none_is_taken_for_another(
    made, here, monkeypatch, capsys, finds
):
    monkeypatch.setattr(trained, "load", lambda folder: pytest.fail("the networks were built"))
    finds(expected())
    Image.new("RGB", (120, 220)).save("one.jpg")
    Path("one.json").write_text(TEXT)
    Path("two.json").write_text(json.dumps([POSE.tolist(), (POSE * 0.5).tolist()]))
    image = {"image_id": "a.jpg", "keypoints": flat(triples(COCO_17))}
    Path("film.json").write_text(
        json.dumps([image, image, *(image | {"image_id": name} for name in ("b.jpg", "c.jpg"))])
    )
    Path("nobody.json").write_text('{"people": []}')
    words = ["--image", "me.png", "--keypoints", "two.json", "one.json", "film.json", "nobody.json"]
    assert exit_code(monkeypatch, "--run", made, *words, "--pose-of", "one.jpg", "--person", 2) == 2
    shown = ["one.jpg", "one.json", "film.json, b.jpg", "film.json, c.jpg"]
    assert capsys.readouterr().err == (
        f"error: {', '.join(f'{name} shows 1 person' for name in shown)}; there is no person 2; leave these away, or "
        "take their poses with another --person in a command of its own\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        [*"--image me.png --out me.png".split()],
        [*"--image me.png --out ./folder/../me.png".split()],
        [*"--image shown/me2.png --out me2.png".split()],
        [*"--image shown/me.png --out link.png".split()],
    ],
)
def test_what_the_command_reads_is_never_written_over(made, here, monkeypatch, capsys, words):
    monkeypatch.setattr(trained, "load", lambda folder: pytest.fail("the networks were built"))
    Path("folder").mkdir()
    Path("shown").mkdir()
    for name in ("me.png", "me2.png"):
        Image.new("RGB", (120, 220)).save(Path("shown", name))
    Path("link.png").symlink_to("shown/me.png")
    before = {path: path.read_bytes() for path in Path().rglob("*.png")}
    assert exit_code(monkeypatch, "--run", made, *words, "--keypoints", TEXT) == 2
    assert "would be written over, which this command reads; give another place" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().rglob("*.png")} == before


def test_a_name_that_means_two_poses_of_a_file_is_refused(made, here, monkeypatch, capsys):
    ys, xs = (POSE[:, axis].tolist() for axis in (1, 0))
    Path("p.csv").write_text("".join(f"{name}: {ys}: {xs}\n" for name in ("a/1.jpg", "b/1.jpg", "2.jpg", "2.jpg")))
    for name, names in (("1", "a/1.jpg, b/1.jpg"), ("2.jpg", "2.jpg, 2.jpg")):
        words = ["--image", "me.png", "--keypoints", "p.csv", "--name", name, "--out", "new"]
        assert exit_code(monkeypatch, "--run", made, *words) == 2
        assert f"error: p.csv has 2 poses that --name {name} means, {names}; give" in capsys.readouterr().err
    words = ["--image", "me.png", "--keypoints", "p.csv", "--name", "b/1.jpg", "--out", "new"]
    assert exit_code(monkeypatch, "--run", made, *words) == 0


def test_one_image_of_a_csv_is_taken_by_its_name(made, here, monkeypatch, capsys):
    ys, xs = (POSE[:, axis].tolist() for axis in (1, 0))
    Path("p.csv").write_text("".join(f"c{i}.jpg: {ys}: {xs}\n" for i in range(3)))
    words = ["--image", "me.png", "--keypoints", "p.csv", "--name", "c1.jpg", "--out", "new"]
    assert exit_code(monkeypatch, "--run", made, *words) == 0
    assert capsys.readouterr().out.splitlines()[0] == "new/me-as-c1.png"


def test_the_image_is_cut_to_the_person_or_to_a_box(made, here, monkeypatch, capsys, finds):
    finds(expected() / 4, expected() + [100, 0])
    pixels = np.zeros((220, 300, 3), np.uint8)
    pixels[:, 100:200] = (0, 0, 255)  # where the person is
    Image.fromarray(pixels).save("wide.png")
    left, top, right, bottom = person_box(expected() + [100, 0], 64, 32)
    words = ["--run", made, "--image", "wide.png", "--keypoints", TEXT]
    assert exit_code(monkeypatch, *words, "--crop", "auto", "--out", "auto.png") == 0
    said = capsys.readouterr().err
    box = f"{left:.0f},{top:.0f},{right:.0f},{bottom:.0f}"
    assert f"taken from the box {box} around the person, the largest of 2; another by --box" in said
    assert (opened("shown/auto.png")[60:300, 10:120] == (0, 0, 255)).all()
    assert exit_code(monkeypatch, *words, "--box", f"{left},{top},{right},{bottom}", "--out", "box.png") == 0
    assert (opened("auto.png") == opened("box.png")).all()
    assert exit_code(monkeypatch, *words, "--out", "whole.png") == 0
    assert "best crop it to the person" in capsys.readouterr().err
    assert (opened("auto.png") != opened("whole.png")).any()


def test_a_box_may_begin_left_of_the_photograph(made, here, monkeypatch):
    words = ["--run", made, "--image", "me.png", "--keypoints", TEXT, "--out", "a.png"]
    assert exit_code(monkeypatch, *words, "--box", "-16,-32,48,96") == 0
    x = opened("shown/a.png")[48 : 48 + 256, 4 : 4 + 128]
    assert (x[:60, 64] == x[0, 64]).all()  # its edges are repeated


def test_a_box_is_in_pixels_of_the_file_also_where_that_is_reduced(made, here, monkeypatch):
    large = np.zeros((4400, 6000, 3), np.uint8)
    large[2000:4000, 3000:4000] = (0, 0, 255)
    Image.fromarray(large).save("large.jpg", quality=95)
    words = ["--image", "large.jpg", "--keypoints", TEXT, "--box", "3000,2000,4000,4000", "--out", "a.png"]
    assert exit_code(monkeypatch, "--run", made, *words) == 0
    source = opened("shown/a.png")[48 : 48 + 256, 4 : 4 + 128]
    assert source[..., 2].min() > 200 and source[8:-8, 8:-8, 2].min() > 240


def test_the_command_writes_a_grid_of_pairs(made, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "grid.png"
    assert exit_code(monkeypatch, "--run", made, "--pairs", 2, "--split", "train", "--out", out) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as picture:
        assert picture.size == (4 + 5 * 132, 48 + 2 * 260)  # a title, the columns, two rows


def test_the_command_says_what_it_did_to_an_image_of_another_size(made, here, monkeypatch, capsys):
    Image.new("RGB", (64, 128)).save("large.png")
    words = ["--image", "large.png", "--keypoints", TEXT, "--out", "out.png"]
    assert exit_code(monkeypatch, "--run", made, *words) == 0
    assert "large.png is 64x128 (width x height): scaled to 32x64\n" in capsys.readouterr().err
    with Image.open("out.png") as picture:
        assert picture.size == (32, 64)


MINE = ["--image", "me.png", "--keypoints"]
GIVE = "give --image with --pose-of or --keypoints, or --pairs alone"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([*MINE, "[[1, 2], [3, 4]]"], "the pose: it has 2 keypoints; expected"),
        (["--image", "other.png", "--keypoints", TEXT], "no image 'other.png'"),
        (["--image", "me.png"], GIVE),
        (["--pairs", "2", *MINE, "[]"], GIVE),
        (["--pairs", "2", "--keypoints", "[]"], GIVE),
        (["--pairs", "2", "--crop", "auto"], "--crop does nothing here: it goes with --image; leave it away"),
        (["--pairs", "2", "--box", "1,2,9,9"], "--box does nothing here: it goes with --image"),
        (["--pairs", "2", "--person", "1"], "--person does nothing here: it goes with --image"),
        (["--pairs", "2", "--name", "a"], "--name does nothing here: it goes with --keypoints, or a file of poses"),
        (["--pairs", "2", "--any-pose"], "--any-pose does nothing here: it goes with --keypoints"),
        (["--pairs", "2", "--estimator", "movenet"], "--estimator does nothing here: it goes with --pose-of PHOTO or"),
        ([*MINE, TEXT, "--estimator", "paf"], "--estimator does nothing here: it goes with --pose-of PHOTO or --crop"),
        ([*MINE, TEXT, "--split", "test"], "--split does nothing here: it goes with --pairs"),
        ([*MINE, TEXT, "--data", "shards"], "--data does nothing here: it goes with --pairs"),
        (["--image", "me.png", "--pose-of", "me.png", "--name", "b"], "--name does nothing here: it goes with --keyp"),
        (["--image", "me.png", "--pose-of", "me.png", "--any-pose"], "--any-pose does nothing here: it goes with"),
        ([*MINE, TEXT, "--person", "0"], "--person 0: the largest person is 1"),
        (["--pairs", "2", "--out", "a.jpg"], "--out a.jpg: pictures are written as PNG"),
        (["--pairs", "2", "--out", "me.png/a.png"], "cannot write me.png/a.png"),
        (["--pairs", "2", "--out", "folder.png"], "folder.png is a folder"),
        (["--pairs", "2", "--data", "shards"], "no shard folder 'shards'"),
        ([*MINE, "pose.json"], "no pose file 'pose.json'"),
        ([*MINE, TEXT, "--out", "a.jpg"], "--out a.jpg: give a name that ends with .png, or a folder"),
        ([*MINE, TEXT, "--out", "me.png/new"], "cannot write me.png/new/me-as-pose-1.png ("),
        ([*MINE, *[TEXT] * 51, "--out", "a.png"], "51 poses for one picture, where 50 are the most; give a folder"),
        ([*MINE, "empty"], "empty has no pose file in it, but nothing; give a"),
        (["--image", "me.png", "--pose-of", "empty"], "empty has no photograph in it, but nothing; give a"),
        (["--image", "me.png", "--pose-of", "gone.jpg"], "no image 'gone.jpg'"),
        (["--image", "me.png", "--pose-of", "me.png"], "nobody was found in me.png; give a photograph that shows"),
        ([*MINE, TEXT, "--crop", "auto"], "nobody was found in me.png"),
        ([*MINE, TEXT, "--person", "2"], "the pose shows 1 person; there is no person 2"),
        ([*MINE, TEXT, "--name", "a.jpg"], "the pose has no image 'a.jpg'"),
        ([*MINE, TEXT, "--box", "40,0,80,80"], "has nothing of the 32x64 photograph in it"),
        (["--pairs", "2", "--run", "nothing"], "no run folder 'nothing'; give the folder of a run"),
        (["--pairs", "99"], "99 pairs asked for"),
        (["--pairs", "2", "--split", "validation"], "has no split 'validation'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(made, here, monkeypatch, capsys, finds, words, reason):
    finds()
    monkeypatch.setattr(trained, "load", lambda folder: pytest.fail("the networks were built"))
    Path("folder.png").mkdir()
    Path("empty").mkdir()
    assert exit_code(monkeypatch, "--run", made, *words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and reason in said.err and said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("1,2,3", "expected LEFT,TOP,RIGHT,BOTTOM"),
        ("9,0,3,5", "LEFT must be a pixel or more below"),
        ("0,0,nan,5", "LEFT must be a pixel or more below"),
        ("0,0,0.5,5", "LEFT must be a pixel or more below"),
    ],
)
def test_a_box_that_is_none_is_refused(made, here, monkeypatch, capsys, box, reason):
    assert exit_code(monkeypatch, "--run", made, "--image", "me.png", "--keypoints", TEXT, "--box", box) == 2
    assert reason in capsys.readouterr().err


def test_what_the_estimator_lacks_is_said_before_the_networks_are_built(made, here, monkeypatch, capsys):
    def lacks(name: str):
        raise UserError(f"no weights of {name}")

    monkeypatch.setattr(generate, "open_estimator", lacks)
    monkeypatch.setattr(trained, "load", lambda folder: pytest.fail("the networks were built"))
    assert exit_code(monkeypatch, "--run", made, "--image", "me.png", "--pose-of", "me.png") == 2
    assert capsys.readouterr().err == "error: no weights of movenet\n"


def test_a_full_disk_is_said_and_keeps_what_is_there(made, here, monkeypatch, capsys):
    saved = []

    def full(picture, path):
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        saved.append(path)

    monkeypatch.setattr(results, "save_png", full)
    words = ["--image", "me.png", "--keypoints", TEXT, TEXT, "--out", "new"]
    assert exit_code(monkeypatch, "--run", made, *words) == 2
    said = capsys.readouterr()
    assert said.out == "new/me-as-pose-1.png\nnew/shown/me-as-pose-1.png\n"
    assert "error: cannot write new/me-as-pose-2.png (No space left on device)" in said.err
