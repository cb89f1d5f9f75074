"""The shards that the benchmarks read: synthetic people, drawn once into OUT/shards and found there by later runs."""

import subprocess
import sys
from pathlib import Path

from mscgan import dist
from mscgan.data.shards import ShardSet
from mscgan.dist import Ranks

BUILD = Path(__file__).resolve().parents[1] / "shards" / "build.py"


def shards(out: Path, height: int, width: int, people: int, ranks: Ranks) -> ShardSet:
    """The train split of `people` synthetic persons with 8 views each. Every rank calls it; rank 0 draws.

    Raises:
        RuntimeError: they could not be drawn.
    """
    root = out / "shards" / f"{height}x{width}-{people}"
    if ranks.rank == 0 and not (root / "manifest.json").exists():
        print(f"drawing {people * 8} synthetic images of {height}x{width} into {root}", file=sys.stderr, flush=True)
        command = [
            sys.executable,
            "-P",
            str(BUILD),
            "synthetic",
            "--out",
            str(root),
            "--people",
            str(people),
            "--views",
            "8",
        ]
        command += ["--height", str(height), "--width", str(width)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
            raise RuntimeError(f"drawing the shards failed with exit code {done.returncode}: {last}")
    dist.barrier()
    return ShardSet(root, "train")
