"""Scores of a scorch Socket: its `metrics`, called once on the whole split."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weft.interop.scorch.contract import broken, called
from weft.metrics.book import ScoreBook, make_setting
from weft.metrics.names import Mode

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Scored:
    """Outputs and targets of a batch, on the CPU."""

    outputs: list[Any]
    targets: list[Any]


class ScorchScores(ScoreBook):
    """Keeps outputs and targets of all items, and hands them to the Socket's `metrics` at once.

    Scores need not be means over items, so processes exchange the predictions themselves: each has all of them in the
    order of the items, and its scores are those of the whole split.

    Args:
        socket: the Socket.
    """

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self._batches: list[dict[str, Any]] = []
        modes: dict[str, Mode | None] = {MAIN: "max"}
        super().__init__(make_setting("regression", 0, None, True), (), modes)

    def reset(self) -> None:
        """See `ScoreBook.reset`."""
        super().reset()
        self._batches = []
        self._whole: list[dict[str, Any]] | None = None
        self._computed: dict[str, float] | None = None

    def add_curves(self) -> None:
        """There are none to draw."""

    def update(
        self,
        outputs: Tensor,
        targets: Any,
        *,
        loss: Tensor | None = None,
        weight: float | None = None,
        cases: Sequence[str] | None = None,
        spacing: Any = None,
    ) -> None:
        """Add a batch.

        Args:
            outputs: rows of the items in the split, int64 [n].
            targets: outputs and targets of the batch, `Scored`.
            loss: mean loss of the batch.
            weight: what the loss weighs.
            cases, spacing: not used.
        """
        self._batches.append({"rows": outputs.cpu(), "outputs": targets.outputs, "targets": targets.targets})
        self._computed = None
        if loss is not None:
            self.add_loss(loss, len(outputs) if weight is None else weight)

    def gatherable(self) -> list[Tensor]:
        """All that was added, as bytes."""
        if not self._batches:
            return [torch.zeros(0, dtype=torch.uint8)]
        buffer = io.BytesIO()
        torch.save(self._batches, buffer)
        content = buffer.getvalue()
        frame = len(content).to_bytes(8, "little") + content
        return [torch.frombuffer(bytearray(frame), dtype=torch.uint8)]

    def load_gathered(self, gathered: Sequence[Tensor]) -> None:
        """Take what all participants added."""
        content, at = gathered[0].cpu().numpy().tobytes(), 0
        self._whole = []
        while at < len(content):
            size = int.from_bytes(content[at : at + 8], "little")
            part = io.BytesIO(content[at + 8 : at + 8 + size])
            self._whole += torch.load(part, map_location="cpu", weights_only=True)
            at += 8 + size
        self._computed = None

    def compute(self) -> dict[str, float]:
        """The loss and the Socket's scores; one that it calls `loss` takes the place of Weft's."""
        return super().compute() | self.measured()

    @property
    def filled(self) -> bool:
        """Whether the split was scored since `reset`."""
        return bool(self._batches) or self._whole is not None

    def measured(self) -> dict[str, float]:
        """The Socket's own scores, by the names that it gives them."""
        parts = self._batches if self._whole is None else self._whole
        if not parts or not parts[0]["targets"]:
            return {MAIN: math.nan}  # nothing to judge, or nothing to judge it by
        if self._computed is None:
            outputs, targets = together(parts)
            self._computed = measure(self.socket, outputs, targets)
        return dict(self._computed)

    def case_rows(self) -> list[dict[str, Any]]:
        """Nothing is known of single items."""
        return []


def together(parts: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any]]:
    """Outputs and targets of all items in the order of their rows, whoever scored them."""
    rows = torch.cat([part["rows"] for part in parts])
    order = torch.argsort(rows, stable=True)
    sides = []
    for side in ("outputs", "targets"):
        columns = zip(*(part[side] for part in parts), strict=True)
        sides.append([_joined(list(column), order) for column in columns])
    return sides[0], sides[1]


def _joined(values: list[Any], order: Tensor) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        whole = torch.cat(values) if first.dim() else torch.stack(values)
        return whole[order] if len(whole) == len(order) else whole
    if isinstance(first, Mapping):
        return {key: _joined([value[key] for value in values], order) for key in first}
    flat = [entry for value in values for entry in value]
    return [flat[place] for place in order.tolist()] if len(flat) == len(order) else flat


def measure(socket: Any, outputs: list[Any], targets: list[Any]) -> dict[str, float]:
    """The scores of a Socket by name.

    Raises:
        DataError: `metrics` fails, returns something else, or has no main score.
    """
    return numbers_by_name(socket, called(socket, "Socket.metrics", socket.metrics, outputs, targets))


def numbers_by_name(socket: Any, found: Any) -> dict[str, float]:
    """What `metrics` returned, as numbers by name; of a list, the first is the main one.

    Raises:
        DataError: it is something else, or has no main score.
    """
    if isinstance(found, list | tuple):
        names = [MAIN, *(f"metric_{place}" for place in range(2, len(found) + 1))]
        found = dict(zip(names, found, strict=False))
    if not isinstance(found, Mapping):
        raise broken(socket, f"Socket.metrics returned a {type(found).__name__}", "metrics")
    if MAIN not in found:
        named = ", ".join(map(str, found)) or "nothing"
        raise broken(socket, f"Socket.metrics returned {named}, without 'main'", "metrics")
    return {str(name): _number(socket, str(name), value) for name, value in found.items()}


def _number(socket: Any, name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"Socket.metrics returned a {type(value).__name__} for {name!r}"
        raise broken(socket, f"{what}, which is not one number", "metrics") from error
