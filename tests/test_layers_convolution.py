import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mscgan.layers.convolution import SLOPE, Block, Convolution, Layer, draw_weights, flatten
from mscgan.ops.bias_act import bias_act

ACTS = {"relu": F.relu, "leaky_relu": lambda y: F.leaky_relu(y, 0.2), "linear": lambda y: y}


def drawn(module: nn.Module) -> nn.Module:
    """Every parameter random, biases and BatchNorm's included."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        # Four rows take one of zeros for windows of three, rows 0 to 2 and 2 to 4: it comes last.
        (3, [[54, 3 + 4 + 7 + 8 + 11 + 12], [9 + 10 + 11 + 13 + 14 + 15, 11 + 12 + 15 + 16]]),
        # Three of them for windows of five, rows -1 to 3 and 1 to 5: one comes first, two come last.
        (5, [[136, 136 - 1 - 5 - 9 - 13], [136 - 1 - 2 - 3 - 4, 6 + 7 + 8 + 10 + 11 + 12 + 14 + 15 + 16]]),
    ],
)
def test_SAME_pads_the_bottom_and_the_right_more_as_tensorflow_does(kernel, expected):
    convolution = Convolution(1, 1, kernel, stride=2, padding="SAME", bias=False)
    nn.init.ones_(convolution.weight)
    image = torch.arange(1.0, 17).view(1, 1, 4, 4)
    assert convolution(image, None)[0, 0].tolist() == expected


def test_a_padding_that_is_neither_pixels_nor_SAME_is_refused():
    with pytest.raises(ValueError, match="VALID"):
        Convolution(1, 1, 3, stride=1, padding="VALID")


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_SAME_at_stride_1_keeps_the_size_with_as_many_zeros_on_each_side(kernel):
    convolution = drawn(Convolution(2, 3, kernel, stride=1, padding="SAME"))
    x = torch.randn(2, 2, 6, 4)
    expected = F.conv2d(x, convolution.weight.permute(0, 3, 1, 2), convolution.bias, padding=kernel // 2)
    torch.testing.assert_close(convolution(x, convolution.bias), expected)


def test_channels_that_fill_the_input_up_count_for_nothing_and_others_are_refused():
    convolution = drawn(Convolution(6, 4, 3, 1))
    x = torch.randn(2, 6, 8, 8)
    padded = torch.cat([x, torch.randn(2, 2, 8, 8)], 1)  # any content
    torch.testing.assert_close(convolution(padded, convolution.bias), convolution(x, convolution.bias))
    with pytest.raises(AssertionError, match="7 channels; expected 6 or 8"):
        convolution(torch.zeros(1, 7, 8, 8), None)


@pytest.mark.parametrize("act", ACTS)
def test_a_norm_comes_before_the_layers_own_activation_and_the_residual_after_it(act):
    layer = drawn(Layer(3, 5, 3, 1, act, norm=True))
    x, residual = torch.randn(4, 3, 6, 6), torch.randn(4, 5, 6, 6)
    y = F.conv2d(x, layer.conv.weight.permute(0, 3, 1, 2), layer.conv.bias, padding=1)
    y = F.batch_norm(y, None, None, layer.norm.weight, layer.norm.bias, training=True)
    torch.testing.assert_close(layer(x, residual), ACTS[act](y) + residual)


def test_an_activation_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="activation 'gelu'; choose relu, leaky_relu, linear"):
        Layer(3, 5, 3, 1, "gelu")


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("up", [False, True])
def test_the_pass_that_cuda_fuses_is_the_same_sum(act, up):
    layer = drawn(Layer(4, 6, 3, 2, act, up=up))
    x = torch.randn(2, 4, 8, 8)
    residual = torch.randn(2, 6, 16, 16) if up else torch.randn(2, 6, 4, 4)
    fused = bias_act(layer.conv(x, None), layer.conv.bias, residual, act, SLOPE)
    torch.testing.assert_close(layer(x, residual), fused)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_cuda_sides_and_channels_are_padded_together():
    layer = drawn(Layer(6, 8, 5, 2, "leaky_relu", "SAME")).double()
    x, residual = torch.randn(4, 6, 8, 8).double(), torch.randn(4, 8, 4, 4).double()
    expected = layer(x, residual)
    torch.testing.assert_close(layer.cuda()(x.cuda(), residual.cuda()).cpu(), expected)


@pytest.mark.parametrize("channels_in", [6, 4])
def test_a_residual_blocks_identity_starts_where_its_width_is_reached(channels_in):
    block = drawn(Block(channels_in, 4, 3, "relu", residual=True))
    x = torch.randn(2, channels_in, 8, 8)
    first = block.conv1(x)
    torch.testing.assert_close(block(x), block.conv2(first) + (x if channels_in == 4 else first))


def test_flatten_keeps_the_order_of_channels_last_memory():
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert flatten(x).data_ptr() == x.data_ptr() and flatten(x).shape == (2, 60)
    assert flatten(x)[1, 3 * (5 * 2 + 1) + 2] == x[1, 2, 2, 1]


def test_weights_are_drawn_in_torchs_order_of_dimensions_and_biases_are_zero():
    network = nn.Sequential(Layer(3, 8, 3, 1, "relu"), Layer(8, 3, 4, 2, "relu", up=True), nn.Linear(5, 7))
    shapes = []

    def twos(weight):
        shapes.append(tuple(weight.shape))
        nn.init.constant_(weight, 2)

    draw_weights(network, twos)
    assert shapes == [(8, 3, 3, 3), (8, 3, 4, 4), (7, 5)]
    for name, parameter in network.named_parameters():
        assert (parameter == (0 if name.endswith("bias") else 2)).all(), name
