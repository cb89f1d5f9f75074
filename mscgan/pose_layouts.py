"""The joint orders of other programs, and ours from them: OpenPose's COCO order of 18 (mscgan/pose.py: JOINTS)."""

import numpy as np

# Where each of our joints stands in the other order; -1: the neck, which COCO has not. It is the middle of the
# shoulders where both are there, as OpenPose's training has it (caffe_train: cpm_data_transformer.cpp).
COCO_17 = (0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
# OpenPose's default has the middle of the hips (8) and the feet (19 to 24) too (doc/02_output.md).
BODY_25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
COCO_18 = tuple(range(18))
LAYOUTS = {17: ("COCO's 17 joints", COCO_17), 18: ("OpenPose's 18 joints", COCO_18), 25: ("BODY_25", BODY_25)}
# What has so many joints, and cannot be read: its joints are others.
OTHERS = {15: "MPI's", 16: "MPII's", 33: "MediaPipe's", 133: "COCO-WholeBody's", 135: "BODY_135's"}
# COCO's names, as its annotation files list them in "categories".
COCO_NAMES = [
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
]  # fmt: skip


def to_ours(points: np.ndarray) -> np.ndarray:
    """(17, 18 or 25; 2) points (x, y), missing (-1, -1) -> our (18, 2)."""
    _, order = LAYOUTS[len(points)]
    ours = points[list(order)]
    if -1 in order:
        shoulders = points[[order[2], order[5]]]
        ours[order.index(-1)] = shoulders.mean(0) if (shoulders != -1).all() else -1
    return ours
