"""Measures on one GPU what this project promises there, in a time that is given: the most valuable part first.

    benchmarks/run_gpu_checks.sh [OUT] --minutes 9      OUT: a folder for records and logs (runs/gpu-checks)
    benchmarks/run_gpu_checks.sh OUT --tiny             the same path at sizes for a CPU, to try it

After each part it prints the table of all bars, with what is measured so far. A part whose time is over, that fails or
that is killed keeps the rows that its record has, and the next one follows. On TERM, INT or HUP the running part ends
and the table is printed once more; after a kill -9, `python benchmarks/gpu_checks.py OUT/TIME` prints it.
Exit code 0: all bars are met.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import gpu_checks
from mscgan.arguments import Parser
from mscgan.errors import UserError, run
from mscgan.paths import a_path

COMMAND = Path(__file__).with_name("run_throughput.py")
GRACE = 5.0  # seconds between TERM and KILL
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Part(NamedTuple):
    """A command of run_throughput.py, and the seconds that it gets."""

    name: str
    seconds: int
    arguments: tuple[str, ...]


STEP = tuple("--stages joint --configs deepfashion --precisions bf16 --batch 16".split())
ROUNDS = ("--rounds", "3", "--steps", "5")
PARTS = (  # the most valuable first; together nine minutes
    Part("ops", 120, ("ops", "--quick", "--sizes", "256x256")),
    Part("step", 110, ("step", *STEP, *ROUNDS, "--ways", "zero1", "ddp", "plain-1", "--energy-seconds", "4")),
    Part("compiled", 140, ("step", *STEP, *ROUNDS, "--ways", "zero1", "ddp", "compiled", "--energy-seconds", "0")),
    Part("profile", 40, ("profile", *STEP, "--ways", "ddp")),
    Part("plain", 80, ("step", *STEP, *ROUNDS, "--ways", "ddp", "loader", "plain", "--energy-seconds", "0")),
    Part("data", 40, ("data", "--sizes", "256x256", "--rounds", "2", "--seconds", "0.5")),
)
TINY = {  # of each section, what is set to another value after the part's own
    "ops": tuple("--sizes 64x32 --megabytes 1 --rounds 1 --seconds 0.01".split()),
    "step": tuple("--configs demo --precisions fp32 --batch 2 --rounds 2 --steps 1".split()),
    "profile": tuple("--configs demo --precisions fp32 --batch 2".split()),
    "data": tuple("--sizes 64x32 --images 8 --rounds 1 --seconds 0.05".split()),
}


def plan(parts: tuple[Part, ...], seconds: float) -> tuple[list[Part], list[Part]]:
    """The parts that fit one after the other, in their order, and those that do not."""
    fit, left_out = [], []
    for part in parts:
        if part.seconds <= seconds:
            fit.append(part)
            seconds -= part.seconds
        else:
            left_out.append(part)
    return fit, left_out


def measure(parts: tuple[Part, ...], out: Path, seconds: float, limits: dict[str, float]) -> bool:
    """Runs the parts in their order, and prints the table after each. Returns whether all bars are met."""
    ends, all_met = time.monotonic() + seconds, False
    for part in parts:
        left = ends - time.monotonic()
        if left < part.seconds / 4:
            print(f"== {part.name} is left out: {left:.0f} s are left, and it takes {part.seconds}", flush=True)
            continue
        print(f"== {part.name} (at most {min(left, part.seconds):.0f} s; log: {out / part.name}.log)", flush=True)
        print(f"   {_run(part, out, min(left, part.seconds))}", flush=True)
        all_met = _table(out, limits)
    return all_met


def _table(out: Path, limits: dict[str, float]) -> bool:
    """Prints the table of what there is so far. Returns whether all bars are met."""
    text, all_met = gpu_checks.report(out, limits)
    print(f"\n{text}\n", flush=True)
    return all_met


def _run(part: Part, out: Path, seconds: float) -> str:
    """Runs a part for so long at most. Returns what became of it."""
    began = time.monotonic()
    command = [sys.executable, "-P", str(COMMAND), *part.arguments, "--out", str(out), "--people", "20"]
    log = out / f"{part.name}.log"
    with log.open("wb") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code: int | None = child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(child)
    took = f"after {time.monotonic() - began:.0f} s"
    if code == 0:
        return f"done {took}"
    lines = log.read_text(errors="replace").strip().splitlines()
    last = [line for line in lines if line.startswith("SKIPPED")] + lines[-3:]
    return "\n   ".join([f"its time was over {took}" if code is None else f"exit code {code} {took}", *last])


def _end(child: subprocess.Popen) -> None:
    """Ends a part with all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def _stop(number: int, _frame: object) -> None:
    for other in SIGNALS:  # one is enough: what follows is to end the part and to print
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> int:
    parser = Parser(prog="run_gpu_checks.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in PARTS]
    parser.add_argument("out", nargs="?", type=a_path, default=Path("runs/gpu-checks"), metavar="OUT")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it (9)")
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="those alone")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU, to try this")
    gpu_checks.add_limits(parser)
    a = parser.parse_args()
    parts = tuple(part for part in PARTS if part.name in a.parts)
    if a.tiny:
        parts = tuple(part._replace(arguments=part.arguments + TINY[part.arguments[0]]) for part in parts)
    fit, left_out = plan(parts, 60 * a.minutes)
    if not fit:
        shortest = min(part.seconds for part in parts)
        raise UserError(
            f"--minutes {a.minutes:g} are {60 * a.minutes:.0f} s, and the shortest part takes {shortest} s; give more"
        )
    out = a.out / f"{datetime.now():%Y%m%dT%H%M%S}"
    out.mkdir(parents=True)
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _stop)
    print(f"planned for {a.minutes:g} minutes: {', '.join(f'{part.name} ({part.seconds} s)' for part in fit)}")
    if left_out:
        print(f"only if others end sooner: {', '.join(f'{part.name} ({part.seconds} s)' for part in left_out)}")
    try:
        return 0 if measure((*fit, *left_out), out, 60 * a.minutes, gpu_checks.limits_of(a)) else 1
    except SystemExit:  # of _stop
        _table(out, gpu_checks.limits_of(a))
        raise


if __name__ == "__main__":
    run(main)
