"""A pose in another convention is told by what it looks like; the public files' own rows are let through."""

from pathlib import Path

import numpy as np
import pytest

from mscgan.data import annotations
from mscgan.pose_checks import odd
from tests.pose_factory import BODY_25, COCO_17, COCO_18, expected, pairs

DATA = Path(__file__).parents[2] / "shared/data"
LEFT_FIRST = [
    name.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left") for name in COCO_18
]  # "Lsho" where "Rsho" belongs


def of(order: list[str], *missing: str) -> np.ndarray:
    return np.array(pairs(order, missing), float)


def turned(degrees: float) -> np.ndarray:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (expected() - [50, 150]) @ np.array([[cosine, sine], [-sine, cosine]]) + [300, 300]


@pytest.mark.parametrize(
    ("keypoints", "reason"),
    [
        (of(COCO_18)[:, ::-1], "are x and y swapped?"),
        (turned(80), "the body lies on its side"),
        (np.stack([expected()[:, 0], 220 - expected()[:, 1]], 1), "is y counted from the bottom?"),
        (of([*COCO_17, "neck"]), "the neck as the last, but the neck comes second"),
        (of([*COCO_17, "neck"], "left_ear", "right_ankle"), "the neck as the last, but the neck comes second"),
        (of(["neck", *COCO_17]), "is the order of its joints another?"),
        (of(BODY_25[:18]), "is the order of its joints another?"),
        (of(COCO_18[::-1]), "is the order of its joints another?"),
        (of(LEFT_FIRST), "are right and left swapped?"),
        (np.full((18, 2), 7.0), "all its joints are in one place"),
    ],
)
def test_another_convention_is_told_with_its_likely_reason(keypoints, reason):
    assert reason in odd(keypoints)


@pytest.mark.parametrize(
    "keypoints",
    [
        expected(),
        turned(30),
        of(LEFT_FIRST, "nose", "left_eye", "right_eye"),  # seen from behind
        of(COCO_18, *(name for name in COCO_18 if "ankle" in name or "knee" in name)),
        of(COCO_18, "left_hip", "right_hip", "left_shoulder", "right_shoulder", "neck"),
        of(COCO_18, *(name for name in COCO_18 if name not in ("nose", "left_eye"))),
    ],
)
def test_a_person_is_let_through_from_the_front_the_back_or_in_part(keypoints):
    assert odd(keypoints) == ""


@pytest.mark.skipif(not DATA.exists(), reason="no keypoint files in ../shared/data")
def test_of_the_public_files_nearly_every_row_is_let_through_and_nearly_no_swapped_one():
    files = [("market1501/market-annotation-train.csv", 128, 64), ("deepfashion/fasion-annotation-test.csv", 256, 256)]
    rows = np.array(
        [
            row.keypoints
            for file, height, width in files
            for row in annotations.read(DATA / file, height, width)
            if row.usable
        ],
        float,
    )
    assert len(rows) == 15_380
    assert sum(bool(odd(row)) for row in rows) <= 3
    every = rows[::20]
    assert np.mean([bool(odd(row[:, ::-1])) for row in every]) > 0.99
    chance = np.random.default_rng(0)
    assert np.mean([bool(odd(row[chance.permutation(18)])) for row in every]) > 0.9
