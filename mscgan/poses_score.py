"""Scores a pose estimator on shards: how many joints it finds, beside a guess that is the same for every image."""

import os

import numpy as np
import torch
from tqdm import tqdm

from mscgan import estimators
from mscgan.data.read import read_images
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.metrics.pck import DESCRIPTION, pck
from mscgan.metrics.pckh import over_joints


def score(root: str, split: str, estimator: str) -> None:
    """Prints PCK@0.2 over all images of a split, and that of the mean pose of the train split.

    Raises:
        UserError: what ShardSet and open_estimator raise.
    """
    shards = ShardSet(root, split)
    if not len(shards):
        raise UserError(f"split {split!r} of {root} has no images")
    train = ShardSet(root, "train") if split != "train" else shards
    estimate = estimators.open_estimator(estimator)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    found = np.full_like(shards.keypoints, -1)
    for i in tqdm(range(len(shards)), unit=" images", disable=None):
        people = estimate(read_images(shards, np.array([i]))[0])
        if people:
            found[i] = people[0].keypoints
    nobody = int((found == -1).all((1, 2)).sum())
    share, joints = pck(found, shards.keypoints)
    guess = np.broadcast_to(mean_pose(train.keypoints), found.shape)
    print(DESCRIPTION)
    print(f"{shards.dataset}, split {split}: {len(shards):,} images, {joints.sum():,} joints")
    print(f"  {estimator}: {over_joints(share, joints):.3f}; nobody found in {nobody:,} images")
    print(f"  the mean pose of the {train.split} split: {over_joints(*pck(guess, shards.keypoints)):.3f}")
    if without := int(np.isnan(share).sum()):
        print(f"  without {without:,} images in which neck or hips are missing")


def mean_pose(keypoints: np.ndarray) -> np.ndarray:
    """(18, 2): the mean place of each joint over the images that show it; (-1, -1) where none does."""
    there = (keypoints != -1).all(-1, keepdims=True)
    count = there.sum(0)
    return np.where(count > 0, (keypoints * there).sum(0) / np.maximum(count, 1), -1).astype(np.float32)
