"""Gradients of processes that share a run, summed while the backward pass goes on.

They are gathered in buckets, as in Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training"
(2020). Unlike DistributedDataParallel this wraps no forward pass: a process without items sends zeros, several networks
with optimizers of their own and parts that are frozen for some epochs need nothing special, and a bucket goes out once
per window of accumulated batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from weft.engine.exchange import exchanging
from weft.engine.strategy import Gradients, PooledGradients
from weft.errors import ProtocolError

# The first bucket is small, so that the network is busy early; the others are large enough for its full speed.
FIRST_BYTES, BYTES = 2**20, 25 * 2**20


class Bucket:
    """Gradients that travel together, in one flat tensor.

    The methods without an underscore are those that torch's communication hooks ask of a bucket.

    Args:
        name: the same in every run for the same parameters.
        parameters: of one type on one device.
        last: whether it is the last of its network.
    """

    def __init__(self, name: str, parameters: list[nn.Parameter], *, last: bool) -> None:
        first = parameters[0]
        self._parameters = parameters
        self._flat = torch.zeros(sum(map(torch.numel, parameters)), dtype=first.dtype, device=first.device)
        parts = torch.split(self._flat, [parameter.numel() for parameter in parameters])
        self._views = [part.view(parameter.shape) for part, parameter in zip(parts, parameters, strict=True)]
        self._name = name
        self._last = last
        self.missing = set(parameters)  # those whose gradients are not complete yet
        self.sum: Callable[[], Tensor] | None = None  # waits for the sum over all processes; None until it is sent

    def index(self) -> str:
        """What this bucket is known by."""
        return self._name

    def buffer(self) -> Tensor:
        """All its gradients, flat."""
        return self._flat

    def gradients(self) -> list[Tensor]:
        """Its gradients in their shapes; views of `buffer`."""
        return self._views

    def parameters(self) -> list[nn.Parameter]:
        """What the gradients belong to."""
        return self._parameters

    def is_last(self) -> bool:
        """Whether no other follows in this step."""
        return self._last

    def collect(self) -> None:
        """Take the gradients from the parameters; a missing one is zero."""
        there = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if len(there) == len(self._views):
            torch._foreach_copy_(self._views, there)
            return
        for view, parameter in zip(self._views, self._parameters, strict=True):
            view.zero_() if parameter.grad is None else view.copy_(parameter.grad)

    def deliver(self, total: Tensor, share: float) -> None:
        """Make the sum over processes, divided by `share`, the gradients of the parameters."""
        if total is not self._flat:
            self._flat.copy_(total)
        if share not in (0.0, 1.0):
            self._flat.div_(share)
        for parameter, view in zip(self._parameters, self._views, strict=True):
            # Fused optimizers go through the memory of both side by side, so the gradient has the parameter's layout.
            alike = view.stride() == parameter.stride()
            parameter.grad = view if alike else torch.empty_like(parameter).copy_(view)
        self.sum, self.missing = None, set(self._parameters)


class OverlappedGradients(PooledGradients):
    """The mean over the global batch, whose sums travel while the backward pass goes on.

    Only for processes that exchange over torch.distributed; all send the same buckets in the same order.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self._buckets: dict[tuple[int, ...], list[Bucket]] = {}
        self._expected: list[Bucket] = []
        self._bucket_of: dict[nn.Parameter, Bucket] = {}
        self._sent = 0
        self._names: dict[nn.Parameter, str] = {}
        self._hears = True  # when gradients are complete

    def watch(self, model: nn.Module) -> None:
        """Be told when a gradient is complete."""
        self._hears = self.overlaps(model)
        for name, parameter in model.named_parameters():
            self._meet(parameter, name)

    def overlaps(self, model: nn.Module) -> bool:
        """Whether buckets leave in the backward pass; else they leave after it."""
        return True

    def _meet(self, parameter: nn.Parameter, name: str) -> None:
        self._names[parameter] = name
        if self._hears and parameter.is_floating_point():
            _hear_of(parameter, self._arrived)

    def last_backward(self, parameters: list[nn.Parameter]) -> None:
        """The gradients of these parameters are complete after the backward pass that follows."""
        self._expect(parameters)

    def _expect(self, parameters: list[nn.Parameter]) -> None:
        key = tuple(map(id, parameters))
        if key not in self._buckets:
            for parameter in parameters:
                if parameter not in self._names:  # a task's own optimizer may have some that are not the model's
                    self._meet(parameter, f"beside the model {len(self._names)}")
            self._buckets = {known: buckets for known, buckets in self._buckets.items() if not set(known) & set(key)}
            self._buckets[key] = in_buckets(parameters, self._names)
        self._expected = self._buckets[key]
        self._bucket_of = {parameter: bucket for bucket in self._expected for parameter in bucket.parameters()}
        self._sent = 0

    def _arrived(self, parameter: nn.Parameter) -> None:
        bucket = self._bucket_of.get(parameter)
        if bucket is None:
            return  # of another network, or gradients are still accumulated
        if bucket.sum is not None:
            raise ProtocolError(
                "a parameter got a gradient twice in one backward pass, after the first was sent to the others",
                "use torch.utils.checkpoint with use_reentrant=False",
            )
        bucket.missing.discard(parameter)
        while self._sent < len(self._expected) and not self._expected[self._sent].missing:
            self._send(self._expected[self._sent])

    def _send(self, bucket: Bucket) -> None:
        bucket.collect()
        with exchanging("gradients"):
            bucket.sum = self.start(bucket)
        self._sent += 1

    def start(self, bucket: Bucket) -> Callable[[], Tensor]:
        """Begin to sum a bucket over all processes; the answer waits for the sum and returns it."""
        work: Any = dist.all_reduce(bucket.buffer(), async_op=True)

        def wait() -> Tensor:
            work.wait()
            return bucket.buffer()

        return wait

    def sent(self, gradients: Gradients) -> list[Tensor]:
        """None: what did not leave in the backward pass leaves now, by itself."""
        if not self._expected:
            self._expect(gradients.parameters)
        for bucket in self._expected[self._sent :]:
            self._send(bucket)
        return []

    def take(self, gradients: Gradients, sums: list[Tensor], share: float) -> None:
        """Wait for the sums."""
        for bucket in self._expected:
            assert bucket.sum is not None
            with exchanging("gradients"):
                total = bucket.sum()
            bucket.deliver(total, share)
        self._expected, self._bucket_of = [], {}


def in_buckets(parameters: list[nn.Parameter], names: dict[nn.Parameter, str]) -> list[Bucket]:
    """Buckets of parameters, those first whose gradients come first: a backward pass begins at the end of the model."""
    groups: list[list[nn.Parameter]] = []
    size = 0
    for parameter in reversed(parameters):
        limit = FIRST_BYTES if len(groups) <= 1 else BYTES
        alike = bool(groups) and (groups[-1][0].dtype, groups[-1][0].device) == (parameter.dtype, parameter.device)
        if not alike or size >= limit:
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return [Bucket(_name_of(group, names), group, last=group is groups[-1]) for group in groups]


def _name_of(group: list[nn.Parameter], names: dict[nn.Parameter, str]) -> str:
    listed = " ".join(names[parameter] for parameter in group)
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


def _hear_of(parameter: nn.Parameter, arrived: Callable[[nn.Parameter], None]) -> None:
    frozen = not parameter.requires_grad
    if frozen:  # torch takes the hook of a parameter that is trained only; it may be, later
        parameter.requires_grad_(True)
    parameter.register_post_accumulate_grad_hook(arrived)  # type: ignore[no-untyped-call]
    if frozen:
        parameter.requires_grad_(False)
