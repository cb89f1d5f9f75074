"""The poses of a user's pictures: as files tell them, or as an estimator finds them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mscgan.data.annotations import HEADER, Annotation, numbered, outside, whole_text
from mscgan.errors import UserError
from mscgan.estimators import largest_first
from mscgan.framing import place
from mscgan.pose_checks import TOO_MANY, odd
from mscgan.pose_formats import parse
from shards.claim import locked
from shards.digest import file_sha256, sha256
from shards.find_poses import KEPT, NOBODY, find_poses
from shards.own_pictures import OwnPicture
from shards.persons import by_name, some

ENDINGS = (".json", ".txt")  # of files that hold an image's pose each
OF_FILE = "_keypoints"  # OpenPose writes a.jpg's people to a_keypoints.json


class Row(NamedTuple):
    """A picture's pose in a file. keypoints: 18 [x, y], [-1, -1] where missing. frame: (width, height) of the picture,
    where the file says it. sure: a joint outside the picture is a mistake, and not an estimator's guess."""

    where: str
    name: str
    keypoints: list
    frame: tuple[int, int] | None
    sure: bool


def read_poses(path: Path) -> list[Row]:
    """A keypoint file as the field has it; any other of mscgan/pose_formats.py that names its pictures, as COCO's
    annotation file does; or a folder of them, a picture a file of its name. Of several people the largest is taken.

    Raises:
        UserError: a file that cannot be read, is broken or does not name its pictures.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS)
        if not files:
            raise UserError(
                f"--annotations {path} has no {' or '.join(ENDINGS)} file; give a keypoint file, or their folder"
            )
        names = [file.relative_to(path).with_suffix("").as_posix().removesuffix(OF_FILE) for file in files]
        return [row for file, name in zip(files, names) for row in _parsed(file, whole_text(file), name)]
    text = whole_text(path)
    if text.lstrip()[:1] in ("[", "{"):
        return _parsed(path, text, "")
    rows = numbered(path)
    _refuse_zeros(path, rows)
    return [Row(f"{path} line {number}", row.name, row.keypoints, None, True) for number, row in rows]


def _refuse_zeros(path: Path, rows: list[tuple[int, Annotation]]) -> None:
    """UserError where joints that were not found are at (0, 0), as OpenPose has them: two of a picture are, or one in a
    tenth of all. In the field's files, where it is a place, it is one joint in 1 of 10,000 pictures."""
    zeros = {number: count for number, row in rows if (count := sum(point == [0, 0] for point in row.keypoints))}
    if any(count > 1 for count in zeros.values()) or len(zeros) > max(1, 0.1 * len(rows)):
        raise UserError(
            f"{path} line {next(iter(zeros))}: a joint is at x 0, y 0, the corner, as OpenPose marks one that it did "
            f"not find, and so in {len(zeros):,} of {len(rows):,} pictures; write -1 in both lists for such a joint"
        )


def _parsed(path: Path, text: str, name: str) -> list[Row]:
    """name: of the picture, if the file's own says it."""
    images = parse(text, str(path)).images
    if name and len(images) > 1:
        raise UserError(f"{path} has the poses of {len(images)} pictures; in a folder each file is of one")
    if nameless := sum(not (name or image.name) for image in images):
        raise UserError(
            f"{path} does not say whose {nameless} of its poses are; give a file that names its pictures ({HEADER}, or "
            "COCO's), or a folder with a file a picture, called like it"
        )
    rows = []
    for image in images:
        keypoints = largest_first(image.people)[0].tolist() if image.people else NOBODY
        rows.append(Row(f"{path}, {name or image.name}", name or image.name, keypoints, image.frame, False))
    return rows


