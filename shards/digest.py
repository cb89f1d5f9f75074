"""SHA-256 in hex, of bytes and of files."""

import hashlib
from pathlib import Path

from mscgan import files


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    with files.open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
