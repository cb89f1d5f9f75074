"""Bodies and poses of the drawn people: joint angles -> joints in 3D -> joints in the picture, and which are hidden.

Person's frame: +X to the person's left, +Y up, +Z forward, in units of the body's height, origin on the ground under
the pelvis. Turned by `yaw` (0: facing the camera, 90: facing the right of the picture, 180: the back) and projected
without perspective, a person facing the camera has the right shoulder on the left of the picture, as in a photograph.
"""

from dataclasses import dataclass, replace

import numpy as np

# the 18 joints in the order of OpenPose's COCO model
NOSE, NECK, R_SHOULDER, R_ELBOW, R_WRIST, L_SHOULDER, L_ELBOW, L_WRIST = range(8)
R_HIP, R_KNEE, R_ANKLE, L_HIP, L_KNEE, L_ANKLE, R_EYE, L_EYE, R_EAR, L_EAR = range(8, 18)
# further points that only the drawing uses
HEAD, R_TOE, L_TOE, R_HAND, L_HAND, SPINE = range(18, 24)

UPPER_ARM, FOREARM, HAND = 0.165, 0.150, 0.045
THIGH, SHIN, FOOT, ANKLE_HEIGHT = 0.245, 0.235, 0.085, 0.04
TORSO, HEAD_RISE, HEAD_RADIUS = 0.285, 0.115, 0.062
SHOULDER_WIDTH, HIP_WIDTH = 0.105, 0.062  # from the middle to one side


@dataclass(frozen=True)
class Arm:
    """Degrees. swing: forward (180 is up); out: away from the body; bend: of the elbow; twist: turns the forearm's
    bending from forward (0) to outward or up (90), inward across the body (-90)."""

    swing: float = 0
    out: float = 8
    bend: float = 10
    twist: float = 0


@dataclass(frozen=True)
class Leg:
    """Degrees. swing: forward; out: away from the body; bend: of the knee."""

    swing: float = 0
    out: float = 3
    bend: float = 4


@dataclass(frozen=True)
class Pose:
    right_arm: Arm = Arm()
    left_arm: Arm = Arm()
    right_leg: Leg = Leg()
    left_leg: Leg = Leg()
    lean: float = 0  # degrees, of the trunk, forward
    tilt: float = 0  # degrees, of the trunk, to the person's left
    look: float = 0  # degrees, of the head, to the person's left
    seat: bool = False  # sits on a stool


def random_pose(rng: np.random.Generator, poses: str = "all") -> Pose:
    """A pose out of the activities of POSES below, its angles varied, left and right exchanged half of the time."""
    activities = POSES[poses]
    pose = activities[rng.integers(len(activities))](rng)
    if rng.random() < 0.5:
        pose = replace(
            pose,
            right_arm=pose.left_arm,
            left_arm=pose.right_arm,
            right_leg=pose.left_leg,
            left_leg=pose.right_leg,
            tilt=-pose.tilt,
        )
    return replace(pose, look=rng.uniform(-25, 25), tilt=pose.tilt + rng.uniform(-3, 3))


def _stand(rng) -> Pose:
    u = rng.uniform
    return Pose(
        Arm(u(-8, 12), u(6, 16), u(5, 25)),
        Arm(u(-8, 12), u(6, 16), u(5, 25)),
        Leg(u(-4, 6), u(2, 9), u(2, 6)),
        Leg(u(-4, 6), u(2, 9), u(2, 6)),
        u(-2, 4),
    )


def _hands_on_hips(rng) -> Pose:
    u = rng.uniform
    arm = Arm(u(-12, -4), u(38, 48), u(88, 104), -82)
    other = arm if rng.random() < 0.6 else Arm(0, u(8, 14), u(8, 20))
    return replace(_stand(rng), right_arm=arm, left_arm=other)


def _walk(rng) -> Pose:
    stride = rng.uniform(18, 30) * rng.choice([-1, 1])
    elbow = rng.uniform(15, 40)
    back_knee = rng.uniform(12, 30)
    return Pose(
        Arm(-0.9 * stride, 8, elbow),
        Arm(0.9 * stride, 8, elbow),
        Leg(stride, 2, 5 if stride > 0 else back_knee),
        Leg(-stride, 2, back_knee if stride > 0 else 5),
        rng.uniform(0, 6),
    )


