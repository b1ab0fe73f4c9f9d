"""Averages and scores of a trainer, pooled over the sites.

A class of scores whose states are sums is pooled exactly: its counts are added up, whatever `reduce_sites` does. That
they are is found by trying `accumulate` on an empty object: every number or array that begins with zeros must be added,
and nothing else may change. For any other class each site sends what `serialize` gives, and `reduce_sites` decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.errors import ConfigError, DataError
from weft.interop.coinstac.auc import AUCROCMetrics
from weft.interop.coinstac.headers import labels_of, monitored
from weft.interop.coinstac.measuring import COINNMetrics
from weft.interop.coinstac.telling import scores_in_words
from weft.interop.coinstac.trainer import COINNTrainer
from weft.interop.coinstac.utils.logger import lazy_debug
from weft.interop.usercode import called, file_of
from weft.metrics.book import ScoreBook, make_setting
from weft.metrics.names import Mode

Make = Callable[[], Any]


def summed_attributes(make: Make) -> list[str] | None:
    """Names of the attributes whose sums are the state of an object; None where its state is no sum.

    Args:
        make: makes an empty object with a method `accumulate`.
    """
    one, other = make(), make()
    names = [name for name, value in vars(one).items() if _is_empty(value)]
    rest = {name: repr(value) for name, value in vars(one).items() if name not in names}
    for number, name in enumerate(names, start=1):
        setattr(one, name, _filled(getattr(one, name), 10 * number))
        setattr(other, name, _filled(getattr(other, name), number))
    for name in rest:  # a list that grows holds items
        if isinstance(getattr(other, name), list):
            setattr(other, name, [0.5])
    try:
        one.accumulate(other)
    except Exception:  # an object of another kind than this one
        return None
    if any(repr(getattr(one, name, None)) != before for name, before in rest.items()) or len(vars(one)) != len(
        vars(other)
    ):
        return None
    found = []
    for number, name in enumerate(names, start=1):
        value = getattr(one, name)
        if _equals(value, 11 * number):
            found.append(name)
        elif not _equals(value, 10 * number):
            return None
    return found or None


def _is_empty(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, Tensor):
        return not bool(value.any()) and value.numel() > 0 and value.dtype != torch.bool
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "iuf" and value.size > 0 and not value.any()
    return isinstance(value, int | float | np.number) and value == 0


def _filled(value: Any, number: int) -> Any:
    if isinstance(value, Tensor):
        return torch.full_like(value, number)
    return np.full_like(value, number) if isinstance(value, np.ndarray) else type(value)(number)


def _equals(value: Any, number: int) -> bool:
    return bool((torch.as_tensor(value) == number).all()) if _is_number(value) else False


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray | int | float | np.number) and not isinstance(value, bool)


class Pooled:
    """One object of averages or scores at each site, and all of them together.

    Args:
        make: makes an empty one.
        what: `new_metrics` or `new_averages`, for messages.
        minimum: number of items that a bin of predictions has at least where it leaves a site.
    """

    def __init__(self, make: Make, what: str, minimum: int = 0) -> None:
        self.make, self.what = _with_cells(make, minimum), what
        make = self.make
        self.names = summed_attributes(make)
        if self.names is None and type(make()).reduce_sites is COINNMetrics.reduce_sites:
            kind = type(make())
            raise ConfigError(
                f"{file_of(kind)}: states of {kind.__name__} ({what}) are no sums, and it has no reduce_sites",
                "keep counts and sums that begin with 0, and add them in `accumulate`; or write serialize and "
                "reduce_sites",
            )
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.own = self.make()
        self.together: Any = None
        self.heard: list[Any] = []  # what all sites told
        self.told: list[Any] = []  # of objects whose states are no sums, one entry for each that was added

    def add(self, more: Any, *, keep: bool = False) -> None:
        """Add a batch's object.

        Args:
            more: the object.
            keep: for a state that outlives this process, where the object is none.
        """
        if keep and self.names is None:
            self.told.append(_json(more))
        else:
            called(self.own, "accumulate", self.own.accumulate, more)

    def states(self) -> list[Tensor]:
        """Sums that may leave this site, float64; none for an object that has none."""
        own = _leaving(self.own)
        return [_wide(getattr(own, name)) for name in self.names or ()]

    def kept(self) -> list[Tensor]:
        """Sums as they are, for a state that stays at this site."""
        return [_wide(getattr(self.own, name)) for name in self.names or ()]

    def load(self, states: Sequence[Tensor]) -> None:
        """Take the sums of all sites."""
        self.together = self.filled(states)

    def filled(self, states: Sequence[Tensor]) -> Any:
        """An object with the given sums."""
        made = self.make()
        for name, state in zip(self.names or (), states, strict=True):
            setattr(made, name, _like(getattr(made, name), state))
        return made

    def serialized(self) -> list[Any]:
        """What this site says where there are no sums."""
        return self.told or [_json(self.own)]

    def reduce(self, every: Sequence[Any]) -> None:
        """Take what all sites say."""
        self.together, self.heard = self.make(), list(every)
        called(self.together, "reduce_sites", self.together.reduce_sites, list(every))

    def plain(self) -> list[Any]:
        """The state of all sites together, for JSON: sums, or what each of them told."""
        if self.names is None:
            return self.heard or self.serialized()
        value = _leaving(self.value)
        return [_wide(getattr(value, name)).tolist() for name in self.names]

    @property
    def value(self) -> Any:
        """Of all sites where they were pooled, else this one's."""
        return self.own if self.together is None else self.together

    def line(self) -> list[float]:
        """The scores in the order of the log."""
        found = called(self.value, f"{type(self.value).__name__}.get", self.value.get)
        return [float(score) for score in found]


