"""Run folders, and what the launcher keeps in them. Standard library only: it also runs in the batch script of a job.

RUN/                                what training writes: config.yaml, checkpoints/, logs, pictures
RUN/attempts.jsonl                  a line at each start and end of an attempt
RUN/bad_nodes/NODE.json             what the preflight last found there: {"node", "time", "reasons": [...]}
RUN/asked/save, RUN/asked/stop      what `jobs.py save` and `stop` ask of the training (mscgan/asked.py)
RUN/launch-20260102-030405-ab12cd/  one launch, private (0700)
    launch.json                     the Plan below, complete before anything is queued
    job.json                        the scheduler's job id, or the process that runs it on this machine
    config-0.yaml                   the resolved configuration (one each for the runs of a sweep)
    snapshot/                       the code that runs, whatever happens to the checkout meanwhile
    ranks/0-1/rank-00003.json       run 0, attempt 1: the processes of rank 3 and its exit code
    123_3_log.out                   what rank 3 of job 123 printed; rank 0's also has the batch script's lines

A file that cannot be read, as one that a full disk cut off, is named once and passed over: it hides no other launch.
"""

import errno
import json
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from mscgan import files, process
from mscgan.errors import UserError, say
from mscgan.heartbeat import HANG_SECONDS

# These paths are written into sbatch scripts. A % would be a pattern of SLURM's.
SAFE_PATH = re.compile(r"[\w ./:@=+,~()-]+")
ONE_PROCESS = ("generate", "shards", "table2")  # the kinds of job that are one process


@dataclass
class Work:
    """What one job (or one task of a job array) does."""

    run: str  # the run's folder
    arguments: list[str]  # after `python -P`
    shards: str = ""  # data.root, for the preflight and the stage-in
    stage_to: str = ""  # data.stage_to
    manifest_sha256: str = ""  # of the shards at the time of the launch
    folders: list[str] = field(default_factory=list)  # others that its arguments name, for a container


@dataclass
class Plan:
    """One launch, as launch.json holds it."""

    name: str  # mscgan-train-ab12cd: of this launch alone
    kind: str  # train | evaluate | generate | shards | throughput | table2
    folder: str
    cwd: str  # where the user stood; relative paths of the configuration start there
    commit: str
    works: list[Work]
    job_name: str = ""  # what the scheduler calls it: launch/guard.py, but for the .sbatch files
    gpus: int = 0  # of a node; 0: CPU only
    crash_retries: int = 0
    stalled_tries: int = 1
    hang_seconds: float = HANG_SECONDS
    preflight: bool = False
    umask: int = 0o077  # of the programs; the launch folder is private whatever it is
    here: bool = False  # without SLURM, the user looking on: a failure is tried again only after a new checkpoint
    settings: dict[str, Any] = field(default_factory=dict)  # the launcher's options (launch/options.py)


def unique_name(kind: str) -> str:
    return f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def check_path(path: str) -> None:
    """Raises UserError for a path that SLURM or a shell would misread."""
    if not SAFE_PATH.fullmatch(path):
        raise UserError(
            f"the path {path!r} may hold letters, digits, spaces and _ . / : @ = + , ~ ( ) - only; give another"
        )


def private_folder(path: Path) -> Path:
    """Makes a folder that only this user may write to (0700), or checks the one that is there.

    Jobs load pickles and code from it, so whoever may write there may run code as this user.

    Raises:
        UserError: another user's folder, one that others may write to, or a path that SLURM would misread.
    """
    path = Path(os.path.abspath(path))
    check_path(str(path))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_make(path, error) from error
    return check_private(path)