def _run(rng) -> Pose:
    u = rng.uniform
    return Pose(
        Arm(u(-60, -40), u(8, 16), u(80, 105), -12),
        Arm(u(35, 55), u(8, 16), u(85, 110), -20),
        Leg(u(50, 72), 2, u(70, 100)),
        Leg(u(-32, -18), 2, u(25, 70)),
        u(10, 20),
    )


def _cheer(rng) -> Pose:
    u = rng.uniform
    return replace(_stand(rng), right_arm=Arm(0, u(140, 168), u(5, 40), 80), left_arm=Arm(0, u(140, 168), u(5, 40), 80))


def _wave(rng) -> Pose:
    u = rng.uniform
    return replace(_stand(rng), right_arm=Arm(u(0, 15), u(70, 105), u(70, 115), u(75, 95)), tilt=u(0, 5))


def _point(rng) -> Pose:
    u = rng.uniform
    return replace(_stand(rng), right_arm=Arm(u(75, 100), u(0, 25), u(0, 15)))


def _arms_out(rng) -> Pose:
    u = rng.uniform
    return replace(_stand(rng), right_arm=Arm(0, u(60, 95), u(0, 20), 0), left_arm=Arm(0, u(60, 95), u(0, 20), 0))


def _telephone(rng) -> Pose:
    u = rng.uniform
    return replace(
        _walk(rng) if rng.random() < 0.5 else _stand(rng), right_arm=Arm(u(25, 40), u(20, 32), u(142, 150), 5)
    )


def _fold_arms(rng) -> Pose:
    u = rng.uniform
    arm = Arm(u(22, 32), u(4, 10), u(92, 108), u(-68, -56))
    return replace(_stand(rng), right_arm=arm, left_arm=arm)


def _sit(rng) -> Pose:
    u = rng.uniform
    hands = Arm(u(22, 38), u(4, 14), u(35, 60), u(-25, 0))
    legs = [Leg(u(76, 90), u(4, 14), u(74, 96)) for _ in range(2)]
    return Pose(hands, hands if rng.random() < 0.7 else Arm(u(0, 10), 12, 15), *legs, lean=u(-4, 10), seat=True)


def _crouch(rng) -> Pose:
    u = rng.uniform
    swing, bend = u(65, 95), u(95, 125)
    arm = Arm(u(40, 75), u(5, 15), u(20, 60), u(-20, 0))
    return Pose(arm, arm, Leg(swing, u(8, 18), bend), Leg(swing + u(-12, 5), u(8, 18), bend), u(15, 30))


def _kick(rng) -> Pose:
    u = rng.uniform
    return Pose(
        Arm(u(-35, -15), u(20, 50), u(10, 35)),
        Arm(u(20, 50), u(20, 50), u(10, 45)),
        Leg(u(45, 70), u(2, 10), u(2, 30)),
        Leg(u(-8, 0), 2, u(4, 14)),
        u(-12, -2),
    )


# walking and standing count twice: most photographs of people show one of them
POSES = {
    "all": [_stand, _stand, _walk, _walk, _run, _hands_on_hips, _cheer, _wave, _point, _arms_out, _telephone]
    + [_fold_arms, _sit, _crouch, _kick],
    "everyday": [_stand, _stand, _walk, _walk, _hands_on_hips, _wave, _point, _telephone, _fold_arms],
}


