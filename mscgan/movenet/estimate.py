"""The pose of the person in an image of any size, by MoveNet Lightning: on one core of the CPU, in some 30 ms a look.

The network looks at a square of 192x192 and answers with one person's 17 joints in COCO's order, whoever is there, and
a score for each. So where too few scores are high, nobody is there. Where the person is small in the image the network
looks a second time, at a square around the person: of people pasted into a picture of twice their size it finds 80 % of
the joints so, and 59 % at one look.
"""

import json
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from mscgan import weights
from mscgan.errors import UserError
from mscgan.estimators import Estimator, Person
from mscgan.movenet.graph import read_graph, run_graph
from mscgan.movenet.published import TOPOLOGY
from mscgan.threads import one_thread

CPU = torch.device("cpu")
SIDE = 192  # pixels of what the network looks at
PRESENT = 0.3  # a joint with a lower score is missing
# 376 photographs of people have 6 joints or more; noise, and 23 of 24 pictures of things and animals, 3 at most.
FEWEST = 5  # joints of a person
AROUND = 1.5  # the square of the second look, in extents of the pose
SMALL = 0.7  # there is a second look where its square is smaller than so much of the first

# The joints of mscgan.pose.JOINTS in COCO's order. The neck is none of them.
FROM_COCO = {0: 0, 2: 6, 3: 8, 4: 10, 5: 5, 6: 7, 7: 9, 8: 12, 9: 14, 10: 16, 11: 11, 12: 13, 13: 15, 14: 2, 15: 1,
             16: 4, 17: 3}  # fmt: skip
NECK, SHOULDERS = 1, [2, 5]

Square = tuple[int, int, int]  # left, top and side in pixels of an image; it may reach beyond


def load_movenet() -> Estimator:
    """Finds the person in an (H, W, 3) uint8 RGB image of any size; at most one.

    A joint's score is the network's, in (0.3, 1]. The neck is the middle of the shoulders, with the lower score of the
    two. The person's score is the mean over the 17 joints, those that are missing included. Joints lie in the image.

    Raises:
        UserError: the weights are missing (weights.Missing) or damaged. The estimator: the image is of another type.
    """
    look = load_network()

    def estimate(image: np.ndarray) -> list[Person]:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserError(f"an image is {image.dtype} {image.shape}; expected uint8 (H, W, 3), H and W above 0")
        square = whole(image)
        points, scores = look(image, square)
        there = scores > PRESENT
        last = [image.shape[1] - 1, image.shape[0] - 1]
        around = _around(points[there].clip(0, last)) if there.sum() >= FEWEST else square
        if around[2] < SMALL * square[2]:
            points, scores = look(image, around)
            there = scores > PRESENT
        if there.sum() < FEWEST:
            return []
        keypoints = np.where(there[:, None], points.clip(0, last), -1).astype(np.float32)
        return [Person(keypoints, np.where(there, scores, 0).astype(np.float32), float(np.delete(scores, NECK).mean()))]

    return estimate


def load_network() -> Callable[[np.ndarray, Square], tuple[np.ndarray, np.ndarray]]:
    """The network alone: an (H, W, 3) uint8 image and a square of it -> 18 joints, (18, 2) float64 (x, y) in pixels of
    the image, and their scores, (18,) in [0, 1], however low. Raises as `load_movenet`."""
    state, _ = weights.load("movenet")
    document = json.loads(state.pop(TOPOLOGY).numpy().tobytes())
    (output,) = (name.partition(":")[0] for name in document["signature"]["outputs"])
    nodes = read_graph(document["modelTopology"])
    constants = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}

    def look(image: np.ndarray, square: Square) -> tuple[np.ndarray, np.ndarray]:
        seen, origin, scale = _cut(image, square)
        with one_thread(CPU), torch.inference_mode():
            found = run_graph(nodes, constants, torch.from_numpy(seen[None].astype(np.int32)), output)
        y, x, of_coco = found.double().numpy().reshape(17, 3).T  # y and x in [0, 1] of the square
        points, scores = np.zeros((18, 2)), np.zeros(18)
        points[list(FROM_COCO)] = (np.stack([x, y], axis=-1) * SIDE * scale + origin)[list(FROM_COCO.values())]
        scores[list(FROM_COCO)] = of_coco[list(FROM_COCO.values())]
        points[NECK], scores[NECK] = points[SHOULDERS].mean(0), scores[SHOULDERS].min()
        return points, scores

    return look


def whole(image: np.ndarray) -> Square:
    """The square that the image is in the middle of."""
    height, width = image.shape[:2]
    side = max(height, width)
    return (width - side) // 2, (height - side) // 2, side


def _around(points: np.ndarray) -> Square:
    """The square around (n, 2) points."""
    low, high = points.min(0), points.max(0)
    side = max(2, math.ceil(AROUND * (high - low).max()))
    left, top = np.floor((low + high - side) / 2).astype(int)
    return int(left), int(top), side


def _cut(image: np.ndarray, square: Square) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The square (left, top, side) of an image as (SIDE, SIDE, 3) uint8, black where the image has nothing; and where
    its (x, y) are in the image: times the scale (2,), plus the origin (2,)."""
    left, top, side = square
    height, width = image.shape[:2]
    corner = np.array([left, top])
    low, high = corner.clip(0), (corner + side).clip(max=[width, height])
    inner_low = np.rint((low - corner) / side * SIDE).astype(int).clip(max=SIDE - 1)
    inner_high = np.maximum(np.rint((high - corner) / side * SIDE).astype(int), inner_low + 1)
    size = inner_high - inner_low
    # Bicubic and black: so, of DeepFashion's joints that it finds, the most are there.
    inner = Image.fromarray(image).resize(tuple(size), Image.Resampling.BICUBIC, box=(*low, *high))
    result = np.zeros((SIDE, SIDE, 3), np.uint8)
    result[inner_low[1] : inner_high[1], inner_low[0] : inner_high[0]] = np.array(inner)
    scale = (high - low) / size
    return result, low - inner_low * scale, scale