def _with_cells(make: Make, minimum: int) -> Make:
    """Objects that keep bins of few items at their site, where a minimum is asked for and they have bins."""
    if minimum <= 1 or not isinstance(make(), AUCROCMetrics):
        return make

    def made() -> Any:
        one = make()
        one.keep_cells(minimum)
        return one

    return made


def _leaving(value: Any) -> Any:
    return value.leaving() if isinstance(value, AUCROCMetrics) else value


def _json(value: Any) -> Any:
    told = called(value, f"{type(value).__name__}.serialize", value.serialize)
    try:
        return json.loads(json.dumps(told))
    except (TypeError, ValueError) as error:
        hint = "return numbers and lists, for example tensor.tolist()"
        raise DataError(f"{file_of(value)}: {type(value).__name__}.serialize is no JSON: {error}", hint) from error


def _wide(value: Any) -> Tensor:
    return torch.as_tensor(value.detach() if isinstance(value, Tensor) else value, dtype=torch.float64, device="cpu")


def _like(value: Any, state: Tensor) -> Any:
    if isinstance(value, Tensor):
        return state.to(value)
    if isinstance(value, np.ndarray):
        return state.numpy().astype(value.dtype)
    number = float(state)
    return int(number) if number.is_integer() and not isinstance(value, float) else number


