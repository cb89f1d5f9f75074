"""A checkpoint is whole, verified and named, or not there: kills, full disks, every kind of damage."""

import errno
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mscgan import checkpoint
from mscgan.checkpoint import Damaged, Piece
from mscgan.errors import UserError

DOES_NOT_MATTER = {"a": torch.arange(3.0)}


def save(run: Path, pairs: int, keep: int = 2, tensors=None, generator=None) -> list[str]:
    """What mscgan/saving.py does in its thread, for a run of one rank."""
    final = checkpoint.folder(run, pairs)
    partial = final.with_name(checkpoint.WRITING + final.name)
    tensors = tensors or {"w": torch.full((3,), float(pairs))}
    pieces = {name: Piece(tensor, list(tensor.shape)) for name, tensor in tensors.items()}
    share = checkpoint.write(partial, 0, pieces, generator or DOES_NOT_MATTER, "II", 0)
    return checkpoint.publish(partial, pairs, {"pairs": pairs, "stage": "II"}, [share], keep)


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """As a start does: everything is verified first."""
    found = checkpoint.document(path)
    checkpoint.verify(path, found["files"], found)
    return checkpoint.load(path, found), found["state"]


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def in_a_process(action: Callable, log: Path) -> int:
    """The exit code of `action` in a child process, which may die; what it prints to stderr goes to `log`."""

    def child():
        with log.open("w", buffering=1) as sys.stderr:
            action()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(timeout=60)
    return process.exitcode


def test_tensors_and_facts_come_back_bit_for_bit(tmp_path):
    whole = torch.randn(3, 4)
    tensors = {
        "whole": whole, "transposed": whole.t(), "row": whole[1], "again": whole, "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3), "bytes": torch.get_rng_state(), "half": torch.randn(5).bfloat16(),
        "int": torch.tensor(7),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "gradient": torch.randn(2, requires_grad=True),
    }  # fmt: skip
    assert save(tmp_path, 12_345, tensors=tensors, generator={"G.w": whole}) == []
    assert names(tmp_path) == ["pairs-000012345"]
    loaded, facts = load(checkpoint.newest(tmp_path))
    assert facts == {"pairs": 12_345, "stage": "II"}
    for name, tensor in (tensors | {"average.G.w": whole}).items():
        found = loaded.pop(name)
        assert torch.equal(found, tensor) and found.dtype == tensor.dtype and found.shape == tensor.shape, name
    assert not loaded
    assert torch.equal(load_file(tmp_path / "generator.safetensors")["G.w"], whole)


