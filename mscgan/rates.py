"""How training follows batch and schedule: the learning rate, the weights' average, the least number of steps.

Rates are counted in pairs, never in steps.
"""

import math

from mscgan.errors import UserError
from mscgan.keys import Config, Train

RAMP = 0.05  # the average's half-life is at most this share of the pairs seen, as in StyleGAN2's and EDM2's ramp-up


def learning_rate(train: Train, stage: str, seen: int) -> float:
    """Adam's rate for the step after `seen` pairs of a stage.

    train.lr, or the stage's own in train.stage_lr, is for a batch of train.tuned_batch. A batch k times as large takes
    sqrt(k) times the rate: the square root scaling rule of Malladi et al. 2022, "On the SDEs and Scaling Rules for
    Adaptive Gradient Algorithms". Over the first train.warmup pairs of a stage the rate rises to that, and over the
    last train.decay of its pairs it falls towards 0, both in a straight line.
    """
    full = train.stage_lr.get(stage, train.lr) * (train.batch / train.tuned_batch) ** 0.5
    rise = (seen + train.batch) / train.warmup if train.warmup else 1.0
    pairs = train.pairs.get(stage, 0)
    fall = (pairs - seen) / (train.decay * pairs) if train.decay and pairs else 1.0
    return full * min(1.0, rise, max(fall, 0.0))


def kept(train: Train, pairs: int, seen: int) -> float:
    """What the average keeps of itself in a step over `pairs` pairs, which ends after `seen` pairs of a stage.

    A weight counts half after train.ema_halflife pairs, or after RAMP x seen where that is less, so that the average of
    a short run is not of its first weights. 0 without an average.
    """
    halflife = min(train.ema_halflife, RAMP * seen)
    return 0.5 ** (pairs / halflife) if halflife else 0.0


def check_steps(config: Config) -> None:
    """Refuses a stage with too few pairs for its batch.

    What a step teaches goes with its rate, so a batch k times as large needs sqrt(k) times as many pairs for what
    train.least_steps of train.tuned_batch teach (measured: benchmarks/README.md, "Batch and rate").

    Raises:
        UserError: a stage has fewer.
    """
    train = config.train
    needed = math.ceil(train.least_steps * (train.tuned_batch / train.batch) ** 0.5)  # optimiser steps
    for stage, pairs in train.pairs.items():
        if 0 < pairs < needed * train.batch:
            raise UserError(
                f"train.pairs.{stage}={pairs} is {pairs // train.batch} optimiser steps of train.batch={train.batch}, "
                f"and a stage needs {needed} to learn (train.least_steps); set train.pairs.{stage}="
                f"{needed * train.batch} or a smaller train.batch, or train.least_steps=0 for a try"
            )
