"""Work over processes."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def mapper(workers: int, chunk: int = 1) -> Iterator[Callable[[Callable, list], Iterable]]:
    """Gives map(function, items): results in order, worked out by that many processes, `chunk` items at a time.

    function and items must be picklable. An exception ends the work that has not begun, and is raised here. Processes
    are spawned, not forked, since this process has threads (the progress bar's).
    """
    if workers <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield lambda function, items: pool.map(function, items, chunksize=chunk)
    finally:
        pool.shutdown(cancel_futures=True)
