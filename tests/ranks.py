"""Ranks as a launcher starts them: processes on this machine that meet at 127.0.0.1."""

import os
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start_ranks(commands: list[list], logs: Path, **environment: str) -> list[subprocess.Popen]:
    """Starts a rank for each command. Rank R's output goes to logs/R.out and logs/R.err, a new file each time."""
    logs.mkdir(parents=True, exist_ok=True)
    port, world, processes = str(free_port()), str(len(commands)), []
    for rank, command in enumerate(commands):
        own = {"RANK": str(rank), "WORLD_SIZE": world, "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": world}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with (logs / f"{rank}.out").open("w") as out, (logs / f"{rank}.err").open("w") as err:
            processes.append(
                subprocess.Popen(command, env=os.environ | own | environment, stdout=out, stderr=err, cwd=ROOT)
            )
    return processes


def exit_codes(processes: list[subprocess.Popen], seconds: float = 300) -> list[int]:
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
