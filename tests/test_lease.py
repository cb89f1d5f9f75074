"""One owner a run: who is refused, who is dead, and that of several who come at once exactly one wins.

The processes are real. `minute` lets the minute of watching pass at once, with what happens meanwhile.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest

from mscgan import lease, owner, process
from mscgan.errors import UserError
from tests.ranks import ROOT

RACES = 20
# Takes, checks and releases leases as its stdin says, and answers each line.
TAKER = """
import sys
from pathlib import Path
from mscgan import lease
from mscgan.errors import UserError
print("ready", flush=True)
for line in sys.stdin:
    do, run = line.split()
    try:
        if do == "take":
            held = lease.take(Path(run))
        elif do == "check":
            held.check()
        elif do == "release":
            held.release()
        print("yes", flush=True)
    except UserError as error:
        print(error, flush=True)
"""


class Taker:
    """Another process that wants the run."""

    def __init__(self, run, **environment):
        self.run = run
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKER], cwd=ROOT, env=os.environ | environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.pid = self.process.pid
        assert self.says() == "ready"

    def asks(self, what: str, run=None) -> "Taker":
        self.process.stdin.write(f"{what} {run or self.run}\n")
        self.process.stdin.flush()
        return self

    def says(self) -> str:
        return self.process.stdout.readline().strip()

    def owns(self) -> "Taker":
        assert self.asks("take").says() == "yes"
        return self

    def is_sent(self, number: signal.Signals) -> None:
        """Returns when the signal has had its effect."""
        self.process.send_signal(number)
        while number == signal.SIGSTOP and not process.stopped(self.pid):
            pass
        while number == signal.SIGKILL and process.start(self.pid):
            pass

    def ends(self) -> None:
        """Lets it come to its end."""
        self.process.communicate(timeout=60)


@pytest.fixture
def takers(tmp_path):
    started = []

    def start(run=tmp_path, **environment) -> Taker:
        started.append(Taker(run, **environment))
        return started[-1]

    yield start
    for taker in started:
        taker.process.kill()
        taker.ends()


@pytest.fixture
def minute(monkeypatch):
    """What happens in which second of watching; the seconds that were watched are in `passed`."""

    class Minute(dict):
        passed = 0

        def sleep(self, seconds):
            self.passed += seconds
            self.get(self.passed, lambda: None)()

    made = Minute()
    monkeypatch.setattr(owner.time, "sleep", made.sleep)
    return made


def names(run):
    return sorted(path.name for path in run.iterdir())


def written(run, name="lease", **changes):
    """A lease that a process on another host holds, or held."""
    fields = {"token": "0123456789abcdef", "host": "n7", "machine": "another boot", "pid": 4242, "start": "1",
              "job": "77", "attempt": 2, "since": "2026-01-02 03:04:05"}  # fmt: skip
    (run / name).write_text(json.dumps(fields | changes))
    return run / name


def takes(run):
    held = lease.take(run)
    held.check()
    held.release()
    assert names(run) == []
    return True


def test_a_second_process_is_refused_and_told_whose_the_run_is(tmp_path, takers):
    first = takers(SLURM_JOB_ID="77", SLURM_RESTART_COUNT="2").owns()
    with pytest.raises(UserError) as refused:
        lease.take(tmp_path)
    said = str(refused.value)
    assert f"{tmp_path} belongs to process {first.pid} on " in said and ", job 77, attempt 2, since 20" in said
    assert "its last sign of life came 0 s ago. Stop it with `scancel 77` on its host, or give another run=" in said
    assert takers().asks("take").says().startswith(f"{tmp_path} belongs to process {first.pid}")
    first.ends()
    assert takes(tmp_path)  # given free when the interpreter ended


def test_a_link_to_the_run_is_the_same_run(tmp_path, takers):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    takers(tmp_path / "run").owns()
    with pytest.raises(UserError, match="belongs to process"):
        lease.take(tmp_path / "link")


def test_a_killed_owner_on_this_machine_is_dead_at_once(tmp_path, takers, minute):
    takers().owns().is_sent(signal.SIGKILL)
    assert takes(tmp_path) and minute.passed == 0


def test_an_owner_whose_pid_is_another_process_now_is_dead_at_once(tmp_path, minute):
    written(tmp_path, machine=process.machine(), pid=os.getpid(), start="1")
    assert takes(tmp_path) and minute.passed == 0


@pytest.mark.parametrize("machine", ["another boot", process.machine() + "0", ""], ids=["host", "container", "none"])
def test_an_owner_whose_pid_says_nothing_here_is_watched_for_a_minute(machine, tmp_path, minute, capsys):
    written(tmp_path, machine=machine)
    assert takes(tmp_path) and minute.passed == 60
    said = capsys.readouterr().err
    assert said == (
        f"{tmp_path}/lease is of process 4242 on n7, job 77, attempt 2, since 2026-01-02 03:04:05; waiting 60 s for a "
        "sign of life\n"
    )


def test_nor_does_a_machine_without_proc_know_who_is_gone(tmp_path, minute, monkeypatch):
    monkeypatch.setattr(process, "machine", lambda: "")
    written(tmp_path, machine="")
    assert takes(tmp_path) and minute.passed == 60


@pytest.mark.parametrize("second", [1, 60])
def test_one_sign_of_life_within_the_minute_is_enough(second, tmp_path, minute):
    """Of a requeued twin too: the earlier attempt may run on, on a node that SLURM has lost."""
    file = written(tmp_path)
    minute[second] = lambda: os.utime(file)
    with pytest.raises(UserError, match=r"process 4242 on n7, job 77, attempt 2, .* last sign of life came 0 s ago"):
        lease.take(tmp_path)
    assert minute.passed == second and names(tmp_path) == ["lease"]


def test_a_run_that_is_given_free_meanwhile_is_taken(tmp_path, minute):
    minute[7] = written(tmp_path).unlink
    assert takes(tmp_path) and minute.passed == 7


def test_a_run_that_another_takes_meanwhile_is_his(tmp_path, minute, takers):
    file, other = written(tmp_path), takers()
    minute[7] = lambda: (file.unlink(), other.owns())
    with pytest.raises(UserError, match=f"belongs to process {other.pid} "):
        lease.take(tmp_path)


@pytest.mark.parametrize("text", ["", "\0\xff", "[]", "{}", '{"token": "../x"}', None], ids=repr)
def test_a_damaged_lease_is_watched_too(text, tmp_path, minute, capsys):
    if text is None:
        written(tmp_path, token="../../escape")
    else:
        (tmp_path / "lease").write_text(text)
    assert takes(tmp_path) and minute.passed == 60
    assert "lease is damaged, or just being written; waiting" in capsys.readouterr().err


def test_a_stopped_owner_that_wakes_up_finds_the_new_one_and_leaves_its_lease_alone(tmp_path, takers, minute):
    old = takers().owns()
    old.is_sent(signal.SIGSTOP)
    held = lease.take(tmp_path)
    assert minute.passed == 60
    old.is_sent(signal.SIGCONT)
    said = old.asks("check").says()
    assert said.startswith(f"{tmp_path} now belongs to process {os.getpid()} on ") and f"process {old.pid} on" in said
    old.ends()
    held.check()
    held.release()


def test_an_owner_that_was_stopped_for_less_than_a_minute_keeps_the_run(tmp_path, takers, minute, monkeypatch):
    """BEAT_SECONDS counts from the moment at which it goes on: 10 real seconds here."""
    old = takers().owns()
    old.is_sent(signal.SIGSTOP)
    minute[5] = lambda: (old.is_sent(signal.SIGCONT), threading.Event().wait(lease.BEAT_SECONDS + 1))
    with pytest.raises(UserError, match=f"belongs to process {old.pid} "):
        lease.take(tmp_path)
    assert minute.passed == 5
    assert old.asks("check").says() == "yes"


@pytest.mark.slow
def test_a_stopped_owner_loses_the_run_after_a_real_minute(tmp_path, takers):
    takers().owns().is_sent(signal.SIGSTOP)
    began = time.monotonic()
    assert takes(tmp_path)
    assert 60 <= time.monotonic() - began < 90


def test_the_thread_touches_the_lease_while_the_program_is_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    held = lease.take(tmp_path)
    for _ in range(3):
        os.utime(tmp_path / "lease", (1, 1))
        while (tmp_path / "lease").stat().st_mtime == 1:
            sum(range(1000))
    held.release()


def test_the_thread_notices_a_new_owner_and_does_not_touch_his_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    held = lease.take(tmp_path)
    new = written(tmp_path, "new")
    os.utime(new, (1, 1))
    new.rename(tmp_path / "lease")
    while not held.lost:
        time.sleep(0.01)
    time.sleep(0.1)
    held.release()
    assert (tmp_path / "lease").stat().st_mtime == 1


@pytest.mark.parametrize("damage", ["removed", "emptied"])
def test_an_owner_without_its_lease_is_none(damage, tmp_path):
    held = lease.take(tmp_path)
    (tmp_path / "lease").unlink() if damage == "removed" else (tmp_path / "lease").write_text("")
    with pytest.raises(lease.Superseded, match="nobody, as its lease was" if damage == "removed" else "damaged lease"):
        held.check()
    held.release()
    assert names(tmp_path) == ([] if damage == "removed" else ["lease"])


def race(racers, run):
    """All ask at once. Exactly one becomes the owner, and only later gives the run free again."""
    said = [racer.says() for racer in [racer.asks("take", run) for racer in racers]]
    assert sorted(text == "yes" for text in said) == [False] * (len(racers) - 1) + [True], said
    winner = racers[said.index("yes")]
    assert all(f"{run} belongs to process " in text for text in said if text != "yes"), said
    assert winner.asks("check").says() == "yes" and names(run) == ["lease"]
    assert winner.asks("release").says() == "yes" and names(run) == []


@pytest.mark.parametrize("count", [2, 3])
def test_of_several_that_come_at_once_one_wins(count, tmp_path, takers):
    racers = [takers() for _ in range(count)]
    for number in range(RACES):
        run = tmp_path / str(number)
        run.mkdir()
        race(racers, run)


def test_of_three_that_find_a_dead_owner_at_once_one_takes_over(tmp_path, takers):
    racers = [takers() for _ in range(3)]
    for number in range(RACES):
        run = tmp_path / str(number)
        run.mkdir()
        written(run, machine=process.machine(), start="dead")
        race(racers, run)


@pytest.mark.parametrize("call", ["os.write", "os.dup", "os.replace"])
def test_a_kill_while_it_takes_over_blocks_nobody(call, tmp_path, minute):
    """At os.write an empty file is left, which has to be watched."""
    written(tmp_path, machine=process.machine(), start="dead")
    script = f"import os, sys, pathlib\nfrom mscgan import lease\n{call} = lambda *_: os.kill(os.getpid(), 9)\n"
    done = subprocess.run([sys.executable, "-c", script + "lease.take(pathlib.Path(sys.argv[1]))", tmp_path], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL and len(names(tmp_path)) == 2
    assert takes(tmp_path) and minute.passed == (60 if call == "os.write" else 0)


def test_one_that_is_killed_while_it_gives_the_run_free_blocks_nobody(tmp_path, minute):
    script = "import os, sys, pathlib\nfrom mscgan import lease\nheld = lease.take(pathlib.Path(sys.argv[1]))\n"
    script += "pathlib.Path.unlink = lambda *_: os.kill(os.getpid(), 9)\nheld.release()"
    done = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL and len(names(tmp_path)) == 2
    assert takes(tmp_path) and minute.passed == 0


def test_one_that_judged_an_owner_which_is_no_more_takes_nothing(tmp_path, takers, monkeypatch):
    """Between its judgement and its turn to take over, another has taken over and swept."""
    file, other, dead = written(tmp_path, machine=process.machine(), start="dead"), takers(), lease.dead

    def slow(path, seen):
        judged = dead(path, seen)
        if judged and path == file:
            other.owns()
        return judged

    monkeypatch.setattr(lease, "dead", slow)
    with pytest.raises(UserError, match=f"belongs to process {other.pid} "):
        lease.take(tmp_path)
    assert names(tmp_path) == ["lease"] and other.asks("check").says() == "yes"


def test_one_that_is_too_late_to_take_over_is_refused(tmp_path, takers, monkeypatch):
    """Between its last look and the rename, the dead owner's lease goes to another, who sweeps."""
    file, other, replace = written(tmp_path, machine=process.machine(), start="dead"), takers(), os.replace

    def late(new, old):
        file.unlink()
        other.owns()
        replace(new, old)

    monkeypatch.setattr(os, "replace", late)
    with pytest.raises(UserError, match=f"belongs to process {other.pid} "):
        lease.take(tmp_path)
    assert names(tmp_path) == ["lease"] and other.asks("check").says() == "yes"


