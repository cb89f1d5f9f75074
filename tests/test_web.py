"""The command that serves the page: what it says, what it refuses before any work, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from mscgan.errors import run
from mscgan.web.__main__ import main
from tests.run_factory import write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("web"), persons=2, views=2)


def refusal(monkeypatch, capsys, *words: object) -> str:
    """What the command says on stderr; it ends with exit code 2 and never as far as the networks."""
    monkeypatch.setattr(sys, "argv", ["web", *map(str, words)])
    monkeypatch.setattr("mscgan.trained.load", lambda _: pytest.fail("the networks were read"))
    with pytest.raises(SystemExit) as left:
        run(main)
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (2, "")
    return said.err


@pytest.mark.parametrize("other", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_taken_is_one_line(made, monkeypatch, capsys, other):
    with socket.create_server((other, 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(monkeypatch, capsys, "--run", made, "--port", port)
    assert said == f"error: port {port} is taken; give another with --port, or --port 0 for one that is free\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--port", "-1"], "a port is a number from 1 to 65535"),
        (["--port", "65536"], "a port is a number from 1 to 65535"),
        (["--run", "nowhere"], "no run folder 'nowhere'"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(made, monkeypatch, capsys, words, reason):
    said = refusal(monkeypatch, capsys, "--run", made, *words)
    assert said.startswith("error: ") and reason in said and said.count("\n") == 1


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_its_packages_the_command_says_how_to_bring_them(made, monkeypatch, capsys, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == missing or name == "mscgan.web.app"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    said = refusal(monkeypatch, capsys, "--run", made)
    assert said == f"error: the page is served by {missing}, which is not here; pip install 'mscgan[web]'\n"


def test_the_command_prints_the_address_serves_the_page_and_ctrl_c_ends_it_with_a_line(made, tmp_path):
    words = [sys.executable, "-m", "mscgan.web", "--run", str(made), "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MSCGAN_WEIGHTS": str(tmp_path)}  # where there is no estimator
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[1]
    ) as server:
        try:
            line = server.stdout.readline()
            address = re.fullmatch(r"(http://127\.0\.0\.1:\d+/) – open it in a browser; Ctrl-C ends it\n", line)[1]
            assert urlopen(address, timeout=20).read().startswith(b"<!DOCTYPE html>")
            server.send_signal(signal.SIGINT)
            out, err = server.communicate(timeout=20)
        finally:
            server.kill()
    assert (server.returncode, out) == (0, "ended\n")
    assert err.count("\n") == 1 and "python -m mscgan.weights fetch movenet" in err


def test_a_file_that_is_no_estimator_is_refused(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["web", "--run", str(made), "--port", "0", "--estimator", str(tmp_path / "no.pth")]
    )
    with pytest.raises(SystemExit) as left:
        run(main)
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (2, "") and said.err.startswith("error: ") and said.err.count("\n") == 1
