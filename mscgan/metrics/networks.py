"""What the scores by a network share: images in batches, arithmetic that is the same everywhere, and torchvision.

A torchvision that was built for another torch (often the one for CUDA beside a torch for CPUs) fails when it is
imported, since its compiled operators do not load. So it is imported here alone, and only when a network needs it.
"""

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import torch

from mscgan import weights
from mscgan.errors import UserError
from mscgan.metrics import Unavailable

BATCH = 32  # images of 299x299: about 1 GB of activations in Inception
INSTALL = "pip install 'mscgan[metrics]'"


def batches(images: np.ndarray, device: torch.device | str) -> Iterator[torch.Tensor]:
    """(N, H, W, 3) uint8 images as (n, 3, H, W) uint8 on the device, at most BATCH at a time.

    Raises:
        UserError: another dtype or shape.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise UserError(f"images are {images.dtype} {images.shape}; expected uint8 (N, H, W, 3), H and W above 0")
    for start in range(0, len(images), BATCH):
        yield torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).to(device).permute(0, 3, 1, 2)


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """float32 as it is: no gradients, no mixed precision, no TF32 and no choice of algorithm by speed, so that an
    image's features are the same in every batch and on every GPU."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with (
            torch.inference_mode(),
            torch.autocast("cuda", enabled=False),
            torch.autocast("cpu", enabled=False),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


@contextlib.contextmanager
def layers_of(name: str) -> Iterator[None]:
    """Around filling a network with the weights `name`, as a safetensors of the same stem may hold any others.

    Raises:
        UserError: they are of other layers.
    """
    try:
        yield
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{weights.path(name)} holds other layers than {name!r} has ({reason}...); fetch it") from error


def import_with_torchvision(name: str) -> ModuleType:
    """The module `name`: torchvision's, or one that imports torchvision.

    Raises:
        Unavailable: it or torchvision is not installed, or torchvision does not load beside this torch.
    """
    try:
        importlib.import_module("torchvision")
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed; {INSTALL}") from error
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # whatever its compiled part ends in
        raise Unavailable(
            f"torchvision does not load beside torch {torch.__version__} ({str(error).splitlines()[0]}); install the "
            "torchvision of the same build and from the same index as torch"
        ) from error
