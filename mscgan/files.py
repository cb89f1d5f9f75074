"""A file is whole or not there, and grows by whole pieces; and the careful read of one that somebody else wrote.
Standard library only, for the launcher's sake.

What is written gets a hidden name beside its place first, `.NAME.PID.tmp`, and is renamed when it is complete. A kill
at any moment leaves the old file or the new one; a failure leaves the old one and removes what was begun. The content
is not flushed to the disk: a checkpoint, which has to outlive a power cut, does that itself.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    except BaseException as error:  # Ctrl-C too
        with suppress(OSError):  # a disk that has become read-only
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # what is written to a full disk does not say where
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


def append(path: Path | str, content: str | bytes) -> None:
    """Appends a text (UTF-8) or bytes as a whole, or nothing; makes the file and its folder where they are gone.

    Raises:
        OSError: the folder may not be written to, the disk is full, or something else has the name (a FIFO).
    """
    data = content.encode() if isinstance(content, str) else content
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # O_NONBLOCK: a FIFO that nobody reads is an error, not a wait.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
    try:
        before = os.fstat(descriptor).st_size
        if os.write(descriptor, data) < len(data):
            os.ftruncate(descriptor, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)
