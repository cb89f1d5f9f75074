import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mscgan.layers.unet import Code, Row, UNet, applies

TABLE = (
    Row("encoder", "CONV", 3, 1, 1, "relu", 0, "first"),
    Row("encoder", "Res_BLOCK", 3, 1, 1, "relu", 0, "every"),
    Row("encoder", "DOWN", 3, 2, 1, "relu", +1, "but last"),
    Row("decoder", "CONV_BLOCK", 3, 1, 1, "relu", "base", "every"),
    Row("decoder", "NEAREST", 1, 2, 1, "linear", "same", "but first"),
    Row("decoder", "CONV", 1, 1, 0, "relu", -1, "but first"),
    Row("decoder", "CONV", 3, 1, 1, "linear", "RGB", "first"),
)
WIDTHS = [4, 6, 10]


def shapes(network: UNet) -> dict[str, tuple[int, int]]:
    """Channels that each convolution takes and makes."""
    convs = {name.removesuffix(".conv"): module for name, module in network.named_modules() if name.endswith(".conv")}
    return {name: (conv.channels_in, conv.channels_out) for name, conv in convs.items()}


def test_rows_name_their_levels():
    chosen = {levels: [level for level in (1, 2, 3) if applies(levels, level, 3)]
              for levels in ("every", "first", "but first", "but last")}  # fmt: skip
    assert chosen == {"every": [1, 2, 3], "first": [1], "but first": [2, 3], "but last": [1, 2]}


def test_the_table_is_walked_down_and_up_with_skips_and_every_kind_of_width():
    assert shapes(UNet(TABLE, WIDTHS, channels_in=5, code=nn.Identity(), code_channels=10)) == {
        "encoder.CONV1": (5, 4), "encoder.Res_BLOCK1.conv1": (4, 4), "encoder.Res_BLOCK1.conv2": (4, 4),
        "encoder.DOWN1": (4, 6), "encoder.Res_BLOCK2.conv1": (6, 6), "encoder.Res_BLOCK2.conv2": (6, 6),
        "encoder.DOWN2": (6, 10), "encoder.Res_BLOCK3.conv1": (10, 10), "encoder.Res_BLOCK3.conv2": (10, 10),
        "decoder.CONV_BLOCK3.conv1": (10 + 10, 4), "decoder.CONV_BLOCK3.conv2": (4, 4), "decoder.CONV3": (4, 6),
        "decoder.CONV_BLOCK2.conv1": (6 + 6, 4), "decoder.CONV_BLOCK2.conv2": (4, 4), "decoder.CONV2": (4, 4),
        "decoder.CONV_BLOCK1.conv1": (4 + 4, 4), "decoder.CONV_BLOCK1.conv2": (4, 4), "decoder.CONV1": (4, 3),
    }  # fmt: skip


@pytest.mark.parametrize("code", [False, True])
@pytest.mark.parametrize("full_size_skip", [False, True])
def test_a_skip_that_is_left_out_is_neither_built_nor_joined(code, full_size_skip):
    waist = {"code": nn.Identity(), "code_channels": 10} if code else {}
    network = UNet(TABLE, WIDTHS, channels_in=5, full_size_skip=full_size_skip, **waist)
    found = shapes(network)
    assert found["decoder.CONV_BLOCK3.conv1"][0] == (20 if code else 10)
    assert found["decoder.CONV_BLOCK2.conv1"][0] == 12
    assert found["decoder.CONV_BLOCK1.conv1"][0] == (8 if full_size_skip else 4)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    assert network(torch.randn(2, 5, 16, 8)).shape == (2, 3, 16, 8)


def test_the_upsampling_rows_repeat_each_pixel():
    network = UNet(TABLE, WIDTHS, channels_in=5)
    x = torch.arange(4.0).view(1, 1, 2, 2)
    assert network.decoder["NEAREST3"](x)[0, 0].tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2


def test_the_code_is_two_linear_layers_in_channels_last_order():
    code = Code(channels_in=3, height=4, width=2, units=5, channels=6)
    x = torch.randn(2, 3, 4, 2)
    units = F.linear(x.permute(0, 2, 3, 1).reshape(2, -1), code.FC1.weight, code.FC1.bias)
    expected = F.linear(units, code.FC2.weight, code.FC2.bias).view(2, 4, 2, 6).permute(0, 3, 1, 2)
    torch.testing.assert_close(code(x), expected)
    assert code(x).is_contiguous(memory_format=torch.channels_last)
