"""The tars' checksums while training goes on: every damage is named, and the verdict is told once."""

import os
import threading
import time

import pytest

from mscgan.data import tar_check
from mscgan.data.shards import ShardSet
from mscgan.data.tar_check import TarCheck
from tests.shard_factory import write_shards


@pytest.fixture
def shards(tmp_path):
    return ShardSet(write_shards(tmp_path / "shards"), "train")


def finish(check):
    deadline = time.monotonic() + 30
    while any(thread.name == "tar check" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return check


def test_whole_tars_are_said_to_match_once(shards):
    check = finish(TarCheck(shards.tars))
    assert check.damage == ""
    assert [check.news(), check.news(), check.last_word()] == ["shards: 2 tars match the manifest", "", ""]
    assert finish(TarCheck(shards.tars)).last_word() == "shards: 2 tars match the manifest"


def test_a_single_bit_anywhere_is_found(shards):
    path = shards.root / "train-00001.tar"
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 8 * len(whole) // 12):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        check = finish(TarCheck(shards.tars))
        assert check.damage.startswith(f"{path} on ") and "manifest.json says" in check.damage
        assert f"`python shards/verify.py {shards.root}`" in check.damage and "\n" not in check.damage
        assert check.news() == "" and check.last_word() == check.damage


def test_a_tar_that_cannot_be_read_is_damage(shards):
    path = shards.root / "train-00000.tar"
    path.unlink()
    os.mkfifo(path)
    assert "cannot be read (not a plain file)" in finish(TarCheck(shards.tars)).damage


def test_who_does_not_check_says_nothing():
    check = TarCheck({})
    assert (check.news(), check.last_word(), check.damage) == ("", "", "")


def test_training_is_not_waited_for_and_its_end_says_how_far_the_check_came(shards, monkeypatch):
    going_on, priority = threading.Event(), []
    whole = tar_check._sha256

    def slow(path):
        priority.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        if path.name == "train-00001.tar":
            going_on.wait(30)
        return whole(path)

    monkeypatch.setattr(tar_check, "_sha256", slow)
    check = TarCheck(shards.tars)
    deadline = time.monotonic() + 30
    while len(priority) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert check.news() == ""
    assert check.last_word() == "shards: 1 of 2 tars were compared with the manifest; those match"
    going_on.set()
    assert finish(check).news() == "shards: 2 tars match the manifest"
    assert priority == [19, 19] and os.getpriority(os.PRIO_PROCESS, 0) < 19
