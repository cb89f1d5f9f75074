"""Ranks as a launcher starts them: processes on this machine that meet at 127.0.0.1.

They are forked from a server that has imported what every rank imports, which takes a process longer than all that a
test has it do. What the launchers themselves start is real in tests/slurm and tests/test_soak.py.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch._dynamo", "deepspeed", "nvidia.dali", "mscgan.saving", "mscgan.evaluation"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Rank:
    """A started rank, with the methods of subprocess.Popen that tests and launch/watchdog.py use."""

    def __init__(self, command: list, environment: dict[str, str], output: Path):
        self._process = FORKS.Process(target=_run, args=([str(word) for word in command], environment, output))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("rank", timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(command: list[str], environment: dict[str, str], output: Path) -> None:
    """In the new process: `command`, a Python program, as if it had been started by itself."""
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for stream, suffix in ((sys.stdout, ".out"), (sys.stderr, ".err")):
        file = os.open(output.with_name(output.name + suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream.fileno())
        os.close(file)
    _, how, *arguments = command
    try:
        if how == "-c":
            sys.argv = [how, *arguments[1:]]
            exec(arguments[0], {"__name__": "__main__"})
        elif how == "-m":
            sys.argv = arguments
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [how, *arguments]
            runpy.run_path(how, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def start_ranks(
    commands: list[list], logs: Path, places: list[dict[str, str]] | None = None, **environment: str
) -> list[Rank]:
    """Starts a rank for each command, `python FILE ...`, `python -m MODULE ...` or `python -c TEXT ...`. Rank R's
    output goes to logs/R.out and logs/R.err, a new file each time.

    places: of each rank, what is not as on one machine.
    """
    logs.mkdir(parents=True, exist_ok=True)
    port, world, processes = str(free_port()), str(len(commands)), []
    for rank, command in enumerate(commands):
        own = {"RANK": str(rank), "WORLD_SIZE": world, "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": world}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        own |= environment | (places[rank] if places else {})
        processes.append(Rank(command, os.environ | own, logs / str(rank)))
    return processes


def exit_codes(processes: list[Rank], seconds: float = 300) -> list[int]:
    """The exit codes. After `seconds` it raises subprocess.TimeoutExpired; no process outlives the call."""
    end = time.monotonic() + seconds
    try:
        return [process.wait(timeout=max(0, end - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def logged(logs: Path) -> str:
    """The end of each rank's output, for an assertion to show."""
    return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in sorted(logs.iterdir()))
