"""`python -m mscgan.train` as one rank of a test: it notes its pairs, and a signal may strike it at a known place.

Environment: SEEN, a folder for the notes; STRIKE, "RANK SIGNAL PAIRS": that rank (or "all") gets the signal when it
has fetched the batch that ends at PAIRS pairs.
"""

import gc
import os
import signal
from pathlib import Path

from torch.nn.parallel import DistributedDataParallel

from mscgan import errors, train
from mscgan.data.loader import Loader


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
    errors.RANK_0_FIRST = 3.0  # enough for ranks that have nothing to import
    train.Loader = NotingLoader
    train.dist.shutdown = shutdown
    errors.run(train.main)
