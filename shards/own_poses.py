"""The poses of a user's pictures: as a keypoint file tells them, or as an estimator finds them."""

from pathlib import Path

import numpy as np

from mscgan.data.annotations import Annotation, outside
from mscgan.errors import UserError
from shards.find_poses import KEPT, find_poses
from shards.own_pictures import OwnPicture
from shards.persons import by_name, some
from shards.write import locked


def told(
    path: Path, rows: list[tuple[int, Annotation]], pictures: list[OwnPicture], report: list[str]
) -> dict[str, list]:
    """name -> keypoints of a keypoint file's rows, [] for a picture that has none.

    Raises:
        UserError: a joint outside its picture; a file of none of these pictures, or of smaller copies of them.
    """
    named = by_name({row.name: (number, row) for number, row in rows}, [picture.name for picture in pictures], path)
    if not named:
        raise UserError(
            f"{path} names none of the {len(pictures):,} pictures: it has {some(row.name for _, row in rows)}, the "
            f"pictures are {some(picture.name for picture in pictures)}; give the file of these pictures"
        )
    reach = np.zeros(2)  # of all joints, as a share of their picture
    for picture in pictures:
        if picture.name not in named:
            continue
        number, row = named[picture.name]
        if why := outside(row.keypoints, picture.size[1], picture.size[0]):
            raise UserError(f"{path} line {number}: {row.name}: {why}")
        reach = np.maximum(reach, np.divide(np.max(row.keypoints, axis=0), picture.size))
    if 0 < reach.max() < 0.5 and len(named) > 1:
        raise UserError(
            f"{path}: in all {len(named):,} pictures all joints are in the upper left quarter; is it of smaller "
            "copies? Its numbers must be pixels of the pictures as they are here"
        )
    here = {row.name for _, row in named.values()}
    if more := [row.name for _, row in rows if row.name not in here]:
        report.append(f"{len(more):,} rows of {path} name no picture that is used, {some(more)}: ignored")
    return {picture.name: named[picture.name][1].keypoints if picture.name in named else [] for picture in pictures}


def found(estimator: str, pictures: list[OwnPicture], out: Path, workers: int, report: list[str]) -> dict[str, list]:
    """name -> keypoints that the estimator finds, NOBODY where it finds nobody."""
    with locked(out):
        files = {picture.path: picture.sha256 for picture in pictures}
        poses, several = find_poses(files, estimator, out / ".build" / KEPT, workers)
    if several:
        report.append(f"{several:,} pictures show several people: the largest of them is taken")
    return {picture.name: poses[picture.sha256] for picture in pictures}
