"""What of a run changes while it trains, and so all that a checkpoint holds: networks, their average, engines.

Which networks there are and which a stage trains is the family's to say (mscgan/models). Each stage starts with fresh
optimisers; the position, in pairs, fixes the stage.
"""

import contextlib
import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mscgan.engine import MOMENTS, Engine, make_engine
from mscgan.errors import UserError
from mscgan.keys import Config
from mscgan.layers.batch_norm import sync_batch_norm
from mscgan.losses import Terms
from mscgan.models import FAMILIES
from mscgan.pieces import Piece, not_finite
from mscgan.prepare import Inputs
from mscgan.rates import kept, learning_rate


@dataclass(frozen=True)
class Share:
    """What one rank keeps of the state."""

    pieces: dict[str, Piece]
    generator: dict[str, Tensor]  # the average's weights by the names that the networks' have; empty but on rank 0
    facts: dict  # what JSON can hold, the same on every rank
    bad: str  # the name of a tensor that is not finite; empty: all are


class State:
    """The networks of a family in training.

    Attributes:
        networks: all of them, by the names that the family gives them.
        average: the average of those that make images.
        engines: those of what the stage trains.
        stage: its name; empty before the first.
        seen: pairs that the stage has trained on.

    Raises:
        UserError: CUDA graphs without CUDA.
    """

    def __init__(self, config: Config, device: torch.device, micro_batch: int):
        if config.train.cuda_graphs and device.type != "cuda":
            raise UserError("train.cuda_graphs needs a CUDA GPU; leave it out on this machine")
        self.config, self.device, self.micro_batch = config, device, micro_batch
        self.family = FAMILIES[config.family]
        self.networks = self._build()
        made = nn.ModuleDict({name: self.networks[name] for name in self.family.MAKES})
        self.average = copy.deepcopy(made).requires_grad_(False).eval()
        self.stage, self.seen = "", 0
        self.engines: dict[str, Engine] = {}

    def _build(self) -> nn.ModuleDict:
        data = self.config.data
        torch.manual_seed(self.config.train.seed)
        networks = self.family.build(self.config.options(), data.height, data.width)
        return sync_batch_norm(networks.to(self.device))

    def enter(self, stage: str) -> None:
        """Starts a stage: its networks trainable in new engines with fresh optimisers, the others frozen."""
        if self.engines:  # an engine leaves its hooks on the parameters: go on with networks that have none
            with contextlib.ExitStack() as stack:
                for engine in self.engines.values():
                    stack.enter_context(engine.gathered())
                weights = {name: tensor.cpu().clone() for name, tensor in self.networks.state_dict().items()}
            self.networks = self._build()
            self.networks.load_state_dict(weights)
        if self.stage:
            self.family.hand_over(self.stage, self.networks, self.average)
        self.stage, self.seen = stage, 0
        self.networks.requires_grad_(False).eval()
        self.engines = {name: self._engine(part) for name, part in self.family.trains(stage, self.networks).items()}

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
            lr=train.lr,  # until `step` sets what it is then
            betas=(train.betas[0], train.betas[1]),
            accumulate=train.accumulate,
            micro_batch=self.micro_batch,
        )

    def step(self, inputs: list[Inputs]) -> Terms:
        """One optimiser step of the stage, a micro-batch an element of `inputs`. Returns the mean loss terms."""
        if self.config.train.cuda_graphs:  # what the networks return may now overwrite what they returned last time
            torch.compiler.cudagraph_mark_step_begin()
        for engine in self.engines.values():
            engine.set_lr(learning_rate(self.config.train, self.stage, self.seen))
        return self.family.step(self.stage, self.engines, self.networks, inputs, self.config.options())

    @torch.no_grad()
    def follow(self, pairs: int) -> None:
        """Counts a step over `pairs` pairs and moves the average after it, by the law of rates.kept.

        What the stage does not train is its own average already.
        """
        self.seen += pairs
        with contextlib.ExitStack() as stack:
            for prefix, engine in self._prefixes().items():
                if prefix.startswith(tuple(f"{name}." for name in self.family.MAKES)):
                    stack.enter_context(engine.gathered())
            averages: list[Tensor] = []
            weights: list[Tensor] = []
            for name in self.family.MAKES:
                for average, weight in zip(self.average[name].parameters(), self.networks[name].parameters()):
                    if weight.requires_grad:
                        averages.append(average)
                        weights.append(weight)
            torch._foreach_lerp_(averages, weights, 1.0 - kept(self.config.train, pairs, self.seen))

    def start_from(self, weights: dict[str, Tensor], after: str = "") -> None:
        """Takes the weights of the networks that make images, and so their average, from another run's `export`.

        Args:
            after: the stage that they have been through, of which the next one takes over as ever.

        Raises:
            UserError: they are of other networks.
        """
        self._load(self.average, weights)
        self._load(self.networks, self.networks.state_dict() | weights)
        self.stage = after

    def share(self, rank: int, world: int, kept: dict[str, Tensor] | None = None) -> "Share":
        """This rank's share of the state, copied to the CPU: the parts of moments that it alone has, and its part of
        what all ranks have, divided by bytes. Rank 0 has the average beside it. Called by every rank.

        Args:
            kept: memory of an earlier share, which is written over: new memory would cost more than the copy.
        """
        kept = {} if kept is None else kept
        prefixes = self._prefixes()
        alike: dict[str, Tensor] = {}
        mine: dict[str, tuple[Tensor, list[int], int | None]] = {}
        for prefix, engine in prefixes.items():
            shapes = {name: list(shape) for name, shape in engine.shapes.items()}
            for moment, held in engine.moments().items():
                for name, (tensor, start) in held.items():
                    if start is None:
                        alike[f"{moment}.{prefix}{name}"] = tensor
                    else:
                        mine[f"{moment}.{prefix}{name}"] = tensor, shapes[name], start
        with contextlib.ExitStack() as stack:
            for engine in prefixes.values():
                stack.enter_context(engine.gathered())
            alike |= self.networks.state_dict()
            mine |= {name: (alike[name], list(alike[name].shape), None) for name in _divided(alike, world)[rank]}
            generator = self.average.state_dict() if rank == 0 else {}
            bad = not_finite({name: tensor for name, (tensor, *_) in mine.items()} | generator)
            copies = {name: _copy(tensor, name, kept) for name, (tensor, *_) in mine.items()}
            average = {name: _copy(tensor, f"average.{name}", kept) for name, tensor in generator.items()}
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        for name in kept.keys() - mine.keys() - {f"average.{name}" for name in generator}:
            del kept[name]  # of another stage
        pieces = {name: Piece(copies[name], shape, start) for name, (_, shape, start) in mine.items()}
        facts = {"stage": self.stage, "seen": self.seen,
                 "engines": {prefix: engine.scalars() for prefix, engine in prefixes.items()}}  # fmt: skip
        return Share(pieces, average, facts, bad)

    def restore(self, tensors: dict[str, Tensor], facts: dict) -> None:
        """Goes back to what all ranks' shares gave, joined, at any number of ranks and any ZeRO stage.

        Raises:
            UserError: the tensors are of other networks.
        """
        moments = tuple(f"{moment}." for moment in MOMENTS)
        average = _strip(tensors, "average.")
        self._load(self.average, average)
        weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(("average.", *moments))}
        self._load(self.networks, weights)
        self.enter(facts["stage"])
        self.seen = facts["seen"]
        for prefix, engine in self._prefixes().items():
            state = {moment: _strip(tensors, f"{moment}.{prefix}") for moment in MOMENTS}
            buffers = {name: tensors[prefix + name] for name, _ in engine.module.named_buffers()}
            weights = {name: tensors[prefix + name] for name, _ in engine.module.named_parameters()}
            engine.load(state | {"weights": weights, "buffers": buffers} | facts["engines"][prefix])

    def _load(self, module: nn.Module, tensors: dict[str, Tensor]) -> None:
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            why = f"these weights are of other networks ({reason})"
            raise UserError(
                f"{why}; set family, data and {self.config.family} as they were, or use the version that wrote them"
            ) from error

    def _prefixes(self) -> dict[str, Engine]:
        """The engines by how the names of what they train begin, in the networks and so in a checkpoint: "G.G1."."""
        places = {module: f"{name}." for name, module in self.networks.named_modules()}
        return {places[engine.module]: engine for engine in self.engines.values()}


def _divided(tensors: dict[str, Tensor], world: int) -> list[list[str]]:
    """Names of the tensors for each rank, about as many bytes each; the same on every rank."""
    names: list[list[str]] = [[] for _ in range(world)]
    loads = [0] * world
    for name in sorted(tensors, key=lambda name: (-tensors[name].nbytes, name)):
        least = loads.index(min(loads))
        names[least].append(name)
        loads[least] += tensors[name].nbytes
    return names


def _copy(tensor: Tensor, name: str, kept: dict[str, Tensor]) -> Tensor:
    """A copy on the CPU, in the memory that `kept` has by the name or in new; from a GPU it may still be under way."""
    memory = kept.get(name)
    if memory is None or (memory.shape, memory.dtype) != (tensor.shape, tensor.dtype):
        memory = kept[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return memory.copy_(tensor.detach(), non_blocking=True)


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
