"""A hang from end to end: who ends it first, and what is known afterwards."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from launch import attempt, hang, runs, watchdog
from launch.options import OPTIONS
from mscgan import heartbeat
from tests.ranks import logged, start_ranks

SCALE = 1 / 150  # of all times that decide who is first; the dump after it keeps its own, for a busy machine
RANK = f"""
import os, signal, sys, time
from mscgan import dist, heartbeat
heartbeat.SETUP_SECONDS *= {SCALE}
heartbeat.AFTER_THE_WATCHDOG *= {SCALE}
heartbeat.EVERY_SECONDS = 0.0
ranks = dist.init("cpu")
heartbeat.start(sys.argv[1], ranks.rank, "cpu", 40, dist.collectives)
for _ in range(3):
    dist.barrier()
    heartbeat.beat()
def a_rank_that_hangs():
    time.sleep(0.5)  # a thread of gloo's notes that the collective is over
    if sys.argv[2] == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif sys.argv[2] == "asleep":
        time.sleep(60)
if ranks.rank == 1:
    a_rank_that_hangs()
while True:
    dist.all_any(False)
    time.sleep(0.1)
"""


@pytest.fixture(autouse=True)
def of_an_attempt(monkeypatch):
    monkeypatch.setenv(heartbeat.ATTEMPT, "7-0")


class SilentChild:
    """A rank that beats once and then hangs, by a clock of its own: only what the watchdog waits passes."""

    def __init__(self, file):
        self.pid, self.file, self.seconds, self.looks, self.ended = 4242, file, 0.0, 0, False

    def wait(self, seconds=0.0):
        if self.ended:
            return -9
        self.seconds += seconds
        self.looks += 1
        if self.looks <= 2:  # its beginning, and the end of its first step
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(f"host {self.pid} cpu 40\n")
            os.utime(self.file, (self.looks, self.looks))
        raise subprocess.TimeoutExpired("rank", seconds)

    def send_signal(self, number):
        pass

    def kill(self):
        self.ended = True


@pytest.mark.parametrize("hang_seconds", [heartbeat.HANG_SECONDS, 5.0, 3600.0])
@pytest.mark.parametrize("computed", [0.0, 0.9], ids=["waits", "computed at first"])
def test_the_watchdog_is_first_to_end_a_hang(tmp_path, monkeypatch, hang_seconds, computed):
    """With the product's own times. `computed`: the share of its first patience in which the rank was at work."""
    child = SilentChild(heartbeat.path(tmp_path, 0))
    monkeypatch.setattr(watchdog, "_cpu_seconds", lambda pid: min(child.seconds, computed * hang_seconds))
    assert watchdog.watch(child, child.file, hang_seconds) == 88
    assert child.seconds < heartbeat.collective_seconds(hang_seconds)


@pytest.mark.parametrize("hang_seconds", [heartbeat.HANG_SECONDS, 5.0, 3600.0])
def test_the_watchdog_is_first_before_the_first_step_too(tmp_path, hang_seconds):
    child = SilentChild(heartbeat.path(tmp_path, 0))
    child.looks = 2
    assert watchdog.watch(child, child.file, hang_seconds) == 88
    assert child.seconds < heartbeat.collective_seconds(hang_seconds)


def test_all_parts_take_the_launchers_value(monkeypatch):
    monkeypatch.delenv(heartbeat.HANG, raising=False)
    default = heartbeat.collective_seconds()
    assert default == heartbeat.collective_seconds(heartbeat.HANG_SECONDS)
    monkeypatch.setenv(heartbeat.HANG, "3600.0")
    assert heartbeat.collective_seconds() == heartbeat.collective_seconds(3600) > default


def test_the_defaults_of_the_launcher_are_the_products():
    assert runs.Plan.hang_seconds == heartbeat.HANG_SECONDS
    assert float(OPTIONS["hang_seconds"].default) == heartbeat.HANG_SECONDS


@pytest.mark.parametrize("how", ["asleep", "stopped"])
def test_two_ranks_hang_and_the_verdict_names_the_one_that_does(tmp_path, monkeypatch, request, how):
    """Real ranks and watchdogs, all times in the defaults' proportions."""
    monkeypatch.setattr(watchdog, "SETUP_SECONDS", heartbeat.SETUP_SECONDS * SCALE)
    plan = runs.Plan("hangs", "train", str(tmp_path / "launch"), "", "", [runs.Work(str(tmp_path), [])], here=True)
    hang_seconds = plan.hang_seconds * SCALE
    attempt.begin(plan, 0, 0, "7")
    command = [sys.executable, "-c", RANK, tmp_path, how]
    ranks = start_ranks([command] * 2, tmp_path / "logs", **{heartbeat.HANG: str(hang_seconds)})
    request.addfinalizer(lambda: [rank.kill() for rank in ranks])
    records = runs.ranks_folder(plan, 0, 0)

    def watch(rank):
        code = watchdog.watch(ranks[rank], heartbeat.path(tmp_path, rank), hang_seconds)
        runs.write_rank(records, rank, code=code, world=2)

    began = time.monotonic()
    while not all(heartbeat.path(tmp_path, rank).exists() for rank in range(2)):  # imports do not scale
        assert time.monotonic() - began < 120, logged(tmp_path / "logs")
        time.sleep(0.05)
    watches = [threading.Thread(target=watch, args=(rank,)) for rank in range(2)]
    for thread in watches:
        thread.start()
    for thread in watches:
        thread.join()
    verdict = attempt.end(plan, 0, 0, "7", 137)
    assert verdict.outcome == "hung", logged(tmp_path / "logs")
    here = socket.gethostname()
    stopped = f"rank 1 on {here} was stopped; " if how == "stopped" else ""
    never = f"rank 1 on {here} never entered all_reduce #4 of the default group (gloo), in which rank 0 waits"
    assert verdict.reason.startswith(f"{stopped}{never}; hung"), verdict.reason
    assert runs.notes(plan, 0, "end")[0]["hang"] == stopped + never
    # One that was stopped goes on when it is woken to be asked, and may have come to its next collective by then.
    assert ("a_rank_that_hangs" if how == "asleep" else "most recent call") in (tmp_path / "logs/1.err").read_text()
    assert "all_any" in (tmp_path / "logs/0.err").read_text()
    told = json.loads((records / "collectives-00000.json").read_text())
    assert [(one["kind"], one["number"], one["over"]) for one in told["collectives"]] == [
        ("all_reduce", 1, True), ("all_reduce", 2, True), ("all_reduce", 3, True), ("all_reduce", 4, False)
    ]  # fmt: skip
    assert runs.read_ranks(records).keys() == {0, 1}


