"""The driver for several processes, on one machine or many: a collective is an exchange over `torch.distributed`.

Which process this is comes from the environment, as torchrun, Slurm, Open MPI or a PMI launcher set it.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import os
import re
import socket
import struct
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # re-exported without saying so

from weft.engine.agreeing import Agreement
from weft.engine.batch_norm import statistics_apart
from weft.engine.collectives import Answer, Collective
from weft.engine.drivers import check_modes, current_modes, typed_result
from weft.engine.events import RunResult
from weft.engine.state import Position
from weft.errors import ExchangeError, UsageError

# (rank, world, local rank) in the variables of each launcher, asked in this order. Slurm's number of tasks is that of
# the step, which `srun` starts: a batch script that merely has an allocation is one process.
_LAUNCHERS: dict[str, tuple[str, str, str]] = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "PMI": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
}
# How many of them run on this machine, and what names the job.
_LOCAL_SIZES = {"Open MPI": "OMPI_COMM_WORLD_LOCAL_SIZE", "PMI": "MPI_LOCALNRANKS"}
_JOBS = {
    "Open MPI": ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"),
    "PMI": ("PMI_JOBID", "PMI_KVS"),
    "Slurm": ("SLURM_JOB_ID", "SLURM_STEP_ID"),
}
_agreement = Agreement()  # of the group that this process has joined; it outlives a run, as the group does
LISTENS = "WEFT_LISTENS"  # a socket that the first process inherits, bound and listening, for the others to meet at


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
        present = [name for name in (rank, world) if name in environment]
        if len(present) == 1 and launcher != "Slurm":  # a batch script is told a rank, but not a step
            missing = world if present == [rank] else rank
            raise UsageError(
                f"{present[0]} is set, but not {missing}: is this one of several processes?",
                f"start with torchrun, srun or mpirun, which set both, or unset {present[0]}",
            )
        if len(present) < 2:
            continue
        try:
            place = Place(int(environment[rank]), int(environment[world]), int(environment.get(local, "0")), launcher)
        except ValueError as error:
            raise UsageError(
                f"{launcher}'s variables {rank}={environment[rank]!r} and {world}={environment[world]!r} must be "
                "whole numbers",
                "check how the processes are started",
            ) from error
        if place.world == 1 and place.rank == 0 and launcher == "Slurm":
            continue
        if not 0 <= place.rank < place.world:
            raise UsageError(
                f"{launcher} says rank {place.rank} of {place.world} processes ({rank}, {world})",
                "ranks count from 0: check these variables, or unset them",
            )
        return place if place.world > 1 else None
    return None


def processes_here(world: int, environment: Mapping[str, str] = os.environ) -> int:
    """How many of a run's processes share this machine: all, where their launcher does not say.

    Args:
        world: number of processes.
        environment: the launcher's variables.
    """
    names = ("LOCAL_WORLD_SIZE", *_LOCAL_SIZES.values())
    told = next((int(environment[name]) for name in names if environment.get(name, "").isdecimal()), world)
    return max(1, min(told, world))


def is_launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher takes care of the number of processes, also where it is one: then none are started here.

    One task of Slurm or of MPI may well start processes of its own.
    """
    return {"RANK", "WORLD_SIZE"} <= environment.keys() or find_place(environment) is not None


@contextmanager
def joined(place: Place, *, timeout: float, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Join the other processes; inside, collectives can be exchanged.

    Args:
        place: which process this is.
        timeout: seconds that an exchange may take before it fails.
        environment: says where the first process listens (MASTER_ADDR, MASTER_PORT).

    Raises:
        UsageError: nobody says where the first process is.
        ExchangeError: the others did not come in time.
    """
    # A first import while processes are joined would keep their group, and its threads, to the interpreter's end and
    # beyond: functions in there have it as a default. torch's compiler imports it.
    import torch.distributed.nn

    address, port = _meeting_point(place, environment)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    _name_interface(address)
    patience = datetime.timedelta(seconds=timeout)
    # torchrun's agent keeps one store for all attempts: without a prefix a second one finds the addresses of the first.
    # Where it keeps none, machines that come back count their attempts anew: a prefix would keep them apart.
    kept = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0") if kept else "0"
    hosts = place.first and not kept
    inherited = environment.get(LISTENS) if hosts else None
    try:
        store = TCPStore(
            address, port, place.world, hosts, timeout=patience,
            master_listen_fd=None if inherited is None else int(inherited),
        )  # fmt: skip
        prefixed = PrefixStore(f"weft/{_job(place, environment)}/{attempt}", store)
        dist.init_process_group(backend, store=prefixed, timeout=patience, rank=place.rank, world_size=place.world)
    except (RuntimeError, ValueError) as error:  # torch's DistStoreError and its kin are RuntimeErrors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExchangeError(
            f"rank {place.rank} could not join the other {place.world - 1} at {address}:{port}: {reason[:200]}",
            "check that all processes were started, that MASTER_ADDR and MASTER_PORT are the first one's, and that "
            "the machines reach each other",
        ) from error
    _agreement.forget()
    try:
        with statistics_apart(patience):
            yield
    finally:
        dist.destroy_process_group()


def _meeting_point(place: Place, environment: Mapping[str, str]) -> tuple[str, int]:
    """Address and port where the first process listens."""
    address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    if address is None and place.launcher == "Slurm":
        address = first_host(environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST") or "")
    if address is None and environment.get(_LOCAL_SIZES.get(place.launcher, "")) == str(place.world):
        address = "127.0.0.1"
    if not address:
        raise UsageError(
            f"{place.launcher} started {place.world} processes, but nobody says where the first one listens",
            "set MASTER_ADDR to the first machine's address (and MASTER_PORT), or start with torchrun",
        )
    if port is None:  # the same for all processes of a job, and most likely unlike that of another job
        job = hashlib.blake2b(_job(place, environment).encode(), digest_size=4).digest()
        return address, 15_000 + int.from_bytes(job) % 15_000
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        raise UsageError(f"MASTER_PORT is {port!r}, not a port", "set it to a free port of the first machine")
    return address, int(port)


def _job(place: Place, environment: Mapping[str, str]) -> str:
    names = _JOBS.get(place.launcher, ())
    return "-".join(environment[name] for name in names if name in environment)


def _name_interface(address: str) -> None:
    """Have gloo talk over the network interface that leads to the first process: what the machine's own name stands
    for, which it would take else, is often the loopback.
    """
    if sys.platform != "linux" or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)  # sends nothing
            own = probe.getsockname()[0]
        names = [name for _, name in socket.if_nameindex() if _address_of(name) == own]
    except OSError:  # gloo's own choice remains, and an address that leads nowhere is an error soon
        return
    if names:
        os.environ["GLOO_SOCKET_IFNAME"] = names[0]


def _address_of(interface: str) -> str | None:
    """The IPv4 address of a network interface (Linux)."""
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), 0x8915, request)[20:24])  # SIOCGIFADDR
        except OSError:
            return None


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
        ExchangeError: another process died, or an exchange took too long.
    """
    modes = current_modes()
    try:
        collective = next(steps)
        while True:
            check_modes(modes, collective)
            collective = steps.send(_agreement.answer(collective, position()))
    except StopIteration as end:
        return typed_result(end.value, f"rank {place.rank}")
    finally:
        steps.close()
