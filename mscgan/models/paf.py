"""The pose estimator by part affinity fields (Cao et al., CVPR 2017): it makes no image, but finds the pose in one.

It learns from both images of a pair and their keypoints, which are mirrored before anything is drawn of them. The
network, what it learns to draw and how poses are read from it are in mscgan/paf; there is the command, too.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mscgan import keys
from mscgan.estimators import rescaled
from mscgan.losses import Terms, mean
from mscgan.ops.condition import normalise
from mscgan.paf.decode import decode, smoothing
from mscgan.paf.network import FIELDS, PAF, STRIDE, as_input
from mscgan.paf.targets import targets
from mscgan.pictures import COLOURS, draw_pose_on, to_uint8
from mscgan.pose import JOINTS
from mscgan.prepare import Inputs

MAKES = ("PAF",)


def build(options: keys.PAF, height: int, width: int) -> nn.ModuleDict:
    """{"PAF"}."""
    return nn.ModuleDict({"PAF": PAF(options.stages, options.width, options.base, options.enlarge)})


def trains(stage: str, networks: nn.ModuleDict) -> dict[str, nn.Module]:
    return {name: networks[name] for name in {"pose": ("PAF",)}[stage]}


def hand_over(before: str, networks: nn.ModuleDict, average: nn.ModuleDict) -> None:
    """There is one stage."""


def step(stage: str, engines: dict, networks: nn.ModuleDict, inputs: list[Inputs], options: keys.PAF) -> Terms:
    """Every stage of the network learns the same targets, by the squared error's mean over channels and cells.

    The original takes sums, where 38 channels of fields stand against 19 maps: hence lambda_paf, 2 by default.
    """
    engine, terms = engines["PAF"], []
    for batch in inputs:
        made = engine(as_input(torch.cat([batch.x, batch.y]), options.enlarge)).float()  # (stages, 2N, 57, h, w)
        with torch.no_grad():
            keypoints = torch.cat([batch.x_keypoints, batch.y_keypoints])
            true = targets(
                _enlarged(keypoints, options.enlarge)[:, None],
                made.shape[3] * STRIDE,
                made.shape[4] * STRIDE,
                options.sigma,
                options.missing,
            )
        fields, maps = made.split([FIELDS, made.shape[2] - FIELDS], 2)
        paf = _error(fields, true.fields, true.field_weights)
        heat = _error(maps, true.maps, true.map_weights)
        engine.backward(options.lambda_paf * paf + heat)
        engine.step()
        terms.append({"paf": paf.detach(), "heat": heat.detach()})
    return mean(terms)


def _error(made: Tensor, true: Tensor, weights: Tensor) -> Tensor:
    """The sum over the network's stages of the mean of weights * (made - true)^2."""
    return (weights * (made - true).square()).mean((1, 2, 3, 4)).sum()


def _enlarged(keypoints: Tensor, enlarge: int) -> Tensor:
    """The keypoints in the enlarged image."""
    return torch.where(keypoints == -1, -1.0, (keypoints + 0.5) * enlarge - 0.5)


def images(stage: str, networks: nn.ModuleDict, inputs: Inputs) -> dict[str, Tensor]:
    """Of the source x: all joints' confidence maps, each in its colour, and the pose that is found, drawn on it."""
    network, x = networks["PAF"], inputs.x.float()
    assert isinstance(network, PAF)
    made = network(as_input(x, network.enlarge))[-1].float()  # (N, 57, h, w)
    height, width = x.shape[2] * network.enlarge, x.shape[3] * network.enlarge
    maps = F.interpolate(made, (height, width), mode="bicubic")
    colours = torch.tensor(COLOURS, device=x.device) / 255  # (18, 3)
    glow = torch.einsum("njhw,jc->nchw", F.interpolate(made[:, FIELDS:-1], x.shape[2:], mode="bicubic"), colours)
    found = []
    for image, one in zip(to_uint8(x), maps, strict=True):
        people = decode(one[:FIELDS], one[FIELDS:], smoothing(height))
        keypoints = people[0].keypoints if people else np.full((len(JOINTS), 2), -1.0)
        found.append(draw_pose_on(image, rescaled(keypoints, (width, height), x.shape[:1:-1])))
    drawn = torch.from_numpy(np.stack(found)).to(x.device)
    return {"confidence maps": glow.clamp(0, 1) * 2 - 1, "pose found": normalise(drawn, torch.zeros_like(inputs.flip))}
