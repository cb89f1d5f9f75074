"""One of two ranks of tests/test_models.py: `model_rank.py FILE` does one step of every stage of every family.

Each step takes two micro-batches, in DDP and in DeepSpeed with ZeRO 1. What the states hold afterwards goes to FILE.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from mscgan import dist
from mscgan.config import load
from mscgan.keys import STAGES, Config
from mscgan.prepare import Inputs
from mscgan.state import State
from tests.whole_state import whole

PAIRS, MICRO_BATCHES, RANKS = 2, 2, 2
BACKENDS = ("ddp", "deepspeed")
# Every weight is another number, so that none can stand in another's place.
WEIGHTS = {
    "mscgan": ["mscgan.lambda_bg_1=1.5", "mscgan.lambda_L1_2=7", "mscgan.lambda_bg_2=3", "mscgan.lambda_D=[0.7,0.4]"],
    "pg2": ["pg2.lambda_bg_1=1.5", "pg2.lambda_L1_2=7", "pg2.lambda_bg_2=3"],
    "paf": ["paf.lambda_paf=3", "paf.width=8"],
}


def config(family: str, *overrides: str) -> Config:
    """The smallest of the family: images of 32x32, width 8."""
    small = "data.height=32 data.width=32 data.sigma=2 data.radius=2 train.batch=8 train.precision=fp32".split()
    rates = "train.lr=1e-3 train.tuned_batch=8 train.decay=0 train.warmup=0".split()
    found = load("demo", [f"family={family}", f"{family}.base=8", *small, *rates, *WEIGHTS[family], *overrides])
    found.train.stage_lr.clear()
    return found


def inputs(settings: Config, *numbers: int) -> Inputs:
    """PAIRS pairs a number, one after the other; the same number, the same pairs."""
    parts = []
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        x, y = torch.randint(256, (2, PAIRS, 32, 32, 3), generator=generator, dtype=torch.uint8)
        x_keypoints, y_keypoints = torch.rand(2, PAIRS, 18, 2, generator=generator) * 31
        x_keypoints[:, 3], y_keypoints[:, 5] = -1, -1
        parts.append((x, y, x_keypoints, y_keypoints, torch.tensor([True, False])))
    return Inputs(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)), settings.data)


def step(family: str, stage: str, backend: str, ranks: dist.Ranks) -> dict[str, torch.Tensor]:
    settings = config(family, f"train.backend={backend}", f"train.accumulate={MICRO_BATCHES}")
    state = State(settings, ranks.device, PAIRS)
    state.enter(stage)
    terms = state.step([inputs(settings, RANKS * i + ranks.rank) for i in range(MICRO_BATCHES)])
    tensors, _ = whole(state)
    means = {f"terms.{name}": torch.tensor(value) for name, value in dist.mean(terms).items()}
    return tensors | means


if __name__ == "__main__":
    torch.set_num_threads(1)
    group = dist.init("cpu")
    found = {
        f"{family}/{stage}/{backend}/{name}": tensor
        for family, stages in STAGES.items()
        for stage in stages
        for backend in BACKENDS
        for name, tensor in step(family, stage, backend, group).items()
    }
    if group.rank == 0:
        save_file(found, Path(sys.argv[1]))
    dist.shutdown()