def joints(pose: Pose, build: float) -> np.ndarray:
    """(24, 3) float64: the 18 joints and the drawing's further points, in the person's frame. build scales widths."""
    points = np.zeros((24, 3))
    trunk = _about_z(-pose.tilt) @ _about_x(pose.lean)  # +Z of the person is forward, so a lean turns +Y to +Z
    for side, (hip, knee, ankle, toe, leg) in (
        (-1, (R_HIP, R_KNEE, R_ANKLE, R_TOE, pose.right_leg)),
        (1, (L_HIP, L_KNEE, L_ANKLE, L_TOE, pose.left_leg)),
    ):
        turn = _about_z(side * leg.out) @ _about_x(-leg.swing)
        shin = turn @ _about_x(leg.bend)
        foot = shin if leg.swing - leg.bend < -25 else np.eye(3)  # flat on the ground, or trailing with the shin
        points[hip] = [side * HIP_WIDTH * build, 0, 0]
        points[knee] = points[hip] + turn @ [0, -THIGH, 0]
        points[ankle] = points[knee] + shin @ [0, -SHIN, 0]
        points[toe] = points[ankle] + foot @ [side * 0.02, -0.6 * ANKLE_HEIGHT, FOOT]
    for side, (shoulder, elbow, wrist, hand, arm) in (
        (-1, (R_SHOULDER, R_ELBOW, R_WRIST, R_HAND, pose.right_arm)),
        (1, (L_SHOULDER, L_ELBOW, L_WRIST, L_HAND, pose.left_arm)),
    ):
        turn = trunk @ _about_z(side * arm.out) @ _about_x(-arm.swing)
        twist, bend = np.radians(arm.twist), np.radians(arm.bend)
        towards = turn @ [side * np.sin(twist), 0, np.cos(twist)]
        forearm = np.cos(bend) * (turn @ [0, -1, 0]) + np.sin(bend) * towards
        points[shoulder] = trunk @ [side * SHOULDER_WIDTH * build, TORSO, 0]
        points[elbow] = points[shoulder] + turn @ [0, -UPPER_ARM, 0]
        points[wrist] = points[elbow] + FOREARM * forearm
        points[hand] = points[wrist] + HAND * forearm
    points[NECK] = (points[R_SHOULDER] + points[L_SHOULDER]) / 2
    points[SPINE] = trunk @ [0, 0.45 * TORSO, 0]
    head = trunk @ _about_y(pose.look)
    points[HEAD] = points[NECK] + trunk @ [0, HEAD_RISE, 0.012]
    for joint, offset in {
        NOSE: [0, -0.18, 1.0],
        R_EYE: [-0.38, 0.1, 0.78],
        L_EYE: [0.38, 0.1, 0.78],
        R_EAR: [-0.95, -0.02, 0],
        L_EAR: [0.95, -0.02, 0],
    }.items():
        points[joint] = points[HEAD] + HEAD_RADIUS * (head @ offset)
    points[:, 1] += ANKLE_HEIGHT - min(points[R_ANKLE, 1], points[L_ANKLE, 1])
    return points


def turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """(n, 3): x to the picture's right, y up, z towards the camera."""
    return points @ _about_y(yaw).T


def seen(view: np.ndarray) -> np.ndarray:
    """(18,) bool: which joints the camera sees. view: (24, 3) from `turned`.

    Face points are hidden behind the head; elbows and wrists behind the trunk.
    """
    visible = np.ones(18, bool)
    for joint, least in ((NOSE, -0.12), (R_EYE, -0.12), (L_EYE, -0.12), (R_EAR, -0.35), (L_EAR, -0.35)):
        visible[joint] = view[joint, 2] - view[HEAD, 2] > least * HEAD_RADIUS
    trunk = view[[R_SHOULDER, L_SHOULDER, R_HIP, L_HIP]]
    left, right = trunk[:, 0].min() - 0.03, trunk[:, 0].max() + 0.03
    for joint in (R_ELBOW, L_ELBOW, R_WRIST, L_WRIST):
        x, y, z = view[joint]
        within = left < x < right and trunk[2:, 1].mean() < y < trunk[:2, 1].mean()
        visible[joint] = not (within and z < view[SPINE, 2] - 0.02)
    return visible


def _about_x(degrees: float) -> np.ndarray:
    """Turns +Y to +Z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(degrees: float) -> np.ndarray:
    """Turns +Z to +X."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(degrees: float) -> np.ndarray:
    """Turns +X to +Y, so a hanging limb (-Y) to +X."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
