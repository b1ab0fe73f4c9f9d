"""What processes of one run tell one another besides sums: states and rows of cases.

They share one run directory, which the first of them writes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weft.engine.collectives import Answer, Collective, Gather
from weft.engine.run import Run

BEGINNING = "state"  # tag of the first exchange of a run


def everybodys(tag: str, content: dict[str, Any]) -> Generator[Collective, Answer, list[dict[str, Any]]]:
    """Every participant's `content`, in order; tensors, numbers, strings, lists and dicts only."""
    packed = _packed(content)
    data, lengths = yield Gather(tag, [packed, torch.tensor([len(packed)])])
    return [_unpacked(part) for part in torch.split(data, lengths.tolist())]


def share_state(run: Run) -> Generator[Collective, Answer, None]:
    """Everybody takes the state, and the best weights, that the first one resumes from."""
    if not run.shares_directory:
        return
    mine: dict[str, Any] = {}
    if run.participant == 0 and run.resumed:
        state = run.state
        best = run.checkpoints.load_best(state.best.step) if state.best.step is not None else None
        mine = {"state": run.checkpoints.load_last(), "best": best}
    if run.path is not None:
        mine["path"] = str(run.path)
    first = (yield from everybodys(BEGINNING, mine))[0]
    if "path" in first:
        run.path = Path(first["path"])
    if run.participant == 0 or "state" not in first:
        return
    run.resumed = True
    run.state.load_state_dict(first["state"], run.participant, run.participants)
    if first["best"] is not None:
        run.checkpoints.save_best(first["best"], first["state"]["best"]["step"])


def save(run: Run, *, best: bool = False) -> Generator[Collective, Answer, None]:
    """Save the state of this boundary: everybody its own, or the first process for all.

    Args:
        run: this participant's.
        best: its weights are among the best so far; every process keeps those.
    """
    if not run.shares_directory:
        run.save(best=best)
        return
    processes = yield from everybodys("private states", run.state.private_state())
    if run.participant == 0:
        run.save(processes, best=best)
        return
    if best:
        run.save_best()
    run.saved()


def all_rows(run: Run, rows: list[dict[str, Any]]) -> Generator[Collective, Answer, list[dict[str, Any]]]:
    """Rows per case of all processes; of this participant alone where its cases must not leave it."""
    if not run.shares_directory:
        return rows
    parts = yield from everybodys("cases", {"rows": json.dumps(rows)})
    return [row for part in parts for row in json.loads(part["rows"])]


def _packed(content: dict[str, Any]) -> Tensor:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _unpacked(data: Tensor) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)
    return content