def test_digests_are_those_that_sha256sum_gives(tmp_path):
    save(tmp_path, 16)
    path = checkpoint.newest(tmp_path)
    files = json.loads((path / "state.json").read_text())["files"]
    assert files.keys() == {"rank-00000.safetensors", "generator.safetensors"}
    for name, entry in files.items():
        content = (path / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_parts_that_ranks_hold_are_put_together_in_their_order(tmp_path):
    partial = tmp_path / "checkpoints" / "partial-pairs-000000016"
    whole = torch.randn(4, 5)
    flat, shape = whole.flatten(), [4, 5]
    parts = [Piece(flat[:3], shape, 0), Piece(flat[3:12], shape, 3), Piece(flat[12:], shape, 12)]
    shares = [
        checkpoint.write(partial, rank, {"m": parts[order], f"own{rank}": Piece(whole, shape)}, None, "I", 0)
        for rank, order in enumerate((1, 2, 0))
    ]
    shares.append(checkpoint.write(partial, 3, {}, DOES_NOT_MATTER, "I", 0))
    checkpoint.publish(partial, 16, {"pairs": 16}, shares, 2)
    tensors, _ = load(checkpoint.newest(tmp_path))
    assert {"m", "own0", "own1", "own2"} < tensors.keys()
    assert torch.equal(tensors["m"], whole) and torch.equal(tensors["own2"], whole)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_part_that_is_not_there_is_missed(lost):
    flat = torch.arange(12.0)
    shares = [{f"m@{start}": flat[start : start + 4]} for start in (0, 4, 8)]
    del shares[lost]
    with pytest.raises(Damaged, match="of m the part from element|m has 8 elements of 12"):
        checkpoint.join(shares, {"m": [3, 4]})
    with pytest.raises(Damaged, match="n is in the files or in the document"):
        checkpoint.join([{"m": flat}], {"m": [12], "n": [1]})


def test_a_run_without_checkpoints_has_no_newest(tmp_path):
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_a_run_of_an_older_version_is_refused_and_not_taken_for_a_new_one(tmp_path):
    for name in ("images-000000016", "images-000000032"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="/images-000000032 is of an older version, .*run=FOLDER"):
        checkpoint.newest(tmp_path)
    save(tmp_path, 8)
    assert checkpoint.newest(tmp_path).name == "pairs-000000008"


@pytest.mark.parametrize("digest", [True, False])  # schema 4 had none; the next version will
def test_another_schema_is_another_version_and_no_damage(digest, tmp_path):
    save(tmp_path, 16)
    file = checkpoint.newest(tmp_path) / "state.json"
    document = json.loads(file.read_text()) | {"schema": 4}
    del document["sha256"]
    if digest:
        document["sha256"] = checkpoint._document_digest(document)
    file.write_text(json.dumps(document))
    with pytest.raises(UserError, match="is of schema 4, and this version reads schema 5; use the version that wrote"):
        checkpoint.document(file.parent)


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
    save(tmp_path, 64, keep=1)
    save(tmp_path, 64, keep=1, tensors={"w": torch.ones(1)})
    assert names(tmp_path) == ["pairs-000000064"]
    assert load(checkpoint.newest(tmp_path))[0]["w"].tolist() == [1]


def test_an_old_one_that_cannot_be_removed_is_a_warning(tmp_path, monkeypatch):
    save(tmp_path, 16)
    save(tmp_path, 32)

    def fails(path):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(checkpoint.shutil, "rmtree", fails)
    (warning,) = save(tmp_path, 48)
    assert "pairs-000000016 could not be removed" in warning and "busy" in warning
    assert checkpoint.newest(tmp_path).name == "pairs-000000048"


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_half_way(*arguments, **_):
    path = arguments[-1]
    if path.is_dir():  # rmtree's
        (path / "state.json").unlink()
    else:
        path.write_bytes(b"half")
    die()


KILLED_AT = {
    "while the tensors are written": ("save_file", dies_half_way),
    "before the files are flushed": ("_flush", die),
    "while they are hashed": ("_digest", die),
    "before the document is written": ("_document_digest", die),
    "while the generator is exported": (
        "shutil", SimpleNamespace(copyfile=dies_half_way, disk_usage=shutil.disk_usage, rmtree=shutil.rmtree)
    ),
    "while an old one is removed": (
        "shutil", SimpleNamespace(rmtree=dies_half_way, disk_usage=shutil.disk_usage, copyfile=shutil.copyfile)
    ),
}  # fmt: skip


@pytest.mark.parametrize("moment", KILLED_AT)
def test_a_kill_leaves_whole_checkpoints_and_what_a_sweep_removes(tmp_path, monkeypatch, moment):
    run = tmp_path / "run"
    save(run, 16)
    save(run, 32)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, *KILLED_AT[moment])
        assert in_a_process(lambda: save(run, 48), tmp_path / "log") == -signal.SIGKILL
    newest = 48 if moment == "while an old one is removed" else 32
    assert load(checkpoint.newest(run))[1]["pairs"] == newest
    left_over = [name for name in names(run) if not name.startswith("pairs-")]
    assert len(left_over) == 1 and len(names(run)) == 3
    checkpoint.sweep(run)
    assert names(run) == (["pairs-000000032"] if newest == 48 else ["pairs-000000016"]) + [f"pairs-{newest:09d}"]
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []
    assert load_file(run / "generator.safetensors")["a"].tolist() == [0, 1, 2]


