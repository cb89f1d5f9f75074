"""MsCGAN: the paper's networks, written out by hand once more, and the paper's equations, in numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mscgan.keys import MsCGAN
from mscgan.models.mscgan import G1, G2, Discriminators, Generators, build, loss_D, loss_I, loss_II, pairs

SIZES = [(32, 32, 8), (64, 32, 8), (128, 64, 128), (256, 256, 128), (512, 256, 16)]  # height, width, base


def on_meta(build):
    with torch.device("meta"):
        return build()


def pyramids(n, height, width, count, channels=6, device=None):
    return [torch.randn(n, channels, height >> i, width >> i, device=device) for i in range(count)]


def channels_last(*shape):
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("height, width, base", SIZES)
def test_shapes_hold_at_every_size(height, width, base):
    generators = on_meta(lambda: Generators(height, width, base))
    discriminators = on_meta(lambda: Discriminators(height, width, base, scales=(1, 2, 4)))
    y1, y_hat = generators(torch.empty(2, 21, height, width, device="meta"))
    assert y1.shape == y_hat.shape == (2, 3, height, width)
    groups = discriminators(*[pyramids(2, height, width, 3, device="meta") for _ in range(2)])
    assert [[logits.shape for logits in group] for group in groups] == [[(2,)] * 3] * 2


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
    generators, discriminators = Generators(64, 32, 8), Discriminators(64, 32, 8, scales=(1, 2, 4))
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


def test_parameters_are_contiguous():
    """As DeepSpeed wants them."""
    networks = build(MsCGAN(base=8), 32, 32)
    assert all(parameter.is_contiguous() for parameter in networks.parameters())


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
    given = pyramids(3, 64, 32, 2)
    padded = [torch.cat([pair, torch.randn(3, 2, *pair.shape[2:])], 1) for pair in given]  # any content
    for a, b in zip(discriminators(given)[0], discriminators(padded)[0]):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_real_and_fake_go_through_batch_norm_separately():
    discriminators = Discriminators(64, 32, 8, scales=(1,))
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


@pytest.mark.parametrize("scales", [[1], [2], [1, 4], [1, 2, 4]])
def test_discriminators_are_named_by_their_scales_and_have_one_depth(scales):
    networks = build(MsCGAN(base=8, scales=scales), 128, 64)["D"]
    assert [name for name, _ in networks.named_children()] == [{1: "D1", 2: "D2", 4: "D3"}[scale] for scale in scales]
    for network, scale in zip(networks.children(), scales, strict=True):
        assert len(network.convs) == 4
        assert network.FC.in_features == 64 * (8 // scale) * (4 // scale)


def test_images_start_at_a_scale_that_trains():
    """Untrained, at any depth and width, an image comes out neither vanished nor exploded."""
    torch.manual_seed(0)
    for height, width, base in [(32, 32, 8), (64, 32, 16), (128, 64, 16)]:
        y1, y_hat = Generators(height, width, base)(2 * torch.rand(2, 21, height, width) - 1)
        assert 0.02 < y1.std() < 5 and 0.02 < (y_hat - y1).std() < 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_fused_pass_on_cuda_gives_the_plain_result():
    both = torch.nn.ModuleList([Generators(64, 32, 8), Discriminators(64, 32, 8)]).double()
    condition, given = channels_last(2, 21, 64, 32).double(), [pair.double() for pair in pyramids(2, 64, 32, 2)]
    expected = [*both[0](condition), *both[1](given)[0]]
    both.cuda()
    got = [*both[0](condition.cuda()), *both[1]([pair.cuda() for pair in given])[0]]
    for a, b in zip(got, expected):
        torch.testing.assert_close(a.cpu(), b)


@pytest.fixture
def batch():
    """y_hat, y and mask, not square and not alike, the mask of two fifths of the pixels."""
    rng = np.random.default_rng(0)
    y_hat, y = rng.uniform(-1, 1, (2, 4, 3, 8, 6))
    return y_hat, y, (rng.random((4, 1, 8, 6)) < 0.4).astype(float)


@pytest.fixture
def logits():
    rng = np.random.default_rng(1)
    return [rng.normal(0, 3, 4) for _ in range(3)], [rng.normal(0, 3, 4) for _ in range(3)]


WEIGHTS = [0.2, 0.5, 0.3]
OPTIONS = MsCGAN(scales=[1, 2, 4], lambda_D=WEIGHTS, lambda_L1_2=10.0, lambda_bg_2=4.0)


def tensors(*arrays):
    return [torch.tensor(array, dtype=torch.float32) for array in arrays]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_loss_I_is_equation_1(batch):
    y1, y, mask = batch
    total, terms = loss_I(*tensors(y1, y, mask), 2.5)
    L1, bg = np.abs(y - y1).mean(), np.abs((y - y1) * mask).mean()
    assert {name: term.item() for name, term in terms.items()} == pytest.approx({"L1_1": L1, "bg_1": bg}, rel=1e-5)
    assert total.item() == pytest.approx(L1 + 2.5 * bg, rel=1e-5)


def test_loss_D_is_the_negative_of_equation_3(logits):
    real, fake = logits
    total, terms = loss_D(tensors(*real), tensors(*fake), OPTIONS)
    value = sum(w * np.mean(np.log(sigmoid(r)) + np.log(1 - sigmoid(f))) for w, r, f in zip(WEIGHTS, real, fake))
    assert total.item() == pytest.approx(-value, rel=1e-5)
    expected = {f"D{i + 1}_real": -np.log(sigmoid(real[i])).mean() for i in range(3)}
    expected |= {f"D{i + 1}_fake": -np.log(1 - sigmoid(fake[i])).mean() for i in range(3)}
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_loss_II_is_equation_4_with_the_non_saturating_loss(batch, logits):
    y_hat, y, mask = batch
    total, terms = loss_II(*tensors(y_hat, y, mask), tensors(*logits[1]), OPTIONS)
    L1, bg = np.abs(y - y_hat).mean(), np.abs((y - y_hat) * mask).mean()
    adversarial = [-np.log(sigmoid(fake)).mean() for fake in logits[1]]
    expected = {"L1_2": L1, "bg_2": bg} | {f"G_D{i + 1}": term for i, term in enumerate(adversarial)}
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)
    assert total.item() == pytest.approx(np.dot(WEIGHTS, adversarial) + 10 * L1 + 4 * bg, rel=1e-5)


def test_gradients_flow_to_images_and_logits_but_not_through_the_terms(batch, logits):
    y_hat, y, mask = tensors(*batch)
    fake = [f.requires_grad_() for f in tensors(*logits[1])]
    y_hat.requires_grad_()
    total, terms = loss_II(y_hat, y, mask, fake, OPTIONS)
    total.backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in (y_hat, *fake))
    assert not any(term.requires_grad for term in terms.values())


@pytest.mark.parametrize(("scales", "names"), [([2], ["D2"]), ([1, 4], ["D1", "D3"])])
def test_discriminators_without_weights_count_1_each_and_keep_their_names(scales, names, batch, logits):
    options, (real, fake) = MsCGAN(scales=scales), (tensors(*group[: len(scales)]) for group in logits)
    total, terms = loss_D(real, fake, options)
    assert list(terms) == [f"{name}_{kind}" for name in names for kind in ("real", "fake")]
    assert total.item() == pytest.approx(sum(term.item() for term in terms.values()), rel=1e-5)
    total, terms = loss_II(*tensors(*batch), fake, options)
    assert list(terms) == ["L1_2", "bg_2", *(f"G_{name}" for name in names)]
    L1 = options.lambda_L1_2 * terms["L1_2"] + options.lambda_bg_2 * terms["bg_2"]
    assert total.item() == pytest.approx((L1 + sum(terms[f"G_{name}"] for name in names)).item(), rel=1e-5)


def test_a_missing_discriminator_is_noticed():
    with pytest.raises(ValueError, match="zip"):
        loss_D([torch.zeros(2)] * 2, [torch.zeros(2)] * 2, OPTIONS)


@pytest.mark.parametrize("scales", [[1], [2], [1, 4], [1, 2, 4]])
def test_each_discriminator_gets_the_pairs_of_its_scale(scales):
    x, y, y_hat = torch.randn(3, 2, 3, 16, 8)
    reals, fakes = pairs(x, y, y_hat, MsCGAN(scales=scales))
    for found, second in ((reals, y), (fakes, y_hat)):
        expected = [F.avg_pool2d(torch.cat([x, second], 1), scale) for scale in scales]
        assert len(found) == len(expected)
        for a, b in zip(found, expected):
            torch.testing.assert_close(a, b)
