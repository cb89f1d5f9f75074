import os
import signal
import subprocess
import sys

import pytest

from mscgan import heartbeat


@pytest.fixture(autouse=True)
def no_file_is_left_to_remove(monkeypatch):
    monkeypatch.setattr(heartbeat.atexit, "register", lambda *_, **__: None)


def test_the_file_names_host_process_device_and_the_steps_ahead(tmp_path):
    heartbeat.start(tmp_path, 3, "cpu", 700)
    assert heartbeat.path(tmp_path, 3) == tmp_path / "heartbeat" / "rank-00003"
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
