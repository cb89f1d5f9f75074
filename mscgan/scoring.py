"""The scores by name: what each is, where it does not apply, and its numbers for a batch of images.

A score of pairs is a number of one made image and its target; its mean is reported. A score of sets (Inception score,
FID) is one number of all images, from the features of each. Protocols fix everything: the mask of a mask-SSIM, too, is
that of its protocol (metrics/masks.py), never that of the run's configuration. Never compare two names.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mscgan.metrics import masks, pckh, ssim
from mscgan.metrics.l1 import l1
from mscgan.metrics.lpips import SMALLEST
from mscgan.metrics.sharpness import sharpness
from mscgan.threads import one_thread

Arrays = dict[str, np.ndarray]


class Batch(NamedTuple):
    """N pairs. Images are (N, H, W, 3) uint8, poses (N, 18, 2) of "source" and "target" as far as they are known."""

    targets: np.ndarray
    poses: Arrays
    made: Arrays  # by method, in the order in which they are shown


class Protocol(NamedTuple):
    """better: which is, "higher", "lower" or "1" (the target's). kind: of "pairs" or "sets". text: with its source."""

    better: str
    kind: str
    text: str


_IS = "exp of the mean KL divergence, logits without bias of the TF-2015-12-05 Inception (torch-fidelity)"
SCORES = {
    "ssim_A": Protocol("higher", "pairs", ssim.DESCRIPTIONS["A"]),
    "ssim_B": Protocol("higher", "pairs", ssim.DESCRIPTIONS["B"]),
    "ssim_B_padded": Protocol("higher", "pairs", ssim.DESCRIPTIONS["B_padded"]),
    "ssim_gfla": Protocol("higher", "pairs", ssim.DESCRIPTIONS["gfla"]),
    "mask_ssim_A": Protocol("higher", "pairs", f"ssim_A, both images black outside {masks.DESCRIPTIONS['A']}"),
    "mask_ssim_A_target": Protocol(
        "higher", "pairs", f"ssim_A, both images black outside {masks.DESCRIPTIONS['A_target']}"
    ),
    "mask_ssim_B": Protocol("higher", "pairs", f"ssim_B, both images black outside {masks.DESCRIPTIONS['B']}"),
    "l1": Protocol("lower", "pairs", "mean absolute difference on [-1, 1]"),
    "sharpness": Protocol("1", "pairs", "variance of the grey image's Laplacian, over the mean of the targets'"),
    "lpips": Protocol("lower", "pairs", "Zhang et al. 2018: AlexNet, version 0.1, images in [-1, 1]"),
    "pckh": Protocol("higher", "pairs", pckh.DESCRIPTIONS["pckh"]),
    "pck_torso": Protocol("higher", "pairs", pckh.DESCRIPTIONS["pck_torso"]),
    "is": Protocol("higher", "sets", f"PG2 score.py: {_IS}; mean of 10 splits in table order"),
    "is_any_order": Protocol("higher", "sets", "as is, mean over random orders (seed 0)"),
    "mask_is": Protocol("higher", "sets", "as is, images black outside mask_ssim_A's mask, as PG2 score_mask.py"),
    "fid": Protocol("lower", "sets", "Heusel et al. 2017: pool3 of the TF-2015-12-05 Inception (torch-fidelity)"),
    "fid_gfla": Protocol("lower", "sets", "GFLA inception.py: torchvision's ImageNet Inception, scaled as there"),
}  # fmt: skip
INTERVAL = "95 %, jackknife over people with Student's t; of sets over 20 groups of people (mscgan/metrics/interval.py)"

# Each gets the made images, the targets (N, H, W, 3) and the masks (N, H, W) of MASK_OF, and gives (N,).
OF_PIXELS: dict[str, Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]] = {
    "ssim_A": lambda made, target, masks: ssim.ssim(made, target, "A"),
    "ssim_B": lambda made, target, masks: ssim.ssim(made, target, "B"),
    "ssim_B_padded": lambda made, target, masks: ssim.ssim(made, target, "B_padded"),
    "ssim_gfla": lambda made, target, masks: ssim.ssim(made, target, "gfla"),
    "mask_ssim_A": lambda made, target, masks: ssim.mask_ssim(made, target, masks["A"], "A"),
    "mask_ssim_A_target": lambda made, target, masks: ssim.mask_ssim(made, target, masks["A_target"], "A"),
    "mask_ssim_B": lambda made, target, masks: ssim.mask_ssim(made, target, masks["B"], "B"),
    "l1": lambda made, target, masks: l1(made, target),
    "sharpness": lambda made, target, masks: sharpness(made),
}
# Each gets the poses found in the made images and those of the targets, (N, 18, 2), and gives the share of right joints
# and of how many, (N,) both.
OF_POSES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "pckh": pckh.pckh,
    "pck_torso": pckh.pck_torso,
}
JOINTS = "_joints"  # "pckh_joints" is of how many joints a pair's pckh is
MASK_OF = {"mask_ssim_A": "A", "mask_ssim_A_target": "A_target", "mask_ssim_B": "B", "mask_is": "A"}
LEAST = {"is": 10, "is_any_order": 10, "mask_is": 10, "fid": 2, "fid_gfla": 2}  # images that a set must have
# Baselines: a constant image is no set, and what real images score as pairs is known (but for OF_POSES, where it says
# how well the estimator does).
NOT_AS_SET, NOT_AS_PAIRS = "mean_image", "real"


def inapplicable(score: str, count: int, real: int, height: int, width: int, drawn: Iterable[str]) -> str:
    """Why `count` images beside `real` others, of this size and with these masks, have no such score; "" where they
    have."""
    fewest = min(count, real) if score.startswith("fid") else count
    if fewest < LEAST.get(score, 1):
        return f"it takes at least {LEAST[score]} images, and here are {fewest}"
    if score == "lpips" and min(height, width) < SMALLEST:
        return f"its network takes {SMALLEST}x{SMALLEST} or more, and these images are {height}x{width}"
    if score in MASK_OF and MASK_OF[score] not in drawn:
        return "it needs keypoints of the " + ("source" if MASK_OF[score] == "A" else "target")
    if score in OF_POSES and "A_target" not in drawn:
        return "it needs keypoints of the target"
    if score == "ssim_B_padded" and (height, width) not in ((256, 256), (256, 176)):
        return f"it is defined for 256x256 and 256x176 (height x width), and these images are {height}x{width}"
    window = ssim.WINDOW.get(score.removeprefix("mask_").removeprefix("ssim_").removesuffix("_target"), 0)
    if min(height, width) < window:
        return f"its window is {window}x{window}, and these images are {height}x{width}"
    return ""


def score_pixels(batch: Batch, scores: list[str], device: torch.device) -> Arrays:
    """{"METHOD/SCORE": (N,) float64} of those `scores` that are in OF_PIXELS, and "target/sharpness"."""
    wanted = [score for score in scores if score in OF_PIXELS]
    targets = torch.tensor(batch.targets, device=device)
    height, width = targets.shape[1:3]
    names = {MASK_OF[score] for score in wanted if score in MASK_OF}
    drawn = {name: masks.mask(name, batch.poses, height, width, device) for name in names}
    with one_thread(device):
        found = {"target/sharpness": sharpness(targets)}
        for method, images in batch.made.items():
            if method != NOT_AS_PAIRS and wanted:
                made = torch.tensor(images, device=device)
                found |= {f"{method}/{score}": OF_PIXELS[score](made, targets, drawn) for score in wanted}
    return {name: numbers.cpu().numpy() for name, numbers in found.items()}
