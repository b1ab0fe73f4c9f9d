"""Methods of the original that users may have overridden: which are called here, and which are refused with what to do
instead, so that nothing of a user's is passed over unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from weft.errors import ConfigError
from weft.interop.coinstac.trainer import COINNTrainer
from weft.interop.usercode import file_of

# Of a trainer: what no run calls.
_NEVER = {
    "evaluation": "what is scored is what `iteration` returns, and of test items what `save_predictions` says",
    "validation_distributed": "what is scored is what `iteration` returns",
    "test_distributed": "what is scored is what `iteration` returns, or `save_predictions`",
    "_set_gpus": "name the site's devices in `gpus`: of several, each has a part of every batch",
}
# What the original calls where a site trains alone (pretraining, SiteRunner), and Weft does not.
_NOT_ALONE = {
    "train_local": "write `training_iteration_local`, which is called for each batch, and `_on_epoch_end`",
    "_save_if_better": "monitor_metric, metric_direction and score_delta say which epoch is kept",
    "_stop_early": "patience says when training ends",
    "_save_progress": "logs are written and drawn for every fold; write further files in `_on_epoch_end`",
}
# What is called there, and nowhere else.
ALONE = ("training_iteration_local", "init_training_cache", "_on_epoch_end")

LOCAL = dict.fromkeys(
    ("_init_runs", "_next_run", "_pretrain_local"), "say it by `prepare_data` of a COINNDataHandle, or by pretrain_args"
)
_DECIDED = "patience, monitor_metric, metric_direction, score_delta and epochs decide, alike at all sites"
_WRITTEN = "logs and scores are pooled and written already: read them in output/, or write a class of COINNMetrics"
REMOTE = (
    dict.fromkeys(("_stop_early", "_next_epoch", "_save_if_better", "_set_mode"), _DECIDED)
    | dict.fromkeys(("_on_epoch_end", "_on_run_end", "_accumulate_epoch_info", "_send_global_scores"), _WRITTEN)
    | dict.fromkeys(("_init_runs", "_next_run", "_pre_compute"), "give arguments by the inputspec")
)


def is_overridden(owner: object, base: type, name: str) -> bool:
    """Whether a class of a user's has a method of its own.

    Args:
        owner: the class, or an object of it.
        base: Weft's class, which has the method.
        name: of the method.
    """
    kind = owner if isinstance(owner, type) else type(owner)
    return getattr(kind, name) is not getattr(base, name)


def require_called(kind: type, base: type, refused: Mapping[str, str]) -> None:
    """Refuse methods that nothing would call.

    Args:
        kind: the user's class.
        base: Weft's, from which it derives.
        refused: what to do instead, by the name of the method.

    Raises:
        ConfigError: it has one.
    """
    for one in kind.__mro__:
        if one in base.__mro__:
            continue
        for name, hint in refused.items():
            if name in vars(one):
                raise ConfigError(
                    f"{_place(one, name)}: {one.__name__}.{name} would not be called: Weft does what it did", hint
                )


def _place(kind: type, name: str) -> str:
    """Where a method is written; scripts that are run are no modules, so their code has to tell."""
    code = getattr(vars(kind)[name], "__code__", None)
    return file_of(kind) if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def require_trainer(kind: type[COINNTrainer], *, alone: bool) -> None:
    """Refuse methods of a trainer that nothing would call.

    Args:
        kind: the user's trainer.
        alone: the site trains alone, first or only.

    Raises:
        ConfigError: it has one.
    """
    require_called(kind, COINNTrainer, _NEVER | (_NOT_ALONE if alone else {}))


def only_alone(kind: type[COINNTrainer]) -> Iterable[str]:
    """Methods of a trainer that are called only where a site trains alone."""
    return [name for name in ALONE if is_overridden(kind, COINNTrainer, name)]
