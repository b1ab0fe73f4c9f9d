"""The scale of a loss: what the model's last operation gives, what the loss takes, and where it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weft.tasks import Classification, Regression, Segmentation, Task

Form = Literal["logits", "probabilities", "log-probabilities", "unknown"]

# Operations that only give a tensor another form; what was computed lies before them.
_FORMS = (
    "View", "UnsafeView", "Squeeze", "Unsqueeze", "Reshape", "Permute", "Transpose", "T", "ToCopy", "Clone", "Expand",
    "Alias", "AsStrided", "Flatten", "Slice",
)  # fmt: skip
_ACTIVATIONS: dict[str, Form] = {
    "Softmax": "probabilities",
    "Sigmoid": "probabilities",
    "LogSoftmax": "log-probabilities",
    "LogSigmoid": "log-probabilities",
}


def last_operation(outputs: Tensor) -> str:
    """Name of the operation that made the outputs, e.g. "Softmax" or "Addmm"; empty where autograd knows none."""
    node: Any = outputs.grad_fn
    while node is not None:
        name = type(node).__name__.partition("Backward")[0]
        if name not in _FORMS:
            return str(name)
        node = node.next_functions[0][0] if node.next_functions else None
    return ""


def form_of_outputs(outputs: Tensor) -> Form:
    """Whether outputs `[n, classes, ...]` are probabilities, judged by the last operation and the values."""
    form = _ACTIVATIONS.get(last_operation(outputs))
    if form is not None:
        return form
    values = outputs.detach().float()
    if values.ndim < 2 or values.shape[1] < 2 or values.numel() < 4:
        return "logits"
    sums = values.sum(1)
    if bool((values >= 0).all()) and bool(torch.isclose(sums, torch.ones_like(sums), atol=1e-3).all()):
        return "probabilities"
    return "logits"


def form_for_loss(task: Task) -> Form:
    """What the loss of a task takes."""
    loss = task.loss
    if isinstance(loss, nn.BCELoss):
        return "probabilities"
    if isinstance(loss, nn.NLLLoss):
        return "log-probabilities"
    if isinstance(loss, nn.CrossEntropyLoss | nn.BCEWithLogitsLoss) or not isinstance(loss, nn.Module):
        return "logits" if isinstance(loss, nn.Module) or _is_own(task) else "unknown"
    applies = [bool(getattr(loss, name)) for name in ("softmax", "sigmoid") if hasattr(loss, name)]
    if not applies:  # MONAI's losses say so in these attributes; of others we know nothing
        return "unknown"
    return "logits" if any(applies) or getattr(loss, "other_act", None) is not None else "probabilities"


def _is_own(task: Task) -> bool:
    """Whether the loss is the task's own."""
    module = getattr(task.loss, "__module__", "")
    return isinstance(task, Classification | Segmentation) and str(module).startswith("weft.tasks")


@dataclass(frozen=True, slots=True)
class Start:
    """Where a loss starts.

    Args:
        loss: of the model as it is initialised.
        undecided: of outputs that are all zero: for classes, equal probabilities (ln C with cross entropy).
        constant: of the best constant prediction, for regression with the mean squared error.
    """

    loss: float
    undecided: float
    constant: float | None = None


@torch.no_grad()
def starting_loss(task: Task, outputs: Tensor, targets: Any, *, form: Form) -> Start:
    """Where the loss of a batch starts, and where it would with outputs that say nothing.

    Args:
        task: set up.
        outputs: of the model.
        targets: in the form that the loss takes.
        form: what the loss takes; zeros stand for logits, equal shares for probabilities.
    """
    zeros = torch.zeros_like(outputs)
    if form in ("probabilities", "log-probabilities"):
        classes = outputs.shape[1] if outputs.ndim > 1 and outputs.shape[1] > 1 else 2
        zeros += 1 / classes
        zeros = zeros.log() if form == "log-probabilities" else zeros
    constant = None
    if isinstance(task, Regression) and isinstance(task.loss, nn.MSELoss):
        constant = float(targets.cpu().double().var(0, correction=0).mean())
    return Start(float(task.loss_of(outputs, targets)), float(task.loss_of(zeros, targets)), constant)
