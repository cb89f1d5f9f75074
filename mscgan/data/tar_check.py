"""Whether the tars that training reads are those that were built: their sha256, in a thread while training goes on.

Most damage to a JPEG decodes without an error, to other pixels. Only the checksum tells, and it needs every byte, so it
is not waited for. The thread gives way to all others of the machine (nice 19), and hashing lets go of Python's lock.
What it reads stays in the page cache, where the loader, which reads the same files, wants it.
"""

import hashlib
import os
import socket
import threading
import time
from pathlib import Path

from mscgan import files
from mscgan.errors import PASSING

CHUNK = 1 << 20  # bytes
PAUSES = (1.0, 10.0, 60.0, 300.0)  # seconds


class TarCheck:
    """Starts the check; one process of a machine does it.

    Args:
        tars: path -> sha256; none says nothing.

    Attributes:
        damage: what is wrong with one of them and what to do, in a line; empty as long as nothing is known to be.
    """

    def __init__(self, tars: dict[Path, str]):
        self.damage = ""
        self._tars, self._matching, self._told = tars, 0, not tars
        if tars:
            threading.Thread(target=self._run, name="tar check", daemon=True).start()

    def news(self) -> str:
        """ "shards: N tars match the manifest", once, when they all do; else empty."""
        if self._told or self._matching < len(self._tars):
            return ""
        self._told = True
        return f"shards: {self._matching} tars match the manifest"

    def last_word(self) -> str:
        """What is left to say where a run ends: damage, the news, or how far the check has come."""
        if self.damage or self._matching == len(self._tars):
            return self.damage or self.news()
        return f"shards: {self._matching} of {len(self._tars)} tars were compared with the manifest; those match"

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # of this thread alone, on Linux
        for path, expected in self._tars.items():
            try:
                found = _patiently(path)
                why = f"its sha256 is {found[:12]}, manifest.json says {expected[:12]}" if found != expected else ""
            except OSError as error:
                if error.errno in PASSING:
                    continue  # not compared, and not counted
                why = f"cannot be read ({error.strerror})"
            if why:
                self.damage = (
                    f"{path} on {socket.gethostname()}: {why}; training would go on with other images than were built. "
                    f"`python shards/verify.py {path.parent}` says what is damaged; build that folder again, or remove "
                    "it where it is the copy of data.stage_to"
                )
                return
            self._matching += 1


def _patiently(path: Path) -> str:
    """The sha256; where the disk fails in a way that may pass it is read again, some minutes long."""
    for pause in PAUSES:
        try:
            return _sha256(path)
        except OSError as error:
            if error.errno not in PASSING:
                raise
        time.sleep(pause)
    return _sha256(path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with files.open_plain(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
