"""What networks and steps cost: shapes, parameters and FLOPs, of any family, without computing anything.

    python -m mscgan.costs --config market1501 family=pg2     prints every layer, and the GFLOP of each stage's step

A family's own step runs on the meta device, where tensors have a shape and no content, and torch's counter counts:
2 FLOPs a multiply-add of convolutions and fully connected layers.
"""

import contextlib
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mscgan.arguments import Parser
from mscgan.keys import STAGES, Config
from mscgan.layers.convolution import Layer
from mscgan.models import FAMILIES


class Cost(NamedTuple):
    layer: str
    kind: str  # "3*3 / 2": kernel and stride; or "FC"
    output: tuple[int, ...]  # of one image
    parameters: int
    gflop: float  # forward of one image


class _Engine:
    """A bare network in an engine's place."""

    def __init__(self, module: nn.Module, learns: bool):
        self.module, self._learns = module, learns

    def __call__(self, *args):
        return self.module(*args)

    def autocast(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        if self._learns:
            loss.backward()

    def step(self) -> None:
        self.module.zero_grad()


def layers(config: Config) -> dict[str, list[Cost]]:
    """Every layer of every network, {network: rows in the order in which they run}."""
    networks = _build(config)
    calls: dict[nn.Module, tuple[tuple[int, ...], float]] = {}
    counter, began = FlopCounterMode(display=False), {}

    def enter(module: nn.Module, _args: tuple) -> None:
        began[module] = counter.get_total_flops()

    def leave(module: nn.Module, _args: tuple, output: Tensor) -> None:
        gflop = 1e-9 * (counter.get_total_flops() - began[module]) / len(output)
        calls.setdefault(module, (tuple(output.shape[1:]), gflop))  # a discriminator runs several times in a step

    for module in networks.modules():
        if isinstance(module, Layer | nn.Linear | nn.Conv2d):
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave)
    with counter:
        for stage in STAGES[config.family]:
            _step(config, networks, stage, learns=False)
    return {
        title: [_cost(name, module, *calls[module]) for name, module in network.named_modules() if module in calls]
        for title, network in _each(networks)
    }


def step_gflop(config: Config, stage: str) -> float:
    """GFLOP a pair of a whole step, forward and backward: what its mathematics needs, whatever an engine adds."""
    with FlopCounterMode(display=False) as counter:
        _step(config, _build(config), stage, learns=True)
    return counter.get_total_flops() / 1e9


def trained_parameters(config: Config, stage: str) -> dict[str, int]:
    """Parameters whose gradients the ranks exchange, by engine."""
    trained = _family(config).trains(stage, _build(config))
    return {name: _parameters(module) for name, module in trained.items()}


def _family(config: Config) -> ModuleType:
    return FAMILIES[config.family]


def _build(config: Config) -> nn.ModuleDict:
    with torch.device("meta"):
        return _family(config).build(config.options(), config.data.height, config.data.width)


def _step(config: Config, networks: nn.ModuleDict, stage: str, learns: bool) -> None:
    """The family's step on one pair."""
    size = config.data.height, config.data.width
    image, condition, mask = (torch.empty(1, channels, *size, device="meta") for channels in (3, 21, 1))
    keypoints = torch.empty(1, 18, 2, device="meta")
    inputs = SimpleNamespace(
        condition=condition, x=image, y=image, mask=mask, x_keypoints=keypoints, y_keypoints=keypoints
    )
    networks.requires_grad_(False)
    trained = _family(config).trains(stage, networks)
    engines = {name: _Engine(module.requires_grad_(True), learns) for name, module in trained.items()}
    _family(config).step(stage, engines, networks, [inputs], config.options())


def _each(networks: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The networks of a family, those inside another one (G1 in the generators) by themselves."""
    for name, module in networks.named_children():
        kinds = nn.Linear | nn.Conv2d | nn.Sequential | nn.ModuleDict
        holds_layers = any(isinstance(child, kinds) for child in module.children())
        if holds_layers:
            yield name, module
        else:
            yield from _each(module)


def _cost(name: str, module: nn.Module, output: tuple[int, ...], gflop: float) -> Cost:
    kind = "FC"
    if isinstance(module, Layer):
        kernel = module.conv.weight.shape[1]
        kind = f"{kernel}*{kernel} / {module.conv.stride}"
    elif isinstance(module, nn.Conv2d):
        kind = f"{module.kernel_size[0]}*{module.kernel_size[1]} / {module.stride[0]}"
    return Cost(name, kind, output, _parameters(module), gflop)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> None:
    from mscgan.config import load  # with packages that counting does without

    parser = Parser(prog="python -m mscgan.costs", description="Print the networks' tables.")
    parser.add_argument("--config", default="market1501", help="preset, or path of a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    given = parser.parse_args()
    config = load(given.config, given.overrides)
    size = f"{config.data.height}x{config.data.width}"
    print(f"{config.family} at {size}, base {config.options().base}; GFLOP: forward of one image\n")
    for title, rows in layers(config).items():
        print(f"{title:28}{'kernel':>9}{'output':>18}{'parameters':>14}{'GFLOP':>10}")
        for row in rows:
            shape = "x".join(map(str, row.output))
            print(f"  {row.layer:26}{row.kind:>9}{shape:>18}{row.parameters:>14,}{row.gflop:>10.3f}")
        parameters, gflop = sum(row.parameters for row in rows), sum(row.gflop for row in rows)
        print(f"  {'total':53}{parameters:>14,}{gflop:>10.3f}\n")
    for stage in STAGES[config.family]:
        print(f"a step of stage {stage}: {step_gflop(config, stage):,.1f} GFLOP a pair, forward and backward")


if __name__ == "__main__":
    from mscgan.errors import run

    run(main)
