"""One network's training engine: DeepSpeed (ZeRO 0-3) or plain DDP behind the same few methods.

A GAN step uses two engines, G's and D's. DeepSpeed reduces gradients from hooks on its engine's outputs, so three rules
hold at every ZeRO stage: D's engine runs D's own forward and backward and nothing else; G's loss goes through D's raw
`engine.module` with requires_grad off; each engine has one backward in a step. `moments()` and `load()` speak of named
tensors, so that a checkpoint fits any number of ranks, any ZeRO stage and either backend.
"""

import contextlib
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mscgan import dist
from mscgan.errors import UserError
from mscgan.layers.convolution import Convolution

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Gradients are reduced in buckets of so many elements: small enough that G's reduction overlaps its backward, large
# enough for full bandwidth.
BUCKET = 25_000_000
# DeepSpeed sends gradients in 16 bits for parameters of exactly these classes.
SENT_IN_16_BITS = (Convolution, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
MOMENTS = ("exp_avg", "exp_avg_sq")


class Engine(ABC):
    """What `make_engine` returns: `.module` is the raw network, `.shapes` its parameters', the methods train it.

    Each micro-batch takes one `engine(...)`, one `backward(loss)` and one `step()`. Every `accumulate`-th step changes
    the weights, by the mean gradient over micro-batches and ranks.
    """

    def __init__(self, module: nn.Module, precision: str, accumulate: int):
        self.module = module
        self._accumulate = accumulate
        self._dtype = DTYPES.get(precision)
        self._device = next(module.parameters()).device
        self.shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        self._trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        self._optimizer: torch.optim.Adam
        self._scaler: Any = None  # in fp16 torch's GradScaler or _LossScale

    @abstractmethod
    def __call__(self, *args): ...

    @abstractmethod
    def backward(self, loss: Tensor) -> None: ...

    @abstractmethod
    def step(self) -> None: ...

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next step."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    @abstractmethod
    def moments(self) -> dict[str, dict[str, tuple[Tensor, int | None]]]:
        """Adam's moments of the trainable parameters as this rank holds them, in place: {"exp_avg", "exp_avg_sq":
        {parameter's name: (tensor, start)}}. Where start is None the tensor is whole, and every rank has it; else it
        is the part of the flattened moment that begins there, and one rank has it."""

    @abstractmethod
    def _adam_step(self) -> int: ...

    @abstractmethod
    def _set_weights(self, weights: dict[str, Tensor]) -> None: ...

    @abstractmethod
    def _set_moments(self, state: dict) -> None: ...

    def autocast(self) -> contextlib.AbstractContextManager:
        """The mixed-precision context of this engine, for raw modules used beside it; nothing for fp32."""
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None)

    def gathered(self) -> contextlib.AbstractContextManager:
        """A context to read `.module`'s weights in: ZeRO 3 spreads them over the ranks. All ranks must enter it."""
        return contextlib.nullcontext()

    def scalars(self) -> dict[str, float]:
        """{"step": Adam's} and in fp16 "loss_scale"."""
        scalars: dict[str, float] = {"step": self._adam_step()}
        if self._scaler:
            scalars["loss_scale"] = self._scaler.get_scale()
        return scalars

    def load(self, state: dict) -> None:
        """Restores weights, buffers, moments and scalars, or weights and buffers alone. All ranks must call it.

        Args:
            state: {"weights", "exp_avg", "exp_avg_sq": {parameter's name: float32 tensor}, "buffers": {name: tensor}},
                whole tensors whatever rank had them, beside what `scalars` gives.

        Raises:
            UserError: names or shapes are not this network's.
        """
        _check("weights", state["weights"], self.shapes)
        _check("buffers", state["buffers"], {name: buffer.shape for name, buffer in self._buffers()})
        resumes = "exp_avg" in state
        for key in MOMENTS if resumes else ():
            _check(key, state[key], {name: self.shapes[name] for name in self._trained})
        with torch.no_grad():
            self._set_weights(state["weights"])
            for name, buffer in self._buffers():
                buffer.copy_(state["buffers"][name])
            if resumes:
                self._set_moments(state)
        if self._scaler and "loss_scale" in state:
            self._scaler.load_state_dict(self._scaler.state_dict() | {"scale": state["loss_scale"]})

    def _buffers(self) -> Iterator[tuple[str, Tensor]]:
        persistent = self.module.state_dict(keep_vars=True)
        return ((name, buffer) for name, buffer in self.module.named_buffers() if name in persistent)


