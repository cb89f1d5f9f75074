"""What is scored: a trained run on the pairs of its shards, or a folder of anybody's images."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from mscgan import image_folder
from mscgan.data.read import read_images
from mscgan.data.shards import ShardSet
from mscgan.image_folder import Matched
from mscgan.metrics.masks import drawable
from mscgan.pictures import save_png, to_uint8
from mscgan.pose import LIMBS
from mscgan.scoring import NOT_AS_PAIRS, NOT_AS_SET, Arrays, Batch
from mscgan.trained import Trained

OF_MEAN = 1000  # images that the mean image is of, at most


class Scored(Protocol):
    """N pairs in the order of their table, and the real images that sets are compared with."""

    height: int
    width: int
    sources: list[str]  # N names of images
    targets: list[str]
    people: np.ndarray  # (N,) names
    masks: tuple[str, ...]  # names of those that its poses are enough for (metrics/masks.py)
    real: int  # how many real images there are
    real_are: str  # which, in words
    real_key: str  # hex; the same for the same real images
    pairs_key: str  # hex; the same for the same pairs and baselines, whoever makes the images; "": nobody can say

    def batch(self, rows: np.ndarray) -> Batch:
        """The pairs with these numbers."""

    def real_images(self, rows: np.ndarray) -> np.ndarray:
        """(n, H, W, 3) uint8, the real images with these numbers."""


def audit(of_sources: np.ndarray, of_targets: np.ndarray) -> dict:
    """What two (N, 18, 2) poses should be known for. "missing_joints": their mean share, of the sources and of the
    targets. "without_pose": pairs whose source or target has no whole limb, so that its mask is empty."""
    there = [np.all(poses >= 0, axis=-1) for poses in (of_sources, of_targets)]
    bare = [~of_joints[:, np.array(LIMBS)].all(-1).any(-1) for of_joints in there]
    return {
        "missing_joints": {whose: float(1 - joints.mean()) for whose, joints in zip(("source", "target"), there)},
        "without_pose": int((bare[0] | bare[1]).sum()),
    }


class RunImages:
    """What a trained run makes of pairs of a split, with a copy of the source and the mean image as baselines.

    The real images are all of the train split, as GFLA's script takes them; of the split itself where there is none.
    """

    def __init__(self, model: Trained, shards: ShardSet, rows: np.ndarray, keep: Path | None):
        """keep: a folder that gets what is made as PNGs, METHOD/SOURCE_TARGET.png."""
        self._model, self._shards, self._rows, self._keep = model, shards, shards.pairs[rows], keep
        self.height, self.width = shards.height, shards.width
        self.sources, self.targets = ([shards.names[i] for i in column] for column in self._rows.T)
        self.people = np.array(shards.persons)[self._rows[:, 1]]
        self.masks = drawable(("source", "target"))
        self._real = ShardSet(shards.root, "train") if "train" in shards.splits else shards
        self.real, self.real_are = len(self._real), f"all {len(self._real)} of the {self._real.split} split"
        self.real_key = hashlib.sha256(f"{self._real.fingerprint} {self._real.split}".encode()).hexdigest()
        self.pairs_key = hashlib.sha256(
            json.dumps([shards.fingerprint, self.real_key, self._rows.tolist()]).encode()
        ).hexdigest()
        spread = np.linspace(0, self.real - 1, min(OF_MEAN, self.real)).round().astype(int)
        total = sum(read_images(self._real, spread[i : i + 1])[0].astype(np.int64) for i in range(len(spread)))
        self._mean = np.rint(total / len(spread)).astype(np.uint8)

    def batch(self, rows: np.ndarray) -> Batch:
        sources, targets = self._rows[rows].T
        x, y = read_images(self._shards, sources), read_images(self._shards, targets)
        poses = {"source": self._shards.keypoints[sources], "target": self._shards.keypoints[targets]}
        made = self._model.images(torch.from_numpy(x), torch.from_numpy(poses["target"]))
        methods = {title.replace(" ", "_"): to_uint8(images) for title, images in made.items()}
        if self._keep:
            for method, images in methods.items():
                self._keep_all(self._keep / method, rows, images)
        baselines = {"copy_source": x, NOT_AS_SET: np.broadcast_to(self._mean, x.shape), NOT_AS_PAIRS: y}
        return Batch(y, poses, baselines | methods)

    def real_images(self, rows: np.ndarray) -> np.ndarray:
        return read_images(self._real, rows)

    def _keep_all(self, folder: Path, rows: np.ndarray, images: np.ndarray) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for row, image in zip(rows, images, strict=True):
            save_png(Image.fromarray(image), folder / f"{self.sources[row]}_{self.targets[row]}.png")


class FolderImages:
    """Images that any model made, as image_folder.py matches them; a copy of the source and the mean of the targets as
    baselines, the first where every row has its source. The real images are the targets, each once."""

    def __init__(self, matched: Matched, annotations: Path | None):
        """annotations: the field's keypoint file of targets and sources; without it there are no masks.

        Raises:
            UserError: a target, or a source, has no line in it.
        """
        rows = self._rows = matched.rows
        self.height, self.width = matched.height, matched.width
        self.sources, self.targets = [row.source for row in rows], [row.target for row in rows]
        self.people = np.array([row.person for row in rows])
        self._poses: Arrays = {}
        for whose, names in (("source", self.sources), ("target", self.targets)):
            if annotations and all(names):
                self._poses[whose] = image_folder.keypoints(annotations, names, self.height, self.width)
        self.masks = drawable(self._poses)
        firsts = {row.target: number for number, row in reversed(list(enumerate(rows)))}
        self._firsts = np.array(sorted(firsts.values()))
        self.real, self.real_are = len(firsts), f"the {len(firsts)} targets"
        self.fingerprint = _fingerprint(
            path for row in rows for path in (row.generated_path, row.target_path, row.source_path) if path
        )
        self.real_key = _fingerprint(row.target_path or row.generated_path for row in rows)
        self.pairs_key = ""
        # Of what is compared with, whatever its folder is called.
        whole = [(row.target, row.target_path.stat().st_size) for row in rows if row.target_path]
        self.targets_fingerprint = hashlib.sha256(json.dumps(sorted(set(whole))).encode()).hexdigest() if whole else ""
        self.audit = audit(self._poses["source"], self._poses["target"]) if len(self._poses) == 2 else {}
        spread = self._firsts[np.linspace(0, self.real - 1, min(OF_MEAN, self.real)).round().astype(int)]
        total = sum(image_folder.read(rows[row])[1].astype(np.int64) for row in spread)
        self._mean = np.rint(total / len(spread)).astype(np.uint8)

    def batch(self, rows: np.ndarray) -> Batch:
        made, targets, sources = zip(*(image_folder.read(self._rows[row]) for row in rows), strict=True)
        y = np.stack(targets)
        baselines = {NOT_AS_SET: np.broadcast_to(self._mean, y.shape), NOT_AS_PAIRS: y}
        if all(row.has_source for row in self._rows):
            baselines = {"copy_source": np.stack(sources)} | baselines
        poses = {whose: of_all[rows] for whose, of_all in self._poses.items()}
        return Batch(y, poses, baselines | {"generated": np.stack(made)})

    def real_images(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([image_folder.read(self._rows[row])[1] for row in self._firsts[rows]])


def _fingerprint(paths: Iterable[Path]) -> str:
    """hex; the same for files of the same names, sizes and times of their last change."""
    found = {path: path.stat() for path in paths}
    facts = [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in sorted(found.items())]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
