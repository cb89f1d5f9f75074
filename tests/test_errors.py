"""What the user sees of a mistake, whatever the environment says of ranks."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mscgan import errors
from mscgan.errors import UserError, run


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({}, ""),
        ({"RANK": "0", "WORLD_SIZE": "1"}, ""),
        ({"RANK": "3", "WORLD_SIZE": "4"}, "[rank 3] "),
        ({"WORLD_SIZE": "4"}, ""),  # half an environment is itself a mistake that is reported this way
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(environment, where, monkeypatch, capsys):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(errors, "RANK_0_FIRST", 0.0)

    def main():
        raise UserError("the file is broken (line 1\n  column 2); mend it")

    with pytest.raises(SystemExit) as left:
        run(main)
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: {where}the file is broken (line 1 column 2); mend it\n"


@pytest.mark.parametrize("code", [None, 0, 85])
def test_what_main_returns_is_the_exit_code(code):
    with pytest.raises(SystemExit) as left:
        run(lambda: code)
    assert left.value.code == code


MISTAKEN = """
import signal
from mscgan.errors import UserError, run
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: None)  # as training does
def main():
    print("found", flush=True)
    raise UserError("the batch does not divide")
run(main)
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGUSR1"])
def test_what_every_rank_finds_is_said_by_rank_0_alone(number):
    """A launcher ends the others, as here, when rank 0 has ended."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", MISTAKEN],
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (1, 0)
    ]
    for process in ranks:
        assert process.stdout and process.stdout.readline() == "found\n"
    assert ranks[1].communicate(timeout=60)[1] == "error: [rank 0] the batch does not divide\n"
    while ranks[0].poll() is None:  # the first may come before it waits
        ranks[0].send_signal(getattr(signal, number))
        time.sleep(0.02)
    assert ranks[0].communicate(timeout=60)[1] == "" and ranks[0].returncode == -getattr(signal, number)
