"""How training follows batch and schedule: the learning rate, the weights' average, the least number of steps.

Rates are counted in pairs, so that a schedule means the same at every batch that leaves enough steps to learn in.
"""

from mscgan.config import Config, Train
from mscgan.errors import UserError

RAMP = 0.05  # the average's half-life is at most this share of the pairs seen, as in StyleGAN2's and EDM2's ramp-up


def learning_rate(train: Train, stage: str, seen: int) -> float:
    """Adam's rate for the step after `seen` pairs of a stage.

    train.lr is for a batch of train.tuned_batch. A batch k times as large takes sqrt(k) times the rate: the square
    root scaling rule of Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms". Over
    the first train.warmup pairs of a stage the rate rises to that, and over the last train.decay of its pairs it falls
    towards 0, both in a straight line.
    """
    full = train.lr * (train.batch / train.tuned_batch) ** 0.5
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
    """Refuses a schedule with too few optimiser steps to learn from, however many pairs it has.

    Raises:
        UserError: a stage has fewer than train.least_steps.
    """
    train = config.train
    for stage, pairs in train.pairs.items():
        if pairs and pairs // train.batch < train.least_steps:
            raise UserError(
                f"train.pairs.{stage}={pairs} is {pairs // train.batch} optimiser steps of train.batch={train.batch}, "
                f"and a stage needs {train.least_steps} to learn (train.least_steps); set train.pairs.{stage}="
                f"{train.least_steps * train.batch} or a smaller train.batch, or train.least_steps=0 for a try"
            )