class _DDP(Engine):
    """torch's DistributedDataParallel; with a single rank the bare network."""

    def __init__(self, module, precision, lr, betas, accumulate):
        super().__init__(module, precision, accumulate)
        self._ddp = None
        if torch_dist.get_world_size() > 1:
            with warnings.catch_warnings():  # broadcast_buffers has a new name that torch 2.11 does not know
                warnings.simplefilter("ignore", FutureWarning)
                self._ddp = DistributedDataParallel(
                    module,
                    device_ids=[self._device.index] if self._device.type == "cuda" else None,
                    broadcast_buffers=False,  # else D's second forward would overwrite what the first's backward needs
                    gradient_as_bucket_view=True,
                )
        self._optimizer = _adam(self._trained.values(), lr, betas)
        self._scaler = torch.amp.GradScaler(self._device.type) if self._dtype is torch.float16 else None
        self._micro_batch = 0

    def __call__(self, *args):
        last = (self._micro_batch + 1) % self._accumulate == 0
        # Only the last micro-batch's backward adds gradients up over the ranks; DDP looks at no_sync in forward.
        alone = self._ddp is not None and not last
        with self._ddp.no_sync() if alone else contextlib.nullcontext(), self.autocast():
            return (self._ddp or self.module)(*args)

    def backward(self, loss: Tensor) -> None:
        loss = loss / self._accumulate
        (self._scaler.scale(loss) if self._scaler else loss).backward()

    def step(self) -> None:
        self._micro_batch += 1
        if self._micro_batch % self._accumulate == 0:
            if self._scaler:
                self._scaler.step(self._optimizer)
                self._scaler.update()
            else:
                self._optimizer.step()
            self._optimizer.zero_grad()

    def moments(self) -> dict[str, dict[str, tuple[Tensor, int | None]]]:
        return _whole_moments(self._optimizer, self._trained)

    def _adam_step(self) -> int:
        return int(_adam_state(self._optimizer, next(iter(self._trained.values())))["step"])

    def _set_weights(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.module.named_parameters():
            parameter.copy_(weights[name])

    def _set_moments(self, state: dict) -> None:
        for name, parameter in self._trained.items():
            own = _adam_state(self._optimizer, parameter)
            own["step"].fill_(state["step"])
            for key in MOMENTS:
                own[key].copy_(state[key][name])


class _DeepSpeed(Engine):
    """DeepSpeed's engine. Parameters stay float32 and are computed with in autocast."""

    def __init__(self, module, zero, precision, lr, betas, accumulate, micro_batch):
        super().__init__(module, precision, accumulate)
        self._deepspeed = _import_deepspeed(self._device)
        self._zero = zero
        # Not named in the config: DeepSpeed's "Adam" with torch_adam is AdamW, whose weight decay is 0.01 by default.
        optimizer = _adam(self._trained.values(), lr, betas)
        fp16 = self._dtype is torch.float16
        config = {
            "train_micro_batch_size_per_gpu": micro_batch,
            "gradient_accumulation_steps": accumulate,
            "gradient_clipping": 0.0,  # the default is 1.0
            "zero_optimization": {
                "stage": zero,
                "reduce_bucket_size": BUCKET,
                "allgather_bucket_size": BUCKET,
                "overlap_comm": torch_dist.get_world_size() > 1,  # it costs a wait for the GPU at each backward's end
                "contiguous_gradients": True,
                # Computing the norm waits for the GPU at every step; only fp16 needs it, to see an overflow.
                "compute_grad_norm": fp16 or zero not in (1, 2),
            },
            "timers": {"throughput": {"enabled": False}},  # would wait for the GPU at every step
        }
        if self._dtype is not None:
            config["torch_autocast"] = {
                "enabled": True,
                "dtype": str(self._dtype).removeprefix("torch."),
                "lower_precision_safe_modules": [f"{kind.__module__}.{kind.__name__}" for kind in SENT_IN_16_BITS],
            }
        with dist.same_timeout():
            self._engine, *_ = self._deepspeed.initialize(model=module, optimizer=optimizer, config=config)
        self._optimizer = self._engine.optimizer.optimizer if zero else self._engine.optimizer
        self._scaler = self._engine.torch_autocast_z0_gradscaler
        if zero:
            # DeepSpeed's GradScaler sees this rank's share of the gradients only, and is not told of skipped steps.
            self._engine.optimizer.torch_autocast_gradscaler = None
            if fp16:
                self._scaler = _LossScale(self._engine.optimizer)
        self._link_moments()

    def __call__(self, *args):
        return self._engine(*args)

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss)

    def step(self) -> None:
        moves = self._engine.is_gradient_accumulation_boundary()
        self._engine.step()
        if moves and isinstance(self._scaler, _LossScale):
            self._scaler.update()

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        with self._deepspeed.zero.GatheredParameters(list(self.module.parameters()), enabled=self._zero == 3):
            yield

    def _link_moments(self) -> None:
        """Creates Adam's state now, not at the first step, so that it can be read and set before that."""
        for parameter in self._optimized():
            _adam_state(self._optimizer, parameter)
        if self._zero in (1, 2):
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _optimized(self) -> list[Tensor]:
        """What torch's Adam holds on this rank: the parameters, or flat shares of them."""
        if self._zero == 3:
            return self._engine.optimizer.fp32_partitioned_groups_flat
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def moments(self) -> dict[str, dict[str, tuple[Tensor, int | None]]]:
        if not self._zero:
            return _whole_moments(self._optimizer, self._trained)
        parts: dict[str, dict[str, tuple[Tensor, int | None]]] = {key: {} for key in MOMENTS}
        for name, parameter in self._trained.items():
            for key in MOMENTS:
                part, start = self._part(parameter, key)
                if part.numel():
                    parts[key][name] = part, start
        return parts

    def _part(self, parameter: Tensor, key: str) -> tuple[Tensor, int]:
        """This rank's part of a moment under ZeRO, flat, and where it begins; empty where it has none."""
        if self._zero == 3:
            # Equal parts, with padding behind the last element.
            held = self._deepspeed.utils.safe_get_local_optimizer_state(parameter, key).flatten()
            start = torch_dist.get_rank() * held.numel()
            numel = parameter.ds_numel  # type: ignore[attr-defined]  # DeepSpeed sets it on parameters
            return held[: max(0, numel - start)], start
        mapping = parameter._hp_mapping  # type: ignore[attr-defined]  # DeepSpeed sets it: where the part lies, or None
        if mapping is None:
            return parameter.new_empty(0), 0
        return mapping.get_optim_state_fragment(key), mapping.lp_fragment_address.start

    def _adam_step(self) -> int:
        return int(_adam_state(self._optimizer, self._optimized()[0])["step"])

    def _set_weights(self, weights: dict[str, Tensor]) -> None:
        parameters = dict(self.module.named_parameters())
        modifier = self._deepspeed.zero.GatheredParameters(
            list(parameters.values()), modifier_rank=0, enabled=self._zero == 3
        )
        with modifier:
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])
        if self._zero:
            for name, parameter in self._trained.items():
                self._set_share(parameter, weights[name])  # the optimiser's own copy

    def _set_moments(self, state: dict) -> None:
        for parameter in self._optimized():
            _adam_state(self._optimizer, parameter)["step"].fill_(state["step"])
        for name, parameter in self._trained.items():
            for key in MOMENTS:
                if self._zero:
                    self._set_share(parameter, state[key][name], key)
                else:
                    _adam_state(self._optimizer, parameter)[key].copy_(state[key][name])

    def _set_share(self, parameter: Tensor, value: Tensor, moment: str | None = None) -> None:
        """Sets this rank's share of a parameter's moment, or of the optimiser's copy of its weight."""
        api = self._deepspeed.utils
        value = value.to(self._device)
        if self._zero == 3:
            # DeepSpeed's setter of the full value fails where it does not divide by the ranks: pad and cut here.
            rank = torch_dist.get_rank()
            share = parameter.ds_tensor.numel()  # type: ignore[attr-defined]  # DeepSpeed sets it on parameters
            padding = share * torch_dist.get_world_size() - value.numel()
            value = nn.functional.pad(value.flatten(), (0, padding)).narrow(0, rank * share, share)
            weight, state = api.safe_set_local_fp32_param, api.safe_set_local_optimizer_state
        else:
            weight, state = api.safe_set_full_fp32_param, api.safe_set_full_optimizer_state
        state(parameter, value, moment) if moment else weight(parameter, value)


