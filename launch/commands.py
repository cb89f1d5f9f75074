"""What an installed `mscgan-…` command runs: `mscgan-train` is `python -m mscgan.train`, `mscgan-submit` this folder's
submit.py, and so on. pyproject.toml gives each its name."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MODULES = {
    "mscgan-train": "mscgan.train",
    "mscgan-evaluate": "mscgan.evaluate",
    "mscgan-generate": "mscgan.generate",
    "mscgan-pictures": "mscgan.pictures",
    "mscgan-report": "mscgan.report",
    "mscgan-web": "mscgan.web",
    "mscgan-costs": "mscgan.costs",
    "mscgan-poses": "mscgan.poses",
    "mscgan-weights": "mscgan.weights",
    "mscgan-submit": "launch.submit",
    "mscgan-jobs": "launch.jobs",
    "mscgan-build-shards": "shards.build",
    "mscgan-verify-shards": "shards.verify",
    "mscgan-pairs": "shards.pairs",
    "mscgan-throughput": "benchmarks.run_throughput",
}


def main() -> None:
    """Runs the module of the command that was typed, as `python -m` does."""
    runpy.run_module(MODULES[Path(sys.argv[0]).name], run_name="__main__", alter_sys=True)
