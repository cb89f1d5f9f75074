"""Synthetic people: a data set that anyone may use, of any size, made from a seed alone.

A person has one look in all views; poses, direction, scale, place in the picture and light change from view to view.
"""

import io
from functools import partial

import numpy as np
from PIL import Image as Picture

from mscgan.errors import UserError
from shards.pairs import ordered_pairs, sample
from shards.synthetic_body import joints, random_pose, seen, turned
from shards.synthetic_draw import draw
from shards.synthetic_look import random_look
from shards.write import Image, Plan, Sample, Split

DRAWING = 1  # raise it when the same seed gives other pictures, so that an old half-made build is not gone on with
FRAME = 0.78  # an average person's height as a share of the picture's


def plan(
    people: int,
    views: int,
    seed: int,
    height: int,
    width: int,
    test_pairs: int,
    validation: int = 0,
    poses: str = "all",
    turn: float = 360,
) -> Plan:
    """`people` persons with `views` pictures each; a fifth of the people, one at least, are the test split.

    validation: the last so many of the others are held out of train. Each person is drawn alone, so the last are as
    good as any, and the test split and the pictures of train's people are what they are without it.
    poses: which people take, a name of synthetic_body.POSES.
    turn: degrees over which a person's views spread; below 360 around the one that faces the camera.
    Train, validation: all ordered pairs of a person. Test: test_pairs of them, drawn with the seed.

    Raises:
        UserError: too few people or views, or an impossible size.
    """
    if people < 2 or views < 2:
        raise UserError(f"{people} people with {views} views: training and test need a person each, a pair two views")
    if not 0 <= turn <= 360:
        raise UserError(f"--turn {turn:g}: give 0 to 360 degrees")
    if not (16 <= height <= 1024 and 16 <= width <= 1024):
        raise UserError(f"pictures of {height}x{width}: give --height and --width between 16 and 1024")
    test = max(1, people // 5)
    if not 0 <= validation < people - test:
        raise UserError(
            f"--validation {validation}: {people} people are {people - test} of train and {test} of test; "
            f"give 0 to {people - test - 1}, so that one is left to train on"
        )
    bounds = {"train": (0, people - test - validation), "validation": (people - test - validation, people - test)}
    splits = {}
    for split, (first, end) in (bounds | {"test": (people - test, people)}).items():
        if first == end:
            continue
        persons = range(first, end)
        images = [Image(f"p{p:05d}_v{v:03d}", f"p{p:05d}", (p, v)) for p in persons for v in range(views)]
        pairs = ordered_pairs([image.person for image in images])
        splits[split] = Split(images, sample(pairs, test_pairs, seed) if split == "test" else pairs)
    source = {"people": people, "views": views, "seed": seed, "test_pairs": test_pairs, "drawing": DRAWING}
    source |= {"height": height, "width": width}
    if validation:
        source["validation"] = {"persons": validation, "rule": "the last of the people that are not in test"}
    source |= {"poses": poses} if poses != "all" else {}
    source |= {"turn": turn} if turn != 360 else {}
    make = partial(person, views=views, seed=seed, height=height, width=width, poses=poses, turn=turn)
    return Plan("synthetic", height, width, source, splits, make)


def person(
    recipe: tuple[int, int],
    views: int,
    seed: int,
    height: int,
    width: int,
    poses: str = "all",
    turn: float = 360,
) -> Sample:
    """View number recipe[1] of person number recipe[0], always the same for the same arguments."""
    number, view_number = recipe
    look_rng = np.random.default_rng([seed, 1, number])
    look = random_look(look_rng)
    rng = np.random.default_rng([seed, 2, number, view_number])
    # the views of a person look in directions spread over the circle, or over the part of it before the camera
    yaw = (look_rng.uniform(0, 360) + 360 * view_number / views + rng.uniform(-20, 20)) % 360
    yaw = (yaw - 180) * turn / 360 if turn < 360 else yaw
    pose = random_pose(rng, poses)
    view = turned(joints(pose, look.build), yaw)
    scale = FRAME * height * look.height * rng.uniform(0.94, 1.06)
    middle = (view[:, 0].min() + view[:, 0].max()) / 2  # keeps stretched-out limbs in the picture where they fit
    origin = (width * rng.uniform(0.47, 0.53) - 0.7 * middle * scale, height * rng.uniform(0.91, 0.95))
    over = max(2, round(192 / height))
    picture = np.asarray(draw(look, view, pose.seat, (width, height), scale, origin, over), np.float32)
    light = rng.uniform(0.93, 1.07) * rng.uniform(0.98, 1.02, 3)
    picture = Picture.fromarray(np.clip(picture * light, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92)
    # a pixel's middle has whole coordinates, so that mirroring is x -> width - 1 - x
    places = np.asarray(origin) + scale * view[:18, :2] * [1, -1] - 0.5
    inside = ((places >= 0) & (places <= [width - 1, height - 1])).all(axis=1)
    keypoints = np.where((inside & seen(view))[:, None], places.round(2), -1.0)
    return Sample(f"p{number:05d}_v{view_number:03d}.jpg", keypoints.tolist(), file.getvalue())
