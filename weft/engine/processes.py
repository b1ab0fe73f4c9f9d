"""The driver for several processes, on one machine or many: a collective is an exchange over `torch.distributed`.

Which process this is comes from the environment, as torchrun, Slurm, Open MPI or a PMI launcher set it.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # re-exported without saying so

from weft.engine.collectives import Answer, Collective, shapes_of
from weft.engine.drivers import check_modes, current_modes, typed_result
from weft.engine.events import RunResult
from weft.engine.exchange import exchanging
from weft.engine.sharing import BEGINNING
from weft.engine.state import Position
from weft.errors import ProtocolError, UsageError

# (rank, world, local rank) in the variables of each launcher, asked in this order.
_LAUNCHERS: dict[str, tuple[str, str, str]] = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "Slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    "PMI": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
}
# Up to so many numbers everybody sends its own to all and sums them in order of ranks; more are reduced on the way.
_SMALL = 65_536


@dataclass(frozen=True, slots=True)
class Place:
    """Which of several processes this is.

    Args:
        rank: from 0; the first one writes the run directory.
        world: number of processes.
        local_rank: number among those of this machine, which decides about the GPU.
        launcher: who started them, for messages.
    """

    rank: int
    world: int
    local_rank: int
    launcher: str

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0


def find_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Where a launcher put this process; None when it was started alone.

    Raises:
        UsageError: the launcher's variables contradict one another.
    """
    for launcher, (rank, world, local) in _LAUNCHERS.items():
        if rank not in environment or world not in environment:
            continue
        try:
            place = Place(int(environment[rank]), int(environment[world]), int(environment.get(local, "0")), launcher)
        except ValueError as error:
            raise UsageError(f"{launcher}'s variables {rank}, {world} are not numbers", "start again") from error
        if launcher == "Slurm" and place.world == 1:
            continue  # an ordinary batch script
        if not 0 <= place.rank < place.world:
            raise UsageError(
                f"{launcher} says rank {place.rank} of {place.world} processes",
                f"check {rank} and {world}, or unset them",
            )
        return place if place.world > 1 else None
    return None


