"""PCKh: joints placed by hand, PATN's script in plain loops, and its numbers on the whole public list."""

from pathlib import Path

import numpy as np
import pytest

from mscgan.metrics.pckh import over_joints, pck_torso, pckh

DATA = Path(__file__).parents[1].parent / "shared/data/market1501/market-annotation-test.csv"


def person(**joints):
    """(1, 18, 2): the joints of these numbers, all others missing."""
    keypoints = np.full((1, 18, 2), -1.0)
    for joint, place in joints.items():
        keypoints[0, int(joint[1:])] = place
    return keypoints


# A head box 20 wide and 40 high, and a knee outside of it.
TARGET = person(j0=(30, 20), j1=(30, 50), j16=(20, 10), j17=(40, 12), j9=(35, 100))


@pytest.mark.parametrize(
    "place, right",
    [((44, 100), 1), ((45, 100), 0), ((25, 100), 0), ((35, 119), 1), ((35, 120), 0), ((44, 120), 0), ((-1, -1), 0)],
    ids=["9 of 10 in x", "10 in x", "10 left", "19 of 20 in y", "20 in y", "only x", "not found"],
)
def test_a_joint_is_right_below_half_of_the_head_box_in_x_and_in_y(place, right):
    estimated = TARGET.copy()
    estimated[0, 9] = place
    share, joints = pckh(estimated, TARGET)
    assert joints.tolist() == [5] and share.tolist() == [(4 + right) / 5]


def test_the_head_is_measured_on_the_target():
    estimated = TARGET.copy()
    estimated[0, 16:18] = -1  # no box of these could be as wide
    assert pckh(estimated, TARGET)[0].tolist() == [3 / 5]


def test_a_joint_that_only_the_estimator_sees_does_not_count():
    estimated = TARGET.copy()
    estimated[0, 13] = (30, 120)
    assert [part.tolist() for part in pckh(estimated, TARGET)] == [[1.0], [5]]


def test_a_pair_with_fewer_than_two_head_joints_is_passed_over():
    one = person(j0=(30, 20), j8=(20, 60), j9=(20, 80))
    nobody = np.full((1, 18, 2), -1.0)
    share, joints = pckh(np.concatenate([one, nobody, TARGET]), np.concatenate([one, nobody, TARGET]))
    assert np.isnan(share).tolist() == [True, True, False] and joints.tolist() == [0, 0, 5]
    assert over_joints(share, joints) == 1
    assert np.isnan(over_joints(share[:2], joints[:2]))


def test_a_head_box_without_width_has_no_right_joint_but_counts():
    flat = person(j0=(30, 20), j1=(30, 50), j9=(35, 100))
    share, joints = pckh(flat, flat)
    assert share.tolist() == [0.0] and joints.tolist() == [3]


def test_the_mean_is_over_joints_not_over_pairs():
    share, joints = np.array([1.0, 0.0, np.nan]), np.array([15, 5, 0])
    assert over_joints(share, joints) == 0.75


# Neck to mid-hip is 50 long, so a joint may be off by 10.
TORSO = person(j1=(30, 20), j8=(20, 70), j11=(40, 70), j4=(60, 60))


@pytest.mark.parametrize(
    "place, right",
    [((70, 60), 1), ((66, 68), 1), ((67, 68), 0), ((60, 49), 0), ((-1, -1), 0)],
    ids=["10 aside", "6 and 8", "7 and 8", "11 above", "not found"],
)
def test_by_the_torso_a_joint_is_right_up_to_a_fifth_of_it(place, right):
    estimated = TORSO.copy()
    estimated[0, 4] = place
    share, joints = pck_torso(estimated, TORSO)
    assert joints.tolist() == [4] and share.tolist() == [(3 + right) / 4]


def test_the_torso_is_measured_without_a_neck_or_one_hip_and_a_pair_without_it_is_passed_over():
    shoulders = person(j2=(20, 20), j5=(40, 20), j8=(20, 70), j11=(40, 70), j4=(60, 60))
    one_hip = person(j1=(30, 20), j8=(30, 70), j4=(60, 60))
    no_hip = person(j1=(30, 20), j2=(20, 20), j5=(40, 20), j0=(30, 5))
    no_neck = person(j8=(20, 70), j11=(40, 70), j0=(30, 5))
    target = np.concatenate([shoulders, one_hip, no_hip, no_neck])
    estimated = target.copy()
    estimated[:2, 4] = (70, 60), (71, 60)
    share, joints = pck_torso(estimated, target)
    assert joints.tolist() == [5, 3, 0, 0]
    assert share[:2].tolist() == [1, 2 / 3] and np.isnan(share[2:]).all()


def script(estimated, target):
    """PATN's loops over (x, y): right joints, all joints, pairs passed over, boxes without extent."""
    right = every = passed = flat = 0
    for e, t in zip(estimated.tolist(), target.tolist(), strict=True):
        head = [t[joint] for joint in (0, 1, 14, 15, 16, 17) if t[joint] != [-1, -1]]
        if len(head) < 2:
            passed += 1
            continue
        w, h = (max(c) - min(c) for c in zip(*head, strict=True))
        flat += w == 0 or h == 0
        every += sum(point != [-1, -1] for point in t)
        right += sum(
            -1 not in a + b and abs(a[0] - b[0]) < w / 2 and abs(a[1] - b[1]) < h / 2 for a, b in zip(e, t, strict=True)
        )
    return right, every, passed, flat


def test_it_counts_as_the_public_script_does():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 60, (300, 18, 2)).astype(float)
    estimated = target + rng.integers(-30, 30, target.shape)
    estimated[rng.random((300, 18)) < 0.2] = -1
    target[rng.random((300, 18)) < 0.6] = -1
    right, every, passed, _ = script(estimated, target)
    share, joints = pckh(estimated, target)
    assert (joints.sum(), np.isnan(share).sum()) == (every, passed) and passed > 10
    assert over_joints(share, joints) == pytest.approx(right / every, abs=1e-12)


@pytest.mark.skipif(not DATA.exists(), reason="the public keypoint file is not in ../shared/data")
def test_the_public_list_of_12000_gives_the_known_numbers():
    """1,321 pairs passed over, 8 boxes without extent; true keypoints .9993, copying the source's pose .2387."""
    from mscgan.data.annotations import read
    from shards import market1501
    from shards.pairs import ordered_pairs, sample, usable

    kept, persons = usable(read(DATA, 128, 64), market1501)
    pairs = sample(ordered_pairs(persons), 12_000, seed=0)
    keypoints = np.array([row.keypoints for row in kept])
    source, target = keypoints[pairs[:, 0]], keypoints[pairs[:, 1]]
    share, joints = pckh(target, target)
    assert np.isnan(share).sum() == 1_321 and (share < 1).sum() == 8
    assert over_joints(share, joints) == pytest.approx(0.9993, abs=5e-5)
    assert over_joints(*pckh(source, target)) == pytest.approx(0.2387, abs=5e-5)
    assert script(source, target)[2:] == (1_321, 8)
    assert not np.isnan(pck_torso(target, target)[0]).any() and over_joints(*pck_torso(target, target)) == 1
