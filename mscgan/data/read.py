"""Shards read by plain Pillow, for those who look at some pairs instead of training on all: generate and evaluate."""

from pathlib import Path

import numpy as np

from mscgan.data import jpeg
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.keys import Data


def open_shards(data: Data, split: str, root: str = "") -> ShardSet:
    """A split of the run's shards, or of another folder's.

    Raises:
        UserError: no such shards, of another image size than the model's, or without pairs.
    """
    if not (root or data.root):
        raise UserError("the run's config.yaml names no shards (data.root is empty); give them with --data DIR")
    if not root and not Path(data.root).is_dir():
        raise UserError(
            f"the run's shards are not at {data.root}, its data.root; evaluate and generate take others with --data DIR"
        )
    shards = ShardSet(Path(root or data.root), split)
    shards.check_size(data.height, data.width)
    if not len(shards.pairs):
        raise UserError(f"split {split!r} of {shards.root} has no pairs")
    return shards


def choose_pairs(shards: ShardSet, count: int) -> np.ndarray:
    """`count` rows of the pair table, (count,) int64, spread evenly from its first to its last.

    Raises:
        UserError: count is below 1 or above the number of pairs.
    """
    if not 1 <= count <= len(shards.pairs):
        raise UserError(f"{count} pairs asked for; {shards.root} has 1 to {len(shards.pairs)} in this split")
    return np.linspace(0, len(shards.pairs) - 1, count).round().astype(np.int64)


def read_images(shards: ShardSet, images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 of the images with these numbers, decoded by Pillow.

    Raises:
        UserError: an image is not a JPEG that training would take (data/jpeg.py); says which.
    """
    pictures = np.empty((len(images), shards.height, shards.width, 3), np.uint8)
    for slot, i in enumerate(images):
        data = shards.read(int(i))
        try:
            pictures[slot] = jpeg.decode(data, shards.height, shards.width)
        except ValueError as error:
            raise UserError(f"{shards.locate(int(i))} cannot be decoded: {error}; run shards/verify.py") from error
    return pictures
