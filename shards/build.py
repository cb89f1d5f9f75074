"""Makes a shard folder: `python shards/build.py {synthetic,market1501,deepfashion} --out DIR ...`."""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mscgan.errors import run  # noqa: E402
from shards import synthetic  # noqa: E402
from shards.write import write  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=Path, required=True, help="the folder to make")
    common.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (the cores)")
    drawn = commands.add_parser("synthetic", parents=[common], help="drawn people")
    drawn.add_argument("--people", type=int, default=200, help="a fifth of them for test (200)")
    drawn.add_argument("--views", type=int, default=10, help="pictures of a person (10)")
    drawn.add_argument("--seed", type=int, default=0)
    drawn.add_argument("--height", type=int, default=128)
    drawn.add_argument("--width", type=int, default=64)
    drawn.add_argument("--test-pairs", type=int, default=1000, help="pairs of the test split (1000)")
    a = parser.parse_args()
    write(synthetic.plan(a.people, a.views, a.seed, a.height, a.width, a.test_pairs), a.out, a.workers)


if __name__ == "__main__":
    run(main)
