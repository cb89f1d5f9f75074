"""One owner a run: rank 0 takes RUN/lease before it reads the run, and looks at it again before it publishes anything.

Made with O_EXCL and replaced by a rename, which NFS does for one process alone; no file lock is asked for. The lease of
a dead owner (mscgan/owner.py) with token T is replaced by whoever makes RUN/lease.T, which is renamed to RUN/lease and,
until then, is a lease like any other: a kill at any moment leaves nothing that blocks for good, and the next owner
sweeps. A process that was taken for dead and wakes up finds another's token, or no lease, and stops (`check`).
"""

import atexit
import contextlib
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict
from pathlib import Path

from mscgan import process
from mscgan.errors import UserError
from mscgan.owner import Owner, dead, look

BEAT_SECONDS = 10.0


class Superseded(UserError):
    """The run has another owner now: this process must not write there."""


def take(run: Path, name: str = "lease") -> "Lease":
    """Makes this process the owner of the run, whose folder is there. May wait for a minute, and says so.

    Args:
        name: of the file: what is owned.

    Raises:
        UserError: another owner lives, or the folder cannot be written to.
    """
    path, pid, since = Path(run) / name, os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S")
    owner = Owner(
        secrets.token_hex(8), socket.gethostname(), process.machine(), pid, process.start(pid),
        process.job(), process.attempt(), since,
    )  # fmt: skip
    try:
        descriptor = _acquire(path, owner)
        for left_over in path.parent.glob(f"{name}.*"):  # by one that was killed, or is too late
            if not left_over.name.startswith(f"{name}.{owner.token}"):
                left_over.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot take {path} ({error.strerror}); give a folder of yours with run=FOLDER, or --out of an evaluation"
        ) from error
    return Lease(path, owner, descriptor)


class Lease:
    """A lease that this process holds. A thread touches it, as a step or a save may take minutes."""

    def __init__(self, path: Path, owner: Owner, descriptor: int):
        self.lost = False  # another's, as the thread last saw; `check` looks anew
        self._path, self._owner, self._descriptor = path, owner, descriptor
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        atexit.register(self.release)

    def check(self) -> None:
        """Returns if this process owns the run.

        Raises:
            Superseded: it does not; also where the lease is gone: another may have come, trained and ended.
            OSError: the lease cannot be read.
        """
        seen = look(self._path)
        if seen is None or seen.key != self._owner.token:
            now = (seen.owner or "a damaged lease") if seen else "nobody, as its lease was removed"
            raise Superseded(
                f"{self._path.parent} now belongs to {now}. This process, {self._owner}, writes no more there"
            )

    def release(self) -> None:
        """Gives the run free if it is still this process's. Also happens when the interpreter ends."""
        atexit.unregister(self.release)
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        os.close(self._descriptor)
        with contextlib.suppress(OSError):  # another is about to replace it, or the folder is gone
            # Removed as by one who replaces it: between look and unlink nobody else does.
            successor = _successor(self._path, self._owner.token)
            os.close(_create(successor, self._owner))
            if (seen := look(self._path)) and seen.key == self._owner.token:
                self._path.unlink()
            successor.unlink()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # tried again; where it never succeeds, another takes over
                os.utime(self._descriptor)  # the file that was made here, whoever's has its name
                seen = look(self._path)
                self.lost = seen is None or seen.key != self._owner.token


def _acquire(path: Path, owner: Owner) -> int:
    """Puts the owner's file at `path`. Returns an open descriptor of it."""
    while True:
        with contextlib.suppress(FileExistsError):
            return _create(path, owner)
        seen = look(path)
        if seen is None or not dead(path, seen):
            continue
        successor = _successor(path, seen.key)
        descriptor = _acquire(successor, owner)
        with contextlib.suppress(FileNotFoundError):  # swept: this process was too late
            if look(path) == seen:
                os.replace(successor, path)
            else:
                successor.unlink()
        if (now := look(path)) and now.key == owner.token:
            return descriptor
        os.close(descriptor)


def _successor(path: Path, key: str) -> Path:
    return path.with_name(f"{path.name}.{key}")


def _create(path: Path, owner: Owner) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, json.dumps(asdict(owner)).encode())
        os.close(os.dup(descriptor))  # NFS sends what was written when it is closed, be it a duplicate
    except OSError:
        path.unlink()
        raise
    return descriptor
