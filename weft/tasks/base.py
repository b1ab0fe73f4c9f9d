"""What a batch means: the base class of tasks. A task holds no model; it is handed the one to use (prepared for the
device, compiled or wrapped) with every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from weft.data import Batch
from weft.errors import ConfigError, DataError, Problem, WeftError
from weft.metrics import ScoreBook, build_scores
from weft.tasks.updates import Evaluation, Update

Loss = Callable[[Tensor, Tensor], Tensor]


class Task:
    """Base class of tasks: a supervised one with a single loss and a single optimizer.

    Own tasks override what differs. With several networks, override `updates`, `networks` and `training_step`; a
    generator that yields one `Update` per name in `updates` computes each forward after the step before it.

    Attributes:
        updates: names of the networks that are updated in a step, in order.
        score_kind: how outputs are scored; see `weft.metrics.build_scores`.
        target_kind: what targets are: "class", "number" or "auto".
        default_metrics: what is measured when the experiment names no metrics.
    """

    updates: ClassVar[tuple[str, ...]] = ("main",)
    score_kind: str = "regression"
    target_kind: ClassVar[str] = "auto"
    default_metrics: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.loss: Loss | None = None
        self.class_names: list[str] | None = None
        self.classes = 1

    def setup(self, loss: Loss | None, class_names: list[str] | None) -> None:
        """Take what the experiment and the data say; called once, before training.

        Args:
            loss: the configured loss, None for the task's own.
            class_names: names of the classes, where targets are classes.

        Raises:
            ConfigError: the loss is no mean.
        """
        self.class_names = class_names
        self.classes = len(class_names) if class_names else 1
        self.loss = loss if loss is not None else self.default_loss()
        reduction = getattr(self.loss, "reduction", "mean")
        if reduction != "mean":
            raise ConfigError(
                f"training.loss {type(self.loss).__name__} has reduction {reduction!r}",
                "use reduction: mean (the default), so that batches and participants can be combined exactly",
            )

    def default_loss(self) -> Loss | None:
        """The loss that is used when the experiment names none."""
        return None

    def networks(self, model: nn.Module) -> dict[str, nn.Module]:
        """The parts of `model` that have an optimizer of their own, by the names in `updates`."""
        return {"main": model}

    def optimizer(self, network: str) -> Optimizer:
        """The optimizer that the task brings for one of its networks, where the experiment names `OwnOptimizer`. Called
        after `networks`.

        Args:
            network: its name in `updates`.

        Raises:
            ConfigError: this task brings none.
        """
        raise ConfigError(
            f"training.optimizer is OwnOptimizer, but task {type(self).__name__} brings none for '{network}'",
            "name one of torch.optim, or give the task a method `optimizer(network)`",
        )

    def scheduler(self, network: str, optimizer: Optimizer) -> LRScheduler | ReduceLROnPlateau | None:
        """The schedule that the task brings for the optimizer of a network, where the experiment names none.

        Args:
            network: its name in `updates`.
            optimizer: whose learning rate it sets.
        """
        return None

    def training_step(self, model: nn.Module, batch: Batch) -> Iterable[Update]:
        """One step's updates for a batch.

        Args:
            model: prepared (compiled or wrapped), in training mode.
            batch: on the model's device; inputs [n, ...] or a tuple of such.

        Raises:
            DataError: model, loss and batch do not fit, told with their shapes.
        """
        outputs, regularization = self.forward(model, batch)
        targets = self.targets_for_loss(outputs, batch)
        loss = self.loss_of(outputs, targets)
        if regularization is not None:
            loss = loss + regularization
        return (Update(loss, self.weight(outputs, targets, batch)),)

    def evaluation_step(self, model: nn.Module, batch: Batch) -> Evaluation:
        """Outputs and loss of a batch; called without gradients.

        Args:
            model: prepared, in evaluation mode.
            batch: on the model's device; without targets there is no loss.

        Raises:
            DataError: model, loss and batch do not fit, told with their shapes.
        """
        outputs, _ = self.forward(model, batch)
        if batch.targets is None:
            return Evaluation(outputs, None, None, batch.size)
        targets = self.targets_for_loss(outputs, batch)
        return Evaluation(
            outputs,
            self.targets_for_scores(batch),
            self.loss_of(outputs, targets),
            float(self.weight(outputs, targets, batch)),
            spacing=batch.spacing,
        )

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Outputs of the model and, where it returns `(output, regularization_loss)`, its regularisation.

        Args:
            model: prepared; several inputs are its positional arguments.
            batch: on the model's device.

        Raises:
            DataError: the model failed, or returned something else.
            ConfigError: it normalises over a batch of one item.
        """
        try:
            answer = model(*batch.inputs) if isinstance(batch.inputs, tuple) else model(batch.inputs)
        except (WeftError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise _model_failure(model, batch, error) from error
        if isinstance(answer, tuple):
            if len(answer) == 2 and isinstance(answer[1], Tensor) and answer[1].ndim == 0:
                return answer[0], answer[1]
            raise DataError(
                f"{type(model).__name__} returned a tuple of {len(answer)}; a model returns its output or (output, "
                "regularization_loss) with a scalar second part",
                "write an own task (docs: tasks) to use other outputs",
            )
        return answer, None

    def loss_of(self, outputs: Tensor, targets: Any) -> Tensor:
        """Mean loss of a batch: a scalar that gradients flow from.

        Args:
            outputs: of the model, [n, ...].
            targets: what `targets_for_loss` gave.

        Raises:
            ConfigError: there is no loss.
            DataError: the loss failed, or returned no scalar.
        """
        if self.loss is None:
            raise ConfigError(f"task {type(self).__name__} has no loss", "name one: training.loss: ...")
        return self._apply_loss(self.loss, outputs, targets)

    def _apply_loss(self, loss: Loss, outputs: Tensor, targets: Any) -> Tensor:
        """The loss; what it cannot work with is told with shapes, types and the range of the targets."""
        try:
            value = loss(outputs, targets)
        except (WeftError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            name = getattr(loss, "__name__", type(loss).__name__)
            raise DataError(
                f"loss {name} failed on {_forms('outputs', outputs)} and {_forms('targets', targets)}: "
                f"{_first_line(error)}",
                "check that the model's outputs and the targets are what this loss expects",
            ) from error
        if not isinstance(value, Tensor) or value.ndim:
            found = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise DataError(
                f"loss {getattr(loss, '__name__', type(loss).__name__)} returned {found}, expected a scalar tensor",
                "return the mean over the batch",
            )
        return value

    def targets_for_loss(self, outputs: Tensor, batch: Batch) -> Any:
        """The batch's targets in the form that the loss expects."""
        return batch.targets

    def targets_for_scores(self, batch: Batch) -> Any:
        """The batch's targets in the form that the scores expect."""
        return batch.targets

    def weight(self, outputs: Tensor, targets: Any, batch: Batch) -> float | Tensor:
        """What the mean loss is a mean over; items unless the loss weighs classes or leaves items out.

        Args:
            outputs: of the model, [n, ...].
            targets: what `targets_for_loss` gave.
            batch: has `size` items, n.

        Returns:
            a number from 0: what batches and participants are put together by.
        """
        class_weights = getattr(self.loss, "weight", None)
        ignored = getattr(self.loss, "ignore_index", -100)
        if isinstance(self.loss, nn.CrossEntropyLoss | nn.NLLLoss) and (
            isinstance(class_weights, Tensor) or ignored != -100
        ):
            kept = targets[targets != ignored]
            return class_weights[kept].sum() if isinstance(class_weights, Tensor) else float(kept.numel())
        return float(batch.size)

    def predictions(self, outputs: Tensor) -> dict[str, Tensor]:
        """What `weft predict` writes per item, by column name; first dimension items.

        Args:
            outputs: of the model, [n, ...].
        """
        return {"output": outputs}

    def build_scores(self, metrics: Sequence[Any] | None, *, gather: bool = True) -> ScoreBook:
        """The score book of this task.

        Args:
            metrics: names, (name, arguments) pairs or objects; None for the task's default.
            gather: whether predictions may be gathered where a score does not follow from sums.
        """
        chosen = list(self.default_metrics) if metrics is None else list(metrics)
        return build_scores(
            chosen, kind=self.score_kind, classes=self.classes, class_names=self.class_names, gather=gather
        )

    def state_dict(self) -> dict[str, Any]:
        """Memory of the task itself, if it has any: tensors, numbers, strings, lists and dicts. Part of checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""


class OwnOptimizer(Optimizer):
    """Named as `training.optimizer`, it stands for the one that the task brings (`Task.optimizer`)."""

    def __init__(self, params: Iterable[Any]) -> None:
        raise ConfigError("OwnOptimizer only stands for the task's optimizer", "name one of torch.optim")


def _model_failure(model: nn.Module, batch: Batch, error: Exception) -> WeftError:
    name, forms = type(model).__name__, _forms("inputs", batch.inputs)
    if "Expected more than 1 value per channel" in str(error):
        return ConfigError(
            Problem(
                f"{name} normalises over a batch, for which one item is too few: {forms}",
                "set training.drop_last: true where the last batch of an epoch has one item left, or choose another "
                "training.batch_size; with one item in each batch, use another normalisation (instance, group, layer)",
                ("training", "batch_size"),
            )
        )
    return DataError(
        f"{name} failed on {forms}: {_first_line(error)}",
        "check the model's arguments against the data; `weft --traceback …` shows where in its code it failed",
    )


def _forms(name: str, value: Any) -> str:
    """Shapes, types and ranges of tensors in words, for messages."""
    if not isinstance(value, Tensor):
        parts = value if isinstance(value, tuple | list) else []
        return f"{name} ({', '.join(_forms('', part).strip() for part in parts) or type(value).__name__})"
    text = f"{name} {list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if value.device.type == "cpu" and value.numel() and not value.is_floating_point() and not value.is_complex():
        text += f" from {value.min().item()} to {value.max().item()}"
    return text


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def squeeze_last(outputs: Tensor) -> Tensor:
    """[n, 1] as [n]; anything else as it is."""
    return outputs.squeeze(-1) if outputs.ndim == 2 and outputs.shape[-1] == 1 else outputs


def as_indices(targets: Tensor) -> Tensor:
    """Class targets as int64."""
    return targets if targets.dtype == torch.int64 else targets.long()
