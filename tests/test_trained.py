"""A trained run: what reaches the networks, and what a run that does not fit is told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mscgan import trained
from mscgan.data.read import open_shards, read_images
from mscgan.errors import UserError
from mscgan.models.mscgan import Generators
from mscgan.pictures import to_uint8
from tests.run_factory import points, write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of an untrained run of the demo's size; its shards lie beside it."""
    return write_run(tmp_path_factory.mktemp("trained"), persons=3, views=2)


def test_the_networks_get_the_image_and_gaussian_maps_of_the_target_pose(made):
    model = trained.load(made)
    sigma = model.config.data.sigma
    x = np.random.default_rng(6).integers(0, 256, (1, 64, 32, 3), dtype=np.uint8)
    rows, columns = np.mgrid[0:64, 0:32]
    maps = [np.exp(-((columns - px) ** 2 + (rows - py) ** 2) / (2 * sigma**2)) * (px >= 0) for px, py in points()[0]]
    given = np.concatenate([x[0].transpose(2, 0, 1) / 127.5 - 1, np.stack(maps)])[None].astype(np.float32)
    expected = Generators(64, 32, 8)
    weights = load_file(made / "generator.safetensors")
    expected.load_state_dict({name.removeprefix("G."): weight for name, weight in weights.items()})
    with torch.no_grad():
        y1 = expected.G1(torch.from_numpy(given))
        y_hat = expected.G2(torch.from_numpy(given[:, :3]), y1)
    result = model.images(torch.from_numpy(x), torch.from_numpy(points()))
    assert list(result) == ["stage I", "stage II"]
    for ours, theirs in zip(result.values(), (y1, y_hat), strict=True):
        assert ours.dtype == torch.float32 and ours.shape == (1, 3, 64, 32)
        torch.testing.assert_close(ours.cpu(), theirs, atol=2e-5, rtol=0)


def test_the_networks_come_ready_for_use_and_leave_no_gradient(made):
    networks = trained.load(made).networks
    assert not any(module.training for module in networks.modules())
    assert not any(parameter.requires_grad for parameter in networks.parameters())


def test_images_of_another_size_are_refused(made):
    with pytest.raises(UserError, match=r"\(32, 64, 3\); the model takes \(64, 32, 3\)"):
        trained.load(made).images(torch.zeros(1, 32, 64, 3, dtype=torch.uint8), torch.from_numpy(points()))


def test_a_run_without_weights_or_with_others_is_refused(made, tmp_path):
    with pytest.raises(UserError, match="no config.yaml"):
        trained.load(tmp_path)
    (tmp_path / "config.yaml").write_bytes((made / "config.yaml").read_bytes())
    with pytest.raises(UserError, match="no generator.safetensors"):
        trained.load(tmp_path)
    weights = tmp_path / "generator.safetensors"
    weights.write_bytes((made / "generator.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        trained.load(tmp_path)
    wider = {f"G.{name}": weight for name, weight in Generators(64, 32, 16).state_dict().items()}
    save_file(wider, weights)
    with pytest.raises(UserError, match="does not fit config.yaml") as caught:
        trained.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_grid_shows_each_pairs_own_images(made, monkeypatch):
    model = trained.load(made)
    shards = open_shards(model.config.data, "test")
    monkeypatch.setattr(trained, "BATCH", 4)  # so that the second batch is not whole
    picture = np.array(trained.sample_grid(model, shards, 6))
    # Cells are enlarged four times, so the mean of a cell is that of its image.
    cells = picture[48:].reshape(6, 260, -1, 3)[:, :256, 4:].reshape(6, 256, 5, 132, 3)[:, :, :, :128]
    shown = cells.mean(axis=(1, 3))
    images = model.images(
        torch.from_numpy(read_images(shards, shards.pairs[:, 0])),
        torch.from_numpy(shards.keypoints[shards.pairs[:, 1]]),
    )
    columns = {
        0: read_images(shards, shards.pairs[:, 0]),
        2: to_uint8(images["stage I"]),
        3: to_uint8(images["stage II"]),
        4: read_images(shards, shards.pairs[:, 1]),
    }
    for column, images in columns.items():
        np.testing.assert_allclose(shown[:, column], images.mean(axis=(1, 2)), atol=1.0)
    assert (cells[:, :, 1] == 0).all(axis=-1).mean() > 0.5  # the pose, on black


def test_a_run_of_another_family_makes_its_images_from_its_own_networks(tmp_path):
    model = trained.load(write_run(tmp_path, persons=1, views=2, family="pg2"))
    assert list(model.networks) == ["G1", "G2"] and model.config.data.heatmap == "disc_pg2"
    shown = model.images(torch.zeros(1, 64, 32, 3, dtype=torch.uint8), torch.from_numpy(points()))
    assert [(title, images.shape) for title, images in shown.items()] == [
        ("stage I", (1, 3, 64, 32)),
        ("stage II", (1, 3, 64, 32)),
    ]


def test_a_run_of_stage_I_alone_shows_stage_I_as_its_answer(tmp_path):
    model = trained.load(write_run(tmp_path, persons=1, views=2, stage="I"))
    shown = model.images(torch.zeros(1, 64, 32, 3, dtype=torch.uint8), torch.from_numpy(points()))
    assert list(shown) == ["stage I"]


def test_an_export_that_names_no_stage_of_the_family_is_refused(tmp_path):
    with pytest.raises(UserError, match="stage III made it, and mscgan has I, II, joint"):
        trained.load(write_run(tmp_path, persons=1, views=2, stage="III"))
