"""Two evaluations side by side: the pairs decide, and what does not fit is refused."""

import json

import numpy as np
import pytest

from mscgan import evaluation
from mscgan.compare import compare
from mscgan.errors import UserError
from mscgan.metrics.interval import of_mean

PEOPLE = [f"{pair // 4:04d}" for pair in range(40)]


def write(folder, shift: float, method: str = "stage_II", sources: str = "a", **other: object) -> np.ndarray:
    """An evaluation of 40 pairs; returns their SSIM A."""
    folder.mkdir()
    values = np.random.default_rng(0).uniform(0.3, 0.7, 40) + np.random.default_rng(int(100 * shift)).normal(
        shift, 0.02, 40
    )
    cell = {"value": 0.0, "low": 0.0, "high": 0.0, "pairs": 40}
    document = {
        "schema": evaluation.SCHEMA, "dataset": "toy", "pairs": 40, "people": 10, "real": "the train split",
        "shards_fingerprint": "aa", "differences": {}, "left_out": {},
        "scores": {
            "copy_source": {"ssim_A": cell},
            method: {"ssim_A": cell, "fid": cell | {"value": 9 + shift}},
        },
        "left_out_groups": {f"{method}/fid": [9 + shift + 0.1 * group for group in range(10)]},
    } | other  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps(document))
    rows = [
        f"{name},{sources}{pair}.jpg,b{pair}.jpg,{PEOPLE[pair]},{value:.8g}"
        for name, column in (("copy_source", values - 0.2), (method, values))
        for pair, value in enumerate(column)
    ]
    (folder / "evaluation-pairs.csv").write_text("\n".join(["method,source,target,person,ssim_A", *rows]) + "\n")
    return values


def test_the_difference_is_over_pairs_and_its_interval_over_people(tmp_path):
    first, second = write(tmp_path / "a", 0.0), write(tmp_path / "b", 0.05)
    cells = compare(tmp_path / "a", tmp_path / "b")["differences"]["second - first"]
    expected = of_mean(second - first, np.array(PEOPLE))
    found = [cells["ssim_A"][key] for key in ("value", "low", "high")]
    assert found == pytest.approx(expected, abs=1e-7) and found[0] == pytest.approx(0.05, abs=0.02)
    alone = compare(tmp_path / "a", tmp_path / "b")["scores"]["first"]["ssim_A"]
    assert found[2] - found[1] < 0.5 * (alone["high"] - alone["low"])  # what is easy or hard about a pair dropped out


def test_scores_of_sets_are_compared_by_the_groups_that_both_left_out(tmp_path):
    write(tmp_path / "a", 0.0)
    write(tmp_path / "b", 0.5)
    cell = compare(tmp_path / "a", tmp_path / "b")["differences"]["second - first"]["fid"]
    assert cell["value"] == pytest.approx(0.5) and cell["high"] - cell["low"] == pytest.approx(0, abs=1e-9)


def test_real_images_that_differ_leave_the_fid_out(tmp_path):
    write(tmp_path / "a", 0.0)
    write(tmp_path / "b", 0.5, real="the 12 targets")
    document = compare(tmp_path / "a", tmp_path / "b")
    assert "the 12 targets" in document["left_out"]["fid"] and "fid" not in document["scores"]["first"]


def test_networks_with_other_weights_leave_their_scores_out(tmp_path):
    write(tmp_path / "a", 0.0, networks={"Inception": "00"})
    write(tmp_path / "b", 0.5, networks={"Inception": "11"})
    document = compare(tmp_path / "a", tmp_path / "b")
    assert "other weights" in document["left_out"]["fid"] and "fid" not in document["scores"]["first"]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"sources": "c"}, "do not list the same pairs"),
        ({"shards_fingerprint": "bb"}, "of different shards"),
        ({"scores": {"copy_source": {"ssim_A": {"value": 1, "low": None, "high": None}}}}, "left_out_groups"),
        ({"left_out_groups": [1]}, "is not what evaluate writes"),
        ({"schema": 1}, "is of schema 1, and this version reads 2; score the run again"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, reason, tmp_path):
    write(tmp_path / "a", 0.0)
    write(tmp_path / "b", 0.1, **other)
    with pytest.raises(UserError, match=reason):
        compare(tmp_path / "a", tmp_path / "b")


def test_a_run_that_was_not_scored_says_how_to(tmp_path):
    write(tmp_path / "a", 0.0)
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="python -m mscgan.evaluate --run .*/b"):
        compare(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema": 2}'])
def test_a_damaged_document_is_a_line(damage, tmp_path):
    write(tmp_path / "a", 0.0)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/evaluation.json").write_text(damage)
    with pytest.raises(UserError, match="score the run again"):
        compare(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("key", ["real", "left_out_groups", "people"])
def test_a_document_that_lacks_what_a_comparison_needs_is_a_line(key, tmp_path):
    for name in "ab":
        write(tmp_path / name, 0.0)
    document = json.loads((tmp_path / "b/evaluation.json").read_text())
    del document[key]
    (tmp_path / "b/evaluation.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=f"{key}.*score the run again"):
        compare(tmp_path / "a", tmp_path / "b")
