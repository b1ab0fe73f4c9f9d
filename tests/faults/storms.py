"""Many writes of checkpoints, each killed at a random moment; runs in a child of the nursery."""

from __future__ import annotations

import os
import random
import signal
import struct
import time
from pathlib import Path
from typing import Any

import torch

from weft.engine.checkpoints import CheckpointFolder

NUMBERS = 20_000  # of a state: large enough that a write takes a while


def state_of(step: int) -> dict[str, Any]:
    """A state that can be told by its step; every third step is the best so far."""
    return {
        "model": {"weights": torch.full((NUMBERS,), float(step))},
        "best": {"step": step - step % 3 or None},
        "position": {"step": step},
    }


def write_until_killed(folder: Path, step: int, told: int) -> None:
    """Save one state after the other; the number of each goes to the pipe `told` once it is saved."""
    store = CheckpointFolder(folder)
    if step > 1:
        assert store.load_last() is not None
    while True:
        if step % 6 == 0:
            store.save_best({"weights": torch.full((NUMBERS,), float(step))}, step)
        store.save_last(state_of(step), step, best=step % 6 == 3)  # then it is one file with two names
        os.write(told, struct.pack("q", step))
        step += 1


def check(folder: Path, saved: int) -> int:
    """Whatever was said to be saved can be loaded, or something newer; returns the step that it goes on from."""
    store = CheckpointFolder(folder)
    state = store.load_last()
    step = state["position"]["step"] if state is not None else 0
    assert step >= saved, f"step {saved} was saved, but {step} is the newest"
    if state is not None:
        assert torch.equal(state["model"]["weights"], state_of(step)["model"]["weights"])
        best = state["best"]["step"]
        if best is not None:
            assert torch.equal(store.load_best(best)["weights"], torch.full((NUMBERS,), float(best)))
    assert not list(folder.glob(".*")), "leftovers were not swept"
    assert len(list(folder.glob("last-*"))) <= 4
    return int(step)


def storm(folder_name: str, kills: str) -> None:
    """Start and kill a writer `kills` times and check what is left each time."""
    folder, draw, step = Path(folder_name), random.Random(6), 0
    for _ in range(int(kills)):
        listen, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(listen)
            write_until_killed(folder, step + 1, told)
        os.close(told)
        os.read(listen, 8)  # it has begun to write
        time.sleep(draw.uniform(0, 0.004))  # the random moment; any will do
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        rest = b""
        while block := os.read(listen, 4096):
            rest += block
        os.close(listen)
        saved = struct.unpack(f"{len(rest) // 8}q", rest)
        step = check(folder, max(saved, default=0))
    print(f"{kills} kills, {step} states")
