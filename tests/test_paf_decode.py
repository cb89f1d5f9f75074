from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, zoom

from mscgan.data import annotations
from mscgan.errors import UserError
from mscgan.estimators import Person, rescaled
from mscgan.paf.decode import MOST, _peaks, _smoothed, decode, smoothing
from mscgan.paf.targets import targets
from tests import paf_reference

DATA = Path(__file__).parents[1].parent / "shared/data/market1501/market-annotation-test.csv"
# A person who stands and shows all, in a frame of 128x64.
STANDING = np.array(
    [[32, 16], [32, 28], [24, 28], [20, 44], [18, 58], [40, 28], [44, 44], [46, 58], [27, 60],
     [26, 84], [26, 110], [37, 60], [38, 84], [38, 110], [30, 13], [34, 13], [27, 15], [37, 15]], np.float32
)  # fmt: skip


def perfect(people: list[np.ndarray], height: int, width: int, enlarge: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Fields and maps of people (18, 2) in an image, as a network without a fault would give them, enlarged."""
    keypoints = torch.tensor(np.array(people), dtype=torch.float32)
    large = torch.where(keypoints == -1, -1.0, (keypoints + 0.5) * enlarge - 0.5)
    drawn = targets(large[None], height * enlarge, width * enlarge)
    return tuple(F.interpolate(maps, scale_factor=8, mode="bicubic")[0] for maps in (drawn.fields, drawn.maps))


def found(people: list[np.ndarray], height: int = 128, width: int = 64) -> list[Person]:
    """The people that perfect maps are read as, in pixels of the image."""
    read = decode(*perfect(people, height, width), smoothing(height * 3))
    sizes = (width * 3, height * 3), (width, height)
    return [person._replace(keypoints=rescaled(person.keypoints, *sizes)) for person in read]


def assert_found(rows: list[np.ndarray]) -> None:
    """Every joint, 99 of 100 within 2 pixels, and nobody else."""
    away = []
    for keypoints in rows:
        (person,) = found([keypoints])
        there = keypoints[:, 0] != -1
        np.testing.assert_array_equal(person.keypoints[:, 0] != -1, there)
        away += np.linalg.norm(person.keypoints - keypoints, axis=1)[there].tolist()
    assert np.mean(np.array(away) <= 2) >= 0.99, np.sort(away)[-5:]


def test_perfect_maps_of_invented_people_give_every_joint_back():
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(6):
        keypoints = np.round(STANDING + rng.uniform(-3, 3, (18, 2))).astype(np.float32)
        keypoints[rng.choice([0, 4, 7, 10, 13, 16, 17], 2, replace=False)] = -1  # whose loss leaves no joint alone
        rows.append(keypoints)
    assert_found(rows)


@pytest.mark.skipif(not DATA.exists(), reason="the public keypoint file is not in ../shared/data")
def test_perfect_maps_of_real_annotations_give_every_joint_back():
    rows = [np.array(row.keypoints, np.float32) for row in annotations.read(DATA, 128, 64) if row.usable]
    assert_found(rows[::800])


def random_maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fields and maps full of people that are none: blobs of everything, and noise."""
    rng = np.random.default_rng(seed)
    height, width = (48, 40) if seed % 2 else (40, 56)
    maps = np.stack([zoom(one, 8, order=1) for one in rng.uniform(-0.3, 1.2, (19, height // 8, width // 8))])
    mean = 0.6 if seed % 3 else 0.1
    fields = np.stack([zoom(one, 8, order=1) for one in rng.normal(mean, 0.6, (38, height // 8, width // 8))])
    return fields, maps + rng.normal(0, 0.02, maps.shape)


@pytest.mark.parametrize("seed", range(10))
def test_random_maps_are_read_as_the_slow_reference_reads_them_to_the_bit(seed):
    fields, maps = random_maps(seed)
    sigma = (3.0, 1.0, 1.7)[seed % 3]
    rows, peaks = paf_reference.rows(fields, maps, sigma)
    people = decode(torch.from_numpy(fields), torch.from_numpy(maps), sigma)
    assert len(people) == len(rows) >= 2
    for person, row in zip(people, rows[np.argsort(-rows[:, 18], kind="stable")], strict=True):
        assert person.score == row[18]
        for joint, number in enumerate(row[:18].astype(int)):
            x, y, score = peaks[number] if number >= 0 else (-1, -1, 0.0)
            assert tuple(person.keypoints[joint]) == (x, y) and person.scores[joint] == np.float32(score)


@pytest.mark.parametrize(("size", "sigma"), [((30, 50), 3.0), ((30, 50), 1.0), ((3, 5), 3.0)])
def test_smoothing_is_scipys_to_the_bit(size, sigma):
    maps = np.random.default_rng(0).normal(size=(2, *size))
    made = _smoothed(_smoothed(torch.from_numpy(maps), sigma, 1), sigma, 2).numpy()
    for one, map_ in zip(made, maps, strict=True):
        np.testing.assert_array_equal(one, gaussian_filter(map_, sigma))


def test_the_smoothing_of_the_files_is_3_pixels_at_368_and_never_below_1():
    assert [smoothing(height) for height in (368, 184, 64)] == [3.0, 1.5, 1.0]


def test_two_people_side_by_side_do_not_mix():
    left, right = STANDING + [0, 0], STANDING + [60, 3]
    people = found([left, right], 128, 128)
    assert len(people) == 2
    first, second = sorted(people, key=lambda person: person.keypoints[1, 0])
    assert np.abs(first.keypoints - left).max() <= 2 and np.abs(second.keypoints - right).max() <= 2


def test_of_two_people_the_one_with_more_score_comes_first():
    part = STANDING.copy()
    part[[0, 14, 15, 16, 17]] = -1
    people = found([part, STANDING + [60, 3]], 128, 128)
    assert people[0].score > people[1].score and people[0].keypoints[1, 0] > 64
    assert (people[1].keypoints[[0, 14, 15, 16, 17]] == -1).all() and (people[1].scores[[0, 14]] == 0).all()


def test_an_empty_image_has_nobody():
    assert decode(torch.zeros(38, 40, 24), torch.zeros(19, 40, 24)) == []


def test_confidence_without_fields_is_nobody():
    fields, maps = perfect([STANDING], 128, 64)
    assert decode(torch.zeros_like(fields), maps) == []


def test_a_map_that_is_the_same_everywhere_has_one_peak_and_nobody():
    assert decode(torch.ones(38, 40, 24), torch.full((19, 40, 24), 0.5)) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", [0, 1])
def test_maps_that_are_not_finite_are_refused(value, which):
    both = [torch.zeros(38, 40, 24), torch.zeros(19, 40, 24)]
    both[which][3, 5, 5] = value
    with pytest.raises(UserError, match="NaN or infinite"):
        decode(*both)


def test_of_a_plateau_the_first_pixel_in_row_order_is_the_joint():
    """Two people would be read where each of two equal pixels were a neck."""
    fields, maps = perfect([STANDING], 128, 64)
    maps[1] = 0
    maps[1, 84:87, 96:100] = 1.0  # smoothed by less than a pixel it stays flat in the middle
    people = decode(fields, maps, 0.1)
    assert [tuple(person.keypoints[1]) for person in people] == [(96, 84)]


def test_two_joints_at_one_place_are_no_limb_and_no_division_by_zero():
    fields, maps = perfect([STANDING], 128, 64)
    maps[2] = maps[1]  # the right shoulder lies on the neck
    (person,) = decode(fields, maps, smoothing(384))
    assert np.isfinite(person.score) and (person.keypoints[2] == -1).all()


def test_nine_points_of_ten_must_agree():
    """A limb of ten pixels whose field is cut away at its end, pixel by pixel."""
    fields, maps = torch.zeros(38, 60, 60), torch.zeros(19, 60, 60)
    for joint, place in {1: (10, 10), 8: (19, 10), 9: (28, 10), 10: (37, 10)}.items():
        maps[joint, place[1], place[0]] = 50.0  # stays a peak when it is smoothed
    for channel in (0, 2, 4):
        fields[channel, 10] = 1.0
    assert len(decode(fields, maps, 1.0)) == 1
    fields[0, 10, 10] = 0.0  # nine agree
    assert len(decode(fields, maps, 1.0)) == 1
    fields[0, 10, 19] = 0.0  # eight
    assert decode(fields, maps, 1.0) == []


def test_of_more_peaks_than_anybody_has_joints_the_highest_are_taken():
    maps = torch.zeros(2, 96, 96)
    heights = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) + 0.5
    maps[:, ::3, ::3] = heights  # 1,024 peaks a joint
    joints, places, scores = _peaks(maps.double(), 0.3)
    assert len(joints) == 2 * MOST and (np.diff(joints * 96 * 96 + places[:, 1] * 96 + places[:, 0]) > 0).all()
    np.testing.assert_array_equal(np.sort(scores[:MOST]), np.sort(heights.double().numpy().ravel())[-MOST:])
