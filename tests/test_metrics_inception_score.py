"""The Inception Score against numbers worked out by hand and against the loop of OpenAI's code."""

import numpy as np
import pytest

from mscgan.errors import UserError
from mscgan.metrics import inception_score as module
from mscgan.metrics.inception_score import inception_score, inception_score_any_order


def published(logits, splits=10):
    """The formula as it is printed, a split at a time."""
    e = np.exp(logits.astype(np.float64))
    p = e / e.sum(1, keepdims=True)
    scores = []
    for i in range(splits):
        part = p[i * len(p) // splits : (i + 1) * len(p) // splits]
        kl = part * (np.log(part) - np.log(part.mean(0, keepdims=True)))
        scores.append(np.exp(kl.sum(1).mean()))
    return np.mean(scores)


def logits(count, people=7, classes=1008, seed=0):
    """People after one another, each of a kind, as pair tables have them."""
    rng = np.random.default_rng(seed)
    kinds = 3 * rng.normal(size=(people, classes))[np.arange(count) * people // count]
    return (kinds + rng.normal(size=(count, classes))).astype(np.float32)


@pytest.mark.parametrize("count", [10, 37, 103, 400])
def test_the_score_is_the_published_formula_at_every_number_of_images(count):
    assert inception_score(logits(count)) == pytest.approx(published(logits(count)), rel=1e-12)


def test_sure_images_of_k_kinds_in_each_split_score_k():
    sure = 60 * np.eye(4)  # a probability of 1 for one class each
    assert inception_score(np.tile(sure, (10, 1))) == pytest.approx(4)  # each split of 4 has each kind once
    assert inception_score(np.repeat(sure, 10, axis=0), splits=4) == pytest.approx(1)  # of one kind each
    assert inception_score(np.zeros((20, 4))) == pytest.approx(1)  # unsure of all


def test_splits_are_contiguous_and_as_long_as_OpenAIs():
    # 5 images in 2 splits: rows 0-1 and 2-4. The first has two sure kinds (score 2), the second one kind (score 1).
    kinds = 60 * np.eye(3)[[0, 1, 2, 2, 2]]
    assert inception_score(kinds, splits=2) == pytest.approx((2 + 1) / 2)
    # The other cut, rows 0-2 and 3-4, would give (3 + 1) / 2.
    two_of_three = np.exp(np.log(3) - 2 / 3 * np.log(2))  # three sure images, two of a kind
    assert inception_score(kinds[[0, 2, 1, 2, 2]], splits=2) == pytest.approx((2 + two_of_three) / 2)


def test_the_score_depends_on_the_order_and_the_one_of_any_order_does_not():
    by_person = logits(200)
    shuffled = by_person[np.random.default_rng(3).permutation(200)]
    assert inception_score(shuffled) > 1.2 * inception_score(by_person)
    any_order = inception_score_any_order(by_person)
    assert any_order == pytest.approx(inception_score_any_order(shuffled), rel=0.003)
    assert any_order == inception_score_any_order(by_person)  # seeded
    assert any_order != inception_score_any_order(by_person, seed=1)


def test_any_order_is_the_mean_of_the_score_over_orders(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 0)
    kinds = logits(60)
    rng = np.random.default_rng(0)
    by_hand = [published(kinds[rng.permutation(60)]) for _ in range(module.FEWEST_ORDERS)]
    assert inception_score_any_order(kinds) == pytest.approx(np.mean(by_hand), rel=1e-9)


def test_a_class_that_no_image_may_be_counts_for_nothing():
    impossible = np.concatenate([logits(40), np.full((40, 1), -2000, np.float32)], 1)  # exp(-2000) is 0
    assert inception_score(impossible) == pytest.approx(inception_score(logits(40)), rel=1e-9)


@pytest.mark.parametrize("score", [inception_score, inception_score_any_order])
def test_fewer_images_than_splits_and_what_is_no_number_are_refused(score):
    with pytest.raises(UserError, match="at least 10 images"):
        score(logits(9))
    bad = logits(20)
    bad[3, 5] = np.nan
    with pytest.raises(UserError, match="not finite"):
        score(bad)
