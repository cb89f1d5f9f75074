"""A run whose telemetry cannot be written trains on, says so once, and loses no number that can be kept."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mscgan import curve, telemetry
from mscgan.telemetry import Telemetry
from tests.ranks import ROOT
from tests.small_disk import fill, remount, small_disk


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(telemetry.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(telemetry, "PLAIN_SECONDS", 1e9)


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def log(meter, *pairs):
    for seen in pairs:
        meter.log(meter.pace(), seen, 0, "I", {"L1_1": seen / 1000})


def pairs_of(run):
    return [json.loads(line)["pairs"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def points_of(run):
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars("loss/L1_1")]


def warnings(capfd):
    lines = capfd.readouterr().err.splitlines()
    return [line for line in lines if not line.startswith(("no CUDA device", "stage "))]


def full(disk):
    return fill(disk).unlink


def read_only(disk):
    remount(disk, "ro")
    return lambda: remount(disk, "rw")


@pytest.mark.parametrize(("strike", "reason"), [(full, "No space left"), (read_only, "Read-only file system")])
def test_a_disk_that_cannot_be_written_is_said_once_and_nothing_is_lost(disk, capfd, strike, reason):
    run = disk / "run"
    meter = Telemetry(run, 0, 1000, 0)
    log(meter, 10, 20)
    picture = Image.effect_noise((64, 64), 90).convert("RGB")
    meter.pictures(20, picture)
    mend = strike(disk)
    log(meter, *range(30, 130, 10))
    meter.pictures(120, picture)
    said = warnings(capfd)
    kinds = [line.removeprefix("warning: ").split(" cannot")[0] for line in said]
    assert len(kinds) == len(set(kinds)), said
    # On a full disk short lines may still fit into the last page of their file.
    assert set(kinds) >= {"TensorBoard", "a picture"} | (set() if strike is full else {"metrics.jsonl"}), said
    assert all(reason in line for line in said)
    mend()
    log(meter, 130)
    meter.pictures(130, picture)
    meter.close()
    assert pairs_of(run) == points_of(run) == list(range(10, 140, 10))
    assert [line for line in warnings(capfd) if "is written again, after" in line]
    assert sorted(path.name for path in (run / "samples").iterdir())[-1] == "pairs-000000130.png"


def test_what_stays_unwritten_to_the_end_is_counted(disk, capfd):
    meter = Telemetry(disk / "run", 0, 1000, 0)
    remount(disk, "ro")
    log(meter, 10, 20)
    meter.close()
    assert "warning: metrics.jsonl could not be written to the end; 3 attempts failed" in warnings(capfd)


def test_a_run_starts_on_a_full_disk_and_cuts_its_curve_when_it_can(disk, capfd):
    run = disk / "run"
    first = Telemetry(run, 0, 1000, 0)
    log(first, 10, 20, 30)
    first.close()
    remount(disk, "ro")
    second = Telemetry(run, 0, 1000, 20)
    log(second, 30)
    remount(disk, "rw")
    log(second, 40)
    second.close()
    assert pairs_of(run) == [10, 20, 30, 40]


@pytest.mark.parametrize("kind", ["tensorboard", "metrics.jsonl", "samples"])
def test_what_was_removed_is_made_anew(tmp_path, kind):
    meter = Telemetry(tmp_path, 0, 1000, 0)
    log(meter, 10)
    meter.pictures(10, Image.new("RGB", (4, 4)))
    (shutil.rmtree if (tmp_path / kind).is_dir() else os.unlink)(tmp_path / kind)
    log(meter, 20)
    meter.pictures(20, Image.new("RGB", (4, 4)))
    meter.close()
    assert pairs_of(tmp_path)[-1] == 20 and points_of(tmp_path)[-1] == 20
    assert (tmp_path / "samples/pairs-000000020.png").exists()


@pytest.mark.parametrize("kind", ["tensorboard", "metrics.jsonl", "samples"])
def test_a_thing_in_the_way_hinders_only_its_own_kind(tmp_path, capfd, kind):
    meter = Telemetry(tmp_path, 0, 1000, 0)
    path = tmp_path / kind
    if path.exists():
        path.unlink()
    os.mkdir(path) if kind == "metrics.jsonl" else path.write_text("")
    log(meter, 10, 20)
    meter.pictures(20, Image.new("RGB", (4, 4)))
    assert len(warnings(capfd)) == 1
    path.rmdir() if path.is_dir() else path.unlink()
    log(meter, 30)
    meter.close()
    assert pairs_of(tmp_path) == points_of(tmp_path) == [10, 20, 30]


def test_a_log_on_a_full_disk_ends_no_training(tmp_path):
    script = (
        "import sys\n"
        "from mscgan.telemetry import Telemetry\n"
        "meter = Telemetry(sys.argv[1], 0, 1000, 0)\n"
        "for pairs in (10, 20):\n"
        "    meter.step(10, 0.0, 'I'); meter.say('hello'); meter.log(meter.pace(), pairs, 0, 'I', {})\n"
        "meter.close()\n"
    )
    with open("/dev/full", "w") as full_log:
        command = [sys.executable, "-c", script, str(tmp_path)]
        assert subprocess.run(command, stderr=full_log, cwd=ROOT, timeout=120).returncode in (0, 120)  # 120: at the end
    assert pairs_of(tmp_path) == [10, 20]


OWN = '{"pairs": 100, "steps": 5, "epoch": 0, "stage": "I", "L1_1": null, "seconds": 9.5}\n'
FOREIGN = [
    '{"pairs": 50, "stage": "I"}', '{"pairs": "50", "stage": "I", "seconds": 1}', "[1, 2]", "null", "hello",
    "[" * 10**5,
    '{"pairs": 50, "stage": "I", "seconds": 1' + "0" * 400 + "}", '{"pairs": 1' + "0" * 5000 + "}",
    '{"pairs": 50, "stage": "I", "seconds": NaN}', '{"pairs": 50, "stage": "I", "seconds": 1, "L1_1": [2]}', "\xff",
]  # fmt: skip


def test_foreign_lines_are_kept_aside_and_said_in_one_line(tmp_path, capfd):
    foreign = "".join(line + "\n" for line in FOREIGN).encode("latin-1")
    (tmp_path / "metrics.jsonl").write_bytes(OWN.encode() + foreign + b"\n" + b'{"pairs": 100, "st')
    meter = Telemetry(tmp_path, 0, 1000, 100)
    assert [line for line in warnings(capfd) if "not a run's" in line] == [
        f"warning: {len(FOREIGN)} lines of {tmp_path}/metrics.jsonl are not a run's; they are now in "
        f"{tmp_path}/metrics.jsonl.foreign"
    ]
    assert (tmp_path / "metrics.jsonl").read_text() == OWN
    assert (tmp_path / "metrics.jsonl.foreign").read_bytes() == foreign
    log(meter, 110)
    meter.close()
    assert curve.read(tmp_path / "metrics.jsonl")[-1]["seconds"] > 9.5
    Telemetry(tmp_path, 0, 1000, 110).close()
    assert not [line for line in warnings(capfd) if "not a run's" in line]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/null", path)])
def test_what_is_no_file_moves_aside(tmp_path, capfd, make):
    make(tmp_path / "metrics.jsonl")
    meter = Telemetry(tmp_path, 0, 1000, 0)
    log(meter, 10)
    meter.close()
    assert pairs_of(tmp_path) == [10]
    (warning,) = warnings(capfd)
    assert warning == f"warning: {tmp_path}/metrics.jsonl is no file; it is now {tmp_path}/metrics.jsonl.foreign"