def test_what_a_killed_process_left_is_swept_and_other_leases_are_not(tmp_path):
    written(tmp_path, "lease.fedcba9876543210")
    submits = lease.take(tmp_path, "lease-submit")
    held = lease.take(tmp_path)
    assert names(tmp_path) == ["lease", "lease-submit"]
    held.release()
    submits.check()
    submits.release()


def test_a_folder_that_takes_no_file_is_the_users_to_mend(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot take .*/file/lease \(Not a directory\)"):
        lease.take(tmp_path / "file")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        lease.take(tmp_path)
    assert names(tmp_path) == ["file"]


def test_whether_a_run_is_free_can_be_asked_without_taking_it(tmp_path, takers, minute):
    owner.check_free(tmp_path)
    assert owner.of(tmp_path) is None
    one = takers().owns()
    assert owner.of(tmp_path).pid == one.pid
    with pytest.raises(UserError, match=f"belongs to process {one.pid} "):
        owner.check_free(tmp_path)
    one.is_sent(signal.SIGKILL)
    owner.check_free(tmp_path)
    assert owner.of(tmp_path).pid == one.pid and minute.passed == 0


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("", 0)),
        ({"SLURM_JOB_ID": "9", "SLURM_RESTART_COUNT": "3"}, ("9", 3)),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, ("7_2", 0)),
        ({"SLURM_JOB_ID": "9", "MSCGAN_JOB": "local-5", "MSCGAN_ATTEMPT": "1"}, ("local-5", 1)),
    ],
)
def test_the_owner_says_which_job_it_is_of(environment, expected, tmp_path, monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "MSCGAN_JOB", "MSCGAN_ATTEMPT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    held = lease.take(tmp_path)
    said = asdict(owner.of(tmp_path))
    held.release()
    assert (said["job"], said["attempt"], said["pid"]) == (*expected, os.getpid())
