"""`python -m mscgan.train` as one rank of a test: it notes its pairs, and a signal may strike it at a known place.

Environment: SEEN, a folder for the notes; STRIKE, "RANK SIGNAL PAIRS": that rank (or "all") gets the signal when it
has fetched the batch that ends at PAIRS pairs.
"""

import gc
import os
import signal
from pathlib import Path

from torch.nn.parallel import DistributedDataParallel

from mscgan import train
from mscgan.data.loader import Loader
from mscgan.errors import run


class NotingLoader(Loader):
    def __next__(self):
        batch = super().__next__()
        notes = Path(os.environ["SEEN"]) / f"{os.getpid()}.txt"
        with notes.open("a") as file:
            file.writelines(f"{pair}\n" for pair in batch.pair.tolist())
        struck, name, pairs = os.environ.get("STRIKE", "none SIGKILL 0").split()
        if struck in (os.environ.get("RANK", "0"), "all") and self.position == int(pairs):
            os.kill(os.getpid(), getattr(signal, name))
        return batch


def shutdown() -> None:
    leave()
    assert not any(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects()), "DDP outlives its group"


leave = train.dist.shutdown

if __name__ == "__main__":
    train.Loader = NotingLoader
    train.dist.shutdown = shutdown
    run(train.main)