def told(
    path: Path, rows: list[Row], pictures: list[OwnPicture], report: list[str], any_pose: bool = False
) -> dict[str, list]:
    """name -> keypoints in pixels of the picture, [] for a picture that has none.

    any_pose: take also what can hardly be people (mscgan/pose_checks.py).

    Raises:
        UserError: a joint outside its picture, a picture of another shape; a file of none of these pictures, of copies
            of another size, or of other joints.
    """
    of_names: dict[str, Row] = {}
    for row in rows:
        if (before := of_names.setdefault(row.name, row)) is not row:
            raise UserError(f"{before.where} and {row.where}: the picture is there twice; remove one")
    named = by_name(of_names, [picture.name for picture in pictures], path)
    if not named:
        raise UserError(
            f"{path} names none of the {len(pictures):,} pictures: it has {some(row.name for row in rows)}, the "
            f"pictures are {some(picture.name for picture in pictures)}; give the file of these pictures"
        )
    poses = {picture.name: _in(picture, named[picture.name]) if picture.name in named else [] for picture in pictures}
    sizes = {picture.name: picture.size for picture in pictures}
    reach = [np.divide(np.max(keypoints, axis=0), sizes[name]).max() for name, keypoints in poses.items() if keypoints]
    if 0 < max(reach) < 0.5 and len(named) > 1:
        raise UserError(
            f"{path}: in all {len(named):,} pictures all joints are in the upper left quarter; is it of smaller "
            "copies? Its numbers must be pixels of the pictures as they are here"
        )
    here = {row.name for row in named.values()}
    if more := [row.name for row in rows if row.name not in here]:
        report.append(f"{len(more):,} rows of {path} name no picture that is used, {some(more)}: ignored")
    doubts = _doubts(poses)
    if len(doubts) > max(1, TOO_MANY * len(named)) and not any_pose:
        raise UserError(
            f"{path}: {len(doubts):,} of {len(named):,} poses are hardly a person's, {next(iter(doubts))}: "
            f"{next(iter(doubts.values()))}; or take them as they are with --any-pose"
        )
    report += _warning(doubts)
    return poses


def found(estimator: str, pictures: list[OwnPicture], out: Path, workers: int, report: list[str]) -> dict[str, list]:
    """name -> keypoints that the estimator finds, NOBODY where it finds nobody."""
    with locked(out):
        files = {picture.path: picture.sha256 for picture in pictures}
        poses, several = find_poses(files, estimator, out / ".build" / KEPT, workers)
    if several:
        report.append(f"{several:,} pictures show several people: the largest of them is taken")
    by_picture = {picture.name: poses[picture.sha256] for picture in pictures}
    report += _warning(_doubts(by_picture))
    return by_picture


def provenance(path: Path) -> dict[str, str]:
    """A file's, or a folder's, name and checksum. UserError where it cannot be read."""
    try:
        if not path.is_dir():
            return {"file": path.name, "sha256": file_sha256(path)}
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS)
        parts = "".join(f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n" for file in files)
        return {"folder": path.name, "sha256": sha256(parts.encode())}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _in(picture: OwnPicture, row: Row) -> list:
    """A row's keypoints in pixels of the picture."""
    width, height = frame = row.frame or picture.size
    if abs(width * picture.size[1] - height * picture.size[0]) > max(*frame, *picture.size):  # other than by rounding
        raise UserError(
            f"{row.where}: its picture is {width}x{height} (width x height) there, and {picture.size[0]}x"
            f"{picture.size[1]} here, upright; give the keypoints of these pictures"
        )
    if row.sure:
        if why := outside(row.keypoints, height, width):
            raise UserError(f"{row.where}: {row.name}: {why}")
        return row.keypoints
    points = np.array(row.keypoints, float)
    placed = place(points, (0, 0, width, height), picture.size[1], picture.size[0]).astype(float)
    lost = int(((placed == -1).all(1) & (points != -1).any(1)).sum())
    if lost > 9:
        raise UserError(
            f"{row.where}: {lost} of 18 joints are outside of its picture of {width}x{height} (width x height); give "
            "the keypoints of these pictures"
        )
    return [[-1, -1] if (point == -1).all() else point.round(1).tolist() for point in placed]


def _doubts(poses: dict[str, list]) -> dict[str, str]:
    """Why a pose is hardly a person's, by the picture."""
    reasons = {
        name: odd(np.array(keypoints, float)) for name, keypoints in poses.items() if keypoints and keypoints != NOBODY
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _warning(doubts: dict[str, str]) -> list[str]:
    if not doubts:
        return []
    return [
        f"warning: {len(doubts):,} poses are hardly a person's, {some(doubts)}; of the first: "
        f"{next(iter(doubts.values()))}"
    ]
