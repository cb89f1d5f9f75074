"""How long a node's copy of the shards stays (launch/stage_in.py). In a folder that jobs share it stays for the next.

One in a folder of the job's own ($SLURM_JOB_ID in data.stage_to) is of no use to a later job: it is removed when the
last process of the job on that node ends, and what a job that was killed left there, by the user's next one there.
"""

import fcntl
import glob
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launch.stage_in import USED, host, own_folder
from mscgan import process
from mscgan.errors import say


@contextmanager
def kept(copy: Path, to: Path | str) -> Iterator[None]:
    """Around all that uses the copy, its making too. One in a folder of the job's own goes when the last process on the
    node leaves the block, and at its beginning go those of earlier jobs that were killed.

    Raises:
        UserError: the folder cannot be made.
    """
    others = _of_other_jobs(to)
    if others is None:
        yield
        return
    for left in glob.glob(
        f"{others}/mscgan-{os.getuid()}-*"
    ):  # not Path.glob: it stumbles over folders that go meanwhile
        if Path(left) != copy:
            _remove_unused(Path(left))
    used = _lock_used(copy)
    try:
        yield
    finally:
        os.close(used)
        _remove_unused(copy)


def _of_other_jobs(to: Path | str) -> str | None:
    """The pattern of such a folder for any job: /local/job-* for /local/job-$SLURM_JOB_ID. None: it has nothing of the
    job's number."""
    own = {process.job(), os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_ARRAY_JOB_ID", "")} - {""}
    number = re.compile(rf"(?<!\d)(?:{'|'.join(map(re.escape, sorted(own, key=len, reverse=True)))})(?!\d)")

    def filled(match: re.Match) -> str:
        return number.sub("*", os.path.expandvars(match.group()))

    pattern = re.sub(r"\$(?:\w+|\{\w+\})", filled, str(to)) if own else str(to)
    return os.path.abspath(pattern) if "*" in pattern and "*" not in str(to) else None


def _lock_used(copy: Path) -> int:
    """A descriptor that holds the copy's USED, shared with the node's other processes."""
    while True:
        own_folder(copy)
        with suppress(FileNotFoundError):  # it was just removed
            used = os.open(copy / USED, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(used, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if os.stat(copy / USED).st_ino == os.fstat(used).st_ino:
                    return used
            os.close(used)


def _remove_unused(copy: Path) -> None:
    """Removes a copy that nobody uses, and its folder where nothing else is in it."""
    try:
        if copy.lstat().st_uid != os.getuid() or copy.is_symlink():
            return
        used = os.open(copy / USED, os.O_RDWR)
    except OSError:  # it is gone, or was never used
        return
    try:
        fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(copy)
        with suppress(OSError):
            copy.parent.rmdir()
    except BlockingIOError:
        return
    except OSError as error:
        say(f"warning: {copy} on {host()} is of no more use but cannot be removed ({error.strerror})")
    finally:
        os.close(used)
