"""Gradients of processes that share a run, summed while the backward pass goes on.

They are gathered in buckets, as in Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training"
(2020). Unlike DistributedDataParallel this wraps no forward pass: a process without items sends zeros, several networks
with optimizers of their own and parts that are frozen for some epochs need nothing special, and a bucket goes out once
per window of accumulated batches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from weft.engine.exchange import exchanging
from weft.engine.strategy import Exchange, Gradients, PooledGradients
from weft.errors import ProtocolError

# The first bucket is small, so that the network is busy early; the others are large enough for its full speed.
FIRST_BYTES, BYTES = 2**20, 25 * 2**20
_MOST_FLAGS = 4


class Bucket:
    """Gradients that travel together, in one flat tensor.

    The methods without an underscore are those that torch's communication hooks ask of a bucket.

    Args:
        name: the same in every run for the same parameters.
        parameters: of one type on one device.
        last: whether it is the last of its network.
        room: for so many further numbers, which are summed with the gradients.
    """

    def __init__(self, name: str, parameters: list[nn.Parameter], *, last: bool, room: int = 0) -> None:
        first = parameters[0]
        self._parameters = parameters
        count = sum(map(torch.numel, parameters))
        self._flat = torch.zeros(count + room, dtype=first.dtype, device=first.device)
        self._gradients, self.beside = self._flat[:count], self._flat[count:]
        parts = torch.split(self._gradients, [parameter.numel() for parameter in parameters])
        self._views = [part.view(parameter.shape) for part, parameter in zip(parts, parameters, strict=True)]
        self._name = name
        self._last = last
        self.missing: set[nn.Parameter] = set()  # those whose gradients are not complete yet
        self.sum: Callable[[], Tensor] | None = None  # waits for the sum over all processes; None until it is sent

    def index(self) -> str:
        """What this bucket is known by."""
        return self._name

    def buffer(self) -> Tensor:
        """All its gradients, flat, and what goes beside them."""
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

    def summed(self) -> Tensor:
        """The sum over all processes, waited for once."""
        assert self.sum is not None
        total = self.sum()
        self.sum = lambda: total
        return total

    def deliver(self, total: Tensor, share: float) -> None:
        """Make the sum over processes, divided by `share`, the gradients of the parameters."""
        if total is not self._flat:
            self._flat.copy_(total)
        if share not in (0.0, 1.0):
            self._gradients.div_(share)
        for parameter, view in zip(self._parameters, self._views, strict=True):
            # Fused optimizers go through the memory of both side by side, so the gradient has the parameter's layout.
            alike = view.stride() == parameter.stride()
            parameter.grad = view if alike else torch.empty_like(parameter).copy_(view)
        self.sum = None


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

    def tells_beside(self, buckets: list[Bucket]) -> bool:
        """Whether what is said of the gradients travels in their last bucket, which leaves after the backward pass.

        Elsewhere it has an exchange of its own: numbers of 16 bits cannot hold it, compression would change it, and to
        read it from an accelerator would make the processor wait for it.
        """
        return bool(buckets) and all(_is_plain(bucket) for bucket in buckets)

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Replace the gradients by their sum over all processes, divided by the items that the batch really had."""
        self._begin(gradients)
        if not self.tells_beside(self._expected):
            yield from super().average_gradients(gradients)
            return
        weight, *others = self.said(gradients)
        *before, last = self._expected
        for bucket in before[self._sent :]:
            self._send(bucket)
        # Two numbers for the weight, a sum of class weights maybe: one of 32 bits is no better than 1e-7.
        upper = float(torch.tensor(weight, dtype=last.beside.dtype))
        lower = weight - upper if math.isfinite(weight) else 0.0
        room = len(last.beside) - len(others) - 3
        last.beside.copy_(torch.tensor([_check(last), upper, lower, *others, *([0.0] * room)], dtype=torch.float64))
        self._send(last)
        self._wait()
        check, upper, lower, *others = last.beside.tolist()
        if check != _check(last) * dist.get_world_size():
            raise ProtocolError(
                f"other processes send other gradients than rank {dist.get_rank()}, of network {gradients.network}",
                "processes must decide alike: look for decisions from local data in a task",
            )
        self.hear(gradients, [], [upper + lower, *others[: len(others) - room]])

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
            self._buckets[key] = self._made(parameters)
        self._expected = self._buckets[key]
        self._bucket_of = {parameter: bucket for bucket in self._expected for parameter in bucket.parameters()}
        for bucket in self._expected:  # what a task has frozen in this process gets no gradient
            bucket.missing = {parameter for parameter in bucket.parameters() if parameter.requires_grad}
        self._sent = 0

    def _made(self, parameters: list[nn.Parameter]) -> list[Bucket]:
        buckets = in_buckets(parameters, self._names)
        if self.tells_beside(buckets):
            return in_buckets(parameters, self._names, room=3 + _MOST_FLAGS + len(parameters))
        return buckets

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
        leaving = len(self._expected) - int(len(self._expected[-1].beside) > 0)
        while self._sent < leaving and not self._expected[self._sent].missing:
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
        self._begin(gradients)
        for bucket in self._expected[self._sent :]:
            self._send(bucket)
        return []

    def take(self, gradients: Gradients, sums: list[Tensor], share: float) -> None:
        """Wait for the sums."""
        for bucket, total in zip(self._expected, self._wait(), strict=True):
            bucket.deliver(total, share)
        self._expected, self._bucket_of = [], {}

    def _begin(self, gradients: Gradients) -> None:
        if not self._expected:
            self._expect(gradients.parameters)

    def _wait(self) -> list[Tensor]:
        """The sums of all buckets, which have been sent."""
        with exchanging("gradients"):
            return [bucket.summed() for bucket in self._expected]


def _is_plain(bucket: Bucket) -> bool:
    return bucket.buffer().device.type == "cpu" and bucket.buffer().dtype in (torch.float32, torch.float64)


def _check(bucket: Bucket) -> int:
    """A number that processes which send different parameters are unlikely to share; sums of it over up to 4096
    processes are exact, also in 32 bits.
    """
    return int(bucket.index()[:3], 16)


def in_buckets(parameters: list[nn.Parameter], names: dict[nn.Parameter, str], room: int = 0) -> list[Bucket]:
    """Buckets of parameters, those first whose gradients come first: a backward pass begins at the end of the model.

    Args:
        parameters: of a network.
        names: of all parameters.
        room: for further numbers, in the last bucket.
    """
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
    lasts = [group is groups[-1] for group in groups]
    return [
        Bucket(_name_of(group, names), group, last=last, room=room if last else 0)
        for group, last in zip(groups, lasts, strict=True)
    ]


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
