"""LPIPS, the learned perceptual distance of Zhang et al. 2018: AlexNet, version 0.1, by the authors' package `lpips`.

The package brings the weights of the linear layers; those of AlexNet are torchvision's (mscgan/weights.py).
"""

import warnings

import numpy as np
import torch

from mscgan import weights
from mscgan.errors import UserError
from mscgan.metrics.networks import batches, exact, import_with_torchvision, layers_of

SMALLEST = 31  # pixels, from which AlexNet's poolings leave one


class Lpips:
    """AlexNet with the linear layers on top.

    sha256: of the file of AlexNet's weights.

    Raises:
        weights.Missing: the file "alexnet" is not there.
        Unavailable: lpips or torchvision is not installed, or torchvision does not load.
        UserError: the file is damaged, or of another network.
    """

    def __init__(self, device: torch.device | str) -> None:
        lpips = import_with_torchvision("lpips")
        state, self.sha256 = weights.load("alexnet")
        with warnings.catch_warnings():  # it builds AlexNet by an argument that torchvision calls deprecated
            warnings.simplefilter("ignore", UserWarning)
            network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
        # The package cuts AlexNet's "features" into slices and keeps the numbers: slice2.3.weight is features.3.weight.
        with layers_of("alexnet"):
            own = {name: state["features." + name.split(".", 1)[1]] for name in network.net.state_dict()}
            network.net.load_state_dict(own)
        self.network, self.device = network.eval().to(device), device

    def distances(self, generated: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(N,) float64 of two (N, H, W, 3) uint8 sets, taken to [-1, 1]; 0 is the same image.

        Raises:
            UserError: another dtype or shape, sets that differ in it, or images below 31x31.
        """
        if generated.shape != target.shape:
            raise UserError(f"generated images {generated.shape} and targets {target.shape} differ in size or number")
        if min(generated.shape[1:3], default=0) < SMALLEST:
            raise UserError(f"images are {generated.shape}; AlexNet takes (N, H, W, 3), H and W from {SMALLEST}")
        rows = [np.zeros(0)]
        with exact():
            for pair in zip(batches(generated, self.device), batches(target, self.device), strict=True):
                x, y = (images.float() / 127.5 - 1 for images in pair)
                rows.append(self.network(x, y).flatten().double().cpu().numpy())
        return np.concatenate(rows)
