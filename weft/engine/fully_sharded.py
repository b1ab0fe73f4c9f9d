"""Networks that do not fit: each process keeps a part of every parameter, its gradient and what the optimizer knows of
it (Rajbhandari et al., 2020, "ZeRO", arXiv:1910.02054; Zhao et al., 2023, arXiv:2304.11277), by torch's `fully_shard`.

Parts are put together block by block, where a forward or backward pass needs them. These are exchanges inside the
passes: every process must run as many of them as all others, if need be without items.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from weft.engine.agreeing import different_networks, lines_of, unlike
from weft.engine.allocator import give_back_large_pieces
from weft.engine.exchange import exchanging
from weft.engine.recomputing import found_blocks
from weft.engine.strategy import Gradients, PooledGradients
from weft.errors import ConfigError, Problem

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_WHERE = ("run", "sharding")
# What is asked of torch's class; older ones lack some of it.
_SETTINGS = (
    "set_gradient_divide_factor", "set_force_sum_reduction_for_comms", "set_reduce_scatter_unused_params",
    "set_custom_all_gather", "set_custom_reduce_scatter",
)  # fmt: skip
_LARGE = 2**20  # parameters from which a single layer of a list or sequence is put together by itself


class ShardedGradients(PooledGradients):
    """The mean over the global batch, for parameters that are sharded: the backward pass itself leaves each process the
    sums of its part.
    """

    def sent(self, gradients: Gradients) -> list[Tensor]:
        """None: they are summed already."""
        return []

    def take(self, gradients: Gradients, sums: list[Tensor], share: float) -> None:
        """Divide this process's part of the sums."""
        parts = [local(parameter.grad) for parameter in gradients.parameters if parameter.grad is not None]
        if parts and share not in (0.0, 1.0):
            torch._foreach_div_(parts, share)