def check_private(path: Path) -> Path:
    """Returns the path of a folder that `private_folder` would take or could make; makes none.

    Raises:
        UserError: as `private_folder`.
    """
    path = Path(os.path.abspath(path))
    check_path(str(path))
    try:
        found = path.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except FileNotFoundError as error:
        parent = next(parent for parent in path.parents if parent.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            raise _cannot_make(path, PermissionError(errno.EACCES, f"you may not write to {parent}")) from error
        return path
    except OSError as error:
        raise _cannot_make(path, error) from error
    if found.st_uid != os.getuid():
        raise UserError(
            f"{path} belongs to user id {found.st_uid}, you are {os.getuid()}; give a folder of yours with run=FOLDER"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(f"others may write to {path} (mode {stat.S_IMODE(found.st_mode):o}); run: chmod go-w '{path}'")
    return path


def check_writable(path: Path) -> None:
    """As `check_private`, and refuses a folder that is there and cannot be written to, as on a read-only disk."""
    if not os.access(path := check_private(path), os.W_OK | os.X_OK) and path.exists():
        raise UserError(f"cannot write into {path}; give another with run=FOLDER")


def _cannot_make(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot make the folder {path}: {error.strerror}; give another with run=FOLDER")


def write_plan(plan: Plan) -> None:
    files.write(Path(plan.folder) / "launch.json", json.dumps(asdict(plan), indent=1))


def read_plan(folder: Path | str) -> Plan:
    """The plan of a launch folder.

    Raises:
        UserError: no launch there, one that is damaged, or a folder that others may write to.
    """
    file = Path(folder) / "launch.json"
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{folder} is no launch folder: it has no launch.json") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from error
    private_folder(Path(folder))
    try:
        values = json.loads(text)
        plan = Plan(**(_known(Plan, values) | {"works": [Work(**_known(Work, work)) for work in values["works"]]}))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file} is damaged; the run itself is not: submit it again to go on from its newest checkpoint, in a "
            "launch of its own"
        ) from error
    return plan


def readable(folders: Iterator[Path] | list[Path]) -> Iterator[Plan]:
    """The plans of launch folders, one by one as they are asked for. One that cannot be read is named and left out."""
    for folder in folders:
        try:
            yield read_plan(folder)
        except UserError as error:
            say_once(f"note: a launch is left out: {error}")


@cache
def say_once(text: str) -> None:
    """Says it once in this process, however often a file is looked at, or a part of a launch is."""
    say(text)


def _known(cls: type, values: dict) -> dict:
    """The values that `cls` has a field for: another version of the launcher may have written more."""
    return {key.name: values[key.name] for key in fields(cls) if key.name in values}


def newest_checkpoint(run: Path | str) -> str:
    """Name of the newest checkpoint, pairs-000012345, or an empty string. Checkpoints appear complete, by a rename."""
    names = [folder.name for folder in Path(run).glob("checkpoints/pairs-*") if folder.name[6:].isdigit()]
    return max(names, key=lambda name: int(name[6:]), default="")


def facts(run: Path | str, schema: int) -> dict:
    """What the newest checkpoint says of itself, for mscgan/schedule.py; empty without one of this schema. Of one that
    cannot be read or is of another version training says why."""
    try:
        document = json.loads((Path(run) / "checkpoints" / newest_checkpoint(run) / "state.json").read_text())
        return document["state"] if document["schema"] == schema else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def results_there(run: Path | str) -> bool:
    """Whether a complete run still has its configuration and its weights, whole; training writes those again from the
    newest checkpoint."""
    weights = "generator.safetensors"
    kept, there = Path(run, "checkpoints", newest_checkpoint(run), weights), Path(run, weights)
    if not all(path.is_file() for path in (kept, there, Path(run, "config.yaml"))):
        return False
    return there.stat().st_size == kept.stat().st_size


def note(run: Path | str, **values) -> None:
    """Appends a line to RUN/attempts.jsonl: whole, or not at all, and never to half a line of before.

    Raises:
        OSError: the disk is full, or this user may not write there.
    """
    file = Path(run) / "attempts.jsonl"
    line = json.dumps({"time": time.strftime("%Y-%m-%d %H:%M:%S"), **values}) + "\n"
    files.append(file, line if _ends_whole(file) else f"\n{line}")


def _ends_whole(file: Path) -> bool:
    try:
        with files.open_plain(file) as opened:
            if not opened.seek(0, os.SEEK_END):
                return True
            opened.seek(-1, os.SEEK_END)
            return opened.read(1) == b"\n"
    except FileNotFoundError:
        return True


def notes(plan: Plan, index: int, event: str = "") -> list[dict]:
    """The lines of RUN/attempts.jsonl on a run of this launch, oldest first. event: start | end; empty: both."""
    file = Path(plan.works[index].run) / "attempts.jsonl"
    try:
        with files.open_plain(file) as opened:
            lines = opened.read().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        say_once(f"note: {file} cannot be read ({error.strerror})")
        return []
    found = []
    for number, line in enumerate(lines, 1):
        try:
            one = json.loads(line)
            if missing := _OF_A_NOTE[one["event"]] - one.keys():
                raise KeyError(*missing)
            if (one["launch"], one["index"]) == (plan.name, index) and event in ("", one["event"]):
                found.append(one)
        except (ValueError, KeyError, TypeError, AttributeError):
            if line.strip():
                say_once(f"note: line {number} of {file} is not whole and is passed over")
    return found


# What every line has, so that whoever reads it need not ask.
_OF_A_NOTE = {
    "start": {"launch", "index", "time", "checkpoint"},
    "end": {"launch", "index", "time", "outcome", "code", "again"},
}


def write_bad_nodes(run: Path, bad: dict[str, list[str]]) -> None:
    """Writes the nodes down with their reasons."""
    for node, reasons in bad.items():
        (run / "bad_nodes").mkdir(exist_ok=True)
        text = json.dumps({"node": node, "time": time.time(), "reasons": reasons})
        files.write(run / "bad_nodes" / f"{node}.json", text + "\n")


def bad_nodes(plan: Plan, index: int) -> list[str]:
    """The nodes found bad since this attempt began."""
    starts = notes(plan, index, "start")
    found = set()
    for file in (Path(plan.works[index].run) / "bad_nodes").glob("*.json"):
        try:
            if starts and file.stat().st_mtime >= starts[-1].get("unix", 0) - 1:
                found.add(json.loads(file.read_bytes())["node"])
        except (OSError, ValueError, KeyError, TypeError):
            say_once(f"note: {file} cannot be read and is passed over")
    return sorted(found)


def ranks_folder(plan: Plan, index: int, attempt: int) -> Path:
    return Path(plan.folder) / "ranks" / f"{index}-{attempt}"


def write_rank(folder: Path, rank: int, **values) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / f"rank-{rank:05d}.json", json.dumps(values))


