"""Which networks train when, and everything of them that a checkpoint holds.

Stage I trains G1 alone. Stage II trains G2 and the discriminators beside a frozen G1, which is the average (EMA) that
stage I ends with. Stage `joint` trains all of them. Each stage starts with fresh optimisers; the position, in pairs,
fixes the stage.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mscgan.batch_norm import sync_batch_norm
from mscgan.config import Config
from mscgan.engine import MOMENTS, Engine, make_engine
from mscgan.errors import UserError
from mscgan.networks import Discriminators, Generators


SCALARS = ("step", "loss_scale")  # Adam's, and fp16's where it is used


@dataclass(frozen=True)
class Stage:
    name: str  # I | II | joint
    end: int  # pairs consumed when the stage is over


def schedule(images_I: int, images_II: int, images_joint: int) -> list[Stage]:
    """The stages of a run in their order, those without pairs left out.

    Raises:
        UserError: no stage has pairs.
    """
    stages, end = [], 0
    for name, images in (("I", images_I), ("II", images_II), ("joint", images_joint)):
        end += images
        if images:
            stages.append(Stage(name, end))
    if not stages:
        raise UserError("train.images_I, images_II and images_joint are all 0: there is nothing to train")
    return stages


class Networks:
    """The generators, their average and the discriminators, and the engines of the stage that trains now.

    `G` is the engine of what the stage trains of the generators, `D` of the discriminators (None in stage I).

    Raises:
        UserError: CUDA graphs without CUDA.
    """

    def __init__(self, config: Config, device: torch.device, micro_batch: int):
        if config.train.cuda_graphs and device.type != "cuda":
            raise UserError("train.cuda_graphs needs a CUDA GPU; leave it out on this machine")
        self.config, self.device, self.micro_batch = config, device, micro_batch
        self.generators, self.discriminators = self._build()
        self.average = copy.deepcopy(self.generators).requires_grad_(False).eval()
        self.stage = ""
        self.G: Engine | None = None
        self.D: Engine | None = None

    def _build(self) -> tuple[Generators, Discriminators]:
        height, width, model = self.config.data.height, self.config.data.width, self.config.model
        torch.manual_seed(self.config.train.seed)
        generators = Generators(height, width, model.base)
        discriminators = Discriminators(height, width, model.base, model.discriminators)
        return generators.to(self.device), sync_batch_norm(discriminators.to(self.device))

    def enter(self, stage: str) -> None:
        """Starts a stage: its networks trainable in new engines with fresh optimisers, the others frozen."""
        if self.G is not None:  # an engine leaves its hooks on the parameters: go on with networks that have none
            tensors, _ = self.state()
            self.generators, self.discriminators = self._build()
            self.generators.load_state_dict(_strip(tensors, "G."))
            self.discriminators.load_state_dict(_strip(tensors, "D."))
        if self.stage == "I":
            self.generators.G1.load_state_dict(self.average.G1.state_dict())
        self.stage = stage
        self.generators.requires_grad_(False)
        trained = {"I": self.generators.G1, "II": self.generators.G2, "joint": self.generators}[stage]
        self.G = self._engine(trained)
        self.D = None if stage == "I" else self._engine(self.discriminators)

    def _engine(self, module: nn.Module) -> Engine:
        train = self.config.train
        module.requires_grad_(True).train()
        if train.compile or train.cuda_graphs:
            module.compile(mode="reduce-overhead" if train.cuda_graphs else None)
        return make_engine(
            module,
            backend=train.backend,
            zero=train.zero,
            precision=train.precision,
            lr=train.lr,
            betas=tuple(train.betas),
            accumulate=train.accumulate,
            micro_batch=self.micro_batch,
        )

    def begin(self) -> None:
        """Before a step: what its networks return may from now on overwrite what they returned in the last one."""
        if self.config.train.cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()

    @torch.no_grad()
    def follow(self, pairs: int) -> None:
        """Moves the average after a step over `pairs` pairs: after train.ema_halflife pairs a weight counts half."""
        decay = 0.5 ** (pairs / self.config.train.ema_halflife)
        with self.G.gathered():
            averages, weights = list(self.average.parameters()), list(self.generators.parameters())
            torch._foreach_lerp_(averages, weights, 1.0 - decay)

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Takes the generators' weights, and so their average, from another run's `export`.

        Raises:
            UserError: they are of networks of another size.
        """
        self._load({"G": weights, "average": weights})

    def export(self) -> dict[str, Tensor]:
        """The average's weights on the CPU, by name: "G1.…" and "G2.…"."""
        return _cpu(self.average.state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Named tensors on the CPU and JSON facts from which `restore` goes on. Called by every rank."""
        tensors, trained = {}, tuple(self._engines())
        for name, module in (("G", self.generators), ("average", self.average), ("D", self.discriminators)):
            named = {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}
            tensors |= _cpu({key: tensor for key, tensor in named.items() if not key.startswith(trained)})
        facts = {"stage": self.stage, "engines": {}}
        for prefix, engine in self._engines().items():
            state = engine.state()
            tensors |= {prefix + name: tensor for name, tensor in (state["weights"] | state["buffers"]).items()}
            for moment in MOMENTS:
                tensors |= {f"{moment}.{prefix}{name}": tensor for name, tensor in state[moment].items()}
            facts["engines"][prefix] = {name: state[name] for name in SCALARS if name in state}
        return tensors, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict) -> None:
        """Goes back to what `state` gave, at any number of ranks and any ZeRO stage.

        Raises:
            UserError: the tensors are of networks of another size.
        """
        self._load({name: _strip(tensors, f"{name}.") for name in ("G", "average", "D")})
        self.enter(facts["stage"])
        for prefix, engine in self._engines().items():
            state = {moment: _strip(tensors, f"{moment}.{prefix}") for moment in MOMENTS}
            buffers = {name: tensors[prefix + name] for name, _ in engine.module.named_buffers()}
            weights = {name: tensors[prefix + name] for name, _ in engine.module.named_parameters()}
            engine.load(state | {"weights": weights, "buffers": buffers} | facts["engines"][prefix])

    def _load(self, weights: dict[str, dict[str, Tensor]]) -> None:
        modules = {"G": self.generators, "average": self.average, "D": self.discriminators}
        try:
            for name, tensors in weights.items():
                modules[name].load_state_dict(tensors)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            why = f"these weights are of other networks ({reason})"
            raise UserError(f"{why}; set data and model as they were, or use the version that wrote them") from error

    def _engines(self) -> dict[str, Engine]:
        """The engines by the prefix of their networks' names in a checkpoint."""
        engines = {{"I": "G.G1.", "II": "G.G2.", "joint": "G."}[self.stage]: self.G}
        return engines | ({"D.": self.D} if self.D else {})


def _cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
