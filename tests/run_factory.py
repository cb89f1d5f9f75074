"""A small run that was never trained, and a pose for it, for tests of what reads a run."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from mscgan import config as configuration
from mscgan.models import FAMILIES
from tests.shard_factory import write_shards


def points() -> np.ndarray:
    """(1, 18, 2) keypoints in 64x32, the last joint missing."""
    rng = np.random.default_rng(5)
    keypoints = rng.integers(0, [32, 64], (1, 18, 2)).astype(np.float32)
    keypoints[0, 17] = -1
    return keypoints


def write_run(folder: Path, persons: int, views: int, family: str = "mscgan", stage: str = "II") -> Path:
    """folder/run with config.yaml and generator.safetensors, of the demo's size and narrow; folder/shards beside it."""
    run = folder / "run"
    run.mkdir()
    shards = write_shards(folder / "shards", persons, views)
    config = configuration.load("demo", [f"family={family}", f"{family}.base=8", f"data.root={shards}", f"run={run}"])
    configuration.save(config, run, 0)
    torch.manual_seed(3)
    networks = FAMILIES[family].build(config.options(), config.data.height, config.data.width)
    weights = networks.state_dict()
    made = tuple(f"{name}." for name in FAMILIES[family].MAKES)
    save_file(
        {name: weights[name] for name in weights if name.startswith(made)},
        run / "generator.safetensors",
        metadata={"stage": stage},
    )
    return run
