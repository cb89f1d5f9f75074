"""The two Inceptions against a few lines of their own (tests/inception_reference.py), with the same drawn weights."""

import importlib.util
import os
import subprocess
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
from mscgan.metrics.inception import Inception, InceptionGFLA
from tests import torchvision_operators
from tests.inception_reference import Reference, tensorflow_resize
from tests.weights_factory import expect, put

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ROOT.parent / "shared/data/market1501/bounding_box_train"


def noise(count, height=64, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def photographs(count):
    if not PHOTOGRAPHS.exists():
        pytest.skip("no photographs in ../shared/data")
    return np.stack([np.asarray(Image.open(file)) for file in sorted(PHOTOGRAPHS.glob("*.jpg"))[:count]])


def for_tensorflow(images):
    """(N, H, W, 3) uint8 to what the graph of 2015 gives its first convolution."""
    return (tensorflow_resize(images) - 128) / 128


def for_gfla(images):
    """(N, H, W, 3) uint8 to what GFLA's script gives torchvision's."""
    x = torch.from_numpy(images.transpose(0, 3, 1, 2) / 255)
    x = F.interpolate(x, size=(299, 299), mode="bilinear")
    r, g, b = x.unbind(1)
    r, g, b = (
        r * (0.229 / 0.5) + (0.485 - 0.5) / 0.5,
        g * (0.224 / 0.5) + (0.456 - 0.5) / 0.5,
        b * (0.225 / 0.5) + (0.406 - 0.5) / 0.5,
    )
    return torch.stack([r, g, b], 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with both files of weights, and the references they were drawn with."""
    folder = tmp_path_factory.mktemp("weights")
    references = {}
    for name, prepare in (("inception-fid", for_tensorflow), ("inception-imagenet", for_gfla)):
        reference = references[name] = Reference(compatible=name == "inception-fid")
        reference.pool3(prepare(noise(1)).float())
        reference.linear("fc", 1008 if reference.compatible else 1000, 2048)
        state = dict(reference.state)
        if not reference.compatible:
            reference.conv(torch.zeros(1, 768, 5, 5), "AuxLogits.conv0", 128)
            reference.conv(torch.zeros(1, 128, 5, 5), "AuxLogits.conv1", 768, 5)
            reference.linear("AuxLogits.fc", 1000, 768)
            state = dict(reference.state)
        torch.save(state, folder / weights.TABLE[name].file)
    return folder, references


@pytest.fixture
def folder(files, monkeypatch):
    for name in ("inception-fid", "inception-imagenet"):
        expect(monkeypatch, name, (files[0] / weights.TABLE[name].file).read_bytes())
    monkeypatch.setenv("MSCGAN_WEIGHTS", str(files[0]))
    return files[0]


@pytest.fixture
def inception(folder):
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    return Inception("cpu")


@pytest.fixture
def gfla(folder):
    torchvision_operators.declare()
    return InceptionGFLA("cpu")


@pytest.mark.parametrize("images", [lambda: noise(1), lambda: photographs(1)], ids=["noise", "photographs"])
def test_inception_is_the_graph_of_2015_on_raw_images(inception, files, images):
    images, reference = images(), files[1]["inception-fid"]
    expected = reference.pool3(for_tensorflow(images))
    features = inception.features(images)
    assert features["pool3"].dtype == features["logits"].dtype == np.float32
    assert 0.1 < expected.std() < 10
    assert np.abs(features["pool3"] - expected.numpy()).max() < 1e-4 * expected.max()
    logits = (expected @ reference.state["fc.weight"].double().T).numpy()  # no bias
    assert np.abs(features["logits"] - logits).max() < 1e-4 * np.abs(logits).max()


@pytest.mark.parametrize("images", [lambda: noise(1), lambda: photographs(1)], ids=["noise", "photographs"])
def test_GFLAs_is_torchvisions_with_the_wrong_normalisation(gfla, files, images):
    images = images()
    expected = files[1]["inception-imagenet"].pool3(for_gfla(images)).numpy()
    features = gfla.features(images)
    assert features.dtype == np.float32 and 0.1 < expected.std() < 10
    assert np.abs(features - expected).max() < 1e-4 * expected.max()


def test_an_images_features_do_not_depend_on_its_batch(inception, gfla, monkeypatch):
    images = noise(3)
    together, of_gfla = inception.features(images), gfla.features(images)
    monkeypatch.setattr("mscgan.metrics.networks.BATCH", 2)
    apart = inception.features(images)
    for part in ("pool3", "logits"):
        assert len(apart[part]) == 3 and np.abs(apart[part] - together[part]).max() < 1e-5 * together[part].max()
    assert np.abs(gfla.features(images) - of_gfla).max() < 1e-5 * of_gfla.max()
    assert not np.allclose(together["pool3"][0], together["pool3"][1], atol=1e-2)  # and do on the image


def test_of_no_images_there_are_no_features_and_of_no_images_at_all_an_error(inception):
    assert inception.features(noise(0))["pool3"].shape == (0, 2048)
    for bad in (noise(1)[0], noise(1).astype(np.float32), noise(1)[..., :1], noise(1)[:, :0]):
        with pytest.raises(UserError, match=r"expected uint8 \(N, H, W, 3\)"):
            inception.features(bad)


def test_the_files_digest_is_kept_for_caches(inception, gfla):
    assert inception.sha256 == weights.TABLE["inception-fid"].sha256 != gfla.sha256
    assert gfla.sha256 == weights.TABLE["inception-imagenet"].sha256


@pytest.mark.parametrize(("network", "name"), [(Inception, "inception-fid"), (InceptionGFLA, "inception-imagenet")])
def test_a_file_of_other_layers_is_refused_by_its_name(network, name, tmp_path, monkeypatch):
    torchvision_operators.declare()
    put(monkeypatch, tmp_path, name, {"fc.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=f"{weights.TABLE[name].file} holds other layers than '{name}' has"):
        network("cpu")


@pytest.mark.parametrize("network", [Inception, InceptionGFLA])
def test_missing_weights_are_said_before_any_image(network, tmp_path, monkeypatch):
    torchvision_operators.declare()
    monkeypatch.setenv("MSCGAN_WEIGHTS", str(tmp_path))
    with pytest.raises(weights.Missing, match=f"no .*inception.*pth in {tmp_path}"):
        network("cpu")


def test_what_is_not_installed_makes_a_score_unavailable(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"torch_fidelity is not installed; pip install 'mscgan\[metrics\]'"):
        Inception("cpu")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(Unavailable, match="torchvision is not installed"):
        InceptionGFLA("cpu")


BESIDE_A_BROKEN_TORCHVISION = """
import hashlib, pathlib, sys
import numpy as np
import mscgan.metrics.frechet, mscgan.metrics.l1, mscgan.metrics.ssim
import mscgan.metrics.inception_score, mscgan.metrics.inception, mscgan.metrics.lpips
from mscgan import weights
from mscgan.metrics import Unavailable
row = weights.TABLE["inception-fid"]
content = (weights.folder() / row.file).read_bytes()
weights.TABLE["inception-fid"] = row._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())
network = mscgan.metrics.inception.Inception("cpu")
print(network.features(np.zeros((1, 64, 32, 3), np.uint8))["logits"].shape, "torchvision" in sys.modules)
for network in (mscgan.metrics.inception.InceptionGFLA, mscgan.metrics.lpips.Lpips):
    try:
        network("cpu")
    except Unavailable as error:
        print(error)
"""


def test_a_torchvision_that_does_not_load_stops_only_what_needs_it(folder, tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "MSCGAN_WEIGHTS": str(folder)}
    command = [sys.executable, "-c", BESIDE_A_BROKEN_TORCHVISION]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, *reasons = done.stdout.splitlines()
    assert first == "(1, 1008) False" and len(reasons) == 2
    for reason in reasons:
        assert "torchvision does not load beside torch" in reason and "torchvision::nms does not exist" in reason


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_features_on_a_GPU_are_those_on_the_CPU(folder):
    images = noise(40, 128, 64)
    on_cpu, on_gpu = Inception("cpu").features(images), Inception("cuda").features(images)
    for part in ("pool3", "logits"):
        assert np.abs(on_gpu[part] - on_cpu[part]).max() < 1e-4 * np.abs(on_cpu[part]).max()