class _LossScale:
    """torch.amp.GradScaler's rule over ZeRO's optimiser, which knows of an overflow on any rank."""

    def __init__(self, zero_optimizer):
        self._zero_optimizer = zero_optimizer
        self._steps_without_overflow = 0
        self._set(2.0**16)

    def get_scale(self) -> float:
        return self._zero_optimizer.loss_scale

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.get_scale()}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._set(state["scale"])

    def update(self) -> None:
        """After a step of the optimiser."""
        if self._zero_optimizer.overflow:
            self._steps_without_overflow = 0
            self._set(self.get_scale() / 2)
        else:
            self._steps_without_overflow += 1
            if self._steps_without_overflow % 2000 == 0:
                self._set(self.get_scale() * 2)

    def _set(self, scale: float) -> None:
        self._zero_optimizer.override_loss_scale(scale)


def best_precision(device: torch.device, cpu_flags: str | None = None) -> tuple[str, str]:
    """The precision for this machine, and why: bf16 where its hardware computes in it, else fp32.

    Without such instructions bf16 is emulated, and many times slower than fp32.

    Args:
        cpu_flags: what /proc/cpuinfo says, where the device is the CPU; None reads it.
    """
    if device.type == "cuda":
        capability, name = torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device)
        if capability >= (8, 0):
            return "bf16", f"{name} computes in it"
        return (
            "fp32",
            f"{name} has no bf16, which takes compute capability 8.0 and it has {capability[0]}.{capability[1]}",
        )
    flags = Path("/proc/cpuinfo").read_text() if cpu_flags is None else cpu_flags
    found = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags.split()]
    return ("bf16", f"this CPU has {found[0]}") if found else ("fp32", "this CPU has no bf16 instructions")


