"""Features of Inception v3, and the two scores that are made of them for a whole set of images (IS, FID).

`Inception` is the network that all published IS and most FID use: TensorFlow's graph of 2015-12-05 in torch-fidelity's
port, which resizes raw 8-bit images itself, as TensorFlow 1 did. `InceptionGFLA` is what GFLA took for FID, and PISE,
SPGNet, DPTN, PIDM and CFLD after it: torchvision's ImageNet weights, fed in a way they were not trained for. FIDs of
the two must never be compared.
"""

import importlib
import importlib.util
import io
import sys
from types import ModuleType

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mscgan import weights
from mscgan.metrics import Unavailable
from mscgan.metrics.networks import INSTALL, batches, exact, import_with_torchvision, layers_of


class Inception:
    """TensorFlow's Inception of 2015-12-05 for IS and FID.

    sha256: of the file of its weights.

    Raises:
        weights.Missing: the file "inception-fid" is not there.
        Unavailable: torch-fidelity is not installed.
        UserError: the file is damaged, or of another network.
    """

    def __init__(self, device: torch.device | str) -> None:
        extractor = _torch_fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3
        state, self.sha256 = weights.load("inception-fid")
        # torch-fidelity unpickles the file it is given, without weights_only: so it gets what we have just written.
        verified = io.BytesIO()
        torch.save(state, verified)
        verified.seek(0)
        with layers_of("inception-fid"):
            network = extractor("inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=verified)
        self.network, self.device = network.eval().to(device), device

    def features(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Of (N, H, W, 3) uint8 images, in one pass: "pool3" (N, 2048) float32, for FID, and "logits" (N, 1008)
        float32, for IS: pool3 times the last layer's weights without its bias, as OpenAI's code takes them. An image's
        row does not depend on the batch that it came in (to 1e-5 of its largest value).

        Raises:
            UserError: another dtype or shape.
        """
        rows = [(np.zeros((0, 2048), np.float32), np.zeros((0, 1008), np.float32))]
        with exact():
            for batch in batches(images, self.device):
                pool3, logits = self.network(batch)
                rows.append((pool3.cpu().numpy(), logits.cpu().numpy()))
        pool3, logits = (np.concatenate(part) for part in zip(*rows, strict=True))
        return {"pool3": pool3, "logits": logits}


class InceptionGFLA:
    """torchvision's Inception v3 with ImageNet weights, as GFLA uses it for FID.

    sha256: of the file of its weights.

    Raises:
        weights.Missing: the file "inception-imagenet" is not there.
        Unavailable: torchvision is not installed or does not load.
        UserError: the file is damaged, or of another network.
    """

    def __init__(self, device: torch.device | str) -> None:
        models = import_with_torchvision("torchvision.models")
        state, self.sha256 = weights.load("inception-imagenet")
        # transform_input takes images that are normalised for ImageNet to [-1, 1]: x * (.229 / .5) + (.485 - .5) / .5
        # for red, and so on. GFLA gives it images in [0, 1], so that 0 becomes -.03 and 1 becomes .428: kept.
        network = models.Inception3(transform_input=True, init_weights=False)
        with layers_of("inception-imagenet"):
            network.load_state_dict(state)
        network.fc = nn.Identity()
        self.network, self.device = network.eval().to(device), device

    def features(self, images: np.ndarray) -> np.ndarray:
        """pool3, (N, 2048) float32, of (N, H, W, 3) uint8 images, resized to 299x299 bilinearly without antialiasing.
        GFLA's script drops the last incomplete batch of 64; here every image counts, as in CFLD.

        Raises:
            UserError: another dtype or shape.
        """
        rows = [np.zeros((0, 2048), np.float32)]
        with exact():
            for batch in batches(images, self.device):
                x = functional.interpolate(batch.float() / 255, size=(299, 299), mode="bilinear", align_corners=False)
                rows.append(self.network(x).cpu().numpy())
        return np.concatenate(rows)


def _torch_fidelity(name: str) -> ModuleType:
    """A module of torch-fidelity without its __init__.py, which imports torchvision for networks that we do not use.

    Raises:
        Unavailable: torch-fidelity is not installed.
    """
    spec = importlib.util.find_spec("torch_fidelity")
    if spec is None:
        raise Unavailable(f"torch_fidelity is not installed; {INSTALL}")
    whole = {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] == "torch_fidelity"}
    sys.modules["torch_fidelity"] = importlib.util.module_from_spec(spec)  # knows where its modules lie, runs nothing
    try:
        return importlib.import_module(f"torch_fidelity.{name}")
    finally:  # whoever imports torch_fidelity elsewhere gets all of it
        for key in [key for key in sys.modules if key.split(".")[0] == "torch_fidelity"]:
            del sys.modules[key]
        sys.modules.update(whole)