def one(number, unix, group="0", backend="gloo"):
    return {"group": group, "backend": backend, "kind": "all_reduce", "number": number, "unix": unix, "over": True}


WAITS = one(7, 10) | {"over": False}


def says(rank, *collectives, unix=100.0, groups=None):
    entered = {f"{c['group']} {c['backend']}": c["number"] for c in collectives}
    return {
        "host": f"n{rank}", "unix": unix, "groups": groups or {"0": [0, 1, 2]}, "entered": entered,
        "collectives": list(collectives),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("told", "stopped", "expected"),
    [
        (
            {0: says(0, one(6, 10), WAITS), 1: says(1, one(6, 10)), 2: says(2, one(6, 11), WAITS)},
            [], "rank 1 on n1 never entered all_reduce #7 of the default group (gloo), in which ranks 0, 2 wait",
        ),
        (  # rank 1 is missing too, but it waits for rank 2 itself
            {
                0: says(0, WAITS),
                1: says(1, one(6, 9), {**WAITS, "group": "4", "backend": "nccl"}, groups={"0": [0, 1, 2], "4": [1, 2]}),
                2: says(2, one(6, 10), one(2, 5, group="4", backend="nccl")),
            },
            [], "rank 2 on n2 never entered all_reduce #7 of the default group (gloo), in which rank 0 waits",
        ),
        (
            {0: says(0, WAITS), 1: says(1, WAITS)},
            [], "rank 2 did not say where it is; ranks 0, 1 wait in all_reduce #7 of the default group (gloo)",
        ),
        (
            {0: says(0, WAITS), 1: says(1, {**WAITS, "kind": "broadcast"}), 2: says(2, WAITS)},
            [],
            "the ranks wait in different collectives: rank 0, rank 2 in all_reduce #7 of the default group (gloo), "
            "rank 1 in broadcast #7 of the default group (gloo)",
        ),
        (
            {rank: says(rank, WAITS) for rank in range(3)},
            [1],
            "rank 1 on n1 was stopped; all ranks entered all_reduce #7 of the default group (gloo) and ranks 0, 1, 2 "
            "wait in it",
        ),
        (  # woken after the others had answered, it went on
            {0: says(0, WAITS), 1: says(1, one(6, 9), one(7, 102), unix=102.0), 2: says(2, WAITS)},
            [1],
            "rank 1 on n1 was stopped; rank 1 on n1 never entered all_reduce #7 of the default group (gloo), in which "
            "ranks 0, 2 wait",
        ),
        ({0: says(0, one(7, 10)), 1: says(1, one(7, 10)), 2: says(2, one(7, 10))}, [],
         "no rank told of a collective that it waits in; the stacks in the ranks' logs say where each is"),
        ({}, [], "no rank told of a collective that it waits in; the stacks in the ranks' logs say where each is"),
    ],
)  # fmt: skip
def test_one_sentence_says_who_is_missing_where(told, stopped, expected):
    assert hang.explain(told, 3, stopped) == expected
    named = {int(rank) for rank in re.findall(r"rank (\d)(?: on n\d)? (?:never|did not|was stopped)", expected)}
    assert hang.culprits(told, 3, stopped) == sorted(named)


def test_what_a_rank_said_on_another_occasion_does_not_count(tmp_path):
    file, into = heartbeat.collectives_path(tmp_path, 0), tmp_path / "into"
    into.mkdir()
    file.parent.mkdir(parents=True)
    (file.parent / "hung").write_text("rank-00001 on n1 gave no sign of life\n")
    for rank in (1, 2):
        heartbeat.path(tmp_path, rank).with_suffix(".stopped").touch()
    os.utime(heartbeat.path(tmp_path, 2).with_suffix(".stopped"), (1, 1))
    file.write_text(json.dumps(says(0)))
    heartbeat.collectives_path(tmp_path, 1).write_text("{")
    os.utime(file, (1, 1))
    assert hang.collect(tmp_path, "7-0", 3, into) == ({}, [1])
    file.write_text(json.dumps(says(0)))
    assert hang.collect(tmp_path, "7-0", 3, into) == ({0: says(0)}, [])
    assert {"collectives-00000.json", "collectives-00001.json"} < set(os.listdir(into))
