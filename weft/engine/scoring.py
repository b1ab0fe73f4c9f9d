"""Scores of a split: every participant scores its own items, the sums are pooled."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator

import torch
from torch import Tensor, nn

from weft.data import Batch
from weft.engine.collectives import Answer, Collective, Gather, Sum
from weft.engine.fully_sharded import summed, whole
from weft.engine.run import Run, ScoredSplit
from weft.engine.seeding import own_randomness


def score_split(run: Run, name: str, *, per_case: bool = False) -> Generator[Collective, Answer, bool]:
    """Fill the score book of split `name` with pooled sums.

    Args:
        run: the run.
        name: a key of `run.splits`.
        per_case: also keep a row per case and what curves are drawn from, as final scores do.

    Returns:
        whether the split was scored completely, by everybody; after a signal it is not, and its scores are no good.
    """
    split = run.splits[name]
    if per_case:
        split.book.add_curves()
    module = run.scored_module()
    was_training = module.training
    module.eval()
    seed = int.from_bytes(hashlib.sha256(f"weft scoring {run.plan.seed} {name}".encode()).digest()[:4])
    # Models that draw random numbers when they predict get a stream of their own: scoring moves nothing.
    with own_randomness(seed):
        complete = _score_batches(run, split, module, per_case)
    if was_training:
        module.train()
    if run.alone:
        return complete
    states = split.book.states()
    flag = torch.tensor([0 if complete else 1])
    *sums, interrupted = yield Sum(f"scores {name}", [*states, flag])
    split.book.load_states(sums)
    exact = split.book.gatherable()
    if exact:
        split.book.load_gathered((yield Gather(f"predictions {name}", exact)))
    return int(interrupted) == 0


@torch.no_grad()
def _score_batches(run: Run, split: ScoredSplit, module: nn.Module, per_case: bool) -> bool:
    split.book.reset()
    batches = len(split.loader)
    for number, raw in enumerate(_together(run, split, module) if run.state.sharded else split.loader.epoch(0)):
        if run.interruption.received is not None and not run.state.sharded:
            return False
        if raw is None:
            return False
        if not raw.size:
            continue
        batch = run.place(raw)
        with run.plan.precision.autocast():
            evaluation = run.task.evaluation_step(module, batch)
        split.book.update(
            evaluation.outputs.float() if evaluation.outputs.dtype in _LOWERED else evaluation.outputs,
            evaluation.targets,
            loss=evaluation.loss,
            weight=evaluation.weight,
            cases=[split.cases[row] for row in raw.index.tolist()] if per_case else None,
            spacing=evaluation.spacing,
        )
        run.tell_validation(number + 1, batches)
    return True


def _together(run: Run, split: ScoredSplit, module: nn.Module) -> Iterator[Batch | None]:
    """This process's batches, with a forward pass without items for each batch that only others have: the parameters
    of a sharded model are put together by all. Ends with None where one of them was asked to stop.
    """
    own = split.loader.epoch(0)
    while True:
        raw = next(own, None)
        more, stop = summed([int(raw is not None), int(run.interruption.received is not None)])
        if stop:
            yield None
        if stop or not more:
            return
        if raw is None or not raw.size:
            with run.plan.precision.autocast():
                run.task.forward(module, run.place(split.loader.nothing()))
        else:
            yield raw


_LOWERED = (torch.bfloat16, torch.float16)


def weights_sha256(weights: dict[str, Tensor]) -> str:
    """Digest of weights: names, dtypes, shapes and bytes, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = whole(weights[name].detach()).cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
