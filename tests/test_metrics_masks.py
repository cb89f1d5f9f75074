"""The protocols' masks against the public construction, drawn pixel by pixel (tests/test_pose.py)."""

import numpy as np
import pytest

from mscgan.metrics.masks import DESCRIPTIONS, drawable, mask
from tests.test_pose import draw_pg2, draw_pose_gan, public_keypoints, random_keypoints


def poses(name):
    """Source and target keypoints (N, 18, 2), other ones, and the image's size."""
    if name == "random":
        return random_keypoints(6, 128, 64, seed=1), random_keypoints(6, 128, 64, seed=2), (128, 64)
    keypoints, size = public_keypoints(name)
    return keypoints[0:12:2], keypoints[1:12:2], size


@pytest.mark.parametrize("name", ["random", "market", "deepfashion"])
def test_each_protocol_has_its_pose_and_its_construction(name):
    source, target, (height, width) = poses(name)
    given = {"source": source.astype(np.float32), "target": target.astype(np.float32)}
    found = {protocol: mask(protocol, given, height, width, "cpu").numpy() for protocol in DESCRIPTIONS}
    expected = {
        "A": [draw_pg2(person, height, width, radius=4) for person in source],
        "A_target": [draw_pg2(person, height, width, radius=4) for person in target],
        "B": [draw_pose_gan(person, height, width, radius=4) for person in target],
    }
    assert list(expected) == list(DESCRIPTIONS)
    for protocol, drawn in expected.items():
        assert found[protocol].shape == (6, height, width) and found[protocol].dtype == np.uint8
        np.testing.assert_array_equal(found[protocol], drawn, err_msg=protocol)
    assert not np.array_equal(found["A"], found["A_target"]) and not np.array_equal(found["A_target"], found["B"])


def test_a_mask_is_only_there_where_its_pose_is():
    assert drawable(["source", "target"]) == tuple(DESCRIPTIONS)
    assert drawable(["source"]) == ("A",) and drawable(["target"]) == ("A_target", "B") and drawable([]) == ()
    source, target, size = poses("random")
    for whose, keypoints in (("source", source), ("target", target)):
        assert all(mask(name, {whose: keypoints}, *size, "cpu").any() for name in drawable([whose]))


def test_a_pose_without_a_limb_has_an_empty_mask():
    nobody = dict.fromkeys(["source", "target"], np.full((2, 18, 2), -1.0, np.float32))
    assert not any(mask(name, nobody, 32, 16, "cpu").any() for name in DESCRIPTIONS)