class COINNScores(ScoreBook):
    """Averages and scores of a split.

    Args:
        trainer: makes the empty objects; its cache says what is monitored, and the header of the log.

    Attributes:
        flush: called before scores are taken: items that wait for the end of their file are added.
        show: is told how it gets on, for people, where somebody wants to know.
    """

    def __init__(self, trainer: COINNTrainer) -> None:
        self.trainer = trainer
        self.flush: Callable[[], None] = lambda: None
        self.show: Callable[[str], None] | None = None
        self._batches = 0
        self.averages = Pooled(trainer.new_averages, "new_averages")
        self.metrics = pooled_metrics(trainer)
        self.monitored = monitored(trainer.cache)
        better: Mode = "max" if trainer.cache["metric_direction"] == "maximize" else "min"
        self.labels = labels_of(trainer)
        modes: dict[str, Mode | None] = dict.fromkeys(self.labels)
        super().__init__(make_setting("regression", 0, None, True), (), modes | {self.monitored: better})
        if self.monitored != "loss":
            self.metrics.make().extract(self.monitored)  # a name that there is not, before training

    def reset(self) -> None:
        """See `ScoreBook.reset`."""
        super().reset()
        self._batches = 0
        self.averages.reset()
        self.metrics.reset()

    def add_curves(self) -> None:
        """There are none to draw."""

    def update(self, outputs: Tensor, targets: Any, **further: Any) -> None:
        """Add a batch.

        Args:
            outputs: rows of the items, [n].
            targets: pairs of averages and scores.
            further: `loss`, its mean, and `weight`; the rest is not used.
        """
        self.take(targets)
        self._batches += 1
        if self.show is not None and lazy_debug(self._batches) and len(targets) == 1:
            self.show(f" batch {self._batches}: {self._words(*targets[0])}")
        if further.get("loss") is not None:
            self.add_loss(further["loss"], further.get("weight") or len(outputs))

    def take(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Add averages and scores."""
        for averages, metrics in pairs:
            self.averages.add(averages)
            self.metrics.add(metrics)

    def states(self) -> list[Tensor]:
        """Sums of losses, averages and scores."""
        self.flush()
        return [*super().states(), *self.averages.states(), *self.metrics.states()]

    def load_states(self, states: Sequence[Tensor]) -> None:
        """Take the sums of all sites."""
        cut = 1 + len(self.averages.names or ())
        self._pooled = [states[0].detach().cpu().numpy().copy()]
        if self.averages.names is not None:
            self.averages.load(states[1:cut])
        if self.metrics.names is not None:
            self.metrics.load(states[cut:])

    def gatherable(self) -> list[Tensor] | None:
        """What sites say of objects whose states are no sums."""
        parts = {name: part.serialized() for name, part in self._named().items() if part.names is None}
        return [framed(parts)] if parts else None

    def load_gathered(self, gathered: Sequence[Tensor]) -> None:
        """Take what all sites say."""
        every = unframed(gathered[0])
        for name, part in self._named().items():
            if part.names is None:
                part.reduce([entry for said in every for entry in said[name]])

    def _named(self) -> dict[str, Pooled]:
        return {"averages": self.averages, "metrics": self.metrics}

    def told(self) -> dict[str, list[Any]]:
        """The state of all sites together, for JSON; see `pooled_line`."""
        return {name: part.plain() for name, part in self._named().items()}

    def line(self) -> list[float]:
        """Averages, then scores."""
        return [*self.averages.line(), *self.metrics.line()]

    def compute(self) -> dict[str, float]:
        """The loss, the monitored score, and those of the log under its header's names."""
        self.flush()
        if self.show is not None:
            own = self._words(self.averages.own, self.metrics.own) if self._batches else "no items"
            self.show(f" of this site: {own}")
            self.show(f" of all sites: {self._words(self.averages.value, self.metrics.value)}")
        found = super().compute()
        line = dict(zip(self.labels, self.line(), strict=False))
        if self.monitored != "loss":
            metrics = self.metrics.value
            line[self.monitored] = called(metrics, f"extract({self.monitored!r})", metrics.extract, self.monitored)
        return found | {name: float(value) for name, value in line.items()}

    def _words(self, averages: Any, metrics: Any) -> str:
        return scores_in_words(
            self.labels, [*called(averages, "get", averages.get), *called(metrics, "get", metrics.get)]
        )

    def case_rows(self) -> list[dict[str, Any]]:
        """Nothing is known of single items."""
        return []


def pooled_line(trainer: COINNTrainer, told: Sequence[Mapping[str, list[Any]]]) -> list[float]:
    """Averages and scores of several evaluations together, for example of all folds, in the order of the log.

    Args:
        trainer: makes the empty objects.
        told: of each evaluation, what `COINNScores.told` said.
    """
    line: list[float] = []
    for name, pooled in (
        ("averages", Pooled(trainer.new_averages, "new_averages")),
        ("metrics", pooled_metrics(trainer)),
    ):
        if pooled.names is None:
            pooled.reduce([entry for said in told for entry in said[name]])
        else:
            columns = zip(*(said[name] for said in told), strict=True)
            pooled.load([torch.tensor(column, dtype=torch.float64).sum(0) for column in columns])
        line += pooled.line()
    return line


def forms_of(trainer: COINNTrainer) -> dict[str, Any]:
    """What averages and scores of a trainer are and hold, for JSON: the names of their classes, and of states that are
    sums, each with its shape.
    """
    found: dict[str, Any] = {}
    for name, pooled in (
        ("averages", Pooled(trainer.new_averages, "new_averages")),
        ("metrics", pooled_metrics(trainer)),
    ):
        states = None if pooled.names is None else list(zip(pooled.names, pooled.states(), strict=True))
        shapes = None if states is None else {state: list(value.shape) for state, value in states}
        found[name] = {"class": type(pooled.own).__name__, "states": shapes}
    return found


def pooled_metrics(trainer: COINNTrainer) -> Pooled:
    """Empty scores of a trainer, which tell others no bins of few items where its arguments say so."""
    return Pooled(trainer.new_metrics, "new_metrics", int((trainer.cache or {}).get("minimum_cells") or 0))


def framed(content: Any) -> Tensor:
    """JSON as bytes, uint8 [n], whose beginning is told by their length."""
    data = json.dumps(content).encode()
    return torch.frombuffer(bytearray(len(data).to_bytes(8, "little") + data), dtype=torch.uint8)


def unframed(data: Tensor) -> list[Any]:
    """Everything that was framed and put side by side."""
    content, at, found = data.cpu().numpy().tobytes(), 0, []
    while at < len(content):
        size = int.from_bytes(content[at : at + 8], "little")
        found.append(json.loads(content[at + 8 : at + 8 + size]))
        at += 8 + size
    return found
