"""Scores of methods from the numbers of pairs and images, against plain loops."""

import numpy as np
import pytest

from mscgan import summary
from mscgan.metrics.frechet import fid
from mscgan.metrics.inception_score import inception_score
from mscgan.metrics.interval import groups_of, of_mean
from mscgan.metrics.pckh import over_joints

PEOPLE = np.repeat([f"{person:04d}" for person in range(30)], 4)
SCORES = ["ssim_A", "sharpness", "is", "fid"]


def arrays(methods: tuple[str, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    count = len(PEOPLE)
    found = {"target/sharpness": rng.uniform(1, 2, count)}
    for shift, method in enumerate(methods):
        found[f"{method}/ssim_A"] = rng.uniform(0, 1, count)
        found[f"{method}/sharpness"] = rng.uniform(0, 1, count)
        found[f"{method}/logits"] = rng.normal(0, 3, (count, 1008)).astype(np.float32)
        found[f"{method}/pool3"] = rng.normal(shift, 1, (count, 6)).astype(np.float32)
    return found


def test_the_sharpness_of_the_targets_is_1():
    given = arrays(("a",))
    pairs = summary.of_pairs(given, SCORES, ["a"])
    assert pairs["a/sharpness"].mean() == pytest.approx(given["a/sharpness"].mean() / given["target/sharpness"].mean())
    assert (pairs["a/ssim_A"] == given["a/ssim_A"]).all()


def test_a_score_of_a_set_is_taken_anew_without_each_group():
    given = arrays(("a",))
    real = {"pool3": np.random.default_rng(9).normal(0, 1, (50, 6))}
    sets, groups = summary.of_sets(given, real, SCORES, ["a"], PEOPLE), groups_of(PEOPLE)
    for score, feature, number in (
        ("is", "logits", inception_score),
        ("fid", "pool3", lambda made: fid(made, real["pool3"])),
    ):
        value, rest = sets[f"a/{score}"]
        assert value == pytest.approx(number(given[f"a/{feature}"]))
        expected = [number(given[f"a/{feature}"][groups != group]) for group in range(20)]
        assert rest == pytest.approx(expected, rel=1e-6)


def test_differences_are_of_the_same_pairs():
    given = arrays(("stage_I", "stage_II"))
    methods = ["stage_I", "stage_II"]
    pairs = summary.of_pairs(given, SCORES, methods)
    sets = summary.of_sets(given, {"pool3": np.random.default_rng(9).normal(0, 1, (50, 6))}, SCORES, methods, PEOPLE)
    cells = summary.differences(pairs, sets, SCORES, methods, PEOPLE)["stage_II - stage_I"]
    expected = of_mean(given["stage_II/ssim_A"] - given["stage_I/ssim_A"], PEOPLE)
    assert cells["ssim_A"] == expected._asdict() | {"pairs": 120}
    assert cells["fid"]["value"] == pytest.approx(sets["stage_II/fid"][0] - sets["stage_I/fid"][0])
    assert cells["fid"]["low"] < cells["fid"]["value"] < cells["fid"]["high"]


def test_pairs_that_a_score_skips_count_in_no_mean_and_are_counted():
    values = np.random.default_rng(1).uniform(0, 1, len(PEOPLE))
    values[::3] = np.nan
    cell = summary.table({"a/ssim_A": values}, {}, ["ssim_A"], ["a"], PEOPLE)["a"]["ssim_A"]
    assert cell["pairs"] == 80 and cell["value"] == pytest.approx(np.nanmean(values))


def test_pairs_of_a_pose_weigh_as_many_as_their_joints():
    rng = np.random.default_rng(2)
    joints = rng.integers(0, 19, len(PEOPLE))
    shares = {method: np.where(joints, rng.uniform(0, 1, len(PEOPLE)), np.nan) for method in ("a", "b", "real")}
    given = {"target/sharpness": np.ones(len(PEOPLE))}
    given |= {f"{method}/pckh": share for method, share in shares.items()}
    given |= {f"{method}/pckh_joints": joints for method in shares}
    pairs = summary.of_pairs(given, ["pckh"], ["real", "a", "b"])
    cells = summary.table(pairs, {}, ["pckh"], ["real", "a", "b"], PEOPLE)
    for method, share in shares.items():
        assert cells[method]["pckh"]["value"] == pytest.approx(over_joints(share, joints))
        assert cells[method]["pckh"]["pairs"] == (joints > 0).sum() < len(PEOPLE)
    there = joints > 0
    expected = of_mean((shares["b"] * joints)[there], PEOPLE[there], joints[there])
    assert cells["b"]["pckh"] == pytest.approx(expected._asdict() | {"pairs": there.sum()})
    added = summary.differences(pairs, {}, ["pckh"], ["a", "b"], PEOPLE)["b - a"]["pckh"]
    assert added["value"] == pytest.approx(cells["b"]["pckh"]["value"] - cells["a"]["pckh"]["value"])
    assert added["low"] < added["value"] < added["high"]


def test_one_person_has_sets_without_an_interval():
    given, people = arrays(("a",)), np.array(["0001"] * len(PEOPLE))
    real = {"pool3": np.random.default_rng(9).normal(0, 1, (50, 6))}
    sets = summary.of_sets(given, real, SCORES, ["a"], people)
    cells = summary.table({}, sets, SCORES, ["a"], people)["a"]
    assert (cells["fid"]["low"], cells["is"]["high"]) == (None, None) and cells["is"]["value"] >= 1
