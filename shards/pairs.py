"""Pairs (source image, target image) of a person."""

import numpy as np


def ordered_pairs(persons: list[str]) -> np.ndarray:
    """(P, 2) int64: all ordered pairs of two images of a person, persons in order of first appearance."""
    images: dict[str, list[int]] = {}
    for image, person in enumerate(persons):
        images.setdefault(person, []).append(image)
    blocks = []
    for same in map(np.asarray, images.values()):
        source, target = np.nonzero(~np.eye(len(same), dtype=bool))
        blocks.append(np.stack([same[source], same[target]], axis=1))
    return np.concatenate(blocks) if blocks else np.empty((0, 2), np.int64)


def sample(pairs: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` rows without repeat, in the order of pandas' `sample(n=count, random_state=seed)`; all, shuffled, if there are fewer."""
    rows = np.random.RandomState(seed).choice(len(pairs), size=min(count, len(pairs)), replace=False)
    return pairs[rows]
