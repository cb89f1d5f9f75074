"""A hang from end to end: who ends it first, and what is known afterwards."""

import os
import subprocess

import pytest
import yaml

from launch import runs, watchdog
from mscgan import heartbeat
from tests.ranks import ROOT


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
            self.file.parent.mkdir(exist_ok=True)
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
    assert yaml.safe_load((ROOT / "launch/cluster.yaml").read_text())["hang_seconds"] == heartbeat.HANG_SECONDS