def read_ranks(folder: Path) -> dict[int, dict]:
    """The records of an attempt's ranks: task and child, with pid and start, node, exit code (None while it runs), and
    `written`, when the record was, in nanoseconds of the file system's own clock: nodes' clocks differ."""
    found = {}
    for file in sorted(folder.glob("rank-*.json")):
        try:
            found[int(file.stem[5:])] = json.loads(file.read_bytes()) | {"written": file.stat().st_mtime_ns}
        except (OSError, ValueError, TypeError):
            say_once(f"note: {file} cannot be read and is passed over")
    return found


def _index() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "mscgan" / "launches"


def register(folder: Path | str) -> None:
    """Adds a launch to this user's list, which jobs.py reads: run folders may lie anywhere."""
    try:
        _index().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.append(_index(), f"{folder}\n" if _ends_whole(_index()) else f"\n{folder}\n")
    except OSError as error:
        say(f"note: {_index()} cannot be written ({error.strerror}); launch/jobs.py will not list this run")


def newest_first() -> Iterator[Path]:
    """This user's launch folders, newest first; each is looked at when it is asked for."""
    try:
        lines = _index().read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    for line in dict.fromkeys(reversed(lines)):
        if line and os.path.exists(f"{line}/launch.json"):
            yield Path(line)


def registered() -> list[Path]:
    """This user's launch folders that still exist, oldest first."""
    return list(newest_first())[::-1]


def write_job(folder: Path | str, **values) -> None:
    files.write(Path(folder) / "job.json", json.dumps(values))


def announce(plan: Plan) -> str:
    """Writes down that this process runs the launch. Returns its job's id."""
    me = os.getpid()
    write_job(plan.folder, pid=me, start=process.start(me), machine=process.machine(), host=socket.gethostname())
    register(plan.folder)
    return f"local-{me}"


def read_job(folder: Path | str) -> dict:
    """What runs a launch: {"slurm": "123"} or {"pid": 42, "start": "...", "machine": "...", "host": "..."}, which
    mscgan/process.py tells; empty before it was submitted, and where that can no longer be read."""
    file = Path(folder) / "job.json"
    try:
        job = json.loads(file.read_bytes())
        if not ("slurm" in job or {"pid", "start"} <= job.keys()):
            raise ValueError(job)
        return job
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError):
        say_once(f"note: {file} cannot be read: which job this launch is, is not known")
        return {}
