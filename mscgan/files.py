"""A file is whole or not there: the one atomic write of the project. Standard library only, for the launcher's sake.

What is written gets a hidden name beside its place first, `.NAME.PID.tmp`, and is renamed when it is complete. A kill
at any moment leaves the old file or the new one; a failure leaves the old one and removes what was begun. The content
is not flushed to the disk: a checkpoint, which has to outlive a power cut, does that itself.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """The path to write to inside the block; at its end the file takes the place of `path`.

    Raises:
        OSError: the folder may not be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        raise


def write(path: Path | str, content: str | bytes) -> None:
    """Writes a text (UTF-8) or bytes. Raises OSError as `whole`."""
    with whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
