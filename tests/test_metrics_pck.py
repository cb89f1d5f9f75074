import numpy as np

from mscgan.metrics.pck import pck

TRUE = np.full((1, 18, 2), -1.0)
TRUE[0, [1, 8, 11]] = [20, 10], [15, 30], [25, 30]  # neck and hips: a torso of 20 pixels


def test_a_joint_within_a_fifth_of_the_torso_is_right():
    estimated = TRUE.copy()
    estimated[0, 1] += [4, 0]
    estimated[0, 8] += [0, 4.01]
    share, joints = pck(estimated, TRUE)
    assert joints.tolist() == [3] and share.tolist() == [2 / 3]


def test_a_joint_that_is_not_found_is_wrong_and_one_too_many_counts_for_nothing():
    estimated = TRUE.copy()
    estimated[0, 11] = -1
    estimated[0, 4] = [3, 3]
    assert pck(estimated, TRUE)[0].tolist() == [2 / 3]
    near_the_corner = TRUE.copy()
    near_the_corner[0, 11] = [0, 0]  # -1, which is no place, would be near
    assert pck(np.where(near_the_corner == 0, -1, near_the_corner), near_the_corner)[0].tolist() == [2 / 3]


def test_a_person_without_torso_is_passed_over():
    without = TRUE.copy()
    without[0, 11] = -1
    share, joints = pck(TRUE, without)
    assert np.isnan(share).all() and joints.tolist() == [0]
