"""BatchNorm over the batches of all ranks, on any device, with one collective forward and one backward.

torch's SyncBatchNorm refuses to work on a CPU, and on a GPU its forward waits for the device three times. Here ranks
exchange their means and variances, joined as Chan et al. (1979) join them, which loses no digits to cancellation.
"""

from typing import TypeVar

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn

_all_gather = getattr(torch_dist, "all_gather_single", torch_dist.all_gather_into_tensor)  # its name since torch 2.13
Network = TypeVar("Network", bound=nn.Module)


def sync_batch_norm(module: Network) -> Network:
    """`module` with every BatchNorm2d normalising over the batches of all ranks; names in state_dict() stay."""
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = _SyncBatchNorm2d  # same parameters, buffers and names; only forward differs
    return module


class _SyncBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d over the global batch, in float32. Ranks may hold batches of different sizes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or torch_dist.get_world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        y, mean, variance, count = _over_ranks(x, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self._track(mean, variance * count / (count - 1).clamp(min=1))
        return y

    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(unbiased_variance, momentum)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, mean, variance and their gradients over the ranks."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        channels, wide = x.shape[1], x.float()
        variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        own = torch.cat([mean, variance, mean.new_full((1,), x.numel() / channels)])
        means, variances, counts = _of_all(own).split([channels, channels, 1], 1)
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        variance = ((variances + (means - mean).square()) * counts).sum(0) / count
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        y = (wide - _plane(mean)) * _plane(scale)
        if weight is not None:
            assert bias is not None, "a BatchNorm with a weight but no bias"
            y = y * _plane(weight) + _plane(bias)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx, grad: Tensor, *_) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        grad = grad.float()
        normalised = (x.float() - _plane(mean)) * _plane(scale)
        own = torch.cat([grad.sum((0, 2, 3)), (grad * normalised).sum((0, 2, 3))])
        along_bias, along_weight = (_of_all(own).sum(0) / count).chunk(2)
        factor = scale if weight is None else scale * weight
        grad_x = (grad - _plane(along_bias) - normalised * _plane(along_weight)) * _plane(factor)
        grad_bias, grad_weight = own.chunk(2) if weight is not None else (None, None)
        return grad_x.to(x.dtype), grad_weight, grad_bias, None


@torch.compiler.disable  # a collective in a compiled graph; what is around it is compiled
def _over_ranks(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
    return _Normalise.apply(x, weight, bias, eps)


def _of_all(own: Tensor) -> Tensor:
    """Every rank's vector, a row each. For so little, gloo's all_reduce takes three times as long as all_gather."""
    rows = own.new_empty(torch_dist.get_world_size() * own.numel())
    _all_gather(rows, own)
    return rows.view(-1, own.numel())


def _plane(channels: Tensor) -> Tensor:
    return channels[:, None, None]
