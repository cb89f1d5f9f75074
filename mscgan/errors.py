"""How every command of this project ends: its exit codes, and a mistake of the user as one line on stderr."""

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn, TextIO

DONE = 0  # nothing is left to do; the launcher ends the job
FAILED = 1  # a crash, and so is every code not named here; training runs again, at most `crash_retries` times
MISTAKE = 2  # the user's to mend; the job ends
AGAIN = 85  # saved on a signal, to go on from there; the job runs again
STOPPED = 86  # saved, and ended there as `jobs.py stop` asked; the job ends
BAD_NODE = 87  # the preflight found one; the job runs again without it
HUNG = 88  # the watchdog ended a silent rank; the job runs again as after a crash
STALLED = 93  # the launcher's own: `stalled_tries` attempts made no new checkpoint; the job ends


RANK_0_FIRST = 15.0  # seconds; a busy machine takes some to end rank 0 and then the others


class UserError(ValueError):
    """Something the user can mend. The message says what came, what was expected and what to do."""


# Failures of a disk that may pass by themselves: the launcher tries again, and nothing is taken for damaged.
PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.EMFILE)
MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def of_disk(error: OSError) -> Exception:
    """What a failed operation on a file is to whoever started the command: theirs to mend, unless it may pass."""
    file = error.filename2 or error.filename  # of a copy its target
    text = f"{file or 'what this prints or writes'}: {error.strerror}" if error.strerror else str(error)
    if error.errno in PASSING:
        return RuntimeError(text)
    return UserError(f"{text}; make room there, or let this user write there, and run again")


def say(text: str, out: TextIO | None = None) -> None:
    """A line on stderr, or on `out`. A log that cannot be written, as on a full disk, stops no training."""
    with contextlib.suppress(OSError):
        print(text, file=out or sys.stderr, flush=True)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Exits with main's return code, or with MISTAKE and one line `error: ...` when it raises UserError.

    Most mistakes are found by every rank. So the others give rank 0 some seconds to say it first: whoever started them
    (torchrun, srun, launch/local.py) ends them once rank 0 has ended, and it is said once.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `>&-`; and what is opened next would get its number
            setattr(sys, name, open(os.devnull, "w"))
    try:
        _end(main())
    except UserError as error:
        rank, several = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "1") != "1"
        where = f"[rank {rank}] " if rank and several else ""
        if where and rank != "0":
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # nothing is left to save
                signal.signal(number, signal.SIG_DFL)
            time.sleep(RANK_0_FIRST)
        say(f"error: {where}{' '.join(str(error).split())}")  # a cause quoted in it may have lines
        _end(MISTAKE)
    except KeyboardInterrupt:  # Python tidies up and ends by that signal, so that a shell's loop or `make` ends too
        say("stopped by Ctrl-C")
        sys.excepthook = lambda *_: None
        raise
    except BrokenPipeError:  # `… | head` has seen enough
        _end(FAILED)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        say(f"error: {of_disk(error)}")
        _end(MISTAKE)


def _end(code: int | None) -> NoReturn:
    """Exits with the code. What was printed is written out before, as Python itself would tell a failure of that on
    stderr and exit with 120: a full disk or a reader that is gone leaves every other code as it is."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            code = code or FAILED
        else:
            say(f"error: what this prints cannot be written ({error.strerror})")
            code = code or MISTAKE
    sys.exit(code)
