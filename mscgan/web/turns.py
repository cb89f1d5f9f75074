"""One queue around the model: one request computes at a time, in the order of asking, and the queue has an end."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Full(Exception):
    """No place is left in the queue."""


class Turns:
    """Places for `most` requests, those that are still being sent among them; one thread computes for all of them.

    Always the same thread: each thread that computes would bring its own team of OpenMP's.
    """

    def __init__(self, most: int):
        self._most, self._taken = most, 0
        self._thread = ThreadPoolExecutor(1, "model")

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue while the block runs. Raises Full."""
        if self._taken >= self._most:
            raise Full
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def compute(self, function: Callable[[], T]) -> T:
        """What the function returns or raises, once those before it have computed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)
