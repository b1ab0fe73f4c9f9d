"""Scores that others wrote: torchmetrics-like objects (update, compute, reset) and plain functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from weft.errors import UsageError, WeftError
from weft.metrics.formulas import Array, ratio
from weft.metrics.names import Mode, mode_of, name_of
from weft.metrics.values import Accumulator, BatchView, Setting, added, host


@runtime_checkable
class Metric(Protocol):
    """What an own score needs: torchmetrics' interface, found by its methods; nothing is inherited.

    To be pooled among participants it names its states in `_defaults` (name to initial tensor) and how they combine in
    `_reductions` (name to a function: a sum; or a concatenation, which needs gathering), as torchmetrics objects do.
    `higher_is_better` says which direction is better.
    """

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add a batch of n items.

        Args:
            predictions: probabilities [n, classes] (binary: [n]), label maps [n, ...], or numbers as the targets'.
            targets: classes [n], label maps [n, ...], or numbers.
        """

    def compute(self) -> Any:
        """The value: a number, a tensor (one number per class) or a dictionary."""

    def reset(self) -> None:
        """Forget everything."""


class ForeignScore(Accumulator):
    """An object with update, compute and reset; its summable states travel with ours."""

    def __init__(self, setting: Setting, name: str, metric: Any) -> None:
        self.name, self.metric = name, metric
        self._summed, self._listed = _reductions(name, metric)
        if self._listed and not setting.gather:
            raise UsageError(
                f"metric '{name}' keeps {', '.join(self._listed)} of every sample; only sums may leave a participant",
                "use a binned variant (torchmetrics: thresholds=...), or a score of Weft's own",
            )
        super().__init__(setting, ())

    def reset(self) -> None:
        self.metric.reset()
        self._updates = 0

    def update(self, batch: BatchView) -> None:
        if hasattr(self.metric, "to") and getattr(self.metric, "device", None) != batch.raw_outputs.device:
            self.metric = self.metric.to(batch.raw_outputs.device)
        if batch.size:
            _call(self.name, batch, self.metric.update, *_for_foreign(batch))
            self._updates += 1

    def states(self) -> list[Tensor]:
        parts = [host(getattr(self.metric, name)) for name in self._summed]
        wide = [part.double() if part.is_floating_point() else part.long() for part in parts]
        return [torch.tensor(self._updates), *wide]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self.reset()
        self._updates = int(snapshot[0])
        self._put(snapshot[1 : 1 + len(self._summed)], snapshot[1 + len(self._summed) :])

    def snapshot(self) -> list[Tensor]:
        return [*self.states(), *self.gatherable()]

    def gatherable(self) -> list[Tensor]:
        return [_joined(getattr(self.metric, name)) for name in self._listed]

    def load_gathered(self, gathered: Sequence[Tensor]) -> None:
        self._put((), gathered)

    def _put(self, summed: Sequence[Tensor], listed: Sequence[Tensor]) -> None:
        for name, state in zip(self._summed, summed, strict=False):
            own = getattr(self.metric, name)
            setattr(self.metric, name, state.to(own.dtype if not own.is_floating_point() else torch.float64))
        for name, state in zip(self._listed, listed, strict=False):
            setattr(self.metric, name, [state])
        self.metric._computed = None  # torchmetrics keeps the value of compute()
        self.metric._update_count = max(1, getattr(self.metric, "_update_count", 1))

    def values(self, states: Sequence[Array]) -> dict[str, float]:
        if not int(states[0]):
            return {self.name: float("nan")}
        own = [host(getattr(self.metric, name)) for name in self._summed]
        self._put([torch.as_tensor(state) for state in states[1:]], ())
        value = self.metric.compute()
        for name, state in zip(self._summed, own, strict=True):  # the participant's own sums stay its own
            setattr(self.metric, name, state)
        self.metric._computed = None
        return _flat(self.name, value, self.setting)


