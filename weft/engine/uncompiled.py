"""Optimizers without torch's compiler.

torch imports it when the first optimizer is made, only to keep it away from some of an optimizer's methods. It takes
longer than importing torch itself, for each process of a run, and training that compiles nothing has no use for it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import _profiler_enabled  # type: ignore[attr-defined]  # re-exported without saying so
from torch.optim import Optimizer
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
    _use_grad_for_differentiable,
)

_KEPT_AWAY = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
_COMPILER = "torch._dynamo"
_MARK = "__dynamo_disable"  # where torch keeps a method that the compiler leaves alone, once it is made


def spare_compiler() -> None:
    """From now on, optimizers import torch's compiler no more; where something else does, all is as torch has it."""
    for name in _KEPT_AWAY:
        method = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, _MARK):
            setattr(method, _MARK, _plain_until_imported(method))


def _plain_until_imported(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **arguments: Any) -> Any:
        if _COMPILER not in sys.modules:
            return method(*args, **arguments)
        import torch._dynamo

        disabled = torch._dynamo.disable(method, wrapping=False)  # type: ignore[no-untyped-call]  # as torch does
        setattr(method, _MARK, disabled)
        return disabled(*args, **arguments)

    return call


# All functions that this decorator of torch's returns share their code.
_WITH_GRAD_MODE = _use_grad_for_differentiable(lambda optimizer: None).__code__


def step_of(optimizer: Optimizer) -> None:
    """`optimizer.step()`, past what torch winds around it where that has nothing to do: small networks gain some
    percent, and the compiler is not imported.

    Torch's wrappers mark the step for its profiler, call hooks, tell schedulers that there was a step, and keep the
    compiler away.
    """
    step = getattr(type(optimizer).step, "__wrapped__", None)
    own = vars(optimizer).get("step")
    counted = getattr(own, "_wrapped_by_lr_sched", False)
    hooked = bool(_global_optimizer_pre_hooks or _global_optimizer_post_hooks)
    if step is None or hooked or (own is not None and not counted) or _profiler_enabled():
        optimizer.step()
        return
    if counted:
        optimizer._opt_called = True  # type: ignore[attr-defined]  # what schedulers look at
    given: tuple[Any, Any] = (optimizer,), {}
    for before in optimizer._optimizer_step_pre_hooks.values():
        given = before(optimizer, *given) or given
    arguments, keywords = given
    if getattr(step, "__code__", None) is _WITH_GRAD_MODE:
        with torch.set_grad_enabled(optimizer.defaults["differentiable"]):
            step.__wrapped__(*arguments, **keywords)
    else:
        step(*arguments, **keywords)
    for after in optimizer._optimizer_step_post_hooks.values():
        after(optimizer, arguments, keywords)
