"""Each fused op against the same mathematics in eager PyTorch and under torch.compile.

GB/s counts the bytes that the op has to move, the same for all three: every input read once, every output written once,
one bit an element where a backward pass needs a sign, and in the backward pass the gradients read, the inputs that it
needs read again, and the result written. A channels_last pixel is one piece of memory: where a gradient is needed of
half its channels, all of them are read. Inputs are several sets, together larger than the cache, used in turn.
"""

import math
import traceback
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import baseline
from benchmarks.cost import copy_rate, matrix_rate
from benchmarks.timing import call_seconds, interleave, slowest, summary
from mscgan import pose
from mscgan.ops.bias_act import bias_act
from mscgan.ops.body_mask import body_mask
from mscgan.ops.condition import condition
from mscgan.ops.masked_l1 import masked_l1
from mscgan.ops.pyramid import pyramid

SCALES = 3
CHANNELS = 128  # of the activations that bias_act gets


class Op(NamedTuple):
    ours: Callable[..., list[Tensor]]
    plain: Callable[..., list[Tensor]]
    inputs: Callable[..., list[Tensor]]  # (count, height, width, dtype, device) -> one set
    differentiated: tuple[int, ...]  # which inputs get gradients
    forward_bytes: Callable[[list[Tensor], list[Tensor]], int]  # (inputs, outputs)
    backward_bytes: Callable[[list[Tensor], list[Tensor]], int]
    flops: Callable[[list[Tensor], list[Tensor]], float]  # arithmetic of a forward pass, for the roofline


