"""Batch normalisation over the global batch: the same statistics for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from weft.engine.exchange import exchanging

# Sums of gradients leave while the backward pass goes on, where statistics are exchanged too, and not in the same order
# everywhere: a head that one process's items do not reach holds back its gradients. So each kind has a group.
_group: dist.ProcessGroup | None = None  # None: the group of all exchanges


@contextmanager
def statistics_apart(timeout: timedelta) -> Iterator[None]:
    """Inside, batch statistics travel in a process group of their own; entered by all processes, once they joined.

    Args:
        timeout: what an exchange may take before it fails.
    """
    global _group
    with exchanging("addresses for batch statistics"):
        _group = dist.new_group(timeout=timeout)
    try:
        yield
    finally:
        _group = None  # the group ends with that of all processes, if nobody else keeps it


class GlobalBatchNorm(_BatchNorm):
    """Batch normalisation whose statistics are those of all processes' items together (Ioffe and Szegedy, 2015).

    torch's SyncBatchNorm does the same on CUDA only; this one works on any device. Parameters and buffers have the
    names of the module it stands for. A process without items takes part with zeros.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalised [n, channels, ...]; n may differ between processes, also be 0."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        count = torch.tensor([input.numel() // input.shape[1]], dtype=torch.float64)
        with exchanging("batch statistics"):
            dist.all_reduce(count, group=_group)
        total = float(count)
        mean = _sum_over_processes(input.sum(axes)) / total
        shape = [1, -1, *([1] * (input.dim() - 2))]
        centred = input - mean.view(shape)
        variance = _sum_over_processes(centred.square().sum(axes)) / total
        self._follow(mean.detach(), variance.detach(), total)
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        return normal if self.weight is None else normal * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, total: float) -> None:
        """Running statistics, as torch keeps them: with the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        factor = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        unbiased = variance * (total / max(total - 1.0, 1.0))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor)


class _SumOverProcesses(torch.autograd.Function):
    """Sum over processes; its gradient is the sum of gradients, since everybody's result depends on everybody's
    part.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        with exchanging("batch statistics"):
            dist.all_reduce(total, group=_group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        with exchanging("batch statistics"):
            dist.all_reduce(total, group=_group)
        return total


def _sum_over_processes(tensor: Tensor) -> Tensor:
    return cast(Tensor, _SumOverProcesses.apply(tensor))  # type: ignore[no-untyped-call]


def with_global_statistics(model: nn.Module) -> nn.Module:
    """`model` with every batch normalisation replaced by `GlobalBatchNorm`, sharing parameters and buffers, in
    place.
    """
    if isinstance(model, _BatchNorm) and not isinstance(model, GlobalBatchNorm):
        return _globally(model)
    for name, child in model.named_children():
        replaced = with_global_statistics(child)
        if replaced is not child:
            setattr(model, name, replaced)
    return model


def _globally(module: _BatchNorm) -> GlobalBatchNorm:
    made = GlobalBatchNorm(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
    made._parameters = module._parameters
    made._buffers = module._buffers
    made.train(module.training)
    return made


def has_batch_statistics(model: nn.Module) -> bool:
    """Whether the model normalises over the batch, so that its processes must run forward together."""
    return any(isinstance(module, GlobalBatchNorm) for module in model.modules())
