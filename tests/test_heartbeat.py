import os
import shutil
import signal
import subprocess
import sys

import pytest

from mscgan import heartbeat
from tests.small_disk import remount, small_disk


@pytest.fixture(autouse=True)
def no_file_is_left_to_remove(monkeypatch):
    monkeypatch.setenv(heartbeat.ATTEMPT, "7-0")
    monkeypatch.setattr(heartbeat.atexit, "register", lambda *_, **__: None)


def test_the_file_names_host_process_device_and_the_steps_ahead(tmp_path):
    heartbeat.start(tmp_path, 3, "cpu", 700)
    assert heartbeat.path(tmp_path, 3) == tmp_path / "heartbeat/7-0/rank-00003"
    assert heartbeat.path(tmp_path, 3).read_text().split()[1:] == [str(os.getpid()), "cpu", "700"]


def test_a_beat_touches_the_file_at_most_once_a_second(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    heartbeat.start(tmp_path, 0, "cpu", 700)
    file = heartbeat.path(tmp_path, 0)
    os.utime(file, (1, 1))
    now[0] += 0.9
    heartbeat.beat()
    assert file.stat().st_mtime == 1
    now[0] += 0.2
    heartbeat.beat()
    assert file.stat().st_mtime > 1


def test_an_attempt_that_is_still_ending_touches_nothing_of_the_next_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "EVERY_SECONDS", 0.0)
    heartbeat.start(tmp_path, 0, "cpu", 700)
    old = heartbeat.path(tmp_path, 0)
    (tmp_path / "heartbeat/rank-00000").touch()  # an older version's
    monkeypatch.setenv(heartbeat.ATTEMPT, "7-1")
    new = heartbeat.path(tmp_path, 0)
    new.parent.mkdir()
    new.touch()
    heartbeat.sweep(tmp_path)
    assert list((tmp_path / "heartbeat").iterdir()) == [new.parent] and new.exists()
    os.utime(new, (1, 1))
    heartbeat.beat()
    heartbeat._leave(old)
    assert new.stat().st_mtime == 1 and not old.exists()
    heartbeat._leave(new)
    assert list((tmp_path / "heartbeat").iterdir()) == []


def test_without_a_launcher_each_process_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv(heartbeat.ATTEMPT)
    assert heartbeat.path(tmp_path, 0).parent.name.endswith(f"-{os.getpid()}")


def test_a_beat_before_start_does_nothing(monkeypatch):
    monkeypatch.setattr(heartbeat, "_file", None)
    heartbeat.beat()


def test_sigquit_prints_the_stacks_and_the_process_lives_on(tmp_path):
    script = (
        "import sys, time\n"
        "from mscgan import heartbeat\n"
        "def a_function_that_waits():\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
        f"heartbeat.start({str(tmp_path)!r}, 0, 'cpu', 0)\n"
        "a_function_that_waits()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        child.stdout.readline()
        child.send_signal(signal.SIGQUIT)
        _, errors = child.communicate("")
    assert child.returncode == 0
    assert "a_function_that_waits" in errors


def test_a_file_that_was_removed_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "EVERY_SECONDS", 0.0)
    heartbeat.start(tmp_path, 0, "cpu", 700)
    file = heartbeat.path(tmp_path, 0)
    text = file.read_text()
    shutil.rmtree(file.parent)
    heartbeat.beat()
    assert file.read_text() == text


def test_a_beat_that_cannot_be_written_is_said_once_and_ends_no_training(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(heartbeat, "EVERY_SECONDS", 0.0)
    with small_disk(tmp_path / "disk") as disk:
        heartbeat.start(disk, 0, "cpu", 700)
        remount(disk, "ro")
        for _ in range(3):
            heartbeat.beat()
        remount(disk, "rw")
        heartbeat.beat()
    first, last = capfd.readouterr().err.splitlines()
    assert "rank-00000 cannot be written (Read-only file system)" in first
    assert last.endswith("rank-00000 is written again, after 3 failed attempts")
