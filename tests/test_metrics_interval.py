"""Intervals: how often they hold the truth, and the arithmetic against plain loops and known numbers."""

import numpy as np
import pytest
from scipy import stats

from mscgan.metrics.interval import GROUPS, groups_of, interval, leave_people_out, of_mean


@pytest.mark.parametrize("people", [5, 40, 700])
@pytest.mark.parametrize("pairs", ["alike", "unlike"])
def test_intervals_hold_the_truth_in_93_to_97_percent_of_1000_data_sets(people, pairs):
    # Scores like SSIM: people differ (beta, skewed), and the pairs of a person around them.
    rng = np.random.default_rng(people)
    hits = 0
    for _ in range(1000):
        counts = rng.integers(1, 40, people) if pairs == "unlike" else np.full(people, 6)
        owner = np.repeat(np.arange(people), counts)
        values = rng.beta(5, 3, people)[owner] + rng.normal(0, 0.1, len(owner))
        cell = of_mean(values, owner)
        hits += cell.low <= 5 / 8 <= cell.high
    assert 930 <= hits <= 970


# Where one person has most pairs and some others few, the interval is too wide rather than too narrow.
@pytest.mark.parametrize(
    ("counts", "least", "most"), [([60, 1], 930, 970), ([20, 5], 930, 970), ([40, 3, 3, 3, 3], 990, 1000)]
)
def test_intervals_hold_the_truth_where_one_person_has_nearly_all_pairs(counts, least, most):
    rng, owner, hits, widest = np.random.default_rng(1), np.repeat(np.arange(len(counts)), counts), 0, 0.0
    for _ in range(1000):
        cell = of_mean(rng.normal(0.5, 0.1, len(counts))[owner] + rng.normal(0, 0.05, len(owner)), owner)
        hits, widest = hits + (cell.low <= 0.5 <= cell.high), max(widest, cell.high - cell.low)
    assert least <= hits <= most and widest < 100


# 5 people whose sharpness differs by half and more are a little too few: 926.
@pytest.mark.parametrize(
    ("people", "spread", "least"), [(5, 0.05, 930), (40, 0.05, 930), (5, 0.5, 920), (40, 0.5, 930)]
)
def test_intervals_of_a_ratio_hold_the_truth(people, spread, least):
    # Sharpness: what is made over the targets', which differ between people too.
    rng, hits = np.random.default_rng(2), 0
    for _ in range(1000):
        targets = rng.lognormal(0, spread, people).repeat(4) * rng.lognormal(0, 0.1, 4 * people)
        made = 0.5 * rng.lognormal(0, spread, people).repeat(4)
        cell = of_mean(made, np.repeat(np.arange(people), 4), targets)
        hits += cell.low <= 0.5 / np.exp(0.1**2 / 2) <= cell.high
    assert least <= hits <= 970


def test_equal_people_have_the_interval_of_the_textbook():
    means = np.array([0.2, 0.4, 0.5, 0.7, 0.3])
    expected = stats.t.interval(0.95, 4, means.mean(), stats.sem(means))
    cell = of_mean(np.repeat(means, 3), np.repeat(list("abcde"), 3))
    assert cell == pytest.approx((0.42, *expected))


def test_leaving_a_person_out_is_the_mean_of_the_others():
    rng = np.random.default_rng(0)
    people, values = np.array(list("cabbaacb")), rng.normal(size=8)
    value, left_out, counts = leave_people_out(values, people)
    assert value == pytest.approx(values.mean()) and counts.tolist() == [3, 3, 2]
    assert left_out == pytest.approx([values[people != name].mean() for name in "abc"])


def test_one_person_has_no_interval():
    assert of_mean(np.full(4, 0.25), np.array(["a"] * 4)) == (0.25, None, None)


def test_a_person_stays_whole_in_a_group_of_at_most_20():
    people = np.array([f"{number:03d}" for number in range(50)] * 2)
    groups = groups_of(people)
    assert set(groups) == set(range(GROUPS)) and (groups[:50] == groups[50:]).all()


def test_groups_that_count_double_have_fewer_degrees_of_freedom():
    left_out = np.array([0.1, 0.2, 0.3, 0.4])
    alike, unlike = (interval(0.25, left_out, np.array(counts)) for counts in ([2, 2, 2, 2], [1, 1, 1, 5]))
    assert alike.high - alike.low < unlike.high - unlike.low