def shard(model: nn.Module, device: torch.device) -> DeviceMesh:
    """Leave this process its part of a model, in place, on the device; names and state dict stay what they are.

    Args:
        model: in main memory, the same in all processes; it is never on the device as a whole.
        device: where it computes.

    Returns:
        what the parts are spread over: all processes.

    Raises:
        ConfigError: its parameters cannot be sharded, or torch is too old.
        ProtocolError: processes have made different models.
    """
    from torch.distributed.device_mesh import init_device_mesh

    _check(model)
    if told := unlike(lines_of(dict(model.named_parameters()))):
        raise different_networks(told)
    try:
        from torch.distributed.fsdp import FSDPModule, fully_shard
    except ImportError as error:
        raise _too_old() from error
    if not all(hasattr(FSDPModule, setting) for setting in _SETTINGS):
        raise _too_old()
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    if device.type == "cpu":
        give_back_large_pieces()
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # Inner modules come first. The whole model gives its own parameters back after a forward pass too, so that between
    # steps there are parts only.
    for name in [*reversed(units_of(model)), ""]:
        fully_shard(model.get_submodule(name), mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # sums: each process weighs its loss before the backward pass
            module.set_force_sum_reduction_for_comms(True)
            module.set_reduce_scatter_unused_params(True, recurse=False)
            module.set_custom_all_gather(cast(Any, _AllGather()))
            module.set_custom_reduce_scatter(cast(Any, _ReduceScatter()))
    return mesh


def require_one_network(networks: dict[str, nn.Module]) -> None:
    """Refuse tasks whose updates reach a part of the model only.

    Raises:
        ConfigError: there are several networks.
    """
    if len(networks) > 1:
        raise _refused(f"the task trains several networks ({', '.join(networks)})", "train them one by one")


def units_of(model: nn.Module) -> list[str]:
    """Names of the modules whose parameters are put together at once: blocks, and large layers of sequences.

    Modules that share parameters with others are left to the whole model.
    """
    owners: dict[nn.Parameter, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, []).append(name)

    def by_itself(name: str) -> bool:
        parameters = model.get_submodule(name).parameters()
        return all(f"{owner}.".startswith(f"{name}.") for parameter in parameters for owner in owners[parameter])

    return [name for name in found_blocks(model, leaves_from=_LARGE) if by_itself(name)]


def _check(model: nn.Module) -> None:
    kinds = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    if len(kinds) > 1:
        raise _refused(f"the parameters of {type(model).__name__} are of several types ({', '.join(kinds)})", "use one")
    scalars = [name for name, parameter in model.named_parameters() if parameter.ndim == 0]
    if scalars:
        raise _refused(f"parameter {scalars[0]} is a single number, without an axis", "give it the shape [1]")


def _too_old() -> ConfigError:
    return ConfigError(
        Problem(f"torch {torch.__version__} does not shard models as it is needed here", "use torch 2.13", _WHERE)
    )


def _refused(what: str, remedy: str) -> ConfigError:
    return ConfigError(Problem(f"{what}: it cannot be sharded", f"{remedy}, or set run.sharding: none", _WHERE))


# Their names until torch 2.12 are deprecated.
_all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class _Exchange:
    """Allocates as torch's own exchanges do."""

    def allocate(self, size: Iterable[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(tuple(size), dtype=dtype, device=device)


class _AllGather(_Exchange):
    """Parts become the whole; a failure is told as that of any exchange."""

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False) -> Any:
        with exchanging("parameters"):
            return _all_gather(output_tensor, input_tensor, group=group, async_op=async_op)


class _ReduceScatter(_Exchange):
    """Gradients are summed, and each process gets its part."""

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False) -> Any:
        with exchanging("gradients"):
            return _reduce_scatter(output_tensor, input_tensor, op=op, group=group, async_op=async_op)


# --- tensors whose parts lie in several processes ---------------------------------------------------------------------


def is_sharded(tensor: Tensor) -> bool:
    """Whether this is a part of a tensor, that knows of the others."""
    return hasattr(tensor, "full_tensor")


def local(tensor: Tensor) -> Tensor:
    """This process's part; the tensor itself where it is whole."""
    part: Tensor = cast(Any, tensor).to_local() if is_sharded(tensor) else tensor
    return part


def whole(tensor: Tensor) -> Tensor:
    """The tensor put together from all processes' parts, in each of them: all must ask for it."""
    if not is_sharded(tensor):
        return tensor
    with exchanging("a tensor"):
        full: Tensor = cast(Any, tensor).full_tensor()
    return full


def part_of(tensor: Tensor, mesh: DeviceMesh) -> Tensor:
    """This process's part of a tensor that it has as a whole."""
    from torch.distributed.tensor import Shard, distribute_tensor

    return distribute_tensor(tensor.to(mesh.device_type), mesh, [Shard(0)], src_data_rank=None)


def no_part_of(shape: list[int], dtype: torch.dtype, mesh: DeviceMesh) -> Tensor:
    """A sharded tensor whose values are still to be read: zeros."""
    from torch.distributed.tensor import Shard, zeros

    return zeros(*shape, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])


def summed(numbers: list[int]) -> list[int]:
    """Whole numbers added over all processes, at once: for what must be agreed on between forward passes."""
    vector = torch.tensor(numbers)
    with exchanging("what comes next"):
        dist.all_reduce(vector)
    total: list[int] = vector.tolist()
    return total


def gathered(model: nn.Module, *, keep: bool) -> dict[str, Tensor] | None:
    """All weights and buffers as a whole, in main memory, where they are kept; every process must call it.

    Args:
        model: sharded.
        keep: whether this process wants them; others get None and never have more than one tensor at once.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        full = whole(tensor.detach())
        if keep:
            found[name] = full.to("cpu", copy=not is_sharded(tensor))
    return found if keep else None


@torch.no_grad()
def spread(model: nn.Module, weights: dict[str, Tensor] | None, mesh: DeviceMesh) -> None:
    """Load weights that the first process has into a sharded model; every process must call it.

    Args:
        model: sharded.
        weights: whole ones, by name; None in other processes.
        mesh: what the model is spread over.
    """
    from torch.distributed.tensor import Shard, distribute_tensor

    for name, own in model.state_dict().items():
        if weights is None:
            given = torch.empty(own.shape, dtype=own.dtype, device=mesh.device_type)
        else:
            given = weights[name].to(mesh.device_type, own.dtype)
        with exchanging("weights"):
            if is_sharded(own):
                own.copy_(distribute_tensor(given, mesh, [Shard(0)]))
            else:
                dist.broadcast(given, 0)
                own.copy_(given)
