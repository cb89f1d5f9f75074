"""The reference against the numbers that are known of PG2's public code, and against sums done by hand."""

import math

import pytest
import torch
from torch import nn

from tests.pg2_reference import G1, G2, LAMBDA, D, conv, judged, loss_D, loss_G2, stage_I

EDITIONS = ("market1501", "deepfashion")
SIZES = [(height, width) for height in (32, 64, 128, 256) for width in (height // 2, height)]


def batch(images: int, height: int, width: int, seed: int = 0) -> list[torch.Tensor]:
    """x, pose, y, mask in float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = images, 3, height, width
    x, y = (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2))
    pose = (torch.rand(images, 18, height, width, generator=generator) < 0.1).double() * 2 - 1
    mask = (torch.rand(images, 1, height, width, generator=generator) < 0.5).double()
    return [x, pose, y, mask]


def networks(height: int, width: int, edition: str, h: int = 4) -> list[nn.Module]:
    torch.manual_seed(0)
    parts = G1(height, width, h), G2(height, width, h, edition), D(height, width, h)
    return [part.double() for part in parts]


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    "height, width, edition, counts",
    [
        (128, 64, "market1501", [70_795_075, 6_058_883, 4_324_737]),
        (256, 256, "deepfashion", [122_103_235, 12_696_067, 10_896_257]),
    ],
)
def test_parameter_counts_are_those_of_the_public_code(height, width, edition, counts):
    with torch.device("meta"):
        parts = G1(height, width), G2(height, width, edition=edition), D(height, width)
    assert [parameter_count(part) for part in parts] == counts


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("height, width", SIZES)
def test_output_shapes_at_every_size(height, width, edition):
    with torch.device("meta"):
        x, pose = torch.empty(2, 3, height, width), torch.empty(2, 18, height, width)
        y1 = G1(height, width)(x, pose)
        y2 = G2(height, width, edition=edition)(y1, x)
        logits = D(height, width)(torch.cat([x, y1, y2]))
    assert y1.shape == y2.shape == x.shape
    assert logits.shape == (6,)


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("height, width", [(32, 32), (128, 64)])
def test_parameters_are_registered_in_the_order_of_the_forward_pass(height, width, edition):
    g1, g2, d = networks(height, width, edition)
    x, pose, y, _ = batch(1, height, width)
    for network, inputs in ((g1, (x, pose)), (g2, (y, x)), (d, (x,))):
        leaves = [module for module in network.modules() if not list(module.children())]
        called = []
        for leaf in leaves:
            leaf.register_forward_hook(lambda module, _, __, called=called: called.append(module))
        network(*inputs)
        assert called == leaves


@pytest.mark.parametrize(
    "kernel, stride, expected",
    [
        (3, 2, [[45, 39], [66, 50]]),  # 45 is rows 0..2 of columns 0..2: nothing is padded above or on the left
        (5, 2, [[120, 96], [114, 90]]),  # one row above, two below
        (1, 1, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]),
    ],
)
def test_padding_is_that_of_tensorflow(kernel, stride, expected):
    layer = nn.Conv2d(1, 1, kernel, stride=stride, bias=False)
    nn.init.ones_(layer.weight)
    out = conv(layer, torch.arange(16.0).reshape(1, 1, 4, 4))
    assert out[0, 0].tolist() == expected


def decoder_inputs(network: nn.Module, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """What the first convolution of each level of the decoder reads, without its padding."""
    seen = []
    for level in network.decoder:
        level[0].register_forward_hook(lambda _, args, __: seen.append(args[0][:, :, 1:-1, 1:-1]))
    network(*inputs)
    return seen


def test_the_code_is_read_in_the_order_height_width_channel_and_follows_the_deepest_map():
    g1 = networks(64, 32, "market1501")[0]
    nn.init.zeros_(g1.from_code.weight)
    g1.from_code.bias.data = torch.arange(8.0 * 4 * 4, dtype=torch.float64)
    code = decoder_inputs(g1, *batch(1, 64, 32)[:2])[0][0, -4:]
    assert code[3, 2, 1] == (2 * 4 + 1) * 4 + 3


@pytest.mark.parametrize(
    "edition, height, channels",
    [
        ("market1501", 128, [768, 384, 128]),
        ("deepfashion", 256, [1024, 512, 384, 256]),
        ("market1501", 32, [128]),
        ("deepfashion", 32, [256]),
    ],
)
def test_g2_has_the_skips_of_its_edition(edition, height, channels):
    g2 = networks(height, height // 2, edition)[1]
    x, _, y, _ = batch(1, height, height // 2)
    seen = decoder_inputs(g2, y, x)
    assert [level.shape[1] for level in seen] == [count // 32 for count in channels]  # h is 4, not 128
    if channels[0] != 128:
        assert torch.equal(*seen[0].chunk(2, dim=1))  # the deepest map meets itself


def test_a_skip_follows_what_comes_from_below():
    g1, g2, _ = networks(128, 64, "deepfashion")
    x, pose, y, _ = batch(1, 128, 64)
    for layer in (g1.decoder[0][2], g2.decoder[0][1]):  # the last one below level 1 of either decoder
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    for level, below in ((decoder_inputs(g1, x, pose)[1], 4 * 4), (decoder_inputs(g2, y, x)[1], 4)):
        assert not level[:, :below].any() and level[:, below:].any()


def test_images_of_one_call_share_the_statistics_of_d_in_training_and_after():
    d = networks(64, 32, "market1501")[2]
    x, _, y, _ = batch(2, 64, 32)
    together = d(torch.cat([x, y]))
    assert not torch.allclose(together[:2], d(x))
    assert torch.equal(together, d.eval()(torch.cat([x, y])))


def test_d_judges_the_images_in_the_order_of_the_public_code():
    y, x, y1, y2 = (torch.full((2, 3, 1, 1), value) for value in (0.0, 1.0, 2.0, 3.0))
    assert judged("market1501", y, x, y1, y2)[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert judged("deepfashion", y, x, y1, y2)[:, 0, 0, 0].tolist() == [0, 0, 3, 3, 1, 1]


def test_losses_are_the_sums_done_by_hand():
    y, image = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 2.0)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert stage_I(image, y, mask) == 2 + 2 / 4

    a, b, c, unused = (torch.tensor([value], dtype=torch.float64) for value in (0.3, -1.2, 2.0, 9.0))
    bce_real, bce_fake = (lambda v: math.log1p(math.exp(-v))), (lambda v: math.log1p(math.exp(v)))
    expected_D = 0.5 * bce_real(0.3) + 0.25 * bce_fake(-1.2) + 0.25 * bce_fake(2.0)
    market, deepfashion = torch.cat([a, b, unused, c]), torch.cat([a, c, b])  # y, x, y1, y2 | y, y2, x
    assert loss_D(market, "market1501").item() == pytest.approx(expected_D, rel=1e-12)
    assert loss_D(deepfashion, "deepfashion").item() == pytest.approx(expected_D, rel=1e-12)

    loss = loss_G2(market, image, y, mask, "market1501", LAMBDA["market1501"])
    assert loss.item() == pytest.approx(bce_real(2.0) + 10 * 2.5, rel=1e-12)
    loss = loss_G2(deepfashion, image, y, mask, "deepfashion", LAMBDA["deepfashion"])
    assert loss.item() == pytest.approx((bce_real(2.0) + bce_real(-1.2)) / 2 + 50 * 2.5, rel=1e-12)


def test_deepfashion_gives_the_logits_of_y2_half_the_gradient():
    x, _, y, mask = batch(3, 32, 16)
    of_y, of_x, of_y1, of_y2 = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    of_y2.requires_grad_()
    market = loss_G2(torch.cat([of_y, of_x, of_y1, of_y2]), x, y, mask, "market1501", 0)
    deepfashion = loss_G2(torch.cat([of_y, of_y2, of_x]), x, y, mask, "deepfashion", 0)
    (whole,), (half,) = torch.autograd.grad(market, of_y2), torch.autograd.grad(deepfashion, of_y2)
    assert whole.abs().min() > 0
    torch.testing.assert_close(half, whole / 2, rtol=1e-12, atol=0)


def test_deepfashion_reaches_y2_also_through_the_statistics_that_x_shares():
    d = networks(64, 32, "deepfashion")[2]
    x, _, y, mask = batch(2, 64, 32)
    y2 = batch(2, 64, 32, seed=1)[0].requires_grad_()
    logits = d(judged("deepfashion", y, x, x, y2))
    _, of_y2, of_x = logits.chunk(3)

    def gradient(loss):
        return torch.autograd.grad(loss, y2, retain_graph=True)[0]

    direct, shared = (gradient(nn.functional.softplus(-part).mean()) for part in (of_y2, of_x))
    assert shared.abs().max() > 0
    whole = gradient(loss_G2(logits, y2, y, mask, "deepfashion", 0))
    torch.testing.assert_close(whole, (direct + shared) / 2, rtol=1e-9, atol=1e-15)
