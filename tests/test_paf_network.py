import re

import pytest
import torch
import torch.nn.functional as F

from mscgan.paf.limbs import ASSEMBLY, LIMBS
from mscgan.paf.network import PAF, as_input

TRUNK = (
    "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv3_4 conv4_1 conv4_2 conv4_3_CPM conv4_4_CPM".split()
)


def parameters(network: PAF, pattern: str) -> int:
    return sum(weight.numel() for name, weight in network.named_parameters() if re.match(pattern, name))


def test_the_released_network_has_its_layers_and_52_311_446_parameters():
    network = PAF()
    assert parameters(network, "") == 52_311_446
    assert parameters(network, r"conv[1-4]") == 7_340_480
    assert parameters(network, r"conv5") == 1_046_841
    assert {parameters(network, rf"Mconv\d_stage{stage}_") for stage in range(2, 7)} == {8_784_825}
    first = {f"conv5_{i}_CPM_{branch}" for i in range(1, 6) for branch in ("L1", "L2")}
    later = {f"Mconv{i}_stage{t}_{branch}" for i in range(1, 8) for t in range(2, 7) for branch in ("L1", "L2")}
    names = {name for name, module in network.named_modules() if name}
    assert names == {*TRUNK, *first, *later} and len(names) == 92
    shapes = {name: tuple(network.state_dict()[f"{name}.weight"].shape) for name in names}
    assert shapes["conv1_1"] == (64, 3, 3, 3) and shapes["conv4_3_CPM"] == (256, 512, 3, 3)
    assert shapes["conv5_4_CPM_L1"] == (512, 128, 1, 1) and shapes["Mconv1_stage2_L2"] == (128, 185, 7, 7)
    assert shapes["Mconv7_stage6_L1"] == (38, 128, 1, 1) and shapes["Mconv7_stage6_L2"] == (19, 128, 1, 1)


@pytest.mark.parametrize(("stages", "count"), [(2, 1_215_746), (3, 1_900_571)])
def test_smaller_ones_have_as_many_as_were_counted(stages, count):
    assert parameters(PAF(stages, width=32, base=16), "") == count


def test_an_input_of_184x368_gives_cells_of_8_pixels():
    with torch.no_grad():
        assert PAF(2, 8, 8)(torch.zeros(3, 3, 184, 368)).shape == (2, 3, 57, 23, 46)


def by_hand(weights: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """The two stages of a small network, layer by layer from its weights."""

    def conv(name: str, x: torch.Tensor, relu: bool = True) -> torch.Tensor:
        weight = weights[f"{name}.weight"]
        y = F.conv2d(x, weight, weights[f"{name}.bias"], padding=(weight.shape[-1] - 1) // 2)
        return y.clamp(min=0) if relu else y

    for name in TRUNK:
        if name in ("conv2_1", "conv3_1", "conv4_1"):
            x = F.max_pool2d(x, 2, 2)
        x = conv(name, x)
    features, outputs = x, []
    for branch in ("L1", "L2"):
        for i in range(1, 5):
            x = conv(f"conv5_{i}_CPM_{branch}", x if i > 1 else features)
        outputs.append(conv(f"conv5_5_CPM_{branch}", x, relu=False))
    first = torch.cat(outputs, 1)
    before, outputs = torch.cat([*outputs, features], 1), []
    for branch in ("L1", "L2"):
        x = before
        for i in range(1, 7):
            x = conv(f"Mconv{i}_stage2_{branch}", x)
        outputs.append(conv(f"Mconv7_stage2_{branch}", x, relu=False))
    return [first, torch.cat(outputs, 1)]


def test_forward_is_the_layers_one_after_another():
    torch.manual_seed(0)
    network = PAF(2, 8, 8)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    x = torch.randn(2, 3, 32, 24)
    with torch.no_grad():
        made, expected = network(x), by_hand(network.state_dict(), x)
    for stage in (0, 1):
        torch.testing.assert_close(made[stage], expected[stage])
    assert made[1, :, 38:].min() < 0 and made[1, :, :38].min() < 0  # neither branch ends with a ReLU


def test_the_input_is_bgr_over_256_less_a_half():
    pixels = torch.tensor([255.0, 128.0, 0.0]).view(1, 3, 1, 1)
    made = as_input(pixels / 127.5 - 1).flatten()
    torch.testing.assert_close(made, torch.tensor([0 / 256, 128 / 256, 255 / 256]) - 0.5)


def test_an_enlarged_image_has_pixel_p_at_its_middle():
    image = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 3, 8, 8) / 127.5 - 1  # a ramp: a pixel's value is its place
    row = (as_input(image, 2)[0, 0, 0] + 0.5) * 256
    place = 3
    torch.testing.assert_close(row[[2 * place, 2 * place + 1]].mean(), torch.tensor(float(place)))


def test_both_orders_of_the_limbs_name_the_same_joints():
    agree = [LIMBS[x // 2] == (a, b) and y == x + 1 and x % 2 == 0 for a, b, (x, y) in ASSEMBLY]
    assert agree == [True] * 19 and len({channels for *_, channels in ASSEMBLY}) == 19
    assert ASSEMBLY[17:] == ((2, 16, (18, 19)), (5, 17, (26, 27)))  # which begin no person
