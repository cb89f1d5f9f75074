"""L1 against numpy and known numbers."""

import numpy as np
import pytest
import torch

from mscgan.errors import UserError
from mscgan.metrics.l1 import l1


def test_L1_is_on_the_scale_of_minus_1_to_1():
    black, white = torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.full((1, 8, 8, 3), 255, dtype=torch.uint8)
    assert l1(black, white).tolist() == l1(white, black).tolist() == [2]
    half = black.clone()
    half[:, :4] = 51  # 0.4 on that scale, over half of the image
    assert l1(half, black).item() == pytest.approx(0.2, abs=1e-15)


@pytest.mark.parametrize("size", [(1, 128, 64, 3), (5, 31, 17, 3), (0, 8, 8, 3)])
def test_each_pair_has_the_mean_absolute_difference(size):
    generated, target = np.random.default_rng(0).integers(0, 256, (2, *size), dtype=np.uint8)
    expected = np.abs(generated / 127.5 - target / 127.5).mean((1, 2, 3))
    found = l1(torch.from_numpy(generated), torch.from_numpy(target))
    assert found.dtype == torch.float64 and found.shape == size[:1]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(2, 0, 8, 3, dtype=torch.uint8),
        torch.zeros(8, 8, 3, dtype=torch.uint8),
        torch.zeros(2, 8, 8, 3),
        torch.zeros(2, 8, 8, 4, dtype=torch.uint8),
    ],
    ids=["empty", "no batch", "float", "four channels"],
)
def test_what_is_no_batch_of_images_is_refused(bad):
    with pytest.raises(UserError, match=r"images are torch\.\w+ \(.*\); expected uint8 \(N, H, W, 3\)"):
        l1(bad, bad)


def test_batches_that_differ_in_size_or_number_are_refused():
    one = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    for other in (one[:, :7], one.expand(2, -1, -1, -1)):
        with pytest.raises(UserError, match="differ in size or number"):
            l1(one, other)
