"""Five processes that average their gradients by an all-reduce of gloo in every step: the bare loop of distributed
training, over TCP on this machine. Nothing is scored, saved or encoded.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from weft.data.order import permutation
from weft.engine.seeding import participant_seed
from weft.nets import MLP

Table = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


class Gloo:
    """Processes that wait for the next steps.

    Args:
        tables: training rows of each site.
        seeds: of each site, for the order of its rows and, the first one, for the weights.
        sizes: of the perceptron's layers.
        batch_size: of each site.
    """

    def __init__(self, tables: list[Table], seeds: list[int], sizes: list[int], batch_size: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank, table in enumerate(tables):
            here, there = context.Pipe()
            given = (there, rank, len(tables), port, table, (seeds[0], seeds[rank]), sizes, batch_size)
            process = context.Process(target=_site, args=given, daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def steps(self, count: int) -> list[float]:
        """Take so many steps; the seconds of each at the first site."""
        for pipe in self._pipes:
            pipe.send(count)
        answers: list[list[float]] = [pipe.recv() for pipe in self._pipes]
        return answers[0]

    def weights(self) -> list[torch.Tensor]:
        """Those of the first site."""
        for pipe in self._pipes:
            pipe.send(0)
        answers = [pipe.recv() for pipe in self._pipes]
        return [torch.from_numpy(value) for value in answers[0]]

    def close(self) -> None:
        """End all processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()


def _site(
    pipe: Connection,
    rank: int,
    world: int,
    port: int,
    table: Table,
    seeds: tuple[int, int],
    sizes: list[int],
    size: int,
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    torch.manual_seed(participant_seed(seeds[0], 0))
    model = MLP(sizes[0], sizes[-1], sizes[1:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    inputs, targets = torch.from_numpy(table[0]), torch.from_numpy(table[1])
    batches: list[torch.Tensor] = []
    epoch = 0
    try:
        while True:
            count = pipe.recv()
            if count == 0:
                pipe.send([value.numpy() for value in model.state_dict().values()])
                continue
            times = []
            for _ in range(count):
                if not batches:
                    batches = list(permutation(len(inputs), seeds[1], epoch).split(size))
                    epoch += 1
                started = time.perf_counter()
                rows = batches.pop(0)
                _step(model, optimizer, inputs[rows], targets[rows])
                times.append(time.perf_counter() - started)
            pipe.send(times)
    except EOFError:
        dist.destroy_process_group()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    optimizer.zero_grad()
    (nn.functional.cross_entropy(model(inputs), targets) * len(inputs)).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients] + [torch.tensor([float(len(inputs))])])
    dist.all_reduce(flat)
    flat = flat[:-1] / flat[-1]
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(mean.view_as(gradient))
    optimizer.step()
