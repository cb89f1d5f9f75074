"""An image of any size -> the people in it, by a network of part affinity fields and the weights that it is given."""

import io
import pickle
import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from mscgan import files, trained, weights
from mscgan.errors import UserError
from mscgan.estimators import Estimator, Person, rescaled
from mscgan.metrics.networks import exact
from mscgan.paf.decode import BOX, decode, smoothing
from mscgan.paf.network import FIELDS, MAPS, PAF, STRIDE, as_input

_LARGEST = 4 << 30  # bytes of a file of weights
_PORT = re.compile(r"model\d(_[12])?\.")  # how names begin in ports that keep each branch of each stage in a module
# All that torch and safetensors raise for files that are none of theirs, a KeyError for a text among it.
_BROKEN = (
    pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError, ValueError, LookupError, TypeError, AttributeError,
    struct.error,
)  # fmt: skip


class Way(NamedTuple):
    """How images come to a network.

    An image is seen at each scale, 1 for a height of `box` pixels; the maps of all scales are averaged. A wide image,
    which would be large at that height, is twice as wide as the box.
    """

    box: int
    scales: tuple[float, ...]
    mode: str  # of torch's interpolate


RELEASED = Way(BOX, (0.5, 1.0, 1.5, 2.0), "bicubic")


def load_paf(path: Path | None) -> Estimator:
    """The estimator, on the CUDA device or else the CPU.

    Args:
        path: a run of the family paf; or a file of the released network's weights, .pth or safetensors; or None for
            the published weights (mscgan/weights.py).

    Raises:
        UserError: no such run or file, it is damaged, or of another network; the published weights are not there.
    """
    if path is not None and path.is_dir():
        return _of_run(path)
    if path is None:
        state, name = weights.load("paf")[0], str(weights.path("paf"))
    else:
        state, name = _read(path), str(path)
    network = PAF()
    network.load_state_dict(_fitting(state, network, name))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return _estimator(network.to(device).requires_grad_(False).eval(), RELEASED)


def _of_run(folder: Path) -> Estimator:
    config = trained.read_config(folder)
    if config.family != "paf":
        raise UserError(f"{folder} is a run of the family {config.family}, which finds no poses; give one of paf")
    way = Way(config.data.height * config.paf.enlarge, (1.0,), "bilinear")  # as it was trained
    network = trained.load(folder).networks["PAF"]
    assert isinstance(network, PAF)
    return _estimator(network, way)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names; nothing else that may lie in it is run."""
    try:
        content = files.read(path, _LARGEST)
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); give a run's folder or a file of weights") from error
    except _BROKEN as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be loaded as weights alone ({reason}); give .pth or safetensors") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds other things than tensors by name; save the network's state_dict alone")
    return dict(state)


def _fitting(state: dict[str, Tensor], network: PAF, name: str) -> dict[str, Tensor]:
    """The weights by the network's own names, all of them and nothing else."""
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        own = _PORT.sub("", key, count=1) if _PORT.match(key) else key
        if own in found:
            raise UserError(f"{name} has {own} twice; give a file with each layer once")
        found[own] = tensor
    wanted = network.state_dict()
    what = (
        "expected OpenPose's COCO network of 18 joints, as in body_pose_model.pth; for weights that were trained here "
        "give the run's folder"
    )
    for key in wanted:
        if key not in found:
            raise UserError(f"{name} has no {key}; {what}")
        if found[key].shape != wanted[key].shape:
            shapes = [tuple(tensor.shape) for tensor in (found[key], wanted[key])]
            raise UserError(f"{name}: {key} is {shapes[0]}, not {shapes[1]}; {what}")
    if strange := found.keys() - wanted.keys():
        raise UserError(f"{name} has {sorted(strange)[0]}, which is no layer of the network; {what}")
    return found


def _estimator(network: PAF, way: Way) -> Estimator:
    device = next(network.parameters()).device

    def estimate(image: np.ndarray) -> list[Person]:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserError(f"the image is {image.dtype} {image.shape}; expected uint8 (H, W, 3), H and W above 0")
        size = image.shape[1], image.shape[0]
        side = max(size[1], size[0] / 2)
        # Maps smaller than the box would cost precision, and larger ones than the network's largest input give none.
        factor = min(max(1.0, way.box / side), 2 * way.box / side)
        seen = round(size[0] * factor) or 1, round(size[1] * factor) or 1
        with exact():
            maps = _maps(network, torch.from_numpy(image).to(device), way, seen)
            people = decode(maps[:FIELDS], maps[FIELDS:], smoothing(seen[1]))
        return [person._replace(keypoints=rescaled(person.keypoints, seen, size)) for person in people]

    return estimate


def _maps(network: PAF, image: Tensor, way: Way, size: tuple[int, int]) -> Tensor:
    """The network's last maps of an image (H, W, 3) uint8, (57, height, width) at the size (width, height)."""
    pixels = image.permute(2, 0, 1)[None].float() / 127.5 - 1
    height, width = pixels.shape[2:]
    total = pixels.new_zeros(FIELDS + MAPS, size[1], size[0])
    for scale in way.scales:
        factor = scale * way.box / max(height, width / 2)
        inner = max(1, round(height * factor)), max(1, round(width * factor))
        # Where an image shrinks to less than half, interpolation alone would miss pixels.
        scaled = F.interpolate(pixels, inner, mode=way.mode, antialias=factor < 0.5)
        right, below = (-side % STRIDE for side in (inner[1], inner[0]))
        made = network(F.pad(as_input(scaled), (0, right, 0, below)))[-1]  # padded with grey, 128 of 255
        full = F.interpolate(made, scale_factor=STRIDE, mode="bicubic")[..., : inner[0], : inner[1]]
        total += F.interpolate(full, (size[1], size[0]), mode="bicubic")[0]
    return total / len(way.scales)
