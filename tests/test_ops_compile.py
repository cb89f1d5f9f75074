"""Every kernel compiles for an H200 (sm_90) on a machine without one: what the interpreter forgives shows here."""

import re
import subprocess
import sys

import pytest
import torch

from mscgan import pose
from mscgan.ops import bias_act, condition, pyramid
from tests.ops_checks import LAYOUTS

pytest.importorskip("triton", reason="the kernels need Triton to be compiled")
PIXELS = LAYOUTS[1]


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """A launch compiles for sm_90 instead of running; the kernels' PTX by name, the last of a name wins.

    In each, neighbouring threads have to hold neighbouring elements of the last dimension.
    """
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class Driver:
        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

    kernels = {}

    def getitem(kernel, grid):
        def launch(*args, **options):
            made = kernel.run(*args, grid=grid, warmup=True, **options).asm
            for order in re.findall(r"ttg\.blocked<.*order = \[(.*?)\]", made["ttgir"]):
                assert sorted(order.split(", "), reverse=True) == order.split(", "), made["ttgir"]
            kernels[kernel.__name__] = made["ptx"]

        return launch

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", Driver())
    monkeypatch.setattr(JITFunction, "__getitem__", getitem)
    return kernels


def global_accesses(ptx: str, kind: str) -> set[str]:
    return set(re.findall(kind + r"\.global\.(\S+)", ptx))


def example(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.zeros(1, channels, height, width, dtype=torch.bfloat16).contiguous(memory_format=PIXELS)


def test_the_ops_run_on_a_cpu_without_triton():
    code = """
import sys
sys.modules["triton"] = None  # an import of it now raises
import torch
from mscgan.ops.bias_act import bias_act
from mscgan.ops.body_mask import body_mask
from mscgan.ops.condition import condition
from mscgan.ops.masked_l1 import masked_l1
from mscgan.ops.pyramid import pyramid
keypoints = torch.full((1, 18, 2), 3.0)
seen = condition(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), keypoints, torch.tensor([True]))
masked_l1(bias_act(seen[:, :3]), seen[:, 3:6], body_mask(keypoints, 8, 8))
pyramid(seen[:, :3], seen[:, 3:6], seen[:, 6:9], 3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_condition_and_normalise_store_whole_words(compiled):
    from mscgan.ops import condition_triton

    images, keypoints = torch.zeros(1, 64, 64, 3, dtype=torch.uint8), torch.zeros(1, 18, 2)
    flip = torch.zeros(1, dtype=torch.bool)
    for kind, given, channels in (
        ("gaussian", keypoints, 21),
        ("gaussian", keypoints, 24),
        ("disc", keypoints, 24),
        ("disc_pg2", keypoints, 24),
        ("", None, 3),
    ):
        out = condition._empty(images, channels, torch.bfloat16)
        condition_triton.draw(images, flip, given, kind, 6.0, 4.0, out)
        assert global_accesses(compiled["_kernel"], "st") == {"v4.b32"}
        assert ".shared" not in compiled["_kernel"]


@pytest.mark.parametrize("pool", ["mean2", "mean3"])
def test_pyramid_stores_whole_pixels_of_eight_channels(compiled, pool):
    from mscgan.ops import pyramid_triton

    image = example(3, 64, 64)
    pairs = pyramid._empty_pairs(image, 3, pool, 8)
    pyramid_triton.forward(image, image, image, pool, True, pairs)
    pyramid_triton.backward([None, *pairs[4:]], pool, True, torch.empty_like(image))
    assert "v4.b32" in global_accesses(compiled["_forward"], "st")
    assert global_accesses(compiled["_backward"], "st") == {"v4.b32"}


def test_bias_act_moves_whole_words_and_packs_signs_inside_a_thread(compiled):
    from mscgan.ops import bias_act_triton

    x, bias = example(128, 64, 64), torch.zeros(128)
    matrix = bias_act._matrix(x, True)
    out, signs = bias_act._empty(x, True)
    bias_act_triton.forward(x, bias, x, "leaky_relu", 0.2, matrix, out, signs)
    assert global_accesses(compiled["_forward"], "ld") == {"v4.b32"}
    assert global_accesses(compiled["_forward"], "st") == {"v4.b32", "b8"}  # b8: eight signs
    assert ".shared" not in compiled["_forward"] and "shfl" not in compiled["_forward"]

    steps, count = bias_act_triton.strips(matrix)
    bias_act_triton.backward(out, signs, 0.2, matrix, torch.empty_like(x), steps, torch.empty(count, 128))
    assert "v4.b32" in global_accesses(compiled["_backward"], "ld") & global_accesses(compiled["_backward"], "st")
    assert "atom" not in compiled["_backward"]


def test_masked_l1_reads_whole_words(compiled):
    from mscgan.ops import masked_l1_triton

    image, mask = example(3, 64, 64), torch.zeros(1, 1, 64, 64)
    masked_l1_triton.forward(image, image, mask, True, torch.empty(2, masked_l1_triton.programs(image)))
    masked_l1_triton.backward(torch.ones(2), image, image, mask, True, torch.empty_like(image))
    assert "v4.b32" in global_accesses(compiled["_forward"], "ld") and "atom" not in compiled["_forward"]
    assert global_accesses(compiled["_backward"], "st") == {"v4.b32"}


@pytest.mark.parametrize("kind", ["pg2", "pose-gan"])
def test_the_body_mask_is_written_in_whole_words(compiled, kind):
    from mscgan.ops import body_mask_triton

    limbs = pose.on_device(pose.LIMBS, torch.device("cpu"))
    body_mask_triton.draw(torch.zeros(1, 18, 2), limbs, kind, 4.0, torch.empty(1, 1, 64, 64))
    assert global_accesses(compiled["_close"], "st") == {"v4.b32"}
    assert global_accesses(compiled["_draw"], "st") == {"b32"}  # 32 pixels
