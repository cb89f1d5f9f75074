"""What `jobs.py list` and `jobs.py show` print."""

import os
import shlex
import sys
from itertools import islice
from pathlib import Path

from launch import progress, runs, slurm, states
from launch.follow import SKIP, log_file
from launch.states import job_id, task_id, task_states

LISTED = 20
LINES = 5  # of the log of a rank that failed


def jobs(everything: bool) -> int:
    plans = list(islice(runs.readable(runs.newest_first()), None if everything else LISTED))[::-1]
    known = _known(plans)
    rows = [("JOB", "STATE", "KIND", "HOST", "PAIRS", "DONE", "PAIRS/S", "LEFT", "RUN")]
    for plan in plans:
        for index, state in enumerate(task_states(plan, known)):
            now = progress.of(plan, index)
            runs_now = state == "RUNNING" and now.rate > 0
            rows.append((
                task_id(plan, index), state, plan.kind, _host(plan, index, known),
                f"{now.pairs:,}" if now.total else "", now.share(),
                f"{now.rate:.1f}" if runs_now else "", now.left() if runs_now else "", _short(plan.works[index].run),
            ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell or '-':{'<' if place < 4 else '>'}{widths[place]}}" for place, cell in enumerate(row[:-1])]
        print("  ".join([*cells, row[-1]]))
    return 0


def _host(plan: runs.Plan, index: int, known: dict[str, slurm.State]) -> str:
    """Where a run is, or was last: SLURM's nodes or this machine's name."""
    state = known.get(task_id(plan, index))
    if state and state.nodes:
        return state.nodes
    starts = runs.notes(plan, index, "start")
    return (starts[-1].get("nodes") if starts else "") or runs.read_job(plan.folder).get("host", "")


def _known(plans: list[runs.Plan]) -> dict[str, slurm.State]:
    """What the scheduler knows; where it is silent that is said, and the runs' own notes have to do."""
    try:
        return states.ask(plans)
    except slurm.NoAnswer as error:
        print(f"note: {error}", file=sys.stderr)
        return {}


def _short(path: str) -> str:
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def job(plan: runs.Plan) -> int:
    known = _known([plan])
    now = task_states(plan, known)
    print(
        f"job       {job_id(plan)} ({plan.name})\nkind      {plan.kind}\n"
        f"code      {plan.commit}\nfolder    {plan.folder}"
    )
    for index, work in enumerate(plan.works):
        state = known.get(task_id(plan, index))
        where = (
            f" on {state.nodes}"
            if state and state.nodes
            else f" ({state.reason})"
            if state and state.reason != "None"
            else ""
        )
        print(f"\nrun       {work.run}\nstate     {now[index]}{where}")
        print(
            f"newest    {runs.newest_checkpoint(work.run) or 'no checkpoint'}\n"
            f"command   python {shlex.join(work.arguments)}"
        )
        print(f"log       {log_of(plan, index, 0)}")
        for note in runs.notes(plan, index):
            if (attempt := note.get("attempt")) is not None:
                start = f"start on {note.get('nodes') or 'this machine'}"
                what = start if note["event"] == "start" else f"end: {note['outcome']}"
                newest = note.get("checkpoint") or "no checkpoint"
                print(f"  {note['time']}  attempt {attempt}  {what}  {newest}")
        _show_failed(plan, index)
    return 0


def _show_failed(plan: runs.Plan, index: int) -> None:
    """Of the newest attempt that ended: the rank that failed first, its exit code, its log and the end of that; or the
    setup line that failed before."""
    ends = runs.notes(plan, index, "end")
    if not ends:
        return
    if ends[-1].get("why"):
        print(f"failed    {ends[-1]['why']}")
    if ends[-1].get("hang"):
        print(f"hung      {ends[-1]['hang']}")
    if failed := ends[-1].get("failed"):
        where = f" on {failed['node']}" if failed["node"] else ""
        code = "no exit code: it was killed" if failed["code"] is None else f"exit code {failed['code']}"
        log = log_of(plan, index, failed["rank"])
        print(f"failed    rank {failed['rank']}{where}, {code}; the end of {log}:")
        for line in _end(log):
            print(f"  | {line}")


def _end(log: Path) -> list[str]:
    try:
        lines = log.read_bytes()[-20_000:].decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip() and not line.startswith(SKIP.decode())][-LINES:]


def log_of(plan: runs.Plan, index: int, rank: int) -> Path:
    """A rank's log: one a job on SLURM, the newest attempt's on this machine."""
    if "slurm" in runs.read_job(plan.folder):
        return log_file(plan, task_id(plan, index), rank)
    files = sorted(Path(plan.folder).glob(f"*_{rank}_log.out"), key=lambda file: file.stat().st_mtime)
    return files[-1] if files else Path(plan.folder) / f"none_{rank}_log.out"
