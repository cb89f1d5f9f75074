"""What a URL gives, written to a file: no more than expected, and given up where the server is silent."""

import hashlib
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from mscgan.errors import UserError

SILENCE = 30  # seconds after which a server that sends nothing is given up
PIECE = 1 << 20  # bytes


class Unreachable(UserError):
    """The URL gives nothing, or not all of it."""


def download(url: str, to: Path, most: int) -> tuple[int, str]:
    """Writes what the URL gives, at most a piece more than `most` bytes; (bytes, SHA-256) of it.

    Raises:
        Unreachable: no network, no such file there, or the connection breaks off.
        OSError: the file cannot be written.
    """
    size, digest = 0, hashlib.sha256()
    try:
        response = urllib.request.urlopen(url, timeout=SILENCE)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: it is no URL
        raise _unreachable(url, error) from error
    quiet = not sys.stderr.isatty()
    bar = tqdm(desc=url.rpartition("/")[2], total=response.length, unit="B", unit_scale=True, disable=quiet)
    with response, to.open("wb") as file, bar:
        while size <= most:
            try:
                piece = response.read(PIECE)
            except (OSError, HTTPException) as error:
                raise _unreachable(url, error) from error
            if not piece:
                break
            file.write(piece)
            digest.update(piece)
            size += len(piece)
            bar.update(len(piece))
    return size, digest.hexdigest()


def _unreachable(url: str, error: Exception) -> Unreachable:
    return Unreachable(f"cannot fetch {url} ({error}); nothing was kept")
