"""What sites exchange in training: `agg_engine` as a strategy of Weft's, and learners and reducers of users."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import weft.federated
from weft.config.hints import did_you_mean
from weft.engine import Gather, Gradients, Strategy, Sum
from weft.engine.strategy import Exchange
from weft.errors import ConfigError, Problem, WeftError
from weft.federated import Payload, PowerSGD, dSGD, rankDAD
from weft.federated.wrapping import Wrapper
from weft.interop.coinstac.learner import COINNLearner
from weft.interop.coinstac.parcels import TAG, Parcel, decode, encode, packed, unpacked
from weft.interop.coinstac.scores import framed, unframed
from weft.interop.coinstac.task import COINNTask

logger = logging.getLogger("weft")

_REDUCED = "weft-reduced"  # in a site's folder: what its learner is told
KNOWN = {
    name: one
    for name in weft.federated.__all__
    if isinstance(one := getattr(weft.federated, name), type)
    and issubclass(one, Strategy)
    and not issubclass(one, Wrapper)
}


def build_strategy(cache: Mapping[str, Any]) -> Strategy:
    """The strategy that `agg_engine` names: dSGD, powerSGD, rankDAD with the original's arguments; or any other of
    Weft's, whose arguments are those of `<agg_engine>_args`.

    Raises:
        ConfigError: there is no such thing, or arguments do not fit.
    """
    engine = cache["agg_engine"]
    if isinstance(engine, type) and issubclass(engine, Strategy):  # code of the user's own
        made = _made(engine, cache.get(f"{engine.__name__}_args") or {})
    elif engine == "powerSGD":
        made = _power_sgd(cache)
    elif engine == "rankDAD":
        made = rankDAD(rank=int(cache.get("dad_reduction_rank", 10)), tolerance=float(cache.get("dad_tol", 1e-3)))
    elif engine in KNOWN:
        made = dSGD() if engine == "dSGD" else _made(KNOWN[engine], cache.get(f"{engine}_args") or {})
    else:
        known = [*KNOWN, "powerSGD"]
        hint = did_you_mean(str(engine), known) or f"use one of {', '.join(known)}; or give COINNLocal's call a learner"
        raise ConfigError(Problem(f"agg_engine is {engine!r}, which there is not", hint, ("inputspec", "agg_engine")))
    if cache.get("steps_per_round"):
        made.steps_per_round = int(cache["steps_per_round"])
    return Payload(made, "fp16") if cache["precision_bits"] == 16 else made


def require_together(strategy: Strategy, gpus: Sequence[int]) -> None:
    """Refuse several GPUs where a strategy looks at what goes through the layers.

    Raises:
        ConfigError: with what to write instead.
    """
    while isinstance(strategy, Wrapper):
        strategy = strategy.strategy
    if isinstance(strategy, rankDAD) and len(gpus) > 1:
        raise ConfigError(
            Problem(
                f"gpus is {list(gpus)}, but rankDAD factors what goes through each layer in one piece",
                f"write gpus: [{gpus[0]}], or another agg_engine",
                ("inputspec", "gpus"),
            )
        )


def _power_sgd(cache: Mapping[str, Any]) -> Strategy:
    for name in ("use_error_feedback", "warm_start"):
        if not cache.get(name, True):
            hint = "leave it out: without it, what the factors leave out would be lost"
            raise ConfigError(Problem(f"{name} is {cache[name]!r}", hint, ("inputspec", name)))
    rank, start = int(cache.get("matrix_approximation_rank", 1)), int(cache.get("start_powerSGD_iter", 10))
    return PowerSGD(rank=rank, warmup_steps=start, seed=int(cache.get("seed") or 0))


def _made(kind: type[Strategy], arguments: Mapping[str, Any]) -> Strategy:
    where = ("inputspec", f"{kind.__name__}_args")
    try:
        return kind(**arguments)
    except (TypeError, ValueError, WeftError) as error:
        message = error.message if isinstance(error, WeftError) else str(error)
        raise ConfigError(Problem(f"{kind.__name__}: {message}", "see docs/strategies.md", where)) from error


class TrainingScores(Wrapper):
    """Beside what another strategy exchanges, pools the scores of the batches that were trained on, for the log.

    Args:
        strategy: the one within.
        task: keeps them.
    """

    def __init__(self, strategy: Strategy, task: COINNTask) -> None:
        super().__init__(strategy)
        self.task = task

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Pass on; a site without items notices here that an epoch begins."""
        self.task.begin_epoch()
        yield from super().average_gradients(gradients)

    def end_of_round(self, model: nn.Module) -> Exchange:
        """Pass on; then pool the epoch's scores so far."""
        yield from super().end_of_round(model)
        averages, metrics = self.task.training
        sums = yield Sum("training scores", [*averages.states(), *metrics.states(), torch.zeros(1)])
        cut = len(averages.names or ())
        told = {"averages": averages.serialized(), "metrics": metrics.serialized()} if None in _names(self) else {}
        every = (yield Gather("training scores", [framed(told)])) if told else []
        self.task.note_training(sums[:cut], sums[cut:-1], unframed(every[0]) if every else [])


def _names(wrapper: TrainingScores) -> list[Any]:
    return [part.names for part in wrapper.task.training]


class LearnerStrategy(Strategy):
    """Sends what a user's learner wants reduced, to the remote's reducer, and hands the learner the answer.

    Args:
        learner: the site's.
        task: has what `to_reduce` returned in this step.
    """

    def __init__(self, learner: COINNLearner, task: COINNTask) -> None:
        self.learner, self.task = learner, task
        self._told: list[str] = []  # keys of the last answer, which the next one replaces
        self._updates = 0

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Ask the reducer; a site without items asks with nothing."""
        parcel = Parcel({"items": 0.0})
        if gradients.weight > 0:
            folder = Path(self.learner.state["transferDirectory"])
            parcel = packed(self.task.sent, folder)
            for key in parcel.files:  # they travel in the message, and not once more beside it
                (folder / str(parcel.said[key])).unlink()
            parcel.said["items"] = gradients.weight
        answer = yield Gather(f"{TAG} {gradients.network}", encode(parcel))
        found = decode(answer)
        if len(found) != 1:
            raise ConfigError(
                f"site {self.task.site} has a learner of its own, but {len(found)} messages came back, not a reducer's",
                "run it with a remote: weft interop coinstac simulate",
            )
        said = unpacked(found[0], Path(self.learner.state["baseDirectory"]), below=_REDUCED)
        for key in self._told:
            self.learner.input.pop(key, None)
        self.learner.input.update(said)
        self._told = [*said]
        self._updates += bool(said.get("update"))

    def end_of_round(self, model: nn.Module) -> Exchange:
        """Nothing is exchanged; an epoch in which nothing was learned is told."""
        if not self._updates:
            logger.warning(
                'site %s: no step was taken in this epoch: to_reduce must return {"reduce": True} and reduce '
                '{"update": True} where weights are to move',
                self.task.site,
            )
        self._updates = 0
        return
        yield  # makes this a generator
