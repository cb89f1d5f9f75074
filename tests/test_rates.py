"""What follows batch and schedule, against numbers worked out by hand."""

import pytest

from mscgan.config import load
from mscgan.errors import UserError
from mscgan.keys import Train
from mscgan.rates import check_steps, kept, learning_rate


@pytest.mark.parametrize(("batch", "rate"), [(16, 1e-4), (64, 2e-4), (4, 0.5e-4), (512, 5.656854e-4)])
def test_the_rate_grows_with_the_square_root_of_the_batch(batch, rate):
    assert learning_rate(Train(batch=batch, lr=1e-4, tuned_batch=16), "I", seen=0) == pytest.approx(rate)


def test_a_stage_may_have_a_rate_of_its_own():
    train = Train(batch=16, lr=1e-3, tuned_batch=4, stage_lr={"II": 2e-4})
    assert [learning_rate(train, stage, seen=0) for stage in ("I", "II")] == pytest.approx([2e-3, 4e-4])


def test_the_warm_up_is_counted_in_pairs():
    train = Train(batch=16, lr=1.0, tuned_batch=16, warmup=160)
    assert [learning_rate(train, "I", seen) for seen in (0, 16, 144, 160, 10**6)] == pytest.approx([0.1, 0.2, 1, 1, 1])


def test_the_rate_falls_to_nothing_over_the_last_share_of_each_stages_pairs():
    train = Train(batch=16, lr=1.0, tuned_batch=16, decay=0.5, pairs={"I": 1600, "II": 160})
    assert [learning_rate(train, "I", seen) for seen in (0, 800, 1200, 1584)] == pytest.approx([1, 1, 0.5, 0.02])
    assert [learning_rate(train, "II", seen) for seen in (80, 120)] == pytest.approx([1, 0.5])


def test_the_averages_half_life_ramps_up_with_the_pairs_seen():
    train = Train(ema_halflife=100)
    assert kept(train, 8, seen=10**6) == pytest.approx(0.5 ** (8 / 100))
    assert kept(train, 8, seen=800) == pytest.approx(0.5 ** (8 / 40))  # a twentieth of what was seen
    assert kept(train, 8, seen=8) < 1e-5  # the first step's weights are no start to keep
    assert kept(Train(ema_halflife=0), 8, seen=800) == 0


def test_half_the_batch_twice_moves_the_average_as_far_as_the_batch_once():
    train = Train(ema_halflife=100)
    assert kept(train, 8, 10**6) ** 2 == pytest.approx(kept(train, 16, 10**6))


def test_too_few_optimiser_steps_are_refused_with_the_pairs_that_are_enough():
    """16,000 steps of 16 and, at the doubled rate, 8,000 of 64."""
    given = ["train.batch=64", "train.pairs.I=511999", "train.pairs.II=0", "train.least_steps=16000"]
    with pytest.raises(UserError, match="train.pairs.I=511999 is 7999 optimiser steps .* set train.pairs.I=512000 or"):
        check_steps(load("market1501", given))
    check_steps(load("market1501", [*given, "train.pairs.I=512000"]))
    check_steps(load("market1501", [*given, "train.least_steps=0"]))


@pytest.mark.parametrize("preset", ["market1501", "deepfashion"])
@pytest.mark.parametrize("family", ["mscgan", "pg2"])
def test_the_schedules_of_the_papers_are_enough_for_their_batch_and_too_little_for_a_cluster(preset, family):
    check_steps(load(preset, [f"family={family}"]))
    with pytest.raises(UserError, match="train.batch=512"):
        check_steps(load(preset, [f"family={family}", "train.batch=512"]))
