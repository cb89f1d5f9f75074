"""The writer: plain WebDataset that DALI indexes alike, the same bytes for any number of processes, safe to kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wds2idx import IndexCreator

from mscgan.errors import UserError
from shards import write as writer
from shards.build import main as build
from shards.parallel import stoppable
from shards.synthetic import plan
from shards.verify import verify
from shards.write import write

ROOT = Path(__file__).parents[1]
TEN_PEOPLE = {"people": 10, "views": 4, "seed": 0, "height": 64, "width": 32, "test_pairs": 20}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """32 train images in 3 tars (12, 12, 8) and 8 test images."""
    folder = tmp_path_factory.mktemp("shards") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "IMAGES_PER_TAR", 12)
        assert write(plan(**TEN_PEOPLE), folder, workers=1)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_is_whole_and_faultless(shards):
    assert verify(shards, workers=1) == (
        [],
        [
            ("train", 3, 32, 8, 96, pytest.approx(sum(p.stat().st_size for p in shards.glob("train*.tar")) / 1e6)),
            ("test", 1, 8, 2, 20, pytest.approx((shards / "test-00000.tar").stat().st_size / 1e6)),
        ],
    )
    assert {path.suffix for path in shards.iterdir()} == {".tar", ".idx", ".npy", ".json"}  # nothing temporary left


def test_the_index_is_that_of_dali(shards, tmp_path):
    for tar in shards.glob("*.tar"):
        with IndexCreator(str(tar), str(tmp_path / "of_dali.idx"), verbose=False) as creator:
            creator.create_index()
        assert (tmp_path / "of_dali.idx").read_bytes() == tar.with_suffix(".idx").read_bytes()


def test_webdataset_reads_the_tars_and_the_pair_table_counts_their_images(shards):
    import webdataset

    tars = sorted(map(str, shards.glob("train-*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"p{p:05d}_v{v:03d}" for p in range(8) for v in range(4)]
    for sample in samples:
        assert sample["jpg"].shape == (64, 32, 3) and np.shape(sample["json"]["keypoints"]) == (18, 2)
        assert sample["json"]["split"] == "train" and sample["__key__"].startswith(sample["json"]["person"])
    pairs = np.load(shards / "train-pairs.npy")
    assert pairs.dtype == np.int32 and pairs.max() == len(samples) - 1
    images = np.load(shards / "train-images.npy")
    for row, sample in zip(images, samples, strict=True):
        about = sample["json"]
        assert (row["name"].decode(), row["person"].decode()) == (about["name"], about["person"])
        assert np.array_equal(row["keypoints"], np.float32(about["keypoints"]))


def test_any_number_of_processes_writes_the_same_bytes(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "IMAGES_PER_TAR", 12)
    write(plan(**TEN_PEOPLE), tmp_path / "out", workers=2)
    assert contents(tmp_path / "out") == contents(shards)


def test_a_person_is_not_cut_by_the_end_of_a_tar(monkeypatch):
    monkeypatch.setattr(writer, "IMAGES_PER_TAR", 10)
    images = [
        writer.Image(f"{person}{i}", person, None)
        for person, n in (("a", 4), ("b", 8), ("c", 25), ("d", 1))
        for i in range(n)
    ]
    tars = ["".join(image.person for image in part) for _, part in writer._tars("train", images)]
    assert tars == ["aaaa", "bbbbbbbb", "c" * 10, "c" * 10, "ccccc" + "d"]


def test_a_killed_build_goes_on_and_keeps_its_whole_tars(shards, tmp_path, monkeypatch):
    out = tmp_path / "out"
    script = (
        "import time; from shards import write as w; from shards.synthetic import plan, person\n"
        "w.IMAGES_PER_TAR = 12; whole = w._write_tar\n"
        "def slow(out, tar, split, images, samples, bar):\n"
        "    return whole(out, tar, split, images, (time.sleep(0.1) or s for s in samples), bar)\n"
        f"w._write_tar = slow; w.write(plan(**{TEN_PEOPLE}), w.Path({str(out)!r}), 1)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob(".train-00002.tar.*.tmp")):  # two tars are whole, the third begun
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists()
    with pytest.raises(UserError, match="no manifest.json"):
        verify(out, workers=1)

    kept = (out / "train-00000.tar").stat()
    damaged = out / "train-00001.tar"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    monkeypatch.setattr(writer, "IMAGES_PER_TAR", 12)
    write(plan(**TEN_PEOPLE), out, workers=1)
    assert contents(out) == contents(shards)
    assert (out / "train-00000.tar").stat().st_ino == kept.st_ino
    assert (out / "train-00000.tar").stat().st_mtime_ns == kept.st_mtime_ns


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_build_says_one_line_and_leaves_no_process(tmp_path, number, code):
    command = [sys.executable, "shards/build.py", "synthetic", "--people", "400", "--workers", "2", "--out", tmp_path]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".train-*.tmp")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    said = process.communicate(timeout=120)[1].replace("\r", "\n").splitlines()  # ends when the last process does
    assert process.returncode == code
    if number == signal.SIGINT:
        lines = [line for line in said if line and "image" not in line]
        assert lines == ["stopped; the same command goes on from the last finished tar"]
    assert not (tmp_path / "manifest.json").exists()


def test_term_ends_in_a_line_too(capsys):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert stoppable(lambda: os.kill(os.getpid(), signal.SIGTERM), "go on") == 143
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "stopped; go on\n"


def test_the_same_build_again_does_nothing_and_another_is_refused(shards, monkeypatch):
    monkeypatch.setattr(writer, "IMAGES_PER_TAR", 12)
    before = {path.name: path.stat().st_mtime_ns for path in shards.iterdir()}
    assert not write(plan(**TEN_PEOPLE), shards, workers=1)
    with pytest.raises(UserError, match="another configuration"):
        write(plan(**{**TEN_PEOPLE, "seed": 1}), shards, workers=1)
    assert {path.name: path.stat().st_mtime_ns for path in shards.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "remade"),
    [
        ("train-images.npy", 0),
        ("test-pairs.npy", 0),
        ("train-00001.tar", 12),
        ("train-00001.idx", 12),
    ],
)
@pytest.mark.parametrize("how", ["missing", "longer", "other bytes"])
def test_what_is_damaged_of_a_finished_build_is_made_again_and_nothing_else(
    shards, tmp_path, monkeypatch, capsys, name, remade, how
):
    monkeypatch.setattr(writer, "IMAGES_PER_TAR", 12)
    out, made = shutil.copytree(shards, tmp_path / "out"), []
    data = (out / name).read_bytes()
    (out / name).unlink()
    if how != "missing":
        (out / name).write_bytes(data + b"x" if how == "longer" else data[:-1] + b"\1")
    again = plan(**TEN_PEOPLE)
    assert write(replace(again, make=lambda recipe: made.append(recipe) or again.make(recipe)), out, workers=1)
    assert contents(out) == contents(shards) and len(made) == remade
    assert f"{out}/{name} " in (said := capsys.readouterr().err) and ": it is made again\n" in said
    assert not write(again, out, workers=1)


@pytest.mark.parametrize("text", ["{", json.dumps({"schema": 1})])
def test_a_manifest_that_says_nothing_is_refused_in_a_line(shards, tmp_path, text):
    out = shutil.copytree(shards, tmp_path / "out")
    (out / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="manifest.json: .*; give --out a new folder, or remove that one first"):
        write(plan(**TEN_PEOPLE), out, workers=1)
    assert (out / "manifest.json").read_text() == text


@pytest.mark.parametrize("other", [{"people": 3}, {"height": 128}, {"width": 64}])
def test_a_half_made_build_of_another_configuration_is_refused(other, tmp_path):
    source = plan(**TEN_PEOPLE).source
    (tmp_path / ".build").mkdir()
    (tmp_path / ".build/plan.json").write_text(json.dumps({"source": source | other}))
    with pytest.raises(UserError, match=f"another configuration .*{next(iter(other))}"):
        write(plan(**TEN_PEOPLE), tmp_path, workers=1)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        write(plan(**TEN_PEOPLE), tmp_path, workers=1)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_two_builds_at_once_are_refused(tmp_path):
    with writer._claimed(tmp_path, plan(**TEN_PEOPLE)):
        with pytest.raises(UserError, match="another build is writing"):
            write(plan(**TEN_PEOPLE), tmp_path, workers=1)


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "x" * 91])
def test_a_name_that_is_no_key_is_refused(tmp_path, key):
    made = plan(**TEN_PEOPLE)
    made.splits["train"].images[0] = writer.Image(key, "a", None)
    with pytest.raises(UserError, match="cannot be a key"):
        write(made, tmp_path / "out", workers=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("market1501 --images . --annotations a.csv --seed 1", "--seed does nothing here: it goes with --sample"),
        (
            "folder --images . --estimator paf --any-pose --person folder --height 64 --width 32",
            "--any-pose does nothing here: it goes with --annotations",
        ),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path, monkeypatch, words, said):
    monkeypatch.setattr("sys.argv", ["build.py", *words.split(), "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match=said):
        build()


def test_the_command_builds_synthetic_shards(tmp_path, monkeypatch, capsys):
    arguments = "synthetic --people 2 --views 2 --height 64 --width 64 --workers 1 --out".split()
    monkeypatch.setattr("sys.argv", ["build.py", *arguments, str(tmp_path / "out")])
    build()
    assert "4 images of 64x64, 2 train pairs, 2 test pairs" in capsys.readouterr().out
    assert verify(tmp_path / "out", workers=1)[0] == []