def _call(name: str, batch: BatchView, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what somebody else wrote; where it fails, it is named."""
    try:
        return function(*arguments)
    except (WeftError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shapes = [f"{list(part.shape)}" if isinstance(part, Tensor) else type(part).__name__ for part in arguments]
        raise UsageError(
            f"metric '{name}' failed on outputs and targets of shapes {' and '.join(shapes)}: "
            f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            "look at the metric; `weft --traceback …` shows where in its code it failed",
        ) from error


class FunctionScore(Accumulator):
    """Mean of a function `(outputs, targets)` that gives one value per sample, or the batch's mean."""

    def __init__(self, setting: Setting, name: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.name, self.function = name, function
        super().__init__(setting, ())

    def reset(self) -> None:
        self._sum = torch.zeros((), dtype=torch.float64)
        self._samples = 0
        self._kept: list[Tensor] = []

    def update(self, batch: BatchView) -> None:
        if not batch.size:
            return
        value = torch.as_tensor(_call(self.name, batch, self.function, batch.raw_outputs, batch.raw_targets)).detach()
        if value.dim() == 0:
            value = value.expand(batch.size)
        elif value.shape[0] != batch.size:
            raise UsageError(
                f"metric '{self.name}' returned shape {list(value.shape)} for {batch.size} samples",
                "return one value per sample, [n], or their mean",
            )
        each = value.double().reshape(batch.size, -1).mean(1)
        self._sum = added(self._sum, each.sum())
        self._samples += batch.size
        if batch.cases is not None:
            self._kept.append(each)

    def states(self) -> list[Tensor]:
        return [host(self._sum), torch.tensor(self._samples)]

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self.reset()
        self._sum, self._samples = snapshot[0].clone(), int(snapshot[1])

    def values(self, states: Sequence[Array]) -> dict[str, float]:
        return {self.name: float(ratio(states[0], states[1]))}

    def case_columns(self) -> dict[str, list[Any]]:
        values = [value for part in self._kept for value in part.cpu().tolist()]
        return {self.name: values} if values else {}


def adopt(metric: Any, setting: Setting, name: str | None = None) -> list[tuple[str, Accumulator, Mode | None]]:
    """Name, accumulator and direction of an object or a function; a collection (name to metric) gives several.

    Args:
        metric: an object with update, compute and reset, a function, or a mapping of names to these.
        setting: kind of task and classes.
        name: what to call it; None takes the name of its class or function.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(metric, type):
        raise UsageError(f"metric {metric.__name__} is a class", "give an object of it, or a component with arguments")
    if isinstance(metric, torch.nn.ModuleDict | Mapping):
        return [found for key, part in metric.items() for found in adopt(part, setting, str(key))]
    if all(callable(getattr(metric, method, None)) for method in ("update", "compute", "reset")):
        name = name or name_of(metric)
        return [(name, ForeignScore(setting, name, metric), mode_of(metric))]
    if callable(metric):
        name = name or name_of(metric)
        return [(name, FunctionScore(setting, name, metric), mode_of(metric))]
    raise UsageError(
        f"metric {metric!r} is neither a name, nor an object with update, compute and reset, nor a function",
        "see weft.metrics.KNOWN for names",
    )


def _reductions(name: str, metric: Any) -> tuple[list[str], list[str]]:
    """Names of the states that add up, and of those that are concatenated."""
    summed, listed = [], []
    for state, initial in getattr(metric, "_defaults", {}).items():
        reduction = getattr(metric, "_reductions", {}).get(state)
        kind = reduction if isinstance(reduction, str) else getattr(reduction, "__name__", "none")
        if isinstance(initial, list) and kind in ("cat", "dim_zero_cat", "none"):
            listed.append(state)
        elif kind in ("sum", "dim_zero_sum"):
            summed.append(state)
        else:
            raise UsageError(
                f"metric '{name}' combines its state '{state}' by '{kind}', which is neither a sum nor a list",
                "scores must pool exactly: use one whose states are sums (dist_reduce_fx='sum')",
            )
    if not summed and not listed:
        raise UsageError(
            f"metric '{name}' has no states that can be summed",
            "name them in `_defaults` and `_reductions` (torchmetrics: add_state(..., dist_reduce_fx='sum'))",
        )
    return summed, listed


def _for_foreign(batch: BatchView) -> tuple[Tensor, Tensor]:
    """Probabilities, not logits: torchmetrics guesses from the range whether it was given logits."""
    kind = batch.setting.kind
    if kind == "regression":
        width = batch.logits.shape[1]
        return (batch.logits, batch.labels) if width > 1 else (batch.logits[:, 0], batch.labels[:, 0])
    if kind == "segmentation":
        return batch.predicted.long(), batch.labels
    if kind == "multiclass":
        return torch.softmax(batch.logits, 1), batch.labels
    return torch.sigmoid(batch.log_odds if kind == "multilabel" else batch.log_odds[:, 0]), batch.labels


def _joined(parts: Any) -> Tensor:
    if isinstance(parts, Tensor):
        return parts.detach().cpu()
    whole = [part.detach().cpu() for part in parts]
    return torch.cat([part if part.dim() else part.unsqueeze(0) for part in whole]) if whole else torch.zeros(0)


def _flat(name: str, value: Any, setting: Setting) -> dict[str, float]:
    """Numbers by name from a number, a tensor with one per class, or a dictionary."""
    if isinstance(value, Mapping):
        return {
            key: number
            for part, inner in value.items()
            for key, number in _flat(f"{name}_{part}", inner, setting).items()
        }
    tensor = torch.as_tensor(value).detach().cpu().double()
    if tensor.numel() == 1:
        return {name: float(tensor)}
    numbers = tensor.reshape(-1).tolist()
    labels = setting.class_names if len(setting.class_names) == len(numbers) else [str(i) for i in range(len(numbers))]
    return {f"{name}_{label}": number for label, number in zip(labels, numbers, strict=True)}
