"""Checkpoints while training goes on, over two ranks: one collective a step, one fate for all ranks."""

import json
import sys
from pathlib import Path

import pytest

from mscgan import checkpoint, dist, saving
from mscgan.errors import UserError
from mscgan.saving import Diverged, Saver
from mscgan.state import Share
from tests.ranks import ROOT, exit_codes, logged, start_ranks
from tests.saving_rank import Numbers


def two_ranks(folder: Path, case: str) -> tuple[list[dict], str]:
    """What each rank saw, and what rank 0 said."""
    command = [sys.executable, ROOT / "tests/saving_rank.py", folder / "run", case]
    codes = exit_codes(start_ranks([command] * 2, folder / "logs"), seconds=120)
    assert codes == [0, 0], logged(folder / "logs")
    seen = [json.loads((folder / f"logs/{rank}.out").read_text().splitlines()[-1]) for rank in range(2)]
    return seen, (folder / "logs/0.err").read_text()


WHOLE = {"w0": [0, 0, 0], "w1": [1, 1, 1], "m": [0, 0, 1, 1], "average.G": [1, 1]}


def test_training_goes_on_while_a_rank_writes_and_nothing_has_its_name_before(tmp_path):
    seen, _ = two_ranks(tmp_path, "slow")
    for rank in seen:
        assert rank["steps_while_writing"] >= 5 and rank["wanted"][0] == 16 and len(rank["wanted"]) == 2
        assert rank["stopped"] == 40  # rank 1's signal reaches both
        assert rank["found"] == [rank["after_the_last"], WHOLE]
    assert seen[0]["wanted"] == seen[1]["wanted"]


def test_one_ranks_full_disk_is_a_warning_and_the_next_try_succeeds(tmp_path):
    seen, said = two_ranks(tmp_path, "full")
    assert all(rank["found"][1] == WHOLE and "raised" not in rank for rank in seen)
    assert said.count("warning: checkpoint ") == 1
    assert "pairs-000000016 could not be written ([Errno 28] No space left on device)" in said
    assert "the newest complete one is none; it is tried again (failure 1 of 3)" in said


def test_a_disk_that_stays_full_ends_all_ranks_alike(tmp_path):
    seen, said = two_ranks(tmp_path, "full for ever")
    assert said.count("warning: checkpoint ") == 2
    for rank in seen:
        kind, message = rank["raised"]
        assert kind == "UserError" and "3 tries failed: make room" in message and rank["found"] is None
    assert not list((tmp_path / "run/checkpoints").iterdir())


def test_an_owner_that_was_superseded_publishes_nothing(tmp_path):
    seen, _ = two_ranks(tmp_path, "lost")
    for rank in seen:
        assert rank["raised"] == ["UserError", "another owns the run"] and rank["found"] == ["pairs-000000016", WHOLE]


def test_two_owners_write_into_folders_of_their_own(alone, tmp_path):
    partials = set()
    for _ in range(2):
        with Saver(tmp_path, alone, 0, 16, 0.0, 2, lambda: None) as saver:
            saver.save(Numbers(), {"pairs": 16}, last=True)
            partials.add(saver._partial().name)
    assert len(partials) == 2 and all(name.startswith("partial-") for name in partials)


@pytest.fixture
def alone():
    yield dist.init("cpu")
    dist.shutdown()


def test_the_later_of_pairs_and_minutes_counts(alone, tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(saving.time, "monotonic", lambda: now)
    with Saver(tmp_path, alone, 40, 16, 5.0, 2, lambda: None) as saver:
        assert saver.meet(48, False) == (False, False)  # pairs are due, minutes are not
        now += 299
        assert saver.meet(56, True) == (True, False)
        now += 1
        assert saver.meet(64, False) == (False, True)
        saver.save(Numbers(), {"pairs": 64}, last=True)
        now += 300
        assert saver.meet(72, False) == (False, False)  # minutes are due, pairs are not
        assert saver.meet(80, False) == (False, True)


def test_what_is_asked_is_done_whatever_pairs_and_minutes_say(alone, tmp_path):
    with Saver(tmp_path, alone, 40, 1000, 60.0, 2, lambda: None) as saver:
        assert saver.meet(48, False) == (False, False) and not saver.leaves
        assert saver.meet(56, False, leaves=True) == (False, False) and saver.leaves  # it waits for a save
        assert saver.meet(64, False, asked=True, leaves=True) == (False, True) and saver.leaves


def test_a_state_that_is_not_finite_is_not_written(alone, tmp_path):
    class Broken(Numbers):
        def share(self, rank: int, world: int, kept: dict) -> Share:
            return Share({}, {}, {}, "exp_avg.G.w")

    with Saver(tmp_path, alone, 0, 16, 0.0, 2, lambda: None) as saver, pytest.raises(Diverged, match="exp_avg.G.w is"):
        saver.save(Broken(), {"pairs": 16}, last=True)
    assert checkpoint.newest(tmp_path) is None


def test_what_is_being_written_when_training_diverges_is_kept(alone, tmp_path):
    with pytest.raises(Diverged), Saver(tmp_path, alone, 0, 16, 0.0, 2, lambda: None) as saver:
        saver.save(Numbers(), {"pairs": 16}, last=False)
        raise Diverged("a loss")
    assert checkpoint.newest(tmp_path).name == "pairs-000000016"


def test_a_failure_that_may_pass_is_no_mistake_of_the_users(alone, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "write", fails)
    monkeypatch.setattr(saving, "LAST_PAUSE_SECONDS", 0.0)
    with Saver(tmp_path, alone, 0, 16, 0.0, 2, lambda: None) as saver, pytest.raises(RuntimeError) as caught:
        saver.save(Numbers(), {"pairs": 16}, last=True)
    assert not isinstance(caught.value, UserError) and "Input/output error" in str(caught.value)


def test_a_save_that_failed_is_tried_again_before_the_next_is_due(alone, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    now = 100.0
    monkeypatch.setattr(saving.time, "monotonic", lambda: now)
    with Saver(tmp_path, alone, 0, 1_000, 0.0, 2, lambda: None) as saver:
        with monkeypatch.context() as patched:
            patched.setattr(
                checkpoint, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
            )
            saver.save(Numbers(), {"pairs": 24}, last=False)  # at a stage's end
            saver.settle()
        assert saver.meet(32, False) == (False, False)
        now += saving.PAUSE_SECONDS
        assert saver.meet(40, False) == (False, True)
        saver.save(Numbers(), {"pairs": 40}, last=False)
        saver.settle()
        now += saving.PAUSE_SECONDS
        assert saver.meet(48, False) == (False, False)


def test_a_bug_in_the_thread_is_raised_and_not_tried_again(alone, tmp_path, monkeypatch):
    def fails(*_):
        raise KeyError("w")

    monkeypatch.setattr(checkpoint, "write", fails)
    with Saver(tmp_path, alone, 0, 16, 0.0, 2, lambda: None) as saver, pytest.raises(RuntimeError, match="KeyError"):
        saver.save(Numbers(), {"pairs": 16}, last=True)
