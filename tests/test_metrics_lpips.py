"""LPIPS against its formula in a few lines, with drawn weights of AlexNet and the package's linear layers."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mscgan import weights
from mscgan.errors import UserError
from mscgan.metrics import Unavailable
from mscgan.metrics.lpips import Lpips
from tests import torchvision_operators
from tests.weights_factory import put

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared/data/market1501/bounding_box_train"
# Of torchvision's "features": number, inputs, outputs, kernel, stride, padding, whether a pooling comes before it.
ALEXNET = (
    (0, 3, 64, 11, 4, 2, False),
    (3, 64, 192, 5, 1, 2, True),
    (6, 192, 384, 3, 1, 1, True),
    (8, 384, 256, 3, 1, 1, False),
    (10, 256, 256, 3, 1, 1, False),
)


def drawn() -> dict[str, torch.Tensor]:
    """The file's convolutions; the layers after them, which LPIPS does not use, are as small as they may be."""
    random = torch.Generator().manual_seed(0)
    state = {"classifier.1.weight": torch.zeros(1)}
    for number, inputs, outputs, kernel, *_ in ALEXNET:
        scale = (2 / (inputs * kernel**2)) ** 0.5
        state[f"features.{number}.weight"] = scale * torch.randn(outputs, inputs, kernel, kernel, generator=random)
        state[f"features.{number}.bias"] = 0.1 * torch.randn(outputs, generator=random)
    return state


def by_hand(state, generated, target):
    """Equation 1 of Zhang et al., in float64."""
    package = Path(importlib.util.find_spec("lpips").submodule_search_locations[0])
    linear = torch.load(package / "weights/v0.1/alex.pth", map_location="cpu", weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64)[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64)[:, None, None]
    x, y = ((torch.from_numpy(i.transpose(0, 3, 1, 2) / 127.5 - 1) - shift) / scale for i in (generated, target))
    distance = 0
    for layer, (number, *_, stride, padding, pooled) in enumerate(ALEXNET):
        weight, bias = (state[f"features.{number}.{part}"].double() for part in ("weight", "bias"))
        x, y = (
            F.conv2d(F.max_pool2d(i, 3, 2) if pooled else i, weight, bias, stride, padding).clamp(min=0) for i in (x, y)
        )
        u, v = (i / (i.square().sum(1, keepdim=True).sqrt() + 1e-10) for i in (x, y))
        w = linear[f"lin{layer}.model.1.weight"].double()[0]
        distance = distance + (w * (u - v) ** 2).sum(1).mean((1, 2))
    return distance.numpy()


def noise(count, height=64, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


@pytest.fixture
def lpips(tmp_path, monkeypatch):
    if importlib.util.find_spec("lpips") is None:
        pytest.skip("lpips is not installed")
    torchvision_operators.declare()
    put(monkeypatch, tmp_path, "alexnet", drawn())
    return Lpips("cpu")


def test_distances_are_the_formula(lpips):
    generated, target = noise(40), noise(40, seed=1)  # two batches
    found = lpips.distances(generated, target)
    assert found.dtype == np.float64 and found.shape == (40,)
    assert np.abs(found - by_hand(drawn(), generated, target)).max() < 1e-5
    assert found.min() > 0.01 and np.ptp(found) > 0.001


def test_distances_of_photographs_are_the_formula(lpips):
    if not PHOTOGRAPHS.exists():
        pytest.skip("no photographs in ../shared/data")
    images = np.stack([np.asarray(Image.open(file)) for file in sorted(PHOTOGRAPHS.glob("*.jpg"))[:8]])
    found = lpips.distances(images[:4], images[4:])
    assert np.abs(found - by_hand(drawn(), images[:4], images[4:])).max() < 1e-5


def test_an_image_is_at_no_distance_from_itself_and_the_distance_is_symmetric(lpips):
    a, b = noise(2), noise(2, seed=1)
    assert np.array_equal(lpips.distances(a, a), [0, 0])
    assert lpips.distances(a, b) == pytest.approx(lpips.distances(b, a), abs=1e-7)
    assert lpips.sha256 == weights.TABLE["alexnet"].sha256
    assert lpips.distances(noise(0), noise(0)).shape == (0,)


def test_a_pairs_distance_does_not_depend_on_its_batch(lpips, monkeypatch):
    a, b = noise(5), noise(5, seed=1)
    together = lpips.distances(a, b)
    monkeypatch.setattr("mscgan.metrics.networks.BATCH", 2)
    assert np.abs(lpips.distances(a, b) - together).max() < 1e-5


def test_what_cannot_be_compared_is_refused(lpips):
    with pytest.raises(UserError, match="differ in size or number"):
        lpips.distances(noise(2), noise(3))
    with pytest.raises(UserError, match="H and W from 31"):
        lpips.distances(noise(1, 64, 30), noise(1, 64, 30))
    assert lpips.distances(noise(1, 31, 31), noise(1, 31, 31)) == [0]
    with pytest.raises(UserError, match="expected uint8"):
        lpips.distances(noise(1).astype(np.float32), noise(1).astype(np.float32))


def test_a_file_of_other_layers_is_refused_by_its_name(lpips, tmp_path, monkeypatch):
    put(monkeypatch, tmp_path, "alexnet", {"features.0.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="alexnet-owt-7be5be79.pth holds other layers than 'alexnet' has"):
        Lpips("cpu")


def test_without_weights_or_package_the_score_is_unavailable(lpips, tmp_path, monkeypatch):
    monkeypatch.setenv("MSCGAN_WEIGHTS", str(tmp_path / "empty"))
    with pytest.raises(weights.Missing, match="no alexnet-owt-7be5be79.pth"):
        Lpips("cpu")
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(Unavailable, match="lpips is not installed"):
        Lpips("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_distances_on_a_GPU_are_those_on_the_CPU(lpips):
    a, b = noise(40, 128, 64), noise(40, 128, 64, seed=1)
    assert np.abs(Lpips("cuda").distances(a, b) - lpips.distances(a, b)).max() < 1e-5
