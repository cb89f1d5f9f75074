import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.draw import disk, polygon
from skimage.morphology import dilation, erosion

from mscgan import pose

DATA = Path(__file__).parents[1].parent / "shared/data"
FILES = {  # keypoint file, image size, take every n-th person
    "market": ("market1501/market-annotation-train.csv", (128, 64), 160),
    "deepfashion": ("deepfashion/fasion-annotation-test.csv", (256, 256), 250),
}


def public_keypoints(name):
    """Real people's keypoints (N, 18, 2) as (x, y)."""
    path, size, every = FILES[name]
    if not (DATA / path).exists():
        pytest.skip(f"the public keypoint file {path} is not beside this checkout")
    rows = [line.split(":")[1:] for line in (DATA / path).read_text().splitlines()[1::every]]
    return np.array([[json.loads(x), json.loads(y)] for y, x in rows]).transpose(0, 2, 1), size


def random_keypoints(n, height, width, seed=0):
    """Whole coordinates all over the image, borders and corners included, and joints missing here and there."""
    rng = np.random.default_rng(seed)
    keypoints = rng.integers(0, (width, height), (n, 18, 2))
    keypoints[rng.random((n, 18)) < 0.25] = -1
    keypoints[0, 1] = keypoints[0, 2] = (0, 0)  # two joints in one place, in a corner
    keypoints[0, 5] = (width - 1, height - 1)  # the longest limb there can be
    keypoints[1, 1], keypoints[1, 2] = (5, 5), (5 + 12, 5 + 16)  # pixels exactly on the edge of a slanted limb
    return keypoints


def people(source):
    if source == "random":
        return random_keypoints(25, 64, 48), (64, 48)
    return public_keypoints(source)


def close(mask):
    square = np.ones((5, 5), dtype=np.uint8)
    return erosion(dilation(mask, square), square)


