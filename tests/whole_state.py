"""The state of all ranks in one, as a checkpoint holds it and `State.restore` takes it."""

import torch.distributed as torch_dist
from torch import Tensor

from mscgan import checkpoint
from mscgan.state import Share, State


def shares(state: State) -> list[Share]:
    """Every rank's, on every rank."""
    everyone: list = [None] * torch_dist.get_world_size()
    torch_dist.all_gather_object(everyone, state.share(torch_dist.get_rank(), torch_dist.get_world_size()))
    return everyone


def whole(state: State) -> tuple[dict[str, Tensor], dict]:
    """All tensors, and the facts."""
    everyone = shares(state)
    assert not any(share.bad for share in everyone) and all(share.facts == everyone[0].facts for share in everyone)
    shapes = {name: piece.shape for share in everyone for name, piece in share.pieces.items()}
    pieces = [{piece.key(name): piece.tensor for name, piece in share.pieces.items()} for share in everyone]
    average = {f"average.{name}": tensor for name, tensor in everyone[0].generator.items()}
    return checkpoint.join(pieces, shapes) | average, everyone[0].facts
