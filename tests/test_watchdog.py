import os
import signal
import subprocess
import sys
import threading

import pytest

from launch import watchdog
from mscgan import heartbeat
from tests.small_disk import fill, remount, small_disk

SLEEPER = """
import sys, time
from mscgan import heartbeat
heartbeat.start(sys.argv[1], int(sys.argv[2]), sys.argv[3], 40)
def stuck_in_a_collective():
    print("asleep", file=sys.stderr, flush=True)
    time.sleep(60)
stuck_in_a_collective()
"""


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setenv(heartbeat.ATTEMPT, "7-0")
    monkeypatch.setattr(watchdog, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(watchdog, "DUMP_SECONDS", 1.0)
    monkeypatch.setattr(watchdog, "SETUP_SECONDS", 0.0)


def start(run, rank=0, device="cpu", logs=None):
    logs = logs or run
    log = open(logs / f"log-{rank}", "w")
    child = subprocess.Popen([sys.executable, "-c", SLEEPER, str(run), str(rank), device], stderr=log)
    while "asleep" not in (logs / f"log-{rank}").read_text():
        assert child.poll() is None
    return child


def test_the_childs_own_return_code_comes_back(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(85)"])
    assert watchdog.watch(child, heartbeat.path(tmp_path, 0), 60) == 85


def test_a_child_ended_by_a_signal_gives_its_negative_number(tmp_path):
    child = start(tmp_path)
    child.kill()
    assert watchdog.watch(child, heartbeat.path(tmp_path, 0), 60) == -signal.SIGKILL


@pytest.mark.parametrize("stop", [False, True], ids=["waiting", "stopped"])
def test_a_silent_child_dumps_its_stacks_and_is_ended(tmp_path, stop):
    child = start(tmp_path)
    if stop:
        child.send_signal(signal.SIGSTOP)
    assert watchdog.watch(child, heartbeat.path(tmp_path, 0), 0.5) == 88
    assert child.returncode == -signal.SIGKILL
    assert "stuck_in_a_collective" in (tmp_path / "log-0").read_text()


@pytest.fixture
def cores_worth(monkeypatch):
    """The children seem to use CPU time: at each look of the watchdog, so many seconds more; then no more."""

    def use(*seconds):
        left = iter(seconds)
        used = [0.0]

        def look(pid):
            used[0] += next(left, 0.0)
            return used[0]

        monkeypatch.setattr(watchdog, "_cpu_seconds", look)

    return use


def test_a_silent_child_that_computes_on_a_cpu_is_slow_until_it_waits(tmp_path, capfd, cores_worth):
    """Looks: at the start, at the end of a silence, at the start of the next one."""
    cores_worth(0, 0.2, 0, 0.2, 0, 0.01)
    assert watchdog.watch(start(tmp_path), heartbeat.path(tmp_path, 0), 0.5) == 88
    first, second, end = capfd.readouterr().err.splitlines()
    assert "rank-00000 on " in first and "slow, not hung" in first
    assert "A step takes more than 0.5 s, so the 40 steps of this run more than 0.00556 hours" in first
    assert "A step takes more than 1 s, so the 40 steps of this run more than 0.0111 hours" in second
    assert "gave no sign of life for 0.5 s" in end


def test_on_a_gpu_a_busy_core_is_no_sign_of_life(tmp_path, capfd, cores_worth):
    cores_worth(*[0.5] * 100)
    assert watchdog.watch(start(tmp_path, device="cuda"), heartbeat.path(tmp_path, 0), 0.5) == 88
    assert "slow" not in capfd.readouterr().err


def test_the_heartbeat_of_another_process_tells_nothing_of_this_one(tmp_path, capfd, cores_worth):
    cores_worth(*[0.5] * 100)
    child = start(tmp_path)
    heartbeat.path(tmp_path, 0).write_text("host 1 cpu 40\n")
    assert watchdog.watch(child, heartbeat.path(tmp_path, 0), 0.5) == 88
    assert "slow" not in capfd.readouterr().err


def test_cpu_time_is_that_of_all_threads():
    def work():
        while sum(os.times()[:2]) < end:
            pass

    end = sum(os.times()[:2]) + 0.5
    threads = [threading.Thread(target=work) for _ in range(2)]
    before = watchdog._cpu_seconds(os.getpid())
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.4 < watchdog._cpu_seconds(os.getpid()) - before < 1.0
    assert watchdog._cpu_seconds(2**22 + 1) == 0.0


def test_a_child_that_beats_is_left_alone(tmp_path):
    file = heartbeat.path(tmp_path, 0)
    file.parent.mkdir(parents=True)
    script = "import os, sys, time\nfor i in range(15): open(sys.argv[1], 'w').write(str(i)); time.sleep(0.1)"
    child = subprocess.Popen([sys.executable, "-c", script, str(file)])
    assert watchdog.watch(child, file, 1.0) == 0


def test_before_its_first_steps_a_child_has_more_time(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "SETUP_SECONDS", 30.0)
    file = heartbeat.path(tmp_path, 0)
    file.parent.mkdir(parents=True)
    script = "import sys, time\ntime.sleep(0.8); open(sys.argv[1], 'w').write('started'); time.sleep(0.8)"
    child = subprocess.Popen([sys.executable, "-c", script, str(file)])
    assert watchdog.watch(child, file, 0.4) == 0


def test_at_its_end_a_child_has_more_time(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "SETUP_SECONDS", 30.0)
    script = (
        "import sys, time\n"
        "from mscgan import heartbeat\n"
        "class SlowToGo:\n"
        "    def __del__(self): time.sleep(1.5)\n"
        "slow = SlowToGo()\n"
        "heartbeat.EVERY_SECONDS = 0.0\n"
        "heartbeat.start(sys.argv[1], 0, 'cpu', 8)\n"
        "for _ in range(8): time.sleep(0.1); heartbeat.beat()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    assert watchdog.watch(child, heartbeat.path(tmp_path, 0), 0.6) == 0
    assert not heartbeat.path(tmp_path, 0).exists()


def test_one_silent_rank_makes_all_dump_their_stacks(tmp_path):
    silent, other = start(tmp_path, 0), start(tmp_path, 1)
    codes = {}
    patient = threading.Thread(
        target=lambda: codes.update(other=watchdog.watch(other, heartbeat.path(tmp_path, 1), 600))
    )
    patient.start()
    codes["silent"] = watchdog.watch(silent, heartbeat.path(tmp_path, 0), 0.5)
    patient.join()
    assert codes == {"silent": 88, "other": 88}
    assert "stuck_in_a_collective" in (tmp_path / "log-1").read_text()
    assert "rank-00000" in (tmp_path / "heartbeat/7-0/hung").read_text()


def test_the_mark_of_an_earlier_attempt_and_its_old_heartbeat_do_not_count(tmp_path):
    file = heartbeat.path(tmp_path, 0)
    file.parent.mkdir(parents=True)
    file.write_text("old")
    os.utime(file, (1, 1))
    (file.parent / "hung").write_text("an earlier attempt")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])
    assert watchdog.watch(child, file, 30) == 0


def test_a_rank_whose_file_cannot_be_written_is_left_alone(tmp_path, capfd):
    """It may be well: the silence is the disk's. Once the disk can be written it counts again."""
    with small_disk(tmp_path / "disk") as disk:
        child = start(disk, logs=tmp_path)
        remount(disk, "ro")
        codes = []
        watching = threading.Thread(target=lambda: codes.append(watchdog.watch(child, heartbeat.path(disk, 0), 0.5)))
        watching.start()
        watching.join(1.5)
        assert child.poll() is None
        remount(disk, "rw")
        watching.join()
        assert codes == [88]
    assert "cannot be written, so its silence of 0.5 s tells nothing" in capfd.readouterr().err


def test_a_hung_rank_is_ended_on_a_full_disk_too(tmp_path, capfd):
    with small_disk(tmp_path / "disk") as disk:
        child = start(disk, logs=tmp_path)
        fill(disk)
        assert watchdog.watch(child, heartbeat.path(disk, 0), 0.5) == 88
    assert "hung cannot be written (No space left on device)" in capfd.readouterr().err
