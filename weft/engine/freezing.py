"""Which parameters are frozen: patterns of names, and the epochs from which they are trained again."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

from torch import nn

from weft.config import ModelConfig
from weft.engine.run import Run
from weft.engine.stepping import note_trainable
from weft.errors import ConfigError, Problem


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a parameter's name fits one of the patterns; a pattern without wildcards also names a whole module."""
    return any(fnmatch.fnmatchcase(name, pattern) or name.startswith(pattern + ".") for pattern in patterns)


def is_frozen(name: str, epoch: int, freeze: Sequence[str], unfreeze: Mapping[int, Sequence[str]]) -> bool:
    """Whether a parameter is frozen in an epoch, counted from 1."""
    thawed = [pattern for start, patterns in unfreeze.items() if start <= epoch for pattern in patterns]
    return matches(name, freeze) and not matches(name, thawed)


def check_freezing(model: nn.Module, settings: ModelConfig) -> None:
    """Check that each pattern names a parameter and that something is left to train in the first epoch.

    Raises:
        ConfigError: with everything found.
    """
    names = [name for name, _ in model.named_parameters()]
    patterns = [(("model", "freeze"), pattern) for pattern in settings.freeze]
    patterns += [(("model", "unfreeze"), pattern) for part in settings.unfreeze.values() for pattern in part]
    modules = sorted({name.rpartition(".")[0] or name for name in names})
    hint = f"parameters are in {', '.join(modules[:8])}{', …' if len(modules) > 8 else ''}; e.g. '{modules[0]}.*'"
    problems = [
        Problem(f"no parameter of the model has a name like '{pattern}'", hint, path)
        for path, pattern in patterns
        if not any(matches(name, [pattern]) for name in names)
    ]
    if not problems and names and all(is_frozen(name, 1, settings.freeze, settings.unfreeze) for name in names):
        message = "all parameters are frozen, so there is nothing to train"
        problems.append(Problem(message, "freeze less, or unfreeze some from epoch 1 on", ("model", "freeze")))
    if problems:
        raise ConfigError(problems)


def prepare_modules(run: Run) -> None:
    """Training mode, with what is frozen in this epoch frozen: a function of the epoch, so it needs no state.

    A module whose own parameters are all frozen stays in evaluation mode, so that its running statistics do not drift
    unseen.
    """
    run.state.prepared.train()
    plan = run.plan
    if not plan.freeze:
        if run.shares_directory and not run.reached:
            note_trainable(run)
        return
    epoch = run.state.position.epoch + 1
    for name, parameter in run.state.model.named_parameters():
        frozen = is_frozen(name, epoch, plan.freeze, plan.unfreeze)
        parameter.requires_grad_(not frozen)
        if frozen:
            parameter.grad = None
    for module in run.state.model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own) and _has_statistics(module):
            module.eval()
    run.reached.clear()  # others are trained now
    if run.shares_directory:
        note_trainable(run)


def _has_statistics(module: nn.Module) -> bool:
    return any(True for _ in module.buffers(recurse=False))
