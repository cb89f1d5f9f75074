"""The network of part affinity fields (Cao et al., CVPR 2017), its layers named as the released one's.

Constants are of ZheC/Realtime_Multi-Person_Pose_Estimation (training/setLayers.py, the deployed prototxt). Ten layers
of VGG-19 and two more give the features F at an eighth of the input's size. From F the first stage makes fields and
confidence maps, and each later stage makes them anew from its predecessor's and F. No norm, no sigmoid; every layer has
a ReLU but the last of each branch and stage, in both branches (some ports have one after the last layer of L2).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 8
FIELDS = 38  # channels of branch L1: x and y of 19 limbs (paf/limbs.py)
MAPS = 19  # channels of branch L2: 18 joints, then the background
OUTPUTS = {"L1": FIELDS, "L2": MAPS}


class Row(NamedTuple):
    """A convolution that keeps the size: its name, kernel, and channels as a multiple of `unit`."""

    layer: str
    kernel: int
    times: int
    unit: str  # "base", "width", or "out": of the branch's output


POOL = "pool"  # 2x2, stride 2

TRUNK = (
    #    layer          kernel channels (base 64, width 128)
    Row("conv1_1",         3,    1, "base"),
    Row("conv1_2",         3,    1, "base"),
    POOL,
    Row("conv2_1",         3,    2, "base"),
    Row("conv2_2",         3,    2, "base"),
    POOL,
    Row("conv3_1",         3,    4, "base"),
    Row("conv3_2",         3,    4, "base"),
    Row("conv3_3",         3,    4, "base"),
    Row("conv3_4",         3,    4, "base"),
    POOL,
    Row("conv4_1",         3,    8, "base"),
    Row("conv4_2",         3,    8, "base"),
    Row("conv4_3_CPM",     3,    4, "base"),
    Row("conv4_4_CPM",     3,    1, "width"),
)  # fmt: skip

FIRST_STAGE = (  # a branch, "L1" or "L2"
    Row("conv5_1_CPM_{branch}",  3, 1, "width"),
    Row("conv5_2_CPM_{branch}",  3, 1, "width"),
    Row("conv5_3_CPM_{branch}",  3, 1, "width"),
    Row("conv5_4_CPM_{branch}",  1, 4, "width"),
    Row("conv5_5_CPM_{branch}",  1, 1, "out"),
)  # fmt: skip

LATER_STAGE = (  # a branch of stages 2 to 6
    Row("Mconv1_stage{stage}_{branch}", 7, 1, "width"),
    Row("Mconv2_stage{stage}_{branch}", 7, 1, "width"),
    Row("Mconv3_stage{stage}_{branch}", 7, 1, "width"),
    Row("Mconv4_stage{stage}_{branch}", 7, 1, "width"),
    Row("Mconv5_stage{stage}_{branch}", 7, 1, "width"),
    Row("Mconv6_stage{stage}_{branch}", 1, 1, "width"),
    Row("Mconv7_stage{stage}_{branch}", 1, 1, "out"),
)  # fmt: skip


class PAF(nn.Module):
    """forward(input) -> (stages, N, 57, h / 8, w / 8): of each stage 38 channels of fields, then 19 confidence maps.

    The input is what `as_input` makes, (N, 3, h, w), h and w multiples of 8.

    Args:
        stages: 1 to 6.
        width: channels of F and of the stages' layers.
        base: channels of the trunk's first layer.
        enlarge: how many times images are enlarged for it, for `as_input`: a cell of the output covers 8 / enlarge
            pixels of an image.

    The parameters are 52,311,446 with 6, 128 and 64, the released network. Weights are drawn by He's rule, those of the
    last layers with a deviation of 0.01. The original draws all with 0.01, which takes a trunk that is trained already:
    through twelve such layers little of an image is left.
    """

    def __init__(self, stages: int = 6, width: int = 128, base: int = 64, enlarge: int = 1):
        super().__init__()
        self.stages, self.enlarge = stages, enlarge
        units = {"base": base, "width": width}
        self._add(TRUNK, 3, units)
        for stage in range(1, stages + 1):
            for branch, out in OUTPUTS.items():
                channels = width if stage == 1 else FIELDS + MAPS + width
                self._add(_branch(stage, branch), channels, units | {"out": out})

    def _add(self, rows: tuple, channels: int, units: dict[str, int]) -> None:
        for row in rows:
            if row == POOL:
                continue
            conv = nn.Conv2d(channels, row.times * units[row.unit], row.kernel, padding=row.kernel // 2)
            if row.unit == "out":
                nn.init.normal_(conv.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
            self.add_module(row.layer, conv)
            channels = conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        features = self._walk(TRUNK, x)  # F: (N, width, h / 8, w / 8)
        made: list[Tensor] = []
        for stage in range(1, self.stages + 1):
            before = torch.cat([made[-1], features], 1) if made else features  # (N, 57 + width, h / 8, w / 8)
            made.append(torch.cat([self._walk(_branch(stage, branch), before) for branch in OUTPUTS], 1))
        return torch.stack(made)

    def _walk(self, rows: tuple, x: Tensor) -> Tensor:
        for row in rows:
            if row == POOL:
                x = F.max_pool2d(x, 2)
            else:
                x = self.get_submodule(row.layer)(x)
                x = x if row.unit == "out" else F.relu(x, inplace=True)
        return x


def _branch(stage: int, branch: str) -> tuple[Row, ...]:
    rows = FIRST_STAGE if stage == 1 else LATER_STAGE
    return tuple(row._replace(layer=row.layer.format(stage=stage, branch=branch)) for row in rows)


def as_input(images: Tensor, enlarge: int = 1) -> Tensor:
    """RGB images (N, 3, H, W) in [-1, 1] -> what the network takes, (N, 3, H * enlarge, W * enlarge).

    That is BGR, v / 256 - 0.5 for v of 0 to 255, as Caffe and the released weights have it; pose-gan's port divides by
    255. Enlarged bilinearly; pixel p of an image is then at (p + 0.5) * enlarge - 0.5.
    """
    values = (images.flip(1) + 1) * (127.5 / 256) - 0.5
    if enlarge == 1:
        return values
    return F.interpolate(values, scale_factor=enlarge, mode="bilinear", align_corners=False)
