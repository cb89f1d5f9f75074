"""Work over processes."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from mscgan.errors import UserError


@contextmanager
def mapper(workers: int, chunk: int = 1) -> Iterator[Callable[[Callable, list], Iterable]]:
    """Gives map(function, items): results in order, worked out by that many processes, `chunk` items at a time.

    function and items must be picklable. An exception ends the work that has not begun, and is raised here. Processes
    are spawned, not forked, since this process has threads (the progress bar's). They leave Ctrl-C to this process,
    and end with it.

    Raises:
        UserError: a process was ended from outside, as happens where memory is short.
    """
    if workers <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)

    def run(function: Callable, items: list) -> Iterable:
        # A terminal sends Ctrl-C to all. Processes begin with the signals blocked that are blocked here; one that comes
        # meanwhile is not lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return pool.map(function, items, chunksize=chunk)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    try:
        yield run
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was ended from outside (out of memory?); give fewer with --workers; what is done is kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def stoppable(main: Callable[[], int | None], advice: str) -> int | None:
    """main(); Ctrl-C or TERM ends it with a line that gives the advice, and the shell's code for that signal."""
    numbers: list[int] = []

    def stop(number, _frame):
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.SIG_IGN)
        numbers.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as for a shell's background jobs
            signal.signal(number, stop)
    try:
        return main()
    except KeyboardInterrupt:
        print(f"stopped; {advice}", file=sys.stderr)
        return 128 + numbers[0]


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, be it killed."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
