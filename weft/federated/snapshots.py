"""What a site that comes back is told: the state that all sites share, never what is another site's own.

A snapshot is taken of a live site at the beginning of a step at which the sites' weights are equal: in any step where
gradients are exchanged, at the beginning of a round where sites train by themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from weft.engine import Run, Strategy
from weft.engine.collectives import Answer, Collective, Gather
from weft.engine.state import EpochSums
from weft.errors import MessageRefused
from weft.federated.hub import CONTROL, DIGESTS

State = dict[str, Any]
_DEEPEST = 32


def has_rounds(strategy: Strategy) -> bool:
    """Whether sites train by themselves in between."""
    return strategy.has_rounds()


def weights_are_equal(run: Run) -> bool:
    """Whether all sites have the same weights now, at the beginning of a step."""
    strategy, position = run.state.strategy, run.state.position
    assert strategy is not None
    if not has_rounds(strategy) or position.step == _epoch_began(run):
        return True
    return strategy.steps_per_round is not None and position.step % strategy.steps_per_round == 0


def shared_state(run: Run) -> State:
    """What of a run's state is the same at all sites, where `weights_are_equal`."""
    state, strategy = run.state.state_dict(), run.state.strategy
    assert strategy is not None
    own = _own_tensors(run)
    best = run.state.best.step
    shared = {key: state[key] for key in ("format", "schedules", "scaler", "best", "history", "finished")}
    shared["model"] = {name: tensor for name, tensor in state["model"].items() if name not in own}
    shared["position"] = asdict(run.state.position) | {"batch": _batches_of_epoch(run)}
    sums = run.state.sums  # their flags, where the others have gone on behind the last step of an epoch
    shared["sums"] = {"buffers_averaged": sums.buffers_averaged, "round_averaged": sums.round_averaged}
    shared["strategy"] = state["strategy"].get("shared", {})
    memory = not has_rounds(strategy)  # else each site's optimizer is its own; rates are those of all
    shared["optimizers"] = {
        name: {
            "state": {
                number: state for number, state in part["state"].items() if memory and names.get(number) not in own
            },
            "param_groups": part["param_groups"],
        }
        for name, part, names in _with_names(run, state["optimizers"])
    }
    if state["average"] is not None:
        shared["average"] = {name: tensor for name, tensor in state["average"].items() if name not in own}
    if best is not None:
        weights, kept = run.checkpoints.load_best(best), strategy.own_tensors(run.state.model)  # of the end of an epoch
        shared["best_weights"] = {name: tensor for name, tensor in weights.items() if name not in kept}
    return shared


def take_shared(run: Run, shared: State, own: State | None) -> None:
    """Become what the others are, with what is this site's own.

    Args:
        run: just built.
        shared: of a live site.
        own: the newest state that this site has saved; None where there is none.
    """
    state = own if own is not None else run.state.state_dict()
    kept = {key: value for key, value in state["strategy"].items() if key != "shared"}
    apart = ("model", "strategy", "best_weights", "optimizers", "average")
    common = {key: value for key, value in shared.items() if key not in apart}
    weights = dict(state["model"]) | dict(shared["model"])
    merged = {
        "sums": asdict(EpochSums()) | shared["sums"],
        "strategy": kept | {"shared": shared["strategy"]},
        "model": weights,
        "optimizers": {
            name: {"state": dict(part["state"]) | shared["optimizers"][name]["state"],
                   "param_groups": shared["optimizers"][name]["param_groups"]}
            for name, part in state["optimizers"].items()
        },
        "average": None if state["average"] is None else dict(state["average"]) | shared.get("average", {}),
    }  # fmt: skip
    run.state.load_state_dict(state | common | merged)
    assert run.state.strategy is not None
    run.state.strategy.returned()
    if "best_weights" in shared:
        step = shared["best"]["step"]
        known = run.checkpoints.best_file(step) is not None  # what is its own in them was there, too
        before = run.checkpoints.load_best(step) if known else merged["average"] or weights
        run.checkpoints.save_best(before | shared["best_weights"], step)


