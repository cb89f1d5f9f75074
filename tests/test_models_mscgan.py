import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mscgan import networks
from mscgan.errors import UserError
from mscgan.layers import SLOPE, Layer
from mscgan.networks import G1, G2, Discriminators, Generators, costs
from mscgan.ops.bias_act import bias_act

SIZES = [(32, 32, 8), (64, 32, 8), (128, 64, 128), (256, 256, 128), (512, 256, 16)]  # height, width, base


def on_meta(build):
    with torch.device("meta"):
        return build()


def pyramids(n, height, width, count, channels=6, device=None):
    return [torch.randn(n, channels, height >> i, width >> i, device=device) for i in range(count)]


def channels_last(*shape):
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def paper_networks(height, width):
    """Each network of the paper's width with an input, on the meta device."""

    def build():
        image = torch.empty(1, 3, height, width)
        discriminators = Discriminators(height, width)
        return {
            "G1": (G1(height, width), [torch.empty(1, 21, height, width)]),
            "G2": (G2(height, width), [image, image]),
            "D1": (discriminators.D1, [torch.empty(1, 6, height, width)]),
            "D2": (discriminators.D2, [torch.empty(1, 6, height // 2, width // 2)]),
        }

    return on_meta(build)


# Parameters, GFLOP of one image's forward; in comments the totals the design names.
TOTALS = {
    (128, 64): {
        "G1": (74_605_891, 53.696),  # 74.6 M, 53.7
        "G2": (18_381_699, 42.583),  # 18.4 M, 42.6
        "D1": (11_058_817, 1.661),  # 11.06 M, 1.66
        "D2": (11_034_241, 0.415),  # 11.04 M with the 1,792 biases that BatchNorm makes idle and we leave out, 0.42
    },
    (256, 256): {
        "G1": (297_963_843, 545.008),  # 298.0 M, 545
        "G2": (75_272_579, 471.658),  # 75.3 M, 472
        "D1": (44_715_649, 17.583),  # 44.7 M, 17.6
        "D2": (44_617_345, 4.396),  # 44.6 M, 4.4
    },
}


@pytest.mark.parametrize("size", TOTALS, ids=str)
def test_parameters_and_flops_are_the_designs(size):
    for name, (network, inputs) in paper_networks(*size).items():
        parameters, gflop = TOTALS[size][name]
        layers = costs(network, *inputs)
        assert sum(p.numel() for p in network.parameters()) == parameters, name
        assert sum(cost.parameters for cost in layers) == parameters, name
        assert sum(cost.gflop for cost in layers) == pytest.approx(gflop, abs=6e-4), name


def test_flops_agree_with_torchs_counter():
    for name, (network, inputs) in paper_networks(128, 64).items():
        with FlopCounterMode(display=False) as counter:
            network(*inputs)
        gflop = sum(cost.gflop for cost in costs(network, *inputs))
        assert gflop == pytest.approx(counter.get_total_flops() / 1e9), name


@pytest.mark.parametrize("height, width, base", SIZES)
def test_shapes_hold_at_every_size(height, width, base):
    generators = on_meta(lambda: Generators(height, width, base))
    discriminators = on_meta(lambda: Discriminators(height, width, base, count=3))
    y1, y_hat = generators(torch.empty(2, 21, height, width, device="meta"))
    assert y1.shape == y_hat.shape == (2, 3, height, width)
    groups = discriminators(*[pyramids(2, height, width, 3, device="meta") for _ in range(2)])
    assert [[logits.shape for logits in group] for group in groups] == [[(2,)] * 3] * 2


def test_the_encoder_halves_and_doubles_as_table_4_prints():
    network, inputs = paper_networks(256, 256)["G1"]
    rows = {cost.layer: (cost.kind, cost.output) for cost in costs(network, *inputs)}
    assert rows["encoder.CONV1"] == ("3*3 / 1", (128, 256, 256))
    assert rows["encoder.DOWN3"] == ("3*3 / 2", (1024, 32, 32))
    assert rows["encoder.Res_BLOCK5.conv2"] == ("3*3 / 1", (2048, 16, 16))
    assert rows["code.FC1"] == ("FC", (64,)) and rows["code.FC2"] == ("FC", (4096,))
    assert rows["decoder.UP5"] == ("3*3 / 2", (1024, 32, 32))
    assert rows["decoder.Res_BLOCK1.conv1"] == ("3*3 / 1", (128, 256, 256))
    assert rows["decoder.CONV1"] == ("3*3 / 1", (3, 256, 256))


def plain_G1(weights, x):
    """G1 of two levels written out by hand: what the walk over the table must come to."""

    def kernel(name):
        return weights[f"{name}.conv.weight"].permute(0, 3, 1, 2)

    def conv(name, x, stride=1):
        return F.conv2d(x, kernel(name), weights[f"{name}.conv.bias"], stride, 1)

    def block(name, x):
        h = F.relu(conv(f"{name}.conv1", x))
        return F.relu(conv(f"{name}.conv2", h)) + (x if x.shape == h.shape else h)

    def fc(name, x):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    high = block("encoder.Res_BLOCK1", F.relu(conv("encoder.CONV1", x)))
    low = block("encoder.Res_BLOCK2", F.relu(conv("encoder.DOWN1", high, stride=2)))
    code = fc("code.FC2", fc("code.FC1", low.permute(0, 2, 3, 1).reshape(len(x), -1)))
    code = code.view(len(x), 16, 16, -1).permute(0, 3, 1, 2)
    low = block("decoder.Res_BLOCK2", torch.cat([low, code], 1))
    up = F.conv_transpose2d(low, kernel("decoder.UP2"), weights["decoder.UP2.conv.bias"], 2, 1, 1)
    return conv("decoder.CONV1", block("decoder.Res_BLOCK1", torch.cat([F.relu(up), high], 1)))


def test_G1_is_the_network_written_out_by_hand():
    network = G1(32, 32, 8)
    condition = torch.randn(2, 21, 32, 32)
    torch.testing.assert_close(network(condition), plain_G1(network.state_dict(), condition), atol=1e-5, rtol=1e-4)


def test_G2_adds_its_difference_map_to_y1():
    network = G2(64, 32, 8)
    x, y1 = torch.randn(2, 2, 3, 64, 32)
    last = network.decoder["CONV1"].conv
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(0.25)
    torch.testing.assert_close(network(x, y1), y1 + 0.25)


def test_gradients_reach_every_parameter():
    generators, discriminators = Generators(64, 32, 8), Discriminators(64, 32, 8, count=3)
    y1, y_hat = generators(channels_last(2, 21, 64, 32))
    (y1.square().mean() + y_hat.square().mean()).backward()
    groups = discriminators(pyramids(2, 64, 32, 3), pyramids(2, 64, 32, 3))
    sum(logits.square().sum() for group in groups for logits in group).backward()
    for network in (generators, discriminators):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_every_layer_keeps_channels_last():
    generators, discriminators = Generators(64, 32, 8), Discriminators(64, 32, 8)
    seen = []

    def note(module, args, output):
        if isinstance(output, torch.Tensor) and output.dim() == 4:
            seen.append(output.is_contiguous(memory_format=torch.channels_last))

    for module in (*generators.modules(), *discriminators.modules()):
        module.register_forward_hook(note)
    _, y_hat = generators(channels_last(2, 21, 64, 32))
    discriminators([pair.contiguous(memory_format=torch.channels_last) for pair in pyramids(2, 64, 32, 2)])
    assert len(seen) > 40 and all(seen)
    assert y_hat.is_contiguous(memory_format=torch.channels_last)


def test_weights_are_in_torchs_ordinary_layout():
    both = torch.nn.ModuleList([Generators(32, 32, 8), Discriminators(32, 32, 8)])
    assert all(parameter.is_contiguous() for parameter in both.parameters())


def test_memory_format_does_not_change_the_result():
    generators = Generators(64, 32, 8)
    condition = channels_last(2, 21, 64, 32)
    for a, b in zip(generators(condition), generators(condition.contiguous())):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_G1_takes_a_condition_padded_to_24_channels():
    network, given = G1(32, 32, 8), channels_last(2, 21, 32, 32)
    padded = torch.cat([given, torch.randn(2, 3, 32, 32)], 1)  # any content
    torch.testing.assert_close(network(padded), network(given), atol=1e-5, rtol=1e-4)


def test_discriminators_take_pairs_padded_to_eight_channels():
    discriminators = Discriminators(64, 32, 8)
    pairs = pyramids(3, 64, 32, 2)
    padded = [torch.cat([pair, torch.randn(3, 2, *pair.shape[2:])], 1) for pair in pairs]  # any content
    for a, b in zip(discriminators(pairs)[0], discriminators(padded)[0]):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    with pytest.raises(AssertionError, match="7 channels; expected 6 or 8"):
        discriminators.D1(torch.zeros(1, 7, 64, 32))


def test_real_and_fake_go_through_batch_norm_separately():
    discriminators = Discriminators(64, 32, 8, count=1)
    real, fake = pyramids(4, 64, 32, 1), [5 + 3 * pair for pair in pyramids(4, 64, 32, 1)]
    together = discriminators(real, fake)
    (alone,) = discriminators(real)
    torch.testing.assert_close(together[0][0], alone[0])
    mixed = discriminators([torch.cat([*real, *fake])])[0][0][:4]
    assert (mixed - alone[0]).abs().max() > 1e-3


def test_batch_norm_is_from_the_second_convolution_which_then_has_no_bias():
    convs = Discriminators(128, 64, 8).D1.convs
    assert [layer.norm is not None for layer in convs] == [False, True, True, True]
    assert [layer.conv.bias is not None for layer in convs] == [True, False, False, False]


def test_images_start_at_a_scale_that_trains():
    """Untrained, at any depth and width, an image comes out neither vanished nor exploded."""
    torch.manual_seed(0)
    for height, width, base in [(32, 32, 8), (64, 32, 16), (128, 64, 16)]:
        y1, y_hat = Generators(height, width, base)(2 * torch.rand(2, 21, height, width) - 1)
        assert 0.02 < y1.std() < 5 and 0.02 < (y_hat - y1).std() < 5


@pytest.mark.parametrize("height, width, base, match", [
    (100, 50, 8, "power of two"), (128, 32, 8, "half of it"), (16, 16, 8, "32 or more"), (64, 32, 12, "multiple of 8"),
])  # fmt: skip
def test_sizes_that_the_tables_do_not_cover_are_refused(height, width, base, match):
    with pytest.raises(UserError, match=match):
        Generators(height, width, base)


def test_the_command_prints_the_tables(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["networks", "--config", "market1501", "model.discriminators=3"])
    networks.main()
    printed = capsys.readouterr().out
    for total in ("74,605,891    53.696", "18,381,699    42.583", "11,058,817     1.661", "11,034,241     0.415"):
        assert total in printed
    assert "D3" in printed


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "linear"])
@pytest.mark.parametrize("up", [False, True])
def test_the_pass_that_cuda_fuses_is_the_same_sum(act, up):
    layer = Layer(4, 6, 3, 2, act, up=up)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 4, 8, 8)
    residual = torch.randn(2, 6, 16, 16) if up else torch.randn(2, 6, 4, 4)
    fused = bias_act(layer.conv(x, None), layer.conv.bias, residual, act, SLOPE)
    torch.testing.assert_close(layer(x, residual), fused)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_fused_pass_on_cuda_gives_the_plain_result():
    both = torch.nn.ModuleList([Generators(64, 32, 8), Discriminators(64, 32, 8)]).double()
    condition, pairs = channels_last(2, 21, 64, 32).double(), [pair.double() for pair in pyramids(2, 64, 32, 2)]
    expected = [*both[0](condition), *both[1](pairs)[0]]
    both.cuda()
    got = [*both[0](condition.cuda()), *both[1]([pair.cuda() for pair in pairs])[0]]
    for a, b in zip(got, expected):
        torch.testing.assert_close(a.cpu(), b)
