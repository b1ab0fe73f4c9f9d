"""Gradients in buckets, and the group of processes that they travel in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.faults.nursery import Nursery
from tests.processes.children import start, write_job
from tests.processes.launch import free_port
from weft.engine import overlap
from weft.engine.overlap import in_buckets

LEAVE = """
from pathlib import Path
import torch
from weft.engine.processes import Place, joined

with joined(Place(0, 1, 0, "torchrun"), timeout=60, environment={"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "PORT"}):
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)  # the first one of the process
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
print([name for name in names if "gloo" in name or "store" in name])
"""

UNFREEZE = """
import copy, json
import torch
from weft.engine.compression import LowRankGradients
from weft.engine.overlap import in_buckets
from weft.engine.processes import Place, joined

def step(gradients, parameter, name):
    (bucket,) = in_buckets([parameter], {parameter: name})
    bucket.collect()
    return gradients.start(bucket)().clone()

with joined(Place(0, 1, 0, "torchrun"), timeout=60, environment={"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "PORT"}):
    torch.manual_seed(3)
    first, second = (torch.nn.Parameter(torch.zeros(9, 9)) for _ in range(2))
    first.grad, second.grad = torch.randn(9, 9), torch.randn(9, 9)
    left_alone, resumed = LowRankGradients(4, 1, 2), LowRankGradients(4, 1, 2)
    for _ in range(3):
        step(left_alone, first, "first")
    resumed.load_state_dict(copy.deepcopy(left_alone.state_dict()))
    resumed.load_private_state_dict(copy.deepcopy(left_alone.private_state_dict()))
    print([torch.equal(step(left_alone, one, name), step(resumed, one, name))
           for one, name in ((first, "first"), (second, "second"))])
"""


def run_code(code: str) -> subprocess.CompletedProcess[str]:
    """In an interpreter of its own, where the process is alone in a group."""
    return subprocess.run(
        [sys.executable, "-c", code.replace("PORT", str(free_port()))], capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_factors_of_what_is_unfrozen_after_a_resume_begin_as_if_there_had_been_none() -> None:
    ended = run_code(UNFREEZE)
    assert ended.stdout.strip() == "[True, True]", ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_no_thread_of_the_group_is_left_when_a_process_leaves_it() -> None:
    """One that ends together with the interpreter may take the whole process down."""
    ended = run_code(LEAVE)
    assert ended.stdout.strip() == "[]", ended.stderr


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_fused_optimizers_find_gradients_in_the_layout_of_the_parameters(
    optimizer: type[torch.optim.Optimizer],
) -> None:
    """Channels-last weights, and gradients from a bucket, which is flat."""
    steps = []
    for bucketed in (False, True):
        torch.manual_seed(4)
        layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = list(layer.parameters())
        layer(torch.randn(2, 3, 5, 5)).square().sum().backward()
        if bucketed:
            for bucket in in_buckets(parameters, {parameter: str(row) for row, parameter in enumerate(parameters)}):
                bucket.collect()
                bucket.deliver(bucket.buffer(), 1.0)
        optimizer(parameters, lr=0.1, fused=True).step()  # type: ignore[call-arg]
        steps.append([parameter.detach().clone() for parameter in parameters])
    assert all(torch.equal(one, other) for one, other in zip(*steps, strict=True))


@pytest.mark.slow
def test_a_profile_of_processes_whose_gradients_travel_in_buckets(nursery: Nursery, tmp_path: Path) -> None:
    file = write_job(tmp_path, {"training.gradient_compression": "bf16", "run.processes": 2})
    ended = start(nursery, "profile", file, "--steps", "3").wait(300)
    assert ended.code == 0, ended.text
    assert "exchange" in ended.out


def test_what_tells_parameters_apart_is_summed_exactly_over_thousands_of_processes() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    for number in range(64):
        (bucket,) = in_buckets([parameter], {parameter: f"layer {number}"}, room=1)
        total = torch.zeros(1)
        for _ in range(1000):
            total += overlap._check(bucket)
        assert float(total) == overlap._check(bucket) * 1000
    assert len({overlap._check(in_buckets([parameter], {parameter: str(number)})[0]) for number in range(64)}) > 60