def _image(count: int, channels: int, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    values = torch.empty(count, height, width, channels, dtype=dtype, device=device).uniform_(-1, 1)
    return values.permute(0, 3, 1, 2)  # channels_last


def _pyramid_inputs(count, height, width, dtype, device) -> list[Tensor]:
    return [_image(count, 3, height, width, dtype, device) for _ in range(3)]


def _condition_inputs(count, height, width, dtype, device) -> list[Tensor]:
    images = torch.randint(256, (count, height, width, 3), dtype=torch.uint8, device=device)
    keypoints = torch.rand(count, 18, 2, device=device) * torch.tensor([width - 1.0, height - 1.0], device=device)
    return [images, keypoints, torch.rand(count, device=device) < 0.5]


def _body_mask_inputs(count, height, width, dtype, device) -> list[Tensor]:
    images, keypoints, _ = _condition_inputs(count, height, width, dtype, device)
    return [keypoints.round(), images[..., 0]]  # of the images the size alone


def _bias_act_inputs(count, height, width, dtype, device) -> list[Tensor]:
    return [_image(count, CHANNELS, height, width, dtype, device), torch.randn(CHANNELS, device=device)]


def _masked_l1_inputs(count, height, width, dtype, device) -> list[Tensor]:
    mask = (torch.rand(count, 1, height, width, device=device) < 0.3).float()
    return [*(_image(count, 3, height, width, dtype, device) for _ in range(2)), mask]


def _channels(x: Tensor) -> int:
    return 8 if x.is_cuda else 6  # as a step asks for


def _our_pyramid(x, y, y_hat):
    reals, fakes = pyramid(x, y, y_hat, SCALES, "mean2", _channels(x))
    return [*reals, *fakes]


def _plain_pyramid(x, y, y_hat):
    zeros = x.new_zeros(len(x), _channels(x) - 6, *x.shape[2:])
    real, fake = torch.cat([x, y, zeros], 1), torch.cat([x, y_hat, zeros], 1)
    return [real, *(F.avg_pool2d(real, 2**s) for s in (1, 2)), fake, *(F.avg_pool2d(fake, 2**s) for s in (1, 2))]


def _our_condition(dtype):
    return lambda *given: [condition(*given, dtype=dtype, channels=24 if given[0].is_cuda else 21)]  # as prepare.py


def _plain_condition(dtype):
    def draw(images, keypoints, flip):
        data = _Drawing(*images.shape[1:3])
        out = baseline.condition(images, keypoints, flip, data).to(dtype)
        if out.is_cuda:
            out = F.pad(out, (0, 0, 0, 0, 0, 3))
        return [out.contiguous(memory_format=torch.channels_last)]

    return draw


class _Drawing(NamedTuple):
    """The part of the configuration that heatmaps need, with its defaults."""

    height: int
    width: int
    heatmap: str = "gaussian"
    sigma: float = 6.0
    radius: float = 4.0


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _both(inputs, outputs) -> int:
    return _bytes(inputs) + _bytes(outputs)


def table(dtype: torch.dtype) -> dict[str, Op]:
    """The ops by name; those with two ways of use have two rows."""
    signs = lambda inputs: inputs[0].numel() // 8  # noqa: E731
    fakes = lambda outputs: _bytes(outputs[SCALES:])  # noqa: E731
    activate = Op(
        lambda x, bias: [bias_act(x, bias)],
        lambda x, bias: [baseline.bias_act(x, bias)],
        _bias_act_inputs,
        (0, 1),
        lambda i, o: _both(i, o) + signs(i),
        lambda i, o: 2 * o[0].nbytes + signs(i),
        lambda i, o: 2 * o[0].numel(),
    )
    return {
        "pyramid": Op(
            _our_pyramid, _plain_pyramid, _pyramid_inputs, (2,), _both,
            lambda i, o: fakes(o) + i[2].nbytes, lambda i, o: 9 * i[0].numel(),
        ),
        "condition": Op(
            _our_condition(dtype), _plain_condition(dtype), _condition_inputs, (), _both, lambda i, o: 0,
            lambda i, o: 10 * o[0].numel(),
        ),
        "body_mask": Op(
            lambda keypoints, image: [body_mask(keypoints, *image.shape[1:])],
            lambda keypoints, image: [pose.body_mask(keypoints, *image.shape[1:])],
            _body_mask_inputs, (), lambda i, o: i[0].nbytes + o[0].nbytes, lambda i, o: 0,
            lambda i, o: 2 * 81 * o[0].numel(),  # a disc of radius 4 as a convolution
        ),
        "bias_act": activate,
        "bias_act + residual": activate._replace(
            ours=lambda x, bias, residual: [bias_act(x, bias, residual)],
            plain=lambda x, bias, residual: [baseline.bias_act(x, bias, residual)],
            inputs=lambda *a: [*_bias_act_inputs(*a), _bias_act_inputs(*a)[0]],
            flops=lambda i, o: 3 * o[0].numel(),
        ),
        "masked_l1": Op(
            lambda y_hat, y, mask: list(masked_l1(y_hat, y, mask)),
            lambda y_hat, y, mask: list(baseline.masked_l1(y_hat, y, mask)),
            _masked_l1_inputs, (0,), lambda i, o: _bytes(i), lambda i, o: _bytes(i) + i[0].nbytes,
            lambda i, o: 5 * i[0].numel(),
        ),
    }  # fmt: skip


def measure(
    device: torch.device,
    dtype: torch.dtype,
    size: tuple[int, int],
    megabytes: int,
    rounds: int,
    seconds: float,
    keep: Callable[[dict], None] = lambda found: None,
) -> dict:
    """Rows for each op, pass (forward, forward+backward) and implementation; a forward moves about `megabytes`.

    An op that fails is noted, and the others are measured. Times are those of the slowest rank.

    keep: called with what there is so far after each op.
    """
    copy = copy_rate(device)
    cache = torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 32 << 20
    found = {
        "workload": {"size": f"{size[0]}x{size[1]}", "dtype": str(dtype).split(".")[-1], "format": "channels_last",
                     "pyramid_channels": 8 if device.type == "cuda" else 6, "bias_act_channels": CHANNELS},
        "method": {"rounds": rounds, "seconds": seconds, "cache_bytes": cache, "order": "interleaved, alternating"},
        "definition": "gigabytes_per_second: bytes that the op has to move / time; share of the copy rate in this run",
        "copy_gigabytes_per_second": copy / 1e9,
        "matrix_teraflops": matrix_rate(device, dtype) / 1e12,
        "rows": [],
        "failures": [],
    }  # fmt: skip
    for name, op in table(dtype).items():
        rows, failures = _rows(name, op, device, dtype, size, megabytes << 20, cache, copy, rounds, seconds)
        found["rows"] += rows
        found["failures"] += failures
        if device.type == "cuda":
            torch.cuda.empty_cache()
        keep(found)
    return found | {"status": "incomplete" if found["failures"] else "ok"}


def _rows(
    name: str,
    op: Op,
    device: torch.device,
    dtype: torch.dtype,
    size: tuple[int, int],
    wanted: int,
    cache: int,
    copy: float,
    rounds: int,
    seconds: float,
) -> tuple[list[dict], list[dict]]:
    """One op's rows and failures: `wanted` bytes a forward pass, inputs that together are twice the cache."""
    pair = op.inputs(1, *size, dtype, device)
    count = max(1, round(wanted / op.forward_bytes(pair, op.plain(*pair))))
    needed = op.forward_bytes(pair, op.plain(*pair)) * count
    sets = [op.inputs(count, *size, dtype, device) for _ in range(max(2, math.ceil(2 * cache / needed)))]
    for inputs in sets:
        for number in op.differentiated:
            inputs[number].requires_grad_(True)
    torch._dynamo.reset()
    implementations = {"ours": op.ours, "eager": op.plain, "compiled": torch.compile(op.plain, dynamic=False)}
    outputs = op.plain(*sets[0])
    passes = {"forward": op.forward_bytes(sets[0], outputs)}
    if op.differentiated:
        passes["forward+backward"] = passes["forward"] + op.backward_bytes(sets[0], outputs)
    facts = {"op": name, "pairs": count, "sets": len(sets), "flops": op.flops(sets[0], outputs)}
    grads = {}  # by shape and layout; made beforehand, as in training they come from elsewhere
    rows, failures = [], []
    for which, moved in passes.items():
        differentiated = op.differentiated if which != "forward" else ()
        calls = {key: _turns(call, sets, differentiated, grads) for key, call in implementations.items()}
        times, broken = _times(calls, len(sets), device, rounds, seconds)
        failures += [{"op": name, "pass": which, "implementation": key, "error": text} for key, text in broken.items()]
        others = {other: summary(times[other])["median"] for other in ("eager", "compiled") if other in times}
        for key, measured in times.items():
            row = {"key": f"{name} {which} {key}", "pass": which, "implementation": key, "bytes": moved} | facts
            rows.append(row | {"metrics": _metrics(summary(measured), moved, copy, others)})
    return rows, failures


def _times(
    calls: dict[str, Callable[[], None]], sets: int, device: torch.device, rounds: int, seconds: float
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds a call of each, one number a round, after one call for each set of inputs; and why one has none.

    Among several ranks a failure is raised, as the others would wait.
    """
    times, broken = {}, {}
    for key, call in calls.items():
        try:
            for _ in range(sets):
                call()
            times[key] = []
        except Exception as error:
            if torch.distributed.get_world_size() > 1:
                raise
            traceback.print_exc()
            broken[key] = f"{type(error).__name__}: {error}".split("\n")[0]

    def measured(key: str) -> Callable[[], None]:
        return lambda: times[key].append(call_seconds(calls[key], device, seconds)[0])

    interleave({key: measured(key) for key in times}, rounds)
    return {key: slowest(values) for key, values in times.items()}, broken


def _metrics(spent: dict, moved: int, copy: float, others: dict[str, float]) -> dict:
    speed = moved / spent["median"]
    spread = None if spent["ci95"] is None else spent["ci95"] / spent["median"]
    return {
        "microseconds": {key: 1e6 * spent[key] for key in ("median", "p5", "p95")}
        | {"ci95": None if spread is None else 1e6 * spent["ci95"]},
        "gigabytes_per_second": {"median": speed / 1e9, "ci95": None if spread is None else speed / 1e9 * spread},
        "copy_share": speed / copy,
        "times_eager": others["eager"] / spent["median"] if "eager" in others else None,
        "times_compiled": others["compiled"] / spent["median"] if "compiled" in others else None,
    }


def _turns(call, sets: list[list[Tensor]], differentiated: tuple[int, ...], grads: dict) -> Callable[[], None]:
    """A function that calls with the next set at each call, and takes the gradients of the inputs `differentiated`."""
    turn = 0

    def next_set() -> None:
        nonlocal turn
        inputs = sets[turn % len(sets)]
        turn += 1
        outputs = call(*inputs)
        if differentiated:
            outputs = [output for output in outputs if output.requires_grad]
            torch.autograd.grad(
                outputs, [inputs[number] for number in differentiated], [_grad(o, grads) for o in outputs]
            )

    return next_set


def _grad(output: Tensor, grads: dict) -> Tensor:
    key = (output.shape, output.stride(), output.dtype)
    if key not in grads:
        grads[key] = torch.ones_like(output)
    return grads[key]