def digest_of(run: Run) -> Tensor:
    """SHA-256 of the parameters that all sites share ([32], uint8)."""
    own, digest = _own_tensors(run), hashlib.sha256()
    for name, parameter in run.state.model.named_parameters():
        if name not in own:
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def with_digests(
    steps: Generator[Collective, Answer, Any], run: Run, every: int | None, *, skip_first: bool = False
) -> Generator[Collective, Answer, Any]:
    """The same generator; now and then, before a step, the sites' digests are asked for.

    Args:
        steps: a training run.
        run: whose.
        every: number of steps; None for never.
        skip_first: not before the first step, which the others have begun.
    """
    try:
        collective = next(steps)
        while True:
            if collective.tag == CONTROL:
                if not skip_first and every is not None and _is_due(run, every):
                    yield Gather(DIGESTS, [digest_of(run)])
                skip_first = False
            collective = steps.send((yield collective))
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


def _is_due(run: Run, every: int) -> bool:
    """A function of the position alone, so that a study that goes on asks as often.

    The beginning of an epoch counts for strategies whose rounds are epochs, every other step for the others.
    """
    strategy, step = run.state.strategy, run.state.position.step
    assert strategy is not None
    if has_rounds(strategy) and strategy.steps_per_round is None:
        ends = [0, 0, *(row["step"] for row in run.state.history)]
        return step == ends[-1] and bool(ends[-1] // every > ends[-2] // every)
    return step > _epoch_began(run) and step % every == 0 and weights_are_equal(run)


def _epoch_began(run: Run) -> int:
    """The number of steps before the running epoch."""
    return int(run.state.history[-1]["step"]) if run.state.history else 0


def _batches_of_epoch(run: Run) -> int:
    """Where a site with data left stands in the epoch; the one that is asked may have none."""
    return (run.state.position.step - _epoch_began(run)) * run.plan.accumulate


def _with_names(run: Run, optimizers: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], dict[int, str]]]:
    """Each optimizer's state, with the names of the parameters that it counts."""
    names = {parameter: name for name, parameter in run.state.model.named_parameters()}
    for name, state in optimizers.items():
        groups = run.state.optimizers[name].param_groups
        counted = [parameter for group in groups for parameter in group["params"]]
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        yield name, state, {n: names.get(p, "") for n, p in zip(numbers, counted, strict=True)}


def _own_tensors(run: Run) -> set[str]:
    """Names of what may differ between sites: what the strategy leaves them, and before the end of an epoch's steps all
    running statistics.
    """
    strategy, model = run.state.strategy, run.state.model
    assert strategy is not None
    own = set(strategy.own_tensors(model))
    if run.state.position.step != _epoch_began(run) and not run.state.sums.buffers_averaged:
        own |= {name for name, _ in model.named_buffers()}
    return own


# --- as a message -----------------------------------------------------------------------------------------------------


def flattened(state: State) -> list[Tensor]:
    """A state as tensors: the first one is its structure as JSON (uint8)."""
    tensors: list[Tensor] = []

    def written(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
            return {"tensor": len(tensors)}
        if isinstance(value, Mapping):
            return {"entries": [[key, written(item)] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {"tuple" if isinstance(value, tuple) else "list": [written(item) for item in value]}
        return value

    text = json.dumps(written(state), allow_nan=True)
    return [torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8), *tensors]


def unflattened(tensors: list[Tensor]) -> State:
    """The state that `flattened` was given.

    Raises:
        MessageRefused: it is no such thing.
    """

    def read(value: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        if not isinstance(value, dict):
            if value is None or isinstance(value, bool | int | float | str):
                return value
            raise ValueError(f"a bare {type(value).__name__}")
        ((kind, content),) = value.items()
        if kind == "tensor" and type(content) is int and 1 <= content < len(tensors):
            return tensors[content]
        if kind == "entries":
            if not all(type(key) in (str, int) for key, _ in content):
                raise ValueError("a key that is neither text nor a number")
            return {key: read(item, depth + 1) for key, item in content}
        if kind in ("list", "tuple"):
            items = [read(item, depth + 1) for item in content]
            return tuple(items) if kind == "tuple" else items
        raise ValueError(f"an entry {kind!r}")

    try:
        if not tensors or tensors[0].dtype != torch.uint8:
            raise ValueError("no structure")
        state = read(json.loads(bytes(tensors[0].tolist())), 0)
        if not isinstance(state, dict):
            raise ValueError("no entries")
    except (ValueError, TypeError, RecursionError) as error:
        raise MessageRefused(f"a snapshot cannot be read: {error}", "ask for another one") from error
    return state