@contextmanager
def joined(place: Place, *, timeout: float, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Join the other processes; inside, collectives can be exchanged.

    Args:
        place: which process this is.
        timeout: seconds that an exchange may take before it fails.
        environment: says where the first process listens (MASTER_ADDR, MASTER_PORT).

    Raises:
        UsageError: nobody says where the first process is.
    """
    address, port = _meeting_point(place, environment)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    patience = datetime.timedelta(seconds=timeout)
    # torchrun's agent keeps one store for all attempts: without a prefix a second one finds the addresses of the first.
    hosts = place.first and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = TCPStore(address, int(port), place.world, hosts, timeout=patience, multi_tenant=hosts)
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        backend,
        store=PrefixStore(f"weft/{attempt}", store),
        timeout=patience,
        rank=place.rank,
        world_size=place.world,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _meeting_point(place: Place, environment: Mapping[str, str]) -> tuple[str, str]:
    address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT", "29500")
    if address is None and place.launcher == "Slurm":
        address = first_host(environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST") or "")
        # the same for all tasks of a step, and unlike that of another job on the same machine
        port = environment.get("MASTER_PORT") or str(20_000 + int(environment.get("SLURM_JOB_ID", "0")) % 20_000)
    if address is None and environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == str(place.world):
        address = "127.0.0.1"
    if not address:
        raise UsageError(
            f"{place.launcher} started {place.world} processes, but nobody says where the first one listens",
            "set MASTER_ADDR to the first machine's address (and MASTER_PORT), or start with torchrun",
        )
    return address, port


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list: "gpu[03-05,9],login" is gpu03."""
    match = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    return "" if match is None else match[1] + (match[2] or "")


def drive_among_processes(
    steps: Generator[Collective, Answer, RunResult], place: Place, position: Callable[[], Position]
) -> RunResult:
    """Run this process's share; every collective is exchanged with all others.

    Args:
        steps: the run.
        place: which process this is.
        position: where the run is, so that processes that lost one another notice.

    Raises:
        ProtocolError: the processes ask for different collectives.
        WorkerError: another process died, or an exchange took too long.
    """
    modes = current_modes()
    try:
        collective = next(steps)
        while True:
            check_modes(modes, collective)
            collective = steps.send(_exchange(collective, _signature(collective, position()), place))
    except StopIteration as end:
        return typed_result(end.value, f"rank {place.rank}")
    finally:
        steps.close()


def _exchange(collective: Collective, signature: int, place: Place) -> Answer:
    with exchanging(collective.tag):
        if collective.kind == "gather":
            return _gather(collective, signature, place)
        if sum(tensor.numel() for tensor in collective.tensors) > _SMALL:
            _agree_on(collective, signature, place)
            return [_reduced(tensor) for tensor in collective.tensors]
        return _summed_in_order(collective, signature, place)


def _signature(collective: Collective, position: Position) -> int:
    # When they begin, the first process may have resumed already: the others are told where it is.
    where = "" if collective.tag == BEGINNING else f"{position.epoch}|{position.step}"
    text = f"{where}|{collective.kind}|{collective.tag}|{shapes_of(collective)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())


def _all(vector: Tensor, place: Place) -> Tensor:
    """Everybody's vector of one length, [world, length]."""
    received = [torch.empty_like(vector) for _ in range(place.world)]
    dist.all_gather(received, vector)
    return torch.stack(received)


def _check_signatures(signatures: Tensor, collective: Collective, place: Place) -> None:
    others = [rank for rank, value in enumerate(signatures.tolist()) if value != int(signatures[place.rank])]
    if others:
        raise ProtocolError(
            f"rank {place.rank} asks for '{collective.tag}' with shapes {list(shapes_of(collective))}; "
            f"rank {', '.join(map(str, others))} asks for something else",
            "processes must decide alike: look for decisions from local data in a task or strategy",
        )


def _agree_on(collective: Collective, signature: int, place: Place) -> None:
    signatures = _all(torch.tensor([signature]), place)
    _check_signatures(signatures[:, 0], collective, place)


def _summed_in_order(collective: Collective, signature: int, place: Place) -> Answer:
    """One message each: a signature, then all numbers as 64-bit words. Sums are taken in order of ranks."""
    words = [torch.tensor([signature])]
    for tensor in collective.tensors:
        flat = tensor.detach().cpu().reshape(-1)
        words.append(flat.to(torch.float64).view(torch.int64) if flat.is_floating_point() else flat.to(torch.int64))
    messages = _all(torch.cat(words), place)
    _check_signatures(messages[:, 0], collective, place)
    columns = torch.split(messages[:, 1:], [tensor.numel() for tensor in collective.tensors], dim=1)
    return [_total(column, tensor) for column, tensor in zip(columns, collective.tensors, strict=True)]


def _total(column: Tensor, like: Tensor) -> Tensor:
    rows = column.contiguous().view(torch.float64) if like.is_floating_point() else column
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total.to(like.dtype).reshape(like.shape).to(like.device)


def _reduced(tensor: Tensor) -> Tensor:
    total = tensor.detach().to(torch.float64 if tensor.is_floating_point() else torch.int64, copy=True)
    dist.all_reduce(total)
    return total.to(tensor.dtype)


def _gather(collective: Collective, signature: int, place: Place) -> Answer:
    _agree_on(collective, signature, place)
    return [_gathered(tensor, place) for tensor in collective.tensors]


def _gathered(tensor: Tensor, place: Place) -> Tensor:
    """Everybody's tensor, one after the other along the first dimension, whatever its length with each."""
    local = tensor.detach().cpu().contiguous()
    lengths = _all(torch.tensor([len(local)]), place)[:, 0].tolist()
    padded = local.new_zeros((max(lengths), *local.shape[1:]))
    padded[: len(local)] = local
    rows = _all(padded, place)
    return torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)]).to(tensor.device)
