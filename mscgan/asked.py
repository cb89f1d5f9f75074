"""What people ask of a training while it runs: RUN/asked/save, "save now and go on", and RUN/asked/stop, "end after the
next save". launch/jobs.py writes them.

Files, not signals: training takes every signal for "save and end", and a file comes through any container, from any
machine that sees the run, also to a training under torchrun. Each holds the job that it is for, so that what was asked
of an earlier one is not done to the next; an empty one is for a training that no launcher started. Standard library
only, for the launcher's sake.
"""

import contextlib
import threading
from pathlib import Path
from typing import Self

from mscgan import files, process

LOOK_SECONDS = 2.0
LARGEST = 100  # bytes of a job's name


def ask(run: Path | str, what: str, job: str) -> None:
    """what: save | stop. Raises OSError: the folder may not be written to, or the disk is full."""
    _file(run, what).parent.mkdir(exist_ok=True)
    files.write(_file(run, what), job)


def is_asked(run: Path | str, what: str, job: str) -> bool:
    """Whether it is asked of this job."""
    try:
        return files.read(_file(run, what), LARGEST).decode(errors="replace").strip() == job
    except OSError:  # not there, or not to be read now: it is looked at again
        return False


def forget(run: Path | str, what: str) -> None:
    """It is done, or will never be."""
    with contextlib.suppress(OSError):
        _file(run, what).unlink()


def sweep(run: Path | str, job: str) -> None:
    """Forgets what was asked of other jobs. Only the owner of the run does so (mscgan/lease.py)."""
    for what in ("save", "stop"):
        if not is_asked(run, what, job):
            forget(run, what)


def _file(run: Path | str, what: str) -> Path:
    return Path(run) / "asked" / what


class Asked:
    """What is asked of this process's training, as a thread of rank 0 sees it: a look at a shared file system may take
    long.

    `save` is the loop's to set back once a save began, `stop` stays.
    """

    def __init__(self, run: Path, rank: int):
        self.save = self.stop = False
        self._run, self._rank, self._job, self._over = run, rank, process.job(), threading.Event()

    def __enter__(self) -> Self:
        if self._rank == 0:
            threading.Thread(target=self._look, name="asked", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _look(self) -> None:
        while not self._over.is_set():
            if is_asked(self._run, "save", self._job):
                forget(self._run, "save")
                self.save = True
            self.stop = self.stop or is_asked(self._run, "stop", self._job)
            self._over.wait(LOOK_SECONDS)
