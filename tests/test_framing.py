"""A person of a photograph lands in the frame at the size that the data sets have, pixels and keypoints together."""

from pathlib import Path

import numpy as np
import pytest

from mscgan.data import annotations
from mscgan.errors import UserError
from mscgan.framing import cut, person_box, place, scaled, shaped, whole_box

DATA = Path(__file__).parents[2] / "shared/data"
# A person who stands upright, 100 pixels high, the head's joints at the top, ankles at the bottom.
STANDING = np.array(
    [
        (50, 106), (50, 118), (42, 118), (38, 135), (37, 150), (58, 118), (62, 135), (63, 150),
        (45, 152), (45, 176), (45, 199), (55, 152), (55, 176), (55, 199), (48, 103), (52, 103), (46, 100), (54, 100),
    ],
    float,
)  # fmt: skip


def missing(*joints: int) -> np.ndarray:
    keypoints = STANDING.copy()
    keypoints[list(joints)] = -1
    return keypoints


def extent(placed: np.ndarray) -> tuple[float, float]:
    there = placed[(placed != -1).all(1)]
    return there[:, 1].min(), there[:, 1].max()


@pytest.mark.parametrize(
    ("keypoints", "size", "above", "below"),
    [
        (STANDING, (128, 64), 0.08, 0.10),
        (STANDING, (256, 256), 0.09, 0.11),
        (STANDING, (256, 176), 0.09, 0.11),
        (missing(10, 13), (128, 64), 0.08, 0.17),
        (missing(9, 10, 12, 13), (256, 256), 0.11, 0.17),
        (missing(0, 14, 15, 16, 17), (128, 64), 0.19, 0.10),
        (missing(8, 9, 10, 11, 12, 13, 3, 4, 6, 7), (128, 64), 0.08, 0.79),
    ],
    ids=["Market", "DeepFashion", "narrow DeepFashion", "to the knees", "to the hips", "no head", "to the shoulders"],
)
def test_a_person_gets_the_margins_of_the_data_set(keypoints, size, above, below):
    height, width = size
    placed = place(keypoints, person_box(keypoints, height, width), height, width)
    top, bottom = extent(placed)
    assert (top + 0.5) / height == pytest.approx(above, abs=0.02)
    assert 1 - (bottom + 0.5) / height == pytest.approx(below, abs=0.02)
    there = placed[(placed != -1).all(1), 0]
    assert (there.min() + there.max()) / 2 == pytest.approx((width - 1) / 2, abs=1)
    assert ((placed == -1) == (keypoints == -1)).all()


def test_wide_arms_stay_inside_the_frame():
    wide = STANDING.copy()
    wide[4], wide[7] = (-60 + 50, 120), (60 + 100, 120)
    placed = place(wide + 20, person_box(wide + 20, 128, 64), 128, 64)
    assert 0 < placed[:, 0].min() < 3 and 60 < placed[:, 0].max() < 63
    assert (placed != -1).all()


@pytest.mark.skipif(not DATA.exists(), reason="no keypoint files in ../shared/data")
@pytest.mark.parametrize(
    ("file", "height", "width"),
    [
        ("market1501/market-annotation-train.csv", 128, 64),
        ("deepfashion/fasion-annotation-test.csv", 256, 256),
    ],
)
def test_the_data_sets_own_people_stay_where_they_are(file, height, width):
    rows = [np.array(row.keypoints, float) for row in annotations.read(DATA / file, height, width) if row.usable]
    boxes = np.array([person_box(row, height, width) for row in rows[:2000]])
    scales = (boxes[:, 3] - boxes[:, 1]) / height
    assert np.median(scales) == pytest.approx(1, abs=0.02) and 0.75 < np.quantile(scales, 0.05)
    assert np.quantile(scales, 0.95) < 1.2
    assert np.abs(np.median(boxes[:, :2], 0) / [width, height]).max() < 0.03


def test_pixels_and_keypoints_move_together():
    chance = np.random.default_rng(2)
    for _ in range(50):
        x, y = chance.integers(50, 90, 2)
        pixels = np.zeros((200, 200, 3), np.uint8)
        pixels[y - 3 : y + 4, x - 3 : x + 4] = 255
        left, top = chance.uniform(-30, 35, 2)
        box = shaped((left, top, left + 130, top + 180), 128, 64)
        frame = cut(pixels, box, 128, 64)[..., 0].astype(float)
        point = place(np.array([[x, y]] * 18, float), box, 128, 64)[0]
        rows, columns = np.mgrid[:128, :64]
        assert point == pytest.approx(
            [(columns * frame).sum() / frame.sum(), (rows * frame).sum() / frame.sum()], abs=0.3
        )


def test_a_box_beyond_the_photograph_repeats_its_edges():
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32, 0], pixels[:, 32:, 2] = 255, 255
    frame = cut(pixels, (-64, -64, 64, 192), 128, 64)
    assert (
        frame.shape == (128, 64, 3)
        and (frame[:, :30] == (255, 0, 0)).all()
        and (frame[32:64, 50:] == (0, 0, 255)).all()
    )


@pytest.mark.parametrize("size", [(60, 3), (3, 60), (57, 4), (20, 1)])
@pytest.mark.parametrize(("height", "width"), [(128, 64), (64, 32), (32, 16), (256, 256)])
def test_a_photograph_that_is_narrower_than_a_pixel_of_the_frame_is_still_seen(size, height, width):
    pixels = np.full((*size, 3), 200, np.uint8)
    frame = cut(pixels, whole_box(size[1], size[0], height, width), height, width)
    assert frame.shape == (height, width, 3) and (frame == 200).all()


def test_the_whole_image_is_in_the_middle_of_its_box():
    assert whole_box(64, 64, 128, 64) == (0, -32, 64, 96)
    assert whole_box(64, 128, 128, 64) == (0, 0, 64, 128)
    assert whole_box(10, 128, 128, 64) == (-27, 0, 37, 128)
    assert scaled((1, 2, 3, 4), 0.5) == (0.5, 1, 1.5, 2)


def test_a_joint_that_the_box_leaves_out_is_missing():
    placed = place(STANDING, (0, 90, 60, 210), 128, 64)
    assert (placed[7] == -1).all() and (placed[0] != -1).all()


def test_what_shows_nothing_or_no_size_is_refused():
    with pytest.raises(UserError, match="has nothing of the 20x10 photograph"):
        cut(np.zeros((10, 20, 3), np.uint8), (30, 0, 40, 20), 128, 64)
    with pytest.raises(UserError, match="1 of 18 joints were found"):
        person_box(missing(*range(1, 18)), 128, 64)
    with pytest.raises(UserError, match="all joints are in one place"):
        person_box(np.full((18, 2), 7.0), 128, 64)
