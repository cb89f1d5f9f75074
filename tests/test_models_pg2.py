"""PG2 against a reference written without sight of it (tests/pg2_reference.py), and against published counts."""

import pytest
import torch
from torch import nn

from mscgan import config as configuration
from mscgan import keys
from mscgan.models import pg2
from tests import pg2_reference as reference
from tests.test_models import NotingEngine

SIZES = [(32, 32), (64, 32), (128, 64)]
EDITIONS = ("market1501", "deepfashion")


def pair(ours: nn.Module, theirs: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Both in float64, the reference with our weights: they are registered in the same order."""
    ours, theirs = ours.double(), theirs.double()
    with torch.no_grad():
        for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            nn.init.normal_(own, std=0.1)
            other.copy_(own.permute(0, 3, 1, 2) if own.dim() == 4 else own)
    return ours, theirs


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_G1_is_the_reference(height, width):
    ours, theirs = pair(pg2.G1(height, width, 8), reference.G1(height, width, 8))
    condition = torch.rand(2, 21, height, width, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(ours(condition), theirs(condition[:, :3], condition[:, 3:]))


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_G2_is_the_reference(height, width, edition):
    ours, theirs = pair(pg2.G2(height, width, 8, edition), reference.G2(height, width, 8, edition))
    y1, x = torch.rand(2, 2, 3, height, width, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(ours(y1, x), theirs(y1, x))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_D_is_the_reference_and_takes_its_statistics_from_all_images_of_a_call(height, width):
    ours, theirs = pair(pg2.D(height, width, 8), reference.D(height, width, 8))
    images = torch.rand(6, 3, height, width, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(ours(images), theirs(images))
    assert (ours(images)[:3] - ours(images[:3])).abs().max() > 1e-3


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_losses_of_stage_II_are_the_references(edition):
    options = keys.PG2(base=8, edition=edition, lambda_L1_2=3, lambda_bg_2=3)
    networks = pg2.build(options, 32, 32)
    G2, D = (NotingEngine(networks[name]) for name in ("G2", "D"))
    x, y = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    mask = (torch.rand(2, 1, 32, 32) < 0.4).float()

    class Batch:
        condition = torch.cat([x, torch.rand(2, 18, 32, 32)], 1)

    Batch.x, Batch.y, Batch.mask = x, y, mask
    pg2.step("II", {"G2": G2, "D": D}, networks, [Batch], options)
    with torch.no_grad():
        y1 = networks["G1"](Batch.condition)
        y2 = networks["G2"](y1, x)
        logits = networks["D"](reference.judged(edition, y, x, y1, y2))
        assert G2.losses == [pytest.approx(reference.loss_G2(logits, y2, y, mask, edition, 3).item(), rel=1e-5)]
        assert D.losses == [pytest.approx(reference.loss_D(logits, edition).item(), rel=1e-5)]


def test_the_recipe_is_that_of_the_public_code():
    market, fashion = (configuration.load(name, ["family=pg2"]) for name in ("market1501", "deepfashion"))
    for settings in (market, fashion):
        assert (settings.train.lr, settings.train.betas, settings.train.ema_halflife) == (2e-5, [0.5, 0.999], 0)
        assert (settings.data.heatmap, settings.data.radius, settings.data.mask) == ("disc_pg2", 4, "pg2")
    assert (market.pg2.edition, market.pg2.lambda_L1_2, market.pg2.lambda_bg_2) == ("market1501", 10, 10)
    assert (fashion.pg2.edition, fashion.pg2.lambda_L1_2, fashion.pg2.lambda_bg_2) == ("deepfashion", 50, 50)


def test_first_weights_are_Xaviers_in_the_generators_and_of_deviation_002_in_D():
    torch.manual_seed(0)
    D = pg2.D(64, 32, 64)
    weight = D.convs.CONV2.conv.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.abs().max().item() == pytest.approx(0.02 * 3**0.5, rel=0.01)
    weight = pg2.G1(32, 32, 32).encoder["CONV1"].conv.weight  # 21 -> 32 channels, 3x3
    assert weight.abs().max().item() == pytest.approx((6 / (9 * (21 + 32))) ** 0.5, rel=0.01)
    assert not D.convs.CONV1.conv.bias.any()
