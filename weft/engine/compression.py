"""Gradients that travel compressed between processes, for slow networks: torch's communication hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from weft.config import TrainingConfig
from weft.engine.batch_norm import has_batch_statistics
from weft.engine.exchange import IN_ONE_MESSAGE
from weft.engine.overlap import Bucket, OverlappedGradients
from weft.engine.strategy import PooledGradients


class HalvedGradients(OverlappedGradients):
    """Gradients are rounded to 16 bits on the way: half the bytes.

    Args:
        batch_size: items of the global batch.
        method: "bf16" (range of float32, 8 significant bits) or "fp16" (11 bits, up to 65,504).
    """

    def __init__(self, batch_size: int, method: str) -> None:
        super().__init__(batch_size)
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        self._hook: Any = default_hooks.bf16_compress_hook if method == "bf16" else default_hooks.fp16_compress_hook

    def tells_beside(self, buckets: list[Bucket]) -> bool:
        """No: it would be rounded."""
        return False

    def start(self, bucket: Bucket) -> Callable[[], Tensor]:
        """Begin to sum a bucket, rounded."""
        return _awaited(self._hook(dist.group.WORLD, bucket))


class LowRankGradients(OverlappedGradients):
    """PowerSGD (Vogels et al., 2019, arXiv:1905.13727): matrices of gradients travel as factors of low rank, and what
    the factors leave out is added to the next step's gradients.

    Args:
        batch_size: items of the global batch.
        rank: of the factors.
        warmup_steps: so many steps at the beginning travel whole, at least 2.
    """

    def __init__(self, batch_size: int, rank: int, warmup_steps: int) -> None:
        super().__init__(batch_size)
        from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

        self._hook: Any = powerSGD_hook.powerSGD_hook
        self._memory: Any = powerSGD_hook.PowerSGDState(
            process_group=None, matrix_approximation_rank=rank, start_powerSGD_iter=warmup_steps
        )

    def tells_beside(self, buckets: list[Bucket]) -> bool:
        """No: it would be factorised."""
        return False

    def overlaps(self, model: nn.Module) -> bool:
        """Not where batch statistics are exchanged in the backward pass: a bucket holds it up until the sum of its
        factors is there, and another process may send its buckets later, as its items reach other parameters.
        """
        return not has_batch_statistics(model)

    def start(self, bucket: Bucket) -> Callable[[], Tensor]:
        """Begin to sum a bucket, as factors."""
        memory, device = self._memory, bucket.buffer().device
        for kept in (memory.p_memory_dict, memory.q_memory_dict, memory.error_dict):
            if bucket.index() in kept:  # after a resume they lie in main memory
                kept[bucket.index()] = kept[bucket.index()].to(device)
        mean = self._hook(self._memory, bucket)
        if device.type == "cpu":  # gloo begins the second sum when the first is there: nothing may come in between
            mean.wait()
        return _awaited(mean)

    def state_dict(self) -> dict[str, Any]:
        """The factors, which are the same in all processes."""
        return {"steps": self._memory.iter, "p": self._memory.p_memory_dict, "q": self._memory.q_memory_dict}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._memory.iter = state["steps"]
        self._memory.p_memory_dict, self._memory.q_memory_dict = state["p"], state["q"]
        for _ in state["p"]:  # the first factors of each bucket were drawn from a seed of their own
            self._memory.rng.randint(1_000_000_000)

    def private_state_dict(self) -> dict[str, Any]:
        """What this process owes to the next steps."""
        return {"errors": self._memory.error_dict}

    def load_private_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `private_state_dict` was taken."""
        self._memory.error_dict = state["errors"]


def gradients_among_processes(model: nn.Module, training: TrainingConfig) -> PooledGradients:
    """What processes that share a run exchange: gradients of a small model in one message, of a large one as they
    come, compressed where the experiment says so.
    """
    batch_size, compression = training.items_per_batch, training.gradient_compression
    if not dist.is_initialized():
        return PooledGradients(batch_size)
    if compression is None:
        small = sum(parameter.numel() for parameter in model.parameters()) <= IN_ONE_MESSAGE
        return PooledGradients(batch_size) if small else OverlappedGradients(batch_size)
    if compression.method == "powersgd":
        return LowRankGradients(batch_size, compression.rank, compression.warmup_steps)
    return HalvedGradients(batch_size, compression.method)


def _awaited(mean: Any) -> Callable[[], Tensor]:
    """The sum that a hook's future mean stands for."""
    return lambda: mean.wait().mul_(dist.get_world_size())