def make_engine(
    module: nn.Module,
    backend: str = "deepspeed",
    zero: int = 1,
    precision: str = "bf16",
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.5, 0.9),
    accumulate: int = 1,
    micro_batch: int = 1,
) -> Engine:
    """An engine with Adam around `module`, which is on its device, float32 and contiguous; dist.init() comes first.

    Args:
        backend: "deepspeed" or "ddp".
        zero: DeepSpeed's ZeRO stage, 0-3; unused by ddp.
        precision: "bf16" or "fp16" (CUDA only) autocast, or "fp32"; weights and Adam are float32 in all three. Two
            engines of one process must have the same.
        lr, betas: Adam's (section 4.2 of the paper).
        accumulate: micro-batches an optimiser step.
        micro_batch: pairs a micro-batch on this rank.

    Raises:
        UserError: a combination that cannot train.
    """
    device = next(module.parameters()).device
    if precision == "fp16" and device.type != "cuda":
        raise UserError("precision fp16 needs a CUDA GPU; use bf16 or fp32 on this machine")
    if backend == "ddp":
        return _DDP(module, precision, lr, betas, accumulate)
    return _DeepSpeed(module, zero, precision, lr, betas, accumulate, micro_batch)


def _import_deepspeed(device: torch.device):
    """DeepSpeed, quiet, in the process group of dist.init(). Imported here, as it takes seconds that DDP saves."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("LOCAL_RANK", str(device.index or 0))  # DeepSpeed insists on it, for one process too
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed's own calls to torch; a user can do nothing about them.
    warnings.filterwarnings("ignore", message="`torch.distributed..*_tensor` is deprecated", category=FutureWarning)
    if not deepspeed.comm.is_initialized():
        # On a CPU DeepSpeed would compile shared-memory collectives (half a minute, a C++ compiler, and ranks that
        # start together wait on each other's build). Gloo does their work.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend=torch_dist.get_backend(), dist_init_required=False)
    return deepspeed


def _adam(parameters, lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    return torch.optim.Adam(list(parameters), lr=lr, betas=betas, fused=True)


def _adam_state(optimizer: torch.optim.Adam, parameter: Tensor) -> dict[str, Tensor]:
    """The parameter's entry in torch's Adam, created as its first step would where there is none yet."""
    own = optimizer.state[parameter]
    if not own:
        own["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        own["exp_avg"] = torch.zeros_like(parameter)
        own["exp_avg_sq"] = torch.zeros_like(parameter)
    return own


def _whole_moments(optimizer, trained: Mapping[str, Tensor]) -> dict[str, dict[str, tuple[Tensor, int | None]]]:
    return {
        key: {name: (_adam_state(optimizer, parameter)[key], None) for name, parameter in trained.items()}
        for key in MOMENTS
    }


def _check(kind: str, given: dict[str, Tensor], shapes: dict[str, torch.Size]) -> None:
    differ = sorted(given.keys() ^ shapes.keys()) or [name for name in shapes if given[name].shape != shapes[name]]
    if differ:
        raise UserError(
            f"the saved {kind} are of another network: {len(differ)} tensors differ, the first is {differ[0]!r}; "
            "use the configuration that the checkpoint was trained with"
        )
