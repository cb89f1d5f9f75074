"""The scorers that are networks, as far as their weights are there."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from mscgan.metrics import Unavailable
from mscgan.metrics.inception import Inception, InceptionGFLA
from mscgan.metrics.lpips import Lpips
from mscgan.metrics.masks import mask
from mscgan.metrics.poses import Poses
from mscgan.scoring import JOINTS, MASK_OF, NOT_AS_PAIRS, NOT_AS_SET, OF_POSES, Batch

NEEDS = {
    "is": Inception, "is_any_order": Inception, "mask_is": Inception, "fid": Inception, "fid_gfla": InceptionGFLA,
    "lpips": Lpips, "pckh": Poses, "pck_torso": Poses,
}  # fmt: skip
FEATURES = {"is": "logits", "is_any_order": "logits", "mask_is": "mask_logits", "fid": "pool3", "fid_gfla": "gfla"}

Network = TypeVar("Network", Inception, InceptionGFLA, Lpips, Poses)


class Networks:
    """The networks that some scores need. `left_out` says of each score why its network is not there.

    estimator: the name of the one that finds poses (mscgan/estimators.py).
    """

    def __init__(self, scores: list[str], device: torch.device, estimator: str):
        self.device = device
        self.left_out: dict[str, str] = {}
        self._inception = self._load(Inception, scores, lambda: Inception(device))
        self._gfla = self._load(InceptionGFLA, scores, lambda: InceptionGFLA(device))
        self._lpips = self._load(Lpips, scores, lambda: Lpips(device))
        self._poses = self._load(Poses, scores, lambda: Poses(estimator))
        self.scores = [score for score in scores if score in NEEDS and score not in self.left_out]
        loaded = [network for network in (self._inception, self._gfla, self._lpips, self._poses) if network]
        self.sha256 = {type(network).__name__: network.sha256 for network in loaded}
        self.estimator = estimator if self._poses else ""

    def _load(self, kind: type[Network], scores: list[str], load: Callable[[], Network]) -> Network | None:
        needing = [score for score in scores if NEEDS.get(score) is kind]
        try:
            return load() if needing else None
        except Unavailable as error:
            self.left_out |= {score: str(error) for score in needing}
            return None

    def of_batch(self, batch: Batch) -> dict[str, np.ndarray]:
        """{"METHOD/lpips": (N,) float64, "METHOD/pckh": (N,) float64, "METHOD/pckh_joints": (N,) int64,
        "METHOD/FEATURE": (N, width) float32} of what the scores need."""
        found: dict[str, np.ndarray] = {}
        if "mask_is" in self.scores:
            height, width = batch.targets.shape[1:3]
            inside = mask(MASK_OF["mask_is"], batch.poses, height, width, self.device).cpu().numpy()[..., None]
        for method, images in batch.made.items():
            if self._lpips and method != NOT_AS_PAIRS:
                found[f"{method}/lpips"] = self._lpips.distances(images, batch.targets)
            if self._poses:
                poses = self._poses.keypoints(images)
                for score in self.scores:
                    if score in OF_POSES:
                        share, joints = OF_POSES[score](poses, batch.poses["target"])
                        found |= {f"{method}/{score}": share, f"{method}/{score}{JOINTS}": joints}
            if method != NOT_AS_SET:
                found |= {f"{method}/{name}": features for name, features in self.features(images).items()}
            if self._inception and "mask_is" in self.scores and method != NOT_AS_SET:
                found[f"{method}/mask_logits"] = self._inception.features(images * inside)["logits"]
        return found

    def features(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """What the scores of sets need of (N, H, W, 3) uint8 images, without masks."""
        wanted = {FEATURES[score] for score in self.scores if score in FEATURES}
        found: dict[str, np.ndarray] = {}
        if self._inception and wanted & {"logits", "pool3"}:
            found |= {name: both for name, both in self._inception.features(images).items() if name in wanted}
        if self._gfla:
            found["gfla"] = self._gfla.features(images)
        return found
