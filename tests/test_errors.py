"""What the user sees of a mistake, whatever the environment says of ranks."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mscgan import errors, files
from mscgan.errors import UserError, run
from tests.ranks import ROOT
from tests.small_disk import fill, small_disk


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
from tests.ranks import ROOT
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


@pytest.mark.parametrize("log", ["/dev/full", "/dev/null"])
def test_a_log_that_cannot_be_written_changes_no_exit_code(log):
    code = "from mscgan.errors import run, say; say('one'); say('two'); run(lambda: 85)"
    with open(log, "w") as stderr:
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=stderr).returncode == 85


@pytest.mark.parametrize(
    ("stdout", "code", "expected", "said"),
    [
        (">/dev/full", 85, 85, "error: what this prints cannot be written (No space left on device)\n"),
        (">/dev/full", 0, 2, "error: what this prints cannot be written (No space left on device)\n"),
        ("| true", 85, 85, ""),
        (">&-", 85, 85, ""),
        (">&- 2>&-", 85, 85, ""),
    ],
)
def test_what_cannot_be_printed_is_no_other_end(stdout, code, expected, said):
    code = f"{sys.executable} -c 'from mscgan.errors import run; run(lambda: print(2) or {code})' {stdout}"
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    done = subprocess.run(["bash", "-c", f"{code}; exit ${{PIPESTATUS[0]}}"], cwd=ROOT, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stderr) == (expected, said)


def test_a_full_disk_is_blamed_on_what_is_written_to(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        (disk / "a").touch()
        fill(disk)
        for write in (files.write, files.append, lambda file, text: shutil.copyfile(__file__, file)):
            with pytest.raises(OSError, match="No space left") as error:
                write(disk / "a", "x" * 5000)
            assert str(errors.of_disk(error.value)).startswith(f"{disk}/a: No space left")


RAISES = """
import os
from mscgan.errors import run
def main():
    raise OSError({0}, os.strerror({0}), "a")
run(main)
"""


def test_a_full_disk_is_one_line_and_an_error_that_may_pass_is_a_crash():
    full, stale = (
        subprocess.run([sys.executable, "-c", RAISES.format(number)], cwd=ROOT, capture_output=True, text=True)
        for number in (errno.ENOSPC, errno.ESTALE)
    )
    assert full.returncode == 2
    assert full.stderr == (
        "error: a: No space left on device; make room there, or let this user write there, and run again\n"
    )
    assert stale.returncode == 1


def test_ctrl_c_is_one_line_and_the_signal_that_a_shells_loop_ends_by():
    main = "import signal; from mscgan.errors import run; run(lambda: signal.raise_signal(signal.SIGINT))"
    ended = subprocess.run([sys.executable, "-c", main], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "stopped by Ctrl-C\n")
