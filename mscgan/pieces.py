"""What a rank keeps of a tensor for a checkpoint, and whether the numbers in tensors are finite."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """A tensor on the CPU, or with `start` the part of it, flat, that begins at this element."""

    tensor: Tensor
    shape: list[int]  # of the whole
    start: int | None = None

    def key(self, name: str) -> str:
        return name if self.start is None else f"{name}@{self.start}"


def not_finite(tensors: dict[str, Tensor]) -> str:
    """The name of a tensor with a NaN or an infinite number in it, or an empty string. One wait for the device."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    if not floats:
        return ""
    # The extremes of a tensor with a NaN are NaN; unlike isfinite(), looking for them needs no memory.
    extremes = torch.stack([torch.stack(torch.aminmax(tensor)).float() for tensor in floats.values()])
    bad = (~extremes.isfinite()).any(1).tolist()
    return next((name for name, is_bad in zip(floats, bad, strict=True) if is_bad), "")
