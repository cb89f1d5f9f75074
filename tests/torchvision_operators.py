"""Makes a torchvision load that was built for another torch, as the one for CUDA beside a torch for CPUs: its Python
code wants two operators of its compiled part to exist, and no network here uses them. For tests alone."""

import importlib
import sys

import pytest
import torch

LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def declare() -> None:
    """Imports torchvision, whatever torch it was built for. Skips the test where it is not installed."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
