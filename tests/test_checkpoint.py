"""A checkpoint is complete or not there: kills, full disks and damaged files."""

import json
import multiprocessing
import os
import resource
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mscgan import checkpoint, dist, errors
from mscgan.errors import UserError

ALONE = dist.Ranks(0, 1, 0, 1, torch.device("cpu"))


def save(run: Path, pairs: int, keep: int = 2, tensors=None) -> None:
    checkpoint.save(run, pairs, tensors or {"w": torch.full((3,), float(pairs))}, {"pairs": pairs}, keep, ALONE)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def in_a_process(action, log: Path) -> int:
    """The exit code of `action` in a child process, which may die; what it prints to stderr goes to `log`."""

    def child():
        with log.open("w", buffering=1) as sys.stderr:
            action()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(timeout=60)
    return process.exitcode


def test_tensors_and_state_come_back_bit_for_bit(tmp_path):
    whole = torch.randn(3, 4)
    tensors = {
        "whole": whole, "transposed": whole.t(), "row": whole[1], "again": whole, "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3), "bytes": torch.get_rng_state(), "half": torch.randn(5).bfloat16(),
        "int": torch.tensor(7),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "gradient": torch.randn(2, requires_grad=True),
    }  # fmt: skip
    state = {"stage": "II", "engines": {"D.": {"step": 3, "loss_scale": 0.1}}, "list": [1, None, True]}
    checkpoint.save(tmp_path, 12_345, tensors, state, 2, ALONE)
    assert names(tmp_path) == ["pairs-000012345"]
    loaded, facts = checkpoint.load(checkpoint.newest(tmp_path))
    assert facts == state and loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype, name


def test_a_run_without_checkpoints_has_no_newest(tmp_path):
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_a_run_of_an_older_version_is_refused_and_not_taken_for_a_new_one(tmp_path):
    for name in ("images-000000016", "images-000000032"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="/images-000000032 is of an older version than this one, .*run=FOLDER"):
        checkpoint.newest(tmp_path)
    save(tmp_path, 8)
    assert checkpoint.newest(tmp_path).name == "pairs-000000008"


def test_the_last_k_are_kept_and_the_newest_is_the_furthest(tmp_path):
    for pairs in (900, 1_000, 2_000_000_000, 20_000_000_000):
        save(tmp_path, pairs, keep=3)
    assert names(tmp_path) == ["pairs-000001000", "pairs-2000000000", "pairs-20000000000"]
    assert checkpoint.newest(tmp_path).name == "pairs-20000000000"


def test_after_going_back_the_new_ones_are_not_removed_in_favour_of_higher_old_ones(tmp_path):
    for pairs in (100, 200, 300, 150):
        save(tmp_path, pairs, keep=2 if pairs == 150 else 9)
    assert names(tmp_path) == ["pairs-000000100", "pairs-000000150", "pairs-000000200", "pairs-000000300"]


def test_a_second_save_at_one_position_replaces_the_first(tmp_path):
    save(tmp_path, 64)
    save(tmp_path, 64, tensors={"w": torch.ones(1)})
    assert names(tmp_path) == ["pairs-000000064"]
    assert checkpoint.load(checkpoint.newest(tmp_path))[0]["w"].tolist() == [1]


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_half_way(*arguments):
    path = arguments[-1]
    if path.is_dir():  # rmtree's
        (path / "state.json").unlink()
    else:
        path.write_bytes(b"half")
    die()


KILLED_AT = {
    "while the tensors are written": ("save_file", dies_half_way),
    "before the files are flushed": ("_flush", die),
    "before the new folder gets its name": ("_publish", die),
    "while an old one is removed": ("shutil", SimpleNamespace(rmtree=dies_half_way)),
}


@pytest.mark.parametrize("moment", KILLED_AT)
def test_a_kill_leaves_complete_checkpoints_only(tmp_path, monkeypatch, moment):
    run = tmp_path / "run"
    save(run, 16)
    save(run, 32)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, *KILLED_AT[moment])
        assert in_a_process(lambda: save(run, 48), tmp_path / "log") == -signal.SIGKILL
    newest = 48 if moment == "while an old one is removed" else 32
    assert checkpoint.load(checkpoint.newest(run))[1] == {"pairs": newest}
    left_over = [name for name in names(run) if not name.startswith("pairs-")]
    assert len(left_over) == 1 and len(names(run)) == 3
    # The next save clears up.
    save(run, 64)
    assert names(run) == [f"pairs-{newest:09d}", "pairs-000000064"]


def test_a_full_disk_is_said_clearly_and_the_last_good_checkpoint_stays(tmp_path):
    run = tmp_path / "run"
    save(run, 16)

    def fills_the_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        errors.run(lambda: save(run, 32, tensors={"w": torch.zeros(100_000)}))

    assert in_a_process(fills_the_disk, tmp_path / "log") == 2
    message = (tmp_path / "log").read_text()
    assert message.count("\n") == 1 and message.startswith("error: checkpoint ")
    assert "pairs-000000032 could not be written" in message and "File too large" in message
    assert f"the newest complete one is {run}/checkpoints/pairs-000000016" in message
    assert names(run) == ["pairs-000000016"]
    assert checkpoint.load(checkpoint.newest(run))[1] == {"pairs": 16}


def test_a_failure_that_may_pass_is_no_mistake_of_the_users(tmp_path, monkeypatch):
    def fails(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "_flush", fails)
    with pytest.raises(RuntimeError, match="Input/output error") as caught:
        save(tmp_path, 16)
    assert not isinstance(caught.value, UserError)
    assert names(tmp_path) == []


def test_a_folder_with_a_file_missing_is_not_complete(tmp_path):
    save(tmp_path, 16)
    save(tmp_path, 32)
    (tmp_path / "checkpoints/pairs-000000032/state.json").unlink()
    assert checkpoint.newest(tmp_path).name == "pairs-000000016"


DAMAGES = ["cut tensors", "garbage tensors", "cut state", "an older schema", "a tensor too few", "gone"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_with_its_path(tmp_path, damage):
    save(tmp_path, 16, tensors={"w": torch.zeros(100), "v": torch.zeros(100)})
    path = checkpoint.newest(tmp_path)
    tensors, state = path / "tensors.safetensors", path / "state.json"
    if damage == "cut tensors":
        tensors.write_bytes(tensors.read_bytes()[:-40])
    elif damage == "garbage tensors":
        tensors.write_bytes(b"\x80\x04garbage" * 100)
    elif damage == "cut state":
        state.write_text(state.read_text()[:20])
    elif damage == "an older schema":
        state.write_text(json.dumps(json.loads(state.read_text()) | {"schema": 2}))
    elif damage == "a tensor too few":
        checkpoint.save_file({"w": torch.zeros(100)}, tensors)
    else:
        state.unlink()
    with pytest.raises(UserError) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
