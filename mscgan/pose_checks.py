"""Whether a pose can be of a person: what a file in another convention looks like, each sign with its likely reason.

The limits lie just beyond what is in the public keypoint files: of the 15,380 rows of Market-1501's train and
DeepFashion's test file with hips and shoulders, two are refused (a hip is misplaced). A person who lies, or stands on
the head, is refused too: no such pose was in what the networks have seen.
"""

import numpy as np

from mscgan.framing import HEAD

# Of a file's poses, that may look wrong. Of the public files' rows 1 in 1,000 does; of what MoveNet finds in pictures
# as small as Market-1501's about a third, as it takes backs for fronts. With right and left swapped it is 37 %
# (Market-1501) or 60 % (DeepFashion), with x and y swapped 95 % or more.
TOO_MANY = 1 / 3
_NECK_LAST = (0, 17, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)  # where ours stand, in COCO's 17 and a neck


def odd(keypoints: np.ndarray) -> str:
    """Why (18, 2) keypoints (x, y), missing (-1, -1), are hardly a person's, or ""."""
    return _orders(keypoints) or _axis(keypoints) or _sides(keypoints)


def _axis(keypoints: np.ndarray) -> str:
    """How neck and hips lie."""
    if _missing(keypoints, 1, 8, 11):
        return ""
    across, down = keypoints[[8, 11]].mean(0) - keypoints[1]
    if abs(across) > 1.5 * abs(down):
        return "the body lies on its side, from neck to hips; are x and y swapped? A point is [x, y]"
    if -down > abs(across):
        return "the hips are above the neck; is y counted from the bottom? It is 0 in the top row"
    return ""


def _orders(keypoints: np.ndarray) -> str:
    """Joints that are too far from each other, as a share of the diagonal of the box around all."""
    there = keypoints[(keypoints != -1).all(1)]
    size = float(np.hypot(*np.ptp(there, axis=0)))
    if not size:
        return "all its joints are in one place"
    others = keypoints[list(_NECK_LAST)]
    if _off_centre(keypoints) > 0.04 * size and not _missing(others, 1, 2, 5) and _off_centre(others) < 0.01 * size:
        return "it has COCO's 17 joints and the neck as the last, but the neck comes second, as OpenPose has it"
    if _missing(keypoints, 8) and _missing(keypoints, 11):
        return ""  # a head and shoulders are all that is there: their box says nothing of the body's size
    head = keypoints[[joint for joint in HEAD if not _missing(keypoints, joint)]]
    apart = {
        "the joints of the head are too far from each other": (_spread(head), 0.38),
        "the hips are too far from each other": (_distance(keypoints, 8, 11), 0.43),
        "the neck is not between the shoulders": (_off_centre(keypoints), 0.21),
    }
    for what, (distance, most) in apart.items():
        if distance > most * size:
            return f"{what}; is the order of its joints another? It must be nose, neck, right shoulder, ..."
    return ""


def _sides(keypoints: np.ndarray) -> str:
    """Somebody whose whole face is seen is seen from the front, the right shoulder on the image's left."""
    if _missing(keypoints, 0, 2, 5, 8, 11, 14, 15):
        return ""
    x = keypoints[:, 0]
    body = _distance(keypoints, 2, 8)
    if x[2] - x[5] > 0.1 * body and x[8] > x[11] and x[14] > x[15]:
        return (
            "nose and both eyes are seen, but right shoulder, hip and eye lie right of the left ones; are right and "
            'left swapped? "right" is the person\'s right'
        )
    return ""


def _missing(keypoints: np.ndarray, *joints: int) -> bool:
    return bool((keypoints[list(joints)] == -1).all(1).any())


def _distance(keypoints: np.ndarray, a: int, b: int) -> float:
    """In pixels, 0 where one is missing."""
    return 0.0 if _missing(keypoints, a, b) else float(np.hypot(*(keypoints[a] - keypoints[b])))


def _off_centre(keypoints: np.ndarray) -> float:
    """The neck from the middle of the shoulders, 0 where one of them is missing."""
    return 0.0 if _missing(keypoints, 1, 2, 5) else float(np.hypot(*(keypoints[1] - keypoints[[2, 5]].mean(0))))


def _spread(points: np.ndarray) -> float:
    """The longest distance between two of them."""
    return float(np.hypot(*(points[:, None] - points[None]).T).max(initial=0))
