"""Models that begin a run are new: one that an earlier run has trained would carry over what that run has seen, such as
the cases that another fold is tested with.
"""

from __future__ import annotations

from torch.utils.weak import WeakIdKeyDictionary

from weft.engine.freezing import is_frozen
from weft.engine.run import Run
from weft.errors import ConfigError, Problem

_trained = WeakIdKeyDictionary()  # parameters of this process's runs that still exist, with their versions before


def require_untrained(run: Run) -> None:
    """Check that no earlier run of this process has trained parameters of a model, and remember them for later runs.

    Args:
        run: about to begin, or to go on: then its weights are those of a checkpoint, and any model will do.

    Raises:
        ConfigError: one has, so the component that makes the model returned what it had made before.
    """
    plan, parameters = run.plan, list(run.state.model.named_parameters())
    known = [name for name, one in parameters if one in _trained and _trained[one] != one._version]
    if known and not run.resumed:
        raise ConfigError(
            Problem(
                f"the model is not new: an earlier run has trained its parameter {known[0]}",
                "return a new model at each call; model.weights begins with the weights of another run",
                ("model",),
            )
        )
    for name, parameter in parameters:
        if parameter.requires_grad and not is_frozen(name, plan.epochs, plan.freeze, plan.unfreeze):
            _trained[parameter] = parameter._version
