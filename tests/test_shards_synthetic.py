"""The drawn people: anatomy, hidden joints, keypoints where the drawing is, and the two splits."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mscgan.errors import UserError
from shards.synthetic import person, plan
from shards.synthetic_body import (
    FOREARM,
    L_EAR,
    L_ELBOW,
    L_EYE,
    L_HIP,
    L_KNEE,
    L_SHOULDER,
    NECK,
    NOSE,
    R_EAR,
    R_ELBOW,
    R_EYE,
    R_HIP,
    R_KNEE,
    R_SHOULDER,
    R_WRIST,
    THIGH,
    UPPER_ARM,
    Arm,
    Pose,
    joints,
    random_pose,
    seen,
    turned,
)
from shards.synthetic_draw import draw
from shards.synthetic_look import Material, random_look

SIZES = [(64, 32), (128, 64), (256, 256)]


@pytest.mark.parametrize("height, width", SIZES)
def test_a_view_is_a_jpeg_of_the_size_with_keypoints_inside(height, width):
    for view in range(4):
        sample = person((3, view), views=4, seed=0, height=height, width=width)
        picture = Image.open(io.BytesIO(sample.jpeg))
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (width, height))
        keypoints = np.array(sample.keypoints)
        there = (keypoints != -1).all(axis=1)
        assert keypoints.shape == (18, 2) and there.sum() >= 10
        assert (keypoints[~there] == -1).all()
        assert (keypoints[there] >= 0).all() and (keypoints[there] <= [width - 1, height - 1]).all()


def test_the_same_arguments_give_the_same_picture_and_another_seed_another():
    first = person((1, 2), views=4, seed=0, height=64, width=32)
    assert person((1, 2), views=4, seed=0, height=64, width=32) == first
    assert person((1, 2), views=4, seed=1, height=64, width=32) != first


def test_right_is_right():
    front, back = (turned(joints(Pose(), 1.0), yaw) for yaw in (0, 180))
    for right, left in ((R_SHOULDER, L_SHOULDER), (R_HIP, L_HIP), (R_KNEE, L_KNEE), (R_EAR, L_EAR)):
        assert front[right, 0] < front[left, 0]  # facing us, their right is on our left
        assert back[right, 0] > back[left, 0]
    raised = joints(Pose(right_arm=Arm(out=150)), 1.0)
    assert raised[R_WRIST, 1] > raised[NOSE, 1] > raised[L_ELBOW, 1]


@pytest.mark.parametrize(
    "yaw, hidden",
    [
        (0, set()),
        (180, {NOSE, R_EYE, L_EYE}),
        (90, {L_EYE, L_EAR}),  # facing the right of the picture: we see their right side
        (-90, {R_EYE, R_EAR}),
    ],
)
def test_the_head_hides_what_a_camera_would_not_see(yaw, hidden):
    visible = seen(turned(joints(Pose(), 1.0), yaw))
    assert {joint for joint in (NOSE, R_EYE, L_EYE, R_EAR, L_EAR) if not visible[joint]} == hidden


def test_folded_arms_are_hidden_from_behind():
    arm = Arm(swing=26, out=6, bend=100, twist=-62)
    visible = [seen(turned(joints(Pose(arm, arm), 1.0), yaw))[R_WRIST] for yaw in (0, 180)]
    assert visible == [True, False]


def test_bones_keep_their_length_in_every_pose():
    rng = np.random.default_rng(0)
    for _ in range(100):
        points = turned(joints(random_pose(rng), 1.0), rng.uniform(0, 360))
        for a, b, length in (
            (R_SHOULDER, R_ELBOW, UPPER_ARM),
            (R_ELBOW, R_WRIST, FOREARM),
            (L_HIP, L_KNEE, THIGH),
            (NECK, R_SHOULDER, np.linalg.norm(points[NECK] - points[L_SHOULDER])),
        ):
            assert np.linalg.norm(points[a] - points[b]) == pytest.approx(length)


def test_keypoints_lie_on_the_drawn_person():
    """Everyone painted white before a dark place: the picture must be bright where the joints are said to be."""
    rng = np.random.default_rng(0)
    white = Material("plain", (255, 255, 255), (255, 255, 255), 1.0)
    clothes = dict.fromkeys(("skin", "hair", "hat", "top", "bottom", "shoes"), white)
    for number in range(20):
        look = replace(random_look(rng), **clothes, place="plain", wall=(0, 0, 0), floor=(0, 0, 0))
        pose = random_pose(rng)
        view = turned(joints(pose, look.build), rng.uniform(0, 360))
        picture = np.asarray(draw(look, view, False, (128, 128), 90.0, (64.0, 118.0), 2))
        places = (np.array([64.0, 118.0]) + 90 * view[:18, :2] * [1, -1] - 0.5).round().astype(int)
        visible = seen(view)
        visible[[NOSE, R_EYE, L_EYE]] = False  # painted dark
        body = np.flatnonzero(visible)
        assert (picture[places[body, 1], places[body, 0]].max(axis=1) > 120).all(), number


def test_a_person_wears_the_same_in_all_views():
    """The chest of a plain shirt has the same hue in each view; only the light changes, by a tenth."""
    looked_at = 0
    for number in range(40):
        look = random_look(np.random.default_rng([0, 1, number]))
        if look.top.pattern != "plain" or look.emblem or max(look.top.first) < 80:
            continue
        looked_at += 1
        colours = []
        for view in range(6):
            sample = person((number, view), views=6, seed=0, height=128, width=128)
            picture = np.asarray(Image.open(io.BytesIO(sample.jpeg)).convert("RGB"), float)
            keypoints = np.array(sample.keypoints)
            chest = keypoints[[R_SHOULDER, L_SHOULDER, R_HIP, L_HIP]].mean(axis=0).round().astype(int)
            colours.append(picture[chest[1], chest[0]])
        near = [np.abs(colour / look.top.first - 1).max() < 0.35 for colour in colours]
        assert sum(near) >= 4, (number, look.top.first, colours)  # an arm or hair may lie over the chest
    assert looked_at >= 3


def test_everyday_people_stand_and_before_the_camera_show_their_faces():
    """Upright, both hips lie well above both knees; facing within 60 degrees, the nose is seen."""

    def keypoints(**given) -> np.ndarray:
        return np.array([person((p, v), 6, 0, 64, 32, **given).keypoints for p in range(20) for v in range(6)])

    def upright(found: np.ndarray) -> np.ndarray:
        hips, knees = found[:, [8, 11], 1], found[:, [9, 12], 1]
        return (knees.min(1) - hips.max(1)) > 5

    assert upright(keypoints(poses="everyday")).all() and not upright(keypoints()).all()
    assert (keypoints(poses="everyday", turn=120)[:, 0] >= 0).all()
    assert (keypoints(poses="everyday")[:, 0] < 0).any()


def test_what_is_not_the_default_is_part_of_the_source():
    given = {"people": 10, "views": 4, "seed": 0, "height": 64, "width": 32, "test_pairs": 15}
    plain, other = plan(**given).source, plan(**given, poses="everyday", turn=120).source
    assert other == plain | {"poses": "everyday", "turn": 120}


def test_a_fifth_of_the_people_are_for_testing_and_only_for_that():
    made = plan(10, 4, seed=0, height=64, width=32, test_pairs=15)
    train, test = made.splits["train"], made.splits["test"]
    people = {split: {image.person for image in s.images} for split, s in made.splits.items()}
    assert len(people["train"]) == 8 and len(people["test"]) == 2 and not people["train"] & people["test"]
    assert train.pairs.shape == (8 * 4 * 3, 2) and test.pairs.shape == (15, 2)
    for split in (train, test):
        for i, j in split.pairs:
            assert i != j and split.images[i].person == split.images[j].person


@pytest.mark.parametrize(
    "people, views, size", [(1, 4, (64, 32)), (4, 1, (64, 32)), (4, 4, (8, 4)), (4, 4, (4096, 64))]
)
def test_impossible_requests_are_refused(people, views, size):
    with pytest.raises(UserError):
        plan(people, views, seed=0, height=size[0], width=size[1], test_pairs=10)