def test_a_kill_while_one_is_replaced_leaves_the_old_one(tmp_path, monkeypatch):
    save(tmp_path, 64, keep=1)
    rename = Path.rename

    def dies_after_the_first(path, target):
        rename(path, target)
        die()

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", dies_after_the_first)
        ended = in_a_process(lambda: save(tmp_path, 64, keep=1, tensors={"w": torch.ones(1)}), tmp_path / "log")
    assert ended == -signal.SIGKILL and checkpoint.newest(tmp_path) is None
    checkpoint.sweep(tmp_path)
    assert names(tmp_path) == ["pairs-000000064"]
    assert load(checkpoint.newest(tmp_path))[0]["w"].tolist() == [64, 64, 64]


def test_what_does_not_fit_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=399))
    with pytest.raises(OSError, match="412 bytes are to be written and 399 are free") as caught:
        save(tmp_path, 16, tensors={"w": torch.zeros(100)})
    assert caught.value.errno == errno.ENOSPC
    assert list((tmp_path / "checkpoints/partial-pairs-000000016").iterdir()) == []


def test_a_file_that_cannot_grow_is_an_error_of_the_disk_and_the_last_checkpoint_stays(tmp_path):
    run = tmp_path / "run"
    save(run, 16)

    def fills_the_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with pytest.raises((OSError, SafetensorError), match="File too large"):
            save(run, 32, tensors={"w": torch.zeros(100_000)})

    assert in_a_process(fills_the_disk, tmp_path / "log") == 0
    assert load(checkpoint.newest(run))[1]["pairs"] == 16


def test_what_reads_back_as_something_else_gets_no_name(tmp_path, monkeypatch):
    """The digest would be that of the wrong bytes."""
    save(tmp_path, 16)
    flush = checkpoint._flush

    def loses_bytes(path):
        if path.name == "rank-00000.safetensors":
            path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
        flush(path)

    monkeypatch.setattr(checkpoint, "_flush", loses_bytes)
    with pytest.raises(OSError, match="w reads back as something else than was written") as caught:
        save(tmp_path, 32)
    assert caught.value.errno == errno.EIO and checkpoint.newest(tmp_path).name == "pairs-000000016"


def test_without_a_ranks_file_nothing_is_published_and_nothing_older_goes(tmp_path):
    save(tmp_path, 16, keep=1)
    partial = tmp_path / "checkpoints/partial-pairs-000000032"
    shares = [checkpoint.write(partial, rank, {}, DOES_NOT_MATTER, "I", 0) for rank in range(2)]
    (partial / "rank-00001.safetensors").write_bytes(b"")
    with pytest.raises(OSError, match="0 bytes of .* are there"):
        checkpoint.publish(partial, 32, {"pairs": 32}, shares, 1)
    assert load(checkpoint.newest(tmp_path))[1]["pairs"] == 16


def test_a_lost_or_changed_export_comes_back_from_the_checkpoint(tmp_path):
    save(tmp_path, 16)
    found, export = checkpoint.document(checkpoint.newest(tmp_path)), tmp_path / "generator.safetensors"
    content = export.read_bytes()
    for strike in (export.unlink, lambda: flip(export, -1)):
        strike()
        checkpoint.export_again(tmp_path, found)
        assert export.read_bytes() == content


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x10
    file.write_bytes(content)


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_and_sign(file: Path, **changes) -> None:
    document = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(document | {"sha256": checkpoint._document_digest(document)}))


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


