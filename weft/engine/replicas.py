"""Processes of one run are replicas: they begin with the same network, optimizers and data, or do not begin.

One that is made otherwise (a layer as wide as the classes that are found in a local folder, files that lie on one
machine only) would send sums of other sizes, or train something else and not be noticed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from weft.engine.agreeing import BEGINNING, different, different_networks, lines_of
from weft.engine.collectives import Answer, Collective, Sum
from weft.engine.run import Run
from weft.engine.scoring import weights_sha256
from weft.engine.stepping import trainable
from weft.engine.telling import everybodys
from weft.errors import UnlikeDataError

logger = logging.getLogger("weft")


def what_is_alike(run: Run) -> dict[str, Any]:
    """What must be the same in all processes, in few words: it travels with their first exchange."""
    own = {"network": _digest(_tensors(run)), "data": _digest(_data(run))}
    if not run.state.sharded and run.state.position.step == 0:
        own["weights"] = weights_sha256(_weights(run))
    return own


def require_replicas(run: Run, told: Sequence[dict[str, Any]]) -> Generator[Collective, Answer, None]:
    """Make sure that all processes have the same.

    Args:
        run: this participant's.
        told: everybody's `what_is_alike`, by rank.

    Raises:
        ProtocolError: networks or optimizers differ.
        UnlikeDataError: data differ.
    """
    if _differ(told, "network"):
        told = yield from everybodys(f"{BEGINNING}: networks", {"tensors": _tensors(run)})
        raise different_networks([one["tensors"] for one in told])
    if _differ(told, "data"):
        told = yield from everybodys(f"{BEGINNING}: data", {"splits": _data(run)})
        raise UnlikeDataError(
            f"processes see different data: {different([one['splits'] for one in told], 'split')}",
            "all processes must see the same files, in one order: look at the data folder of each machine",
        )
    if _differ(told, "weights"):
        if run.participant == 0:
            logger.warning(
                "processes have made networks with different weights: all begin with those of process 0. The next run "
                "will have others: make them with torch's generator, which is seeded"
            )
        yield from _take_the_first(run)


def _differ(told: Sequence[dict[str, Any]], key: str) -> bool:
    """Whether all say something, but not the same. One that resumes has nothing to say of its first weights."""
    return all(key in one for one in told) and len({one[key] for one in told}) > 1


def _take_the_first(run: Run) -> Generator[Collective, Answer, None]:
    mine = list(_weights(run).values())
    sums = yield Sum("first weights", mine if run.participant == 0 else [torch.zeros_like(tensor) for tensor in mine])
    with torch.no_grad():
        for tensor, first in zip(mine, sums, strict=True):
            tensor.copy_(first)
    if run.state.average is not None:
        run.state.average.module.load_state_dict(run.state.model.state_dict())


def _weights(run: Run) -> dict[str, Tensor]:
    """Parameters and buffers, those too that optimizers have beside the model's. Buffers that are not saved are left
    out: some are made by a first forward pass, which the first process may have tried already.
    """
    model = run.state.model
    saved = model.state_dict().keys()
    buffers = [(name, tensor) for name, tensor in model.named_buffers() if name in saved]
    found = {name: tensor.detach() for name, tensor in [*model.named_parameters(), *buffers]}
    known = set(model.parameters())
    for name, optimizer in run.state.optimizers.items():
        beside = [one for group in optimizer.param_groups for one in group["params"] if one not in known]
        found |= {f"{name}, beside the model, {row}": tensor.detach() for row, tensor in enumerate(beside)}
    return found


def _tensors(run: Run) -> list[str]:
    trained = [
        f"what {network} trains: {len(parameters)} tensors, {sum(map(torch.numel, parameters))} numbers"
        for network in run.state.optimizers
        for parameters in [trainable(run, network)]
    ]
    return [*lines_of(_weights(run)), *trained]


def _data(run: Run) -> list[str]:
    splits = {"train": run.cases} | {name: split.cases for name, split in run.splits.items()}
    return [
        f"{name} with {len(cases)} items (digest of their names: {_digest(list(map(_short, cases)))[:8]})"
        for name, cases in splits.items()
    ]


def _short(case: str) -> str:
    return case.rpartition("/")[2] if case.startswith("/") else case  # a folder may be mounted elsewhere


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