def draw_pg2(person, height, width, radius=4):
    """PG2's rule, pixel by pixel, as Python 2 computes it for whole coordinates."""
    mask = np.zeros((height, width), dtype=np.uint8)

    def stamp(x, y):
        for i in range(-radius, radius + 1):
            for j in range(-radius, radius + 1):
                if math.sqrt(i * i + j * j) <= radius and 0 <= y + i < height and 0 <= x + j < width:
                    mask[y + i, x + j] = 1

    for start, end in pose.LIMBS:
        (x0, y0), (x1, y1) = person[start].tolist(), person[end].tolist()
        if -1 in (x0, y0, x1, y1):
            continue
        stamp(x0, y0)
        stamp(x1, y1)
        n = int(math.sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2) / radius)
        for i in range(1, n):
            stamp(x0 + (x1 - x0) * i // n, y0 + (y1 - y0) * i // n)
    return close(mask)


def draw_pose_gan(person, height, width, radius=4, edge=1e-9):
    """pose-gan's rule by skimage. `edge` makes the quadrilateral wider by far less than a pixel's distance from an edge
    that it is not on: polygon() counts the edge in, but misses it where rounding moved the corners inwards."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for start, end in pose.LIMBS:
        a, b = person[start][::-1].astype(float), person[end][::-1].astype(float)  # (y, x)
        if -1 in a or -1 in b or (a == b).all():
            continue
        normal = np.array([b[1] - a[1], a[0] - b[0]])
        normal *= (radius + edge) / np.linalg.norm(normal)
        corners = np.array([a + normal, a - normal, b - normal, b + normal])
        mask[polygon(corners[:, 0], corners[:, 1], shape=mask.shape)] = 1
    for x, y in person:
        if x != -1:
            mask[disk((y, x), radius, shape=mask.shape)] = 1
    return close(mask)


DRAW = {"pg2": draw_pg2, "pose-gan": draw_pose_gan}


@pytest.mark.parametrize("source", ["random", "market", "deepfashion"])
@pytest.mark.parametrize("kind", ["pg2", "pose-gan"])
def test_body_mask_is_the_picture_that_plain_python_draws(kind, source):
    keypoints, (height, width) = people(source)
    masks = pose.body_mask(torch.tensor(keypoints).float(), height, width, kind)
    assert masks.shape == (len(keypoints), 1, height, width) and masks.dtype == torch.float32
    for person, mask in zip(keypoints, masks[:, 0]):
        np.testing.assert_array_equal(mask.numpy(), DRAW[kind](person, height, width))


@pytest.mark.parametrize("kind", ["pg2", "pose-gan"])
def test_body_mask_takes_other_radii(kind):
    keypoints = random_keypoints(10, 64, 32)
    masks = pose.body_mask(torch.tensor(keypoints).float(), 64, 32, kind, radius=2.0)
    expected = np.stack([DRAW[kind](person, 64, 32, radius=2) for person in keypoints])
    np.testing.assert_array_equal(masks[:, 0].numpy(), expected)


def test_the_two_masks_mean_the_same_body():
    """Intersection over union of PG2's and pose-gan's masks of the people of Market-1501."""
    keypoints, size = public_keypoints("market")
    a, b = (pose.body_mask(torch.tensor(keypoints).float(), *size, kind).flatten(1) for kind in DRAW)
    seen = a.sum(1) > 0
    iou = ((a * b).sum(1) / torch.maximum(a, b).sum(1))[seen].mean()
    assert iou == pytest.approx(0.952, abs=0.01)


@pytest.mark.parametrize("kind", ["pg2", "pose-gan"])
def test_body_mask_of_nobody_is_empty(kind):
    assert pose.body_mask(torch.full((2, 18, 2), -1.0), 32, 16, kind).sum() == 0


def test_a_joint_without_a_limb_is_drawn_by_pose_gan_only():
    keypoints = torch.full((1, 18, 2), -1.0)
    keypoints[0, 0] = 10.0
    assert pose.body_mask(keypoints, 32, 32, "pg2").sum() == 0
    assert pose.body_mask(keypoints, 32, 32, "pose-gan").sum() == len(disk((10, 10), 4)[0])


def test_joined_keypoints_in_one_place_are_a_disc():
    keypoints = torch.full((1, 18, 2), -1.0)
    keypoints[0, [1, 2]] = 10.0
    assert pose.body_mask(keypoints, 32, 32, "pg2").sum() == 49  # |offset| <= 4
    assert pose.body_mask(keypoints, 32, 32, "pose-gan").sum() == 45  # |offset| < 4


def test_pg2_coordinates_with_fractions_are_truncated_first():
    keypoints = torch.tensor(random_keypoints(4, 64, 32)).float()
    fractions = torch.where(keypoints == -1, 0.0, 0.7)
    assert pose.body_mask(keypoints + fractions, 64, 32).equal(pose.body_mask(keypoints, 64, 32))


@pytest.mark.parametrize("sigma", [6.0, 2.5])
def test_gaussian_heatmap_is_the_formula_at_every_pixel(sigma):
    keypoints = random_keypoints(3, 32, 16)
    maps = pose.heatmaps(torch.tensor(keypoints), 32, 16, sigma=sigma)
    assert maps.shape == (3, 18, 32, 16) and maps.dtype == torch.float32
    row, column = np.mgrid[:32, :16]
    for n, j in np.ndindex(3, 18):
        x, y = keypoints[n, j]
        expected = np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2)) * (x != -1)
        np.testing.assert_allclose(maps[n, j].numpy(), expected, atol=1e-6)


def test_disc_heatmap_is_skimages_disc_with_its_edge():
    keypoints = random_keypoints(5, 40, 24)
    maps = pose.heatmaps(torch.tensor(keypoints).float(), 40, 24, "disc", radius=4.0).numpy()
    for n, j in np.ndindex(5, 18):
        expected = np.zeros((40, 24))
        x, y = keypoints[n, j]
        if x != -1:
            expected[disk((y, x), 4 + 1e-6, shape=expected.shape)] = 1
        np.testing.assert_array_equal(maps[n, j], expected)


def test_pg2s_discs_are_1_on_minus_1_and_a_missing_joint_is_all_minus_1():
    """As PG2's trainer makes them: a joint's pixels are set in zeros, and the whole becomes pose * 2 - 1."""
    keypoints = random_keypoints(5, 40, 24)
    maps = pose.heatmaps(torch.tensor(keypoints).float(), 40, 24, "disc_pg2", radius=4.0)
    assert maps.shape == (5, 18, 40, 24) and maps.dtype == torch.float32
    expected = np.zeros((5, 18, 40, 24), np.float32)
    for n, j in np.argwhere((keypoints != -1).all(-1)):
        x, y = keypoints[n, j].astype(int)
        for dy, dx in np.argwhere(np.add.outer(np.arange(-4, 5) ** 2, np.arange(-4, 5) ** 2) <= 16) - 4:
            if 0 <= y + dy < 40 and 0 <= x + dx < 24:
                expected[n, j, y + dy, x + dx] = 1
    assert (keypoints == -1).any()
    np.testing.assert_array_equal(maps.numpy(), expected * 2 - 1)


def test_flip_mirrors_every_joint_onto_its_counterpart():
    keypoints = torch.arange(36.0).view(1, 18, 2)
    keypoints[0, 4] = -1  # right wrist
    flipped = pose.flip(keypoints, 64)
    for joint, name in enumerate(pose.JOINTS):
        swap = {"right": "left", "left": "right"}
        other = pose.JOINTS.index(" ".join(swap.get(word, word) for word in name.split()))
        x, y = keypoints[0, other].tolist()
        assert flipped[0, joint].tolist() == ([-1, -1] if x == -1 else [63 - x, y])


def test_flip_twice_is_nothing():
    keypoints = torch.tensor(random_keypoints(8, 64, 32)).float()
    assert pose.flip(pose.flip(keypoints, 32), 32).equal(keypoints)


def test_pictures_of_flipped_keypoints_are_mirrored_pictures():
    keypoints = torch.tensor(random_keypoints(8, 64, 32)).float()
    flipped = pose.flip(keypoints, 32)
    for kind in pose.HEATMAPS:
        mirrored = pose.heatmaps(keypoints, 64, 32, kind).flip(-1)[:, pose.FLIP]
        torch.testing.assert_close(pose.heatmaps(flipped, 64, 32, kind), mirrored)
    assert pose.body_mask(flipped, 64, 32, "pose-gan").equal(pose.body_mask(keypoints, 64, 32, "pose-gan").flip(-1))


def test_joint_order_has_the_right_side_first():
    """In Market-1501 joints 14 and 16 are on the right shoulder's side of 15 and 17, in over 99 % of the people."""
    keypoints, _ = public_keypoints("market")
    for right, left in ((14, 15), (16, 17)):
        both = (keypoints[:, [2, 5, right, left], 0] != -1).all(1)
        people = keypoints[both, :, 0]
        agree = np.sign(people[:, 5] - people[:, 2]) == np.sign(people[:, left] - people[:, right])
        assert agree.mean() > 0.95


def test_unknown_kinds_are_refused_by_name():
    keypoints = torch.zeros(1, 18, 2)
    with pytest.raises(ValueError, match="choose gaussian, disc, disc_pg2"):
        pose.heatmaps(keypoints, 32, 32, "square")
    with pytest.raises(ValueError, match="choose pg2 or pose-gan"):
        pose.body_mask(keypoints, 32, 32, "none")
