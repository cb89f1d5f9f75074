"""Who owns a run, and does it live? RUN/lease says the one; mscgan/lease.py makes it and touches it every 10 s.

An owner that is
    on this machine and gone, or whose pid is another process's now     is dead, at once;
    on this machine and there, unless a signal stopped it               lives, at once;
    else (on another host, stopped, its lease cannot be read)           is watched: it lives if its lease changes within
                                                                        STALE_SECONDS, counted here, and else is dead.
So no clock of another host is asked. Standard library only, for the launcher's sake.
"""

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from mscgan import process
from mscgan.errors import UserError, say

STALE_SECONDS = 60


@dataclass(frozen=True)
class Owner:
    """A process that holds a lease, as the file has it (JSON)."""

    token: str  # of this lease alone
    host: str
    machine: str  # process.machine()
    pid: int
    start: str  # process.start()
    job: str
    attempt: int
    since: str

    def __str__(self) -> str:
        job = f", job {self.job}, attempt {self.attempt}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"


@dataclass(frozen=True)
class Seen:
    """A lease at one moment."""

    owner: Owner | None  # None: the file is empty, damaged or no lease
    inode: int
    touched: int  # nanoseconds

    @property
    def key(self) -> str:
        return self.owner.token if self.owner else f"{self.inode}-{self.touched}"


def of(run: Path) -> Owner | None:
    """The owner of a run, alive or dead, as far as its lease tells."""
    seen = look(Path(run) / "lease")
    return seen.owner if seen else None


def check_free(run: Path) -> None:
    """Returns if no living process owns the run. May wait for a minute, and says so.

    Raises:
        UserError: one does.
    """
    path = Path(run) / "lease"
    while (seen := look(path)) and not dead(path, seen):
        pass


def look(path: Path) -> Seen | None:
    """The lease as it is now; None where there is none. Opening, unlike stat, makes NFS ask the server."""
    try:
        with path.open("rb") as file:
            found, text = os.fstat(file.fileno()), file.read(10_000)
    except FileNotFoundError:
        return None
    try:
        owner = Owner(**json.loads(text))
        valid = re.fullmatch("[0-9a-f]{16}", owner.token)
    except (ValueError, TypeError):
        valid = None
    return Seen(owner if valid else None, found.st_ino, found.st_mtime_ns)


def dead(path: Path, seen: Seen) -> bool:
    """Judges the owner that was seen. False: the lease changed hands meanwhile, so look again.

    Raises:
        UserError: the owner lives.
    """
    owner = seen.owner
    if owner and owner.machine == process.machine() != "":
        if process.start(owner.pid) != owner.start:
            return True
        if not process.stopped(owner.pid):
            raise UserError(_refusal(path, owner, max(0.0, time.time() - seen.touched / 1e9)))
    whose = f"of {owner}" if owner else "damaged, or just being written"
    say(f"{path} is {whose}; waiting {STALE_SECONDS} s for a sign of life")
    for _ in range(STALE_SECONDS):  # counted in looks: a time for which this process itself was stopped is none
        time.sleep(1)
        now = look(path)
        if now != seen:
            if now and owner and now.key == owner.token:
                raise UserError(_refusal(path, owner, 0))
            return False
    return True


def _refusal(path: Path, owner: Owner, seconds: float) -> str:
    if owner.job.startswith("local-"):
        stop = f"python launch/jobs.py cancel {owner.job}"
    else:
        stop = f"scancel {owner.job}" if owner.job else f"kill {owner.pid}"
    return (
        f"{path.parent} belongs to {owner}; its last sign of life came {seconds:.0f} s ago. Stop it with `{stop}` on "
        "its host, or give another run=FOLDER (--out FILE for an evaluation)"
    )
