"""A person who stands, joint by joint, written down in the joint orders of the field's programs by their own names."""

import numpy as np

# 97 pixels high, in an image of 120x220; seen from the front, so the person's right is on the image's left.
BODY = {
    "nose": (50, 106), "right_eye": (48, 103), "left_eye": (52, 103), "right_ear": (46, 104), "left_ear": (54, 104),
    "right_shoulder": (42, 118), "left_shoulder": (58, 118), "right_elbow": (38, 135), "left_elbow": (62, 135),
    "right_wrist": (37, 150), "left_wrist": (63, 150), "right_hip": (45, 152), "left_hip": (55, 152),
    "right_knee": (45, 176), "left_knee": (55, 176), "right_ankle": (45, 199), "left_ankle": (55, 199),
    "neck": (50, 118), "mid_hip": (50, 152),
    "left_big_toe": (56, 203), "left_small_toe": (58, 203), "left_heel": (55, 201),
    "right_big_toe": (44, 203), "right_small_toe": (42, 203), "right_heel": (45, 201),
}  # fmt: skip
# pose-gan's and PATN's files, OpenPose's --model_pose COCO
COCO_18 = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear"
).split()
# OpenPose, doc/02_output.md, POSE_BODY_25_BODY_PARTS
BODY_25 = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist mid_hip right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear left_big_toe left_small_toe "
    "left_heel right_big_toe right_small_toe right_heel"
).split()
# COCO, cocodataset.org/#format-data
COCO_17 = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
).split()


def pairs(order: list[str], missing: tuple[str, ...] = (), mark: tuple = (-1, -1)) -> list[list[float]]:
    """[x, y] of each joint."""
    return [list(mark if name in missing else BODY[name]) for name in order]


def triples(order: list[str], missing: tuple[str, ...] = (), sure: float = 0.9) -> list[list[float]]:
    """[x, y, c] of each joint, [0, 0, 0] where missing, as OpenPose and COCO have it."""
    return [[0, 0, 0] if name in missing else [*BODY[name], sure] for name in order]


def flat(points: list[list[float]]) -> list[float]:
    return [number for point in points for number in point]


def expected(missing: tuple[str, ...] = ()) -> np.ndarray:
    """(18, 2) in our order."""
    return np.array(pairs(COCO_18, missing), float)


def standing(height: int, width: int) -> np.ndarray:
    """(18, 2) float32 whole numbers: the person in a frame of that size."""
    scale = height / 128
    return ((expected() - [50, 92]) * scale + [width / 2, height * 0.04]).round().astype(np.float32)
