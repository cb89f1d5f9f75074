"""A file is whole or not there: the one atomic write of the project; and the careful read of one that somebody else
wrote. Standard library only, for the launcher's sake.

What is written gets a hidden name beside its place first, `.NAME.PID.tmp`, and is renamed when it is complete. A kill
at any moment leaves the old file or the new one; a failure leaves the old one and removes what was begun. The content
is not flushed to the disk: a checkpoint, which has to outlive a power cut, does that itself.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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


def open_plain(path: Path | str) -> BinaryIO:
    """Opens a plain file to read from. A pipe could block for ever, a device never end.

    Raises:
        OSError: it cannot be opened, or is something else than a plain file; `strerror` says which.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # which does not wait for a pipe's other end
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(descriptor, "rb")


def read(path: Path | str, most: int) -> bytes:
    """All of a plain file of at most `most` bytes. Raises OSError as `open_plain`, and for a larger one."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"{size:,} bytes, where {most:,} are the most", str(path))
        return file.read()