RANK, GENERATOR, STATE = "rank-00000.safetensors", "generator.safetensors", "state.json"
DAMAGES = {
    "a flipped bit in a weight": (RANK, lambda file: flip(file, -1), "rank-00000.safetensors is not as it was written"),
    "a flipped bit in a header": (RANK, lambda file: flip(file, 12), "not as it was written"),
    "a flipped bit in the average": (GENERATOR, lambda file: flip(file, -9), "generator.safetensors is not as it was"),
    "a flipped bit in the document": (STATE, lambda file: flip(file, 30), "state.json is n"),
    "cut tensors": (RANK, lambda file: file.write_bytes(file.read_bytes()[:-40]), "has [0-9]+ bytes of"),
    "empty": (RANK, lambda file: file.write_bytes(b""), "has 0 bytes of"),
    "longer": (RANK, lambda file: file.write_bytes(file.read_bytes() + b"0"), "bytes of"),
    "gone": (RANK, lambda file: file.unlink(), "rank-00000.safetensors is not there"),
    "a folder": (RANK, lambda file: (file.unlink(), file.mkdir()), "rank-00000.safetensors is no file"),
    "a pipe": (RANK, pipe, "rank-00000.safetensors is no file"),
    "no document": (STATE, lambda file: file.unlink(), "state.json is not there"),
    "a pipe for a document": (STATE, pipe, "state.json is no file"),
    "a cut document": (STATE, lambda file: file.write_text(file.read_text()[:20]), "no document of a checkpoint"),
    "a deep document": (STATE, lambda file: file.write_text("[" * 100_000), "no document of a checkpoint"),
    "a list": (STATE, lambda file: file.write_text("[1]"), "no document of a checkpoint"),
    "a long number": (STATE, lambda file: file.write_text('{"schema": 1' + "0" * 5_000 + "}"), "no document"),
    "binary": (STATE, lambda file: file.write_bytes(b"\x80\x04garbage"), "no document of a checkpoint"),
    "an edited position": (STATE, lambda file: edit(file, pairs=17), "state.json is not as it was written"),
    "an edited fact": (STATE, lambda file: edit(file, state={"pairs": 16, "stage": "I"}), "not as it was written"),
    "an edited schema": (STATE, lambda file: edit(file, schema=4), "not as it was written"),
    "another position": (STATE, lambda file: edit_and_sign(file, pairs=17), "is of 17 pairs, and .* of 16"),
    "another position in the facts": (
        STATE, lambda file: edit_and_sign(file, state={"pairs": 17}), "is of 16 pairs, and .* of 16"),
    "a copy under another name": ("", lambda folder: folder.rename(folder.with_name("pairs-99999999999")),
                                  "is of 16 pairs, and its folder's name of 99999999999"),
    "a tensor too few": (STATE, lambda file: edit_and_sign(file, tensors={"w": [100], "average.a": [3]}), "v is in"),
    "another shape": (STATE, lambda file: edit_and_sign(file, tensors={"w": [99], "v": [100], "average.a": [3]}),
                      "w has 100 elements of 99"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_before_anything_is_loaded(tmp_path, damage):
    save(tmp_path, 16, tensors={"w": torch.zeros(100), "v": torch.zeros(100)})
    path = checkpoint.newest(tmp_path)
    name, strike, said = DAMAGES[damage]
    strike(path / name)
    with pytest.raises(Damaged, match=said):
        load(checkpoint.newest(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_damage(tmp_path, value, monkeypatch):
    monkeypatch.setattr(checkpoint, "_compare", lambda *_: None)  # a NaN is not equal to itself
    save(tmp_path, 16, tensors={"good": torch.zeros(3), "bad": torch.tensor([1.0, value, 2.0]).bfloat16()})
    with pytest.raises(Damaged, match="bad in rank-00000.safetensors is not finite"):
        load(checkpoint.newest(tmp_path))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("reads", ["load_file", "_digest"])
def test_a_failure_of_the_disk_that_may_pass_is_no_damage(tmp_path, monkeypatch, reads, number):
    save(tmp_path, 16)

    def fails(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint, reads, fails)
    with pytest.raises(OSError, match=os.strerror(number)):
        load(checkpoint.newest(tmp_path))


def test_a_damaged_one_is_kept_under_another_name(tmp_path):
    for _ in range(2):
        save(tmp_path, 16)
        checkpoint.set_aside(checkpoint.newest(tmp_path))
    assert names(tmp_path) == ["damaged-pairs-000000016", "damaged-pairs-000000016-2"]
    assert checkpoint.newest(tmp_path) is None
    checkpoint.sweep(tmp_path)
    assert len(names(tmp_path)) == 2


def test_what_safetensors_itself_writes_reads_back(tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "x.safetensors")
    assert checkpoint.not_finite(load_file(tmp_path / "x.safetensors")) == ""


def test_the_same_weights_are_the_same_bytes(tmp_path):
    weights = {f"G.{name}": torch.full((2,), float(number)) for number, name in enumerate("abc")}
    files = []
    for number in range(8):
        checkpoint.write(tmp_path / str(number), 0, {}, weights, "I", 96)
        files.append((tmp_path / str(number) / "generator.safetensors").read_bytes())
    assert len(set(files)) == 1
