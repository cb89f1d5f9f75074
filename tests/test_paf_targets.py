import math

import numpy as np
import pytest
import torch

from mscgan import pose
from mscgan.paf.limbs import LIMBS
from mscgan.paf.targets import targets

HEIGHT, WIDTH = 64, 96


def person(**joints: tuple[float, float]) -> torch.Tensor:
    """(1, 1, 18, 2) keypoints of the named joints, "j4" and so on."""
    keypoints = torch.full((1, 1, 18, 2), -1.0)
    for name, place in joints.items():
        keypoints[0, 0, int(name[1:])] = torch.tensor(place)
    return keypoints


def random_people(seed: int, people: int, missing: float = 0.2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(2, people, 18, 2, generator=generator) * torch.tensor([WIDTH - 1, HEIGHT - 1])
    keypoints[torch.rand(2, people, 18, generator=generator) < missing] = -1
    return keypoints


def test_a_joint_on_a_cells_middle_is_1_there_and_falls_off_by_its_distance_in_pixels():
    maps = targets(person(j0=(8 * 5 + 3.5, 8 * 2 + 3.5)), HEIGHT, WIDTH).maps[0]
    assert maps[0, 2, 5] == 1 and maps[18, 2, 5] == 0
    assert maps[0, 2, 6].item() == pytest.approx(math.exp(-64 / 98))
    assert maps[0, 3, 7].item() == pytest.approx(math.exp(-(64 + 256) / 98))
    assert maps[18, 2, 6].item() == pytest.approx(1 - math.exp(-64 / 98))
    assert maps[0, 2, 9] == 0 and maps[0, 5, 5] == 0  # 32 and 24 pixels away: below 1 %
    assert maps[1:18].abs().max() == 0


def test_a_joint_off_the_middle_is_below_1_everywhere():
    maps = targets(person(j3=(40, 16)), HEIGHT, WIDTH).maps[0, 3]
    assert maps.max().item() == pytest.approx(math.exp(-2 * 3.5**2 / 98))


def test_what_is_below_1_percent_is_left_out():
    exact = 7 * math.sqrt(2 * 4.6052)  # pixels
    for away, drawn in ((exact - 0.01, True), (exact + 0.01, False)):
        maps = targets(person(j0=(3.5 + away, 3.5)), HEIGHT, WIDTH).maps[0, 0]
        assert (maps[0, 0] > 0) == drawn


def test_sigma_is_in_pixels_of_the_input():
    maps = targets(person(j0=(43.5, 19.5)), HEIGHT, WIDTH, sigma=4.0).maps[0, 0]
    assert maps[2, 6].item() == pytest.approx(math.exp(-64 / 32))


def test_people_add_up_to_1_at_most():
    both = torch.cat([person(j0=(43.5, 19.5)), person(j0=(47.5, 19.5))], 1)
    maps = targets(both, HEIGHT, WIDTH).maps[0]
    assert maps[0, 2, 5] == 1
    assert maps[0, 2, 7].item() == pytest.approx(math.exp(-(16**2) / 98) + math.exp(-(12**2) / 98))


def test_a_level_limb_of_three_cells_fills_three_rows_from_a_cell_before_it_to_its_end():
    """From cell 3 to cell 6 of row 4: columns 2 to 6, as the box's upper end is exclusive, and rows 3 to 4 for the
    same reason."""
    fields = targets(person(j1=(24, 32), j2=(48, 32)), HEIGHT, WIDTH).fields[0]
    channel = 2 * LIMBS.index((1, 2))
    expected = torch.zeros(8, 12)
    expected[3:5, 2:7] = 1
    torch.testing.assert_close(fields[channel], expected)
    assert fields[channel + 1].abs().max() == 0
    others = [i for i in range(38) if i not in (channel, channel + 1)]
    assert fields[others].abs().max() == 0


def test_a_slanting_limbs_field_is_its_direction():
    fields = targets(person(j1=(16, 16), j8=(40, 48)), HEIGHT, WIDTH).fields[0]  # (3, 4) / 5
    x, y = fields[0], fields[1]
    assert x[4, 3].item() == pytest.approx(0.6) and y[4, 3].item() == pytest.approx(0.8)
    assert set(np.round(x.unique().numpy(), 5)) == {0, np.float32(0.6)}


def test_a_limb_of_no_length_is_left_out():
    drawn = targets(person(j1=(24, 32), j2=(24, 32)), HEIGHT, WIDTH)
    channel = 2 * LIMBS.index((1, 2))
    assert torch.isfinite(drawn.fields).all() and drawn.fields.abs().max() == 0
    assert drawn.field_weights[0, channel].item() == 0


def test_where_limbs_of_two_people_cross_the_field_is_their_mean():
    across, down = person(j1=(16, 32), j2=(64, 32)), person(j1=(40, 8), j2=(40, 56))
    both = targets(torch.cat([across, down], 1), HEIGHT, WIDTH).fields[0]
    alone = [targets(one, HEIGHT, WIDTH).fields[0] for one in (across, down)]
    channel = 2 * LIMBS.index((1, 2))
    assert both[channel, 4, 5] == 0.5 and both[channel + 1, 4, 5] == 0.5
    elsewhere = (alone[0].abs().sum(0) > 0) != (alone[1].abs().sum(0) > 0)
    torch.testing.assert_close(both[:, elsewhere], (alone[0] + alone[1])[:, elsewhere])


def drawn_slowly(keypoints: np.ndarray) -> np.ndarray:
    """The fields of one image's people (P, 18, 2), cell by cell as CMU's loops do it, and averaged."""
    height, width = HEIGHT // 8, WIDTH // 8
    total, count = np.zeros((38, height, width)), np.zeros((19, height, width))
    for joints in keypoints / 8:
        for i, (a, b) in enumerate(LIMBS):
            if (joints[[a, b]] < 0).any():
                continue
            (ax, ay), (bx, by) = joints[a], joints[b]
            length = math.hypot(bx - ax, by - ay)
            ux, uy = (bx - ax) / length, (by - ay) / length
            first_x, after_x = max(round_away(min(ax, bx) - 1), 0), min(round_away(max(ax, bx) + 1), width)
            first_y, after_y = max(round_away(min(ay, by) - 1), 0), min(round_away(max(ay, by) + 1), height)
            for y in range(first_y, after_y):
                for x in range(first_x, after_x):
                    if abs((x - ax) * uy - (y - ay) * ux) <= 1:
                        total[2 * i : 2 * i + 2, y, x] += ux, uy
                        count[i, y, x] += 1
    return total / np.maximum(count, 1).repeat(2, axis=0)


def round_away(v: float) -> int:
    """C's round."""
    return int(math.copysign(math.floor(abs(v) + 0.5), v))


@pytest.mark.parametrize("people", [1, 3])
def test_fields_are_those_of_the_originals_loops(people):
    keypoints = random_people(people, people)
    fields = targets(keypoints, HEIGHT, WIDTH).fields
    for made, one in zip(fields, keypoints.double().numpy(), strict=True):
        np.testing.assert_allclose(made.numpy(), drawn_slowly(one), atol=2e-6)


def test_a_missing_joint_and_its_limbs_have_no_weight():
    keypoints = random_people(5, 1, missing=0)
    keypoints[0, 0, 4] = -1  # right wrist
    drawn = targets(keypoints, HEIGHT, WIDTH)
    assert [j for j in range(19) if drawn.map_weights[0, j].item() == 0] == [4]
    limb = LIMBS.index((3, 4))
    assert [c for c in range(38) if drawn.field_weights[0, c].item() == 0] == [2 * limb, 2 * limb + 1]
    assert drawn.map_weights[1].all() and drawn.field_weights[1].all()
    assert drawn.maps[0, 4].abs().max() == 0 and drawn.fields[0, 2 * limb].abs().max() == 0
    told = targets(keypoints, HEIGHT, WIDTH, missing="absent")
    assert told.map_weights.all() and told.field_weights.all()


def test_a_joint_that_one_of_two_people_lacks_has_no_weight_and_who_is_not_there_lacks_none():
    two = torch.cat([random_people(5, 1, missing=0), random_people(6, 1, missing=0)], 1)
    two[0, 1, 4] = -1
    two[1, 1] = -1
    weights = targets(two, HEIGHT, WIDTH).map_weights[..., 0, 0]
    assert weights[0, 4] == 0 and weights[0].sum() == 18 and weights[1].all()


def test_the_mirrored_pose_is_drawn_as_the_mirror_image_with_joints_and_limbs_swapped_and_x_turned():
    """Maps to the bit of rounding. A field's cells stand for the pixel 8g and not for 8g + 3.5, so the mirror image of
    its grid is that of a pose 7 pixels further left; and the box around a limb is longer by a cell at its lower ends,
    so one that is mirrored may lack a column. What both draw is the same, and they differ in those columns alone."""
    keypoints = random_people(8, 1)
    keypoints[..., 0] = torch.where(keypoints[..., 0] < 0, -1.0, keypoints[..., 0] * 0.8 + 12)
    mirrored = pose.flip(keypoints[:, 0], WIDTH)[:, None]
    one, other = targets(keypoints, HEIGHT, WIDTH), targets(mirrored, HEIGHT, WIDTH)
    torch.testing.assert_close(other.maps, one.maps[:, [*pose.FLIP, 18]].flip(3))
    torch.testing.assert_close(other.map_weights, one.map_weights[:, [*pose.FLIP, 18]])

    further = torch.where(keypoints < 0, -1.0, keypoints - torch.tensor([7.0, 0.0]))
    moved = targets(further, HEIGHT, WIDTH)
    limbs = [LIMBS.index((pose.FLIP[a], pose.FLIP[b])) for a, b in LIMBS]
    channels = [2 * limb + axis for limb in limbs for axis in (0, 1)]
    sign = torch.tensor([-1.0, 1.0]).repeat(19)[None, :, None, None]
    expected = moved.fields[:, channels].flip(3) * sign
    torch.testing.assert_close(other.field_weights, one.field_weights[:, channels])
    both = (expected.abs() > 0) & (other.fields.abs() > 0)
    torch.testing.assert_close(other.fields[both], expected[both])
    drawn = (other.fields.abs() > 0).sum()
    assert both.sum() > 0.7 * drawn
