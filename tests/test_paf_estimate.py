import functools
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mscgan.errors import UserError
from mscgan.paf import estimate
from mscgan.paf.estimate import RELEASED, Way, load_paf
from mscgan.paf.network import PAF, as_input
from mscgan.paf.targets import targets
from tests.run_factory import write_run
from tests.test_paf_decode import STANDING

SMALL = functools.partial(PAF, 2, 8, 8)


def standing(x: torch.Tensor) -> torch.Tensor:
    """What a network without a fault says of images that STANDING fills."""
    count, _, height, width = x.shape
    keypoints = (torch.from_numpy(STANDING) + 0.5) * height / 128 - 0.5
    drawn = targets(keypoints.expand(count, 1, 18, 2), height, width)
    return torch.cat([drawn.fields, drawn.maps], 1)[None]


class Knowing(torch.nn.Module):
    """Notes the sizes in which images come."""

    def __init__(self):
        super().__init__()
        self.sizes, self.weight = [], torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(x.shape[2:]))
        return standing(x)


@pytest.mark.parametrize("height", [64, 128, 200, 1400])
def test_a_person_is_found_in_an_image_of_any_size(height):
    network = Knowing()
    people = estimate._estimator(network, RELEASED)(np.zeros((height, height // 2, 3), np.uint8))
    assert len(people) == 1
    assert np.abs(people[0].keypoints - (STANDING + 0.5) * height / 128 + 0.5).max() <= 2 * height / 128
    # Half, once, one and a half and twice 368 pixels, the width padded to eights.
    assert network.sizes == [(184, 96), (368, 184), (552, 280), (736, 368)]


def test_a_wide_image_is_not_seen_larger_than_twice_as_wide_as_the_box():
    network = Knowing()
    estimate._estimator(network, Way(368, (1.0,), "bicubic"))(np.zeros((50, 1000, 3), np.uint8))
    assert network.sizes == [(40, 736)]  # 36.8 high, padded


def test_fields_and_maps_are_means_over_the_scales():
    class Constant(Knowing):
        def forward(self, x):
            return torch.ones(1, 1, 57, x.shape[2] // 8, x.shape[3] // 8)

    maps = estimate._maps(Constant(), torch.zeros(128, 64, 3, dtype=torch.uint8), RELEASED, (64, 128))
    torch.testing.assert_close(maps, torch.ones(57, 128, 64))


def test_an_image_of_the_runs_size_comes_as_in_training_and_padding_is_grey():
    seen = []

    class Looking(Knowing):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    image = np.random.default_rng(0).integers(0, 256, (60, 30, 3), np.uint8)
    estimate._estimator(Looking(), Way(120, (1.0,), "bilinear"))(image)
    trained_on = as_input(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1, 2)
    torch.testing.assert_close(seen[0][:, :, :120, :60], trained_on)
    assert seen[0].shape == (1, 3, 120, 64) and (seen[0][..., 60:] == 0).all()


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(UserError, match="expected uint8"):
        estimate._estimator(Knowing(), RELEASED)(image)


@pytest.fixture
def small(monkeypatch) -> dict[str, torch.Tensor]:
    """The weights of a network in the released one's place."""
    monkeypatch.setattr(estimate, "PAF", SMALL)
    torch.manual_seed(3)
    return SMALL().state_dict()


def as_ports_name_it(name: str) -> str:
    if name.startswith("M"):
        return f"model{name.split('stage')[1][0]}_{name.split('.')[0][-1]}.{name}"
    return f"model1_{name.split('.')[0][-1]}.{name}" if name.startswith("conv5") else f"model0.{name}"


@pytest.fixture
def loaded(monkeypatch) -> list[PAF]:
    """The networks that load_paf makes."""
    made: list[PAF] = []
    real = estimate._estimator
    monkeypatch.setattr(estimate, "_estimator", lambda network, way: made.append(network) or real(network, way))
    return made


def test_weights_load_by_their_names_and_by_those_of_ports(small, loaded, tmp_path):
    torch.save(small, tmp_path / "flat.pth")
    torch.save({as_ports_name_it(name): weight for name, weight in small.items()}, tmp_path / "port.pth")
    save_file(small, tmp_path / "same.safetensors")
    for name in ("flat.pth", "port.pth", "same.safetensors"):
        assert load_paf(tmp_path / name)(np.zeros((40, 20, 3), np.uint8)) == []
        assert all(torch.equal(weight, small[key]) for key, weight in loaded.pop().state_dict().items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("conv3_2.bias"), "has no conv3_2.bias; expected OpenPose's COCO network"),
        (
            lambda w: w.update({"conv3_2.weight": torch.zeros(1, 2)}),
            r"conv3_2.weight is \(1, 2\), not \(32, 32, 3, 3\)",
        ),
        (lambda w: w.update({"conv9.weight": torch.zeros(1)}), "has conv9.weight, which is no layer"),
        (lambda w: w.update({"model0.conv3_2.bias": torch.zeros(32)}), "has conv3_2.bias twice"),
        (lambda w: w.update(epoch=3), "holds other things than tensors"),
    ],
)
def test_weights_of_another_network_are_refused_by_the_first_name_that_differs(change, said, small, tmp_path):
    weights = dict(small)
    change(weights)
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(UserError, match=said):
        load_paf(tmp_path / "w.pth")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_file_of_weights_is_not_run(small, tmp_path):
    torch.save(small | {"conv1_1.bias": Evil(str(tmp_path / "ran"))}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="cannot be loaded as weights alone"):
        load_paf(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content"), [("none.pth", None), ("text.pth", b"hello"), ("w.safetensors", b"hello"), ("empty.pth", b"")]
)
def test_a_file_that_is_none_or_damaged_is_refused_in_one_line(name, content, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.*give"):
        load_paf(tmp_path / name)


def test_without_the_published_weights_it_is_said_how_to_bring_them(monkeypatch, tmp_path):
    monkeypatch.setenv("MSCGAN_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="no body_pose_model.pth .*mscgan.weights fetch paf"):
        load_paf(None)


def test_a_run_of_the_family_is_an_estimator_and_another_is_refused(tmp_path, loaded):
    (tmp_path / "paf").mkdir()
    run = write_run(tmp_path / "paf", 2, 2, "paf", "pose")
    assert isinstance(load_paf(run)(np.zeros((64, 32, 3), np.uint8)), list)
    assert loaded[0].enlarge == 2 and loaded[0].stages == 2
    with pytest.raises(UserError, match="family mscgan, which finds no poses"):
        load_paf(write_run(tmp_path, 2, 2))
