"""The strategy that a study names, and what it asks of the model and the training."""

from __future__ import annotations

from torch.nn.modules.batchnorm import _BatchNorm

from weft.config import Experiment
from weft.engine import Run, Strategy
from weft.engine.freezing import is_frozen, matches
from weft.errors import ConfigError, Problem
from weft.federated.dsgd import dSGD
from weft.federated.private import Private
from weft.federated.snapshots import has_rounds
from weft.federated.wrapping import innermost

NORMALISES = "normalises over the batches of each site, which no pooled training does"


def build_strategy(study: Experiment) -> Strategy:
    """A site's own strategy, as the study's section `federation` names it.

    Raises:
        ConfigError: it is none, its rounds are told twice, or it has none.
    """
    federation = study.federation
    assert federation is not None
    if federation.strategy.is_finished:
        message = "an object of a strategy would be shared by all sites"
        raise ConfigError(Problem(message, "give its class, with arguments", ("federation", "strategy")))
    built = study.namespace().build(federation.strategy, "strategy")
    if not isinstance(built, Strategy):
        message = f"{federation.strategy.name} is a {type(built).__name__}, not a weft.engine.Strategy"
        hint = "`weft components strategy` lists those there are"
        raise ConfigError(Problem(message, hint, ("federation", "strategy")))
    strategy = Private(built, federation.private) if federation.private else built
    rounds, where = federation.steps_per_round, ("federation", "steps_per_round")
    if rounds is not None:
        if not has_rounds(strategy):
            message = f"{type(innermost(strategy)).__name__} has no rounds: its sites exchange something in every step"
            raise ConfigError(Problem(message, "remove steps_per_round, or use FedAvg or its kin", where))
        if strategy.steps_per_round not in (None, rounds):
            message = f"steps_per_round is {rounds} here and {strategy.steps_per_round} at the strategy"
            raise ConfigError(Problem(message, "write it once", where))
        strategy.steps_per_round = rounds
    return strategy


def normalises_over_batches(run: Run) -> list[str]:
    """Names of the layers that are trained with the statistics of their site's batches."""
    plan, model = run.plan, run.state.model
    found = []
    for name, module in model.named_modules():
        own = [f"{name}.{key}" if name else key for key, _ in module.named_parameters(recurse=False)]
        frozen = bool(own) and all(is_frozen(key, plan.epochs, plan.freeze, plan.unfreeze) for key in own)
        if isinstance(module, _BatchNorm) and not frozen:
            found.append(name or type(module).__name__)
    return found


def require_exact(run: Run) -> None:
    """Refuse what makes a study differ from training in one place.

    Raises:
        ConfigError: the strategy is another one than a plain dSGD, or the model normalises over batches.
    """
    strategy, where = run.state.strategy, ("federation", "exact")
    if type(strategy) is not dSGD or strategy.aggregate != "sum":
        name = type(strategy).__name__
        message = f"{name} does not give what training on all data in one place gives; dSGD does"
        raise ConfigError(Problem(message, "use strategy: dSGD, or remove 'exact'", where))
    layers = normalises_over_batches(run)
    if layers:
        message = f"batch normalisation ({', '.join(layers[:3])}{', …' if len(layers) > 3 else ''}) {NORMALISES}"
        hint = (
            "normalise otherwise (GroupNorm; `normalization: group` in Weft's networks), freeze these layers with "
            "their statistics (model.freeze), or declare another algorithm: strategy FedBN, and exact: false"
        )
        raise ConfigError(Problem(message, hint, where))


def require_private(run: Run, study: Experiment) -> None:
    """Check what stays at the sites.

    Raises:
        ConfigError: a pattern names nothing, nothing is left to share, or what travels would depend on what does not.
    """
    assert study.federation is not None
    assert run.state.strategy is not None
    patterns, where = study.federation.private, ("federation", "private")
    if not patterns:
        return
    parameters = [name for name, _ in run.state.model.named_parameters()]
    names = [*parameters, *(name for name, _ in run.state.model.named_buffers())]
    problems = [
        Problem(f"no parameter of the model has a name like '{pattern}'", f"there are {', '.join(names[:8])}", where)
        for pattern in patterns
        if not any(matches(name, [pattern]) for name in names)
    ]
    if all(matches(name, patterns) for name in parameters):
        problems.append(Problem("all parameters stay at the sites, so there is nothing to share", "name fewer", where))
    if not has_rounds(run.state.strategy):
        if run.plan.clip_norm is not None:
            message = "the norm of all gradients would differ between sites, and so would what they share"
            hint = "use clip_value, or FedAvg or its kin, whose sites train by themselves"
            problems.append(Problem(message, hint, ("training", "clip_norm")))
        if run.plan.precision.scaler is not None:
            message = "with fp16 a site may skip a step because of what it alone has"
            problems.append(Problem(message, "use precision: bf16, or FedAvg or its kin", ("training", "precision")))
    if problems:
        raise ConfigError(problems)
