"""A rank of tests/test_saving.py: `saving_rank.py RUN CASE` saves a state of its own a few times, and meets between.

It prints what it saw, one JSON line. CASE: slow (rank 1 writes slowly), full (rank 1's disk is full once), full for
ever, lost (the run is another's by the second checkpoint).
"""

import errno
import json
import sys
import threading
import time
from pathlib import Path

import torch

from mscgan import checkpoint, dist, saving
from mscgan.checkpoint import Piece
from mscgan.errors import UserError
from mscgan.recovery import choose
from mscgan.saving import Saver
from mscgan.state import Share


class Numbers:
    """A state of one tensor a rank, and one of which each holds a part."""

    def share(self, rank: int, world: int, kept: dict) -> Share:
        part = torch.full((2,), float(rank))
        pieces = {f"w{rank}": Piece(torch.full((3,), float(rank)), [3]), "m": Piece(part, [2 * world], 2 * rank)}
        return Share(pieces, {"G": torch.ones(2)} if rank == 0 else {}, {"stage": "I", "seen": 0}, "")


def main() -> None:
    run, case = Path(sys.argv[1]), sys.argv[2]
    ranks = dist.init("cpu")
    write, gate, writes = checkpoint.write, threading.Event(), 0

    def strikes(*arguments):
        nonlocal writes
        writes += 1
        if ranks.rank == 1 and case == "slow":
            gate.wait(60)
        if ranks.rank == 1 and (case == "full for ever" or (case == "full" and writes == 1)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    def owned():
        if case == "lost" and checkpoint.newest(run):
            raise UserError("another owns the run")

    saving.checkpoint.write = strikes
    saving.PAUSE_SECONDS = saving.LAST_PAUSE_SECONDS = 0.0
    seen: dict = {"steps_while_writing": 0, "wanted": []}
    try:
        with Saver(run, ranks, 0, 16, 0.0, 2, owned) as saver:
            pairs, saves = 0, 0
            while saves < (5 if case == "full for ever" else 2):
                pairs += 8
                stop, wanted = saver.meet(pairs, ranks.rank == 1 and pairs == 40)
                if stop:
                    seen["stopped"] = pairs
                if wanted:
                    seen["wanted"].append(pairs)
                    saver.save(Numbers(), {"pairs": pairs}, last=False)
                    saves += 1
                elif saves and checkpoint.newest(run) is None:
                    seen["steps_while_writing"] += 1
                    if seen["steps_while_writing"] == 5:
                        gate.set()
                time.sleep(0.02)
            saver.save(Numbers(), {"pairs": pairs + 8}, last=True)
            seen["after_the_last"] = checkpoint.newest(run).name
    except (UserError, RuntimeError) as error:
        seen["raised"] = [type(error).__name__, str(error)]
    start = choose(run, ranks)
    seen["found"] = start.path and [start.path.name, {name: t.tolist() for name, t in start.tensors.items()}]
    print(json.dumps(seen))
    dist.shutdown()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
