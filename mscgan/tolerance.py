"""Writes that training can do without: one that fails is said once for its kind, then counted, until one succeeds.

A full disk, a folder that went away or a file system that turned read-only stops no training for its telemetry.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Tolerance:
    """`say` is how a line reaches the user."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self.failed: dict[str, int] = {}  # by kind, since it last succeeded

    @contextmanager
    def trying(self, kind: str, failure: type[Exception] = OSError) -> Iterator[None]:
        """Around an attempt to write. A failure of it ends here; `kind` stands in the message: metrics.jsonl."""
        try:
            yield
        except failure as error:
            self.failed[kind] = self.failed.get(kind, 0) + 1
            if self.failed[kind] == 1:
                self._tell(f"warning: {kind} cannot be written ({_reason(error)}); training goes on")
        else:
            if failed := self.failed.pop(kind, 0):
                self._tell(f"{kind} is written again, after {failed} failed attempts")

    def _tell(self, text: str) -> None:
        with suppress(OSError):  # the log may lie on the same disk; the count goes on
            self._say(text)


def _reason(error: Exception) -> str:
    said = (error.strerror if isinstance(error, OSError) else "") or " ".join(str(error).split())
    return said or type(error).__name__
