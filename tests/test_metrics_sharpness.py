"""Sharpness against scikit-image's filter and known numbers."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2gray
from skimage.filters import laplace

from mscgan.errors import UserError
from mscgan.metrics.sharpness import sharpness


@pytest.mark.parametrize("size", [(1, 128, 64), (5, 31, 17), (2, 1, 9)])
def test_it_is_the_variance_of_scikit_images_laplacian(size):
    images = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = [laplace(rgb2gray(image)).var() for image in images]
    found = sharpness(torch.from_numpy(images))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_constant_image_has_none_and_one_white_pixel_a_known_one():
    images = torch.full((2, 10, 10, 3), 77, dtype=torch.uint8)
    images[1] = 0
    images[1, 5, 5] = 255
    constant, dot = sharpness(images).tolist()
    assert constant < 1e-28
    assert dot == pytest.approx((4**2 + 4 * 1) / 100)  # the Laplacian's sum is 0


def test_it_is_the_same_beside_other_images_and_on_any_number_of_threads():
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (5, 256, 256, 3), dtype=np.uint8))
    threads = torch.get_num_threads()
    found = sharpness(images)
    try:
        for torch_has in (1, 2, 3):
            torch.set_num_threads(torch_has)
            assert torch.equal(torch.cat([sharpness(image[None]) for image in images]), found)
    finally:
        torch.set_num_threads(threads)


def test_what_is_no_batch_of_images_is_refused():
    with pytest.raises(UserError, match="expected uint8"):
        sharpness(torch.zeros(8, 8, 3, dtype=torch.uint8))
