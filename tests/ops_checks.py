"""What the tests of the ops share: NaN-filled outputs, the tolerance, and a run under Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def nan_filled(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, filled with NaN, so that an element that a kernel forgets is seen."""
    return tensor.fill_(float("nan"))


def assert_close(out: torch.Tensor, reference: torch.Tensor, exact: torch.Tensor) -> None:
    """out errs at most twice as much as the reference in out's dtype, or as one rounding may; `exact` is float64.

    Twice a rounding, because Triton's interpreter cuts float32 off to bfloat16 where the GPU rounds.
    """
    assert out.dtype == reference.dtype and out.shape == reference.shape == exact.shape
    own = (reference.double() - exact).abs().max().item()
    worst = (out.double() - exact).abs().max().item()  # a NaN fails the comparison below
    size = exact.abs().max().item()
    rounding = torch.finfo(out.dtype).eps / 2 * size
    summing = 4 * torch.finfo(torch.float32).eps * max(1.0, size)
    assert worst <= 2 * max(own, rounding) + summing, f"error {worst}, the reference's {own}, a rounding's {rounding}"


def run_interpreted(file: str) -> None:
    """Runs a test file's `__main__` with TRITON_INTERPRET=1: Triton reads it when it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, file], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
