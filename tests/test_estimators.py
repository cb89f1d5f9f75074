import numpy as np

from mscgan.estimators import Person, in_photo, largest_first, rescaled
from mscgan.photos import Photo


def test_places_move_with_the_middles_of_pixels_and_stay_inside():
    keypoints = np.array([[0, 0], [1, 2], [95, 191], [-1, -1]], np.float32)
    moved = rescaled(keypoints, (96, 192), (32, 64))
    np.testing.assert_allclose(moved, [[0, 0], [0, 1 / 3], [31, 63], [-1, -1]], atol=1e-6)
    np.testing.assert_allclose(rescaled(moved, (32, 64), (96, 192))[1], [1, 2], atol=1e-5)


def test_people_of_a_photograph_are_in_pixels_of_its_file_though_fewer_were_decoded():
    keypoints = np.full((18, 2), -1, np.float32)
    keypoints[0] = 9.5, 19.5
    person = Person(keypoints, np.ones(18, np.float32), 1.0)
    (found,) = in_photo(lambda image: [person], Photo(np.zeros((40, 20, 3), np.uint8), (40, 80)))
    assert found.keypoints[0].tolist() == [19.5, 39.5] and (found.keypoints[1:] == -1).all()


def test_the_largest_is_the_one_with_the_largest_box():
    small, large = (np.full((18, 2), -1, np.float32) for _ in range(2))
    small[:3], large[:3] = [[0, 0], [5, 9], [3, 3]], [[1, 1], [9, 9], [3, 3]]
    assert largest_first([small, large])[0] is large
