"""What a step takes: mirrored together, drawn once, in full precision wherever it is asked for."""

import pytest
import torch

from mscgan import pose
from mscgan.data.batch import Batch
from mscgan.keys import Data
from mscgan.prepare import Inputs, prepare

DATA = Data(height=64, width=32, sigma=3.0, radius=2.0)


@pytest.fixture
def batch() -> Batch:
    """Two pairs, of which the second is to be mirrored."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(256, (2, 2, 64, 32, 3), generator=generator, dtype=torch.uint8)
    x_keypoints, y_keypoints = (torch.rand(2, 2, 18, 2, generator=generator) * 31).round()
    x_keypoints[:, 4] = -1
    return Batch(x, y, x_keypoints, y_keypoints, torch.tensor([False, True]), torch.arange(2))


def test_images_poses_maps_and_mask_are_mirrored_together(batch):
    inputs = prepare(batch, DATA)
    for image, given in ((inputs.x, batch.x), (inputs.y, batch.y)):
        expected = given.permute(0, 3, 1, 2) / 127.5 - 1
        torch.testing.assert_close(image[0], expected[0])
        torch.testing.assert_close(image[1], expected[1].flip(2))
    for keypoints, given in ((inputs.x_keypoints, batch.x_keypoints), (inputs.y_keypoints, batch.y_keypoints)):
        assert torch.equal(keypoints[0], given[0]) and torch.equal(keypoints[1:], pose.flip(given[1:], 32))
    maps = pose.heatmaps(inputs.y_keypoints, 64, 32, sigma=3.0)
    torch.testing.assert_close(inputs.condition, torch.cat([inputs.x, maps], 1))
    assert torch.equal(inputs.mask, pose.body_mask(inputs.y_keypoints, 64, 32, radius=2.0))


def test_what_is_drawn_inside_autocast_is_what_is_drawn_outside(batch):
    outside, inside = prepare(batch, DATA), prepare(batch, DATA)
    with torch.autocast("cpu", torch.bfloat16):
        drawn = inside.condition, inside.mask
    assert torch.equal(drawn[0], outside.condition) and torch.equal(drawn[1], outside.mask)
    assert inside.condition is drawn[0]


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_images_have_the_precisions_dtype(batch, precision, dtype):
    inputs = prepare(batch, DATA, precision)
    assert inputs.condition.dtype == inputs.x.dtype == inputs.y.dtype == dtype and inputs.mask.dtype == torch.float32


def test_what_was_not_given_is_missed_by_name(batch):
    inputs = Inputs(batch.x, None, None, batch.y_keypoints, batch.flip, DATA)
    assert inputs.condition.shape == (2, 21, 64, 32)
    with pytest.raises(AssertionError, match="no target images"):
        _ = inputs.y
    with pytest.raises(AssertionError, match="no pose of the source"):
        _ = inputs.x_keypoints
