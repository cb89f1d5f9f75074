"""TensorBoard's file of one start of a run: each call appends whole records and returns once they are written.

torch's SummaryWriter writes from a thread, to a file that it holds open: after a failure it never writes again, and
where the folder is removed it goes on writing to nowhere.
"""

import io
import itertools
import os
import socket
import time
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image, scalar

from mscgan import files

_STARTS = itertools.count()  # of this process


class Board:
    """A file in TensorBoard's folder. It hides the points of earlier starts from the step `start` on."""

    def __init__(self, folder: Path, start: int):
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_STARTS)}"
        self._file, self._start = folder / name, start

    def write(self, records: bytes) -> None:
        """Appends records, to a new file where it is gone. Raises OSError: nothing was written."""
        files.append(self._file, records if self._file.exists() else self._head() + records)

    def _head(self) -> bytes:
        begin = Event(wall_time=time.time(), step=self._start, session_log=SessionLog(status=SessionLog.START))
        return _record(Event(wall_time=time.time(), file_version="brain.Event:2")) + _record(begin)


def scalars(values: dict[str, float], step: int) -> bytes:
    """Records of scalars by name."""
    return b"".join(_of_summary(scalar(name, value), step) for name, value in values.items())


def picture(name: str, pixels: np.ndarray, step: int) -> bytes:
    """A record of a picture, (H, W, 3) uint8."""
    return _of_summary(image(name, pixels, dataformats="HWC"), step)


def _of_summary(summary: Summary, step: int) -> bytes:
    return _record(Event(wall_time=time.time(), step=step, summary=summary))


def _record(event: Event) -> bytes:
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()
