"""Which checkpoint a start goes on from: the newest that verifies; the others are named and kept."""

import errno
import os

import pytest

from mscgan import checkpoint, dist
from mscgan.errors import UserError
from mscgan.recovery import choose
from tests.test_checkpoint import DAMAGES, flip, names, save


@pytest.fixture
def alone():
    yield dist.init("cpu")
    dist.shutdown()


def test_a_run_without_checkpoints_starts_at_the_beginning(alone, tmp_path):
    start = choose(tmp_path, alone)
    assert start.path is None and start.facts == {}


@pytest.mark.parametrize("damage", DAMAGES)
def test_it_falls_back_to_the_newest_that_verifies_and_names_the_others(damage, alone, tmp_path, capsys):
    for pairs in (8, 12, 16):
        save(tmp_path, pairs, keep=3)
    name, strike, _ = DAMAGES[damage]
    strike(checkpoint.folder(tmp_path, 16) / name)
    damaged = checkpoint.newest(tmp_path)
    start = choose(tmp_path, alone)
    assert start.path.name == "pairs-000000012" and start.facts["pairs"] == 12
    assert start.tensors["w"].tolist() == [12, 12, 12]
    said = capsys.readouterr().err
    assert said.startswith(f"warning: checkpoint {damaged} is damaged (") and said.count("\n") == 1
    assert names(tmp_path) == [f"damaged-{damaged.name}", "pairs-000000008", "pairs-000000012"]


def test_where_none_is_whole_it_refuses_at_every_start(alone, tmp_path):
    for pairs in (8, 16):
        save(tmp_path, pairs)
        flip(checkpoint.newest(tmp_path) / "rank-00000.safetensors", -1)
    for _ in range(2):
        with pytest.raises(UserError, match="no checkpoint of .* is whole .*pairs-000000008.*another run=FOLDER"):
            choose(tmp_path, alone)
    assert names(tmp_path) == ["damaged-pairs-000000008", "damaged-pairs-000000016"]


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("reads", ["_digest", "load_file"])
def test_a_read_that_fails_sets_nothing_aside(reads, number, alone, tmp_path, monkeypatch):
    save(tmp_path, 16)

    def fails(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint, reads, fails)
    with pytest.raises(RuntimeError, match=f"cannot be read now .*{os.strerror(number)}") as caught:
        choose(tmp_path, alone)
    assert not isinstance(caught.value, UserError)
    assert names(tmp_path) == ["pairs-000000016"]


def test_where_a_damaged_one_cannot_be_set_aside_every_rank_hears_why(alone, tmp_path, monkeypatch):
    save(tmp_path, 16)
    flip(checkpoint.newest(tmp_path) / "rank-00000.safetensors", -1)

    def fails(path):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(checkpoint, "set_aside", fails)
    with pytest.raises(UserError, match="pairs-000000016: Read-only file system; make room there, or let this user"):
        choose(tmp_path, alone)


def test_another_version_is_no_damage(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SCHEMA", 6)
    save(tmp_path, 16)
    monkeypatch.undo()
    with pytest.raises(UserError, match="is of schema 6"):
        choose(tmp_path, alone)
    assert names(tmp_path) == ["pairs-000000016"]
