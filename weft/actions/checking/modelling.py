"""The part of a check that needs the model: one training step, one validation step, and what they tell."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from weft.actions.checking import learning
from weft.actions.checking.estimates import Measured, estimate, peak_memory
from weft.actions.checking.findings import Findings, count, listed
from weft.actions.checking.fitting import overfit
from weft.actions.checking.inputs import InputNames
from weft.actions.checking.labels import check_classes, check_label_range
from weft.actions.checking.samples import Looked
from weft.actions.checking.scale import Form, Start, form_for_loss, form_of_outputs, starting_loss
from weft.actions.checking.settings import check_rates, schedule_peak
from weft.actions.checking.tracing import ShapeTrace, bytes_kept_for_backward
from weft.actions.checking.trial import (
    TrialStep,
    as_it_was,
    build_trial,
    first_batches,
    forward,
    is_plain,
    narrowed,
    ready,
    trial_step,
)
from weft.actions.checking.unused import ignored_inputs
from weft.config import Experiment
from weft.data import Batch, Data
from weft.engine.run import Run
from weft.errors import WeftError
from weft.tasks import Classification, Segmentation, Task

_STEPS = 3


@dataclass(slots=True)
class ModelCheck:
    """The checks of one model, in their order.

    Args:
        experiment: resolved.
        data: opened.
        looked: what was seen of the samples.
        names: of the inputs.
        findings, measured, left_out: of the report; filled in here.
        seconds: how long overfitting may take.
    """

    experiment: Experiment
    data: Data
    looked: Mapping[str, Looked]
    names: InputNames
    findings: Findings
    measured: dict[str, Any]
    left_out: dict[str, str]
    seconds: float
    kept: int = 0
    steps: list[TrialStep] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """Make all checks; returns the estimates, none where the model does not run."""
        trial = self._guarded("build", lambda: build_trial(self.experiment, self.data))
        batches = self._guarded("first batch", lambda: first_batches(trial, _STEPS)) if trial is not None else None
        if trial is None or batches is None:
            return {}
        peaks = {
            name: peak
            for name, schedule in trial.state.schedules.items()
            if (peak := schedule_peak(schedule.scheduler)) is not None
        }
        check_rates(trial.state.optimizers, peaks, self.findings)
        with as_it_was(trial):
            if not self._outputs_fit(trial, batches[0]):
                self.left_out["training step"] = "the errors above come first"
                return {}
        with as_it_was(trial):
            measured = self._steps(trial, batches)
            if measured is None:
                return {}
            estimates = self.estimates(trial, measured)
        self._overfit(trial, batches[0])
        return estimates

    def estimates(self, trial: Run, measured: Measured) -> dict[str, Any]:
        """Memory, disk and time; what does not fit becomes a finding."""
        return estimate(self.experiment, self.data, trial, self.looked, measured, self.findings)

    def _guarded(self, what: str, function: Any) -> Any:
        """The result of a function; None where it raises, which becomes a finding with the layer where it broke."""
        with ShapeTrace() as trace:
            try:
                return function()
            except Exception as error:  # the user's code may raise anything
                if trace.broken:
                    self._report_broken(trace, error)
                else:
                    self.findings.raised(what, "model" if what != "first batch" else "train", error)
                self.left_out.setdefault("training step", f"the {what} failed")
                return None

    def _report_broken(self, trace: ShapeTrace, error: Exception) -> None:
        layer, given, way = trace.place()
        reason = error.message if isinstance(error, WeftError) else f"{type(error).__name__}: {error}"
        hint = error.hint if isinstance(error, WeftError) else ""
        self.findings.error(
            "shapes",
            layer,
            f"given {given or 'nothing'}, it fails: {reason.splitlines()[0]}"
            + (f"; before it: {'; '.join(way)}" if way else ""),
            hint or "make the sizes of this layer fit what comes in",
            layer=layer,
            given=given,
            way=way,
        )

    # --- outputs ------------------------------------------------------------------------------------------------------

    def _outputs_fit(self, trial: Run, batch: Batch) -> bool:
        """One forward pass and one loss; whether training can be tried."""
        task = trial.task
        if not is_plain(task):
            return True
        model = ready(trial)
        with bytes_kept_for_backward(trial.state.model) as kept:
            answer = self._guarded("forward pass", lambda: forward(trial, model, batch))
        if answer is None:
            return False
        outputs: Tensor = answer[0]
        self.measured["outputs"] = list(outputs.shape[1:])
        if not self._sizes_fit(task, outputs):
            return False
        if batch.targets is None:
            self.findings.error(
                "no targets",
                "train",
                "the items have inputs only, so there is nothing to learn",
                "name dataset.targets, or let the dataset give (inputs, targets)",
            )
            return False
        wanted = form_for_loss(task)
        learning.check_form(task, outputs, form_of_outputs(outputs), wanted, self.findings)
        start = self._start(trial, outputs, batch, wanted)
        if start is None:
            return False
        self.kept = kept.total
        self.measured["loss_at_start"] = start.loss
        self.measured["loss_undecided"] = start.undecided
        pretrained = self.experiment.model.weights is not None
        learning.check_start(start, self.findings, pretrained=pretrained, task=task)
        self._check_single_sample(trial, model, batch)
        self._check_unused(trial, batch)
        return math.isfinite(start.loss)

    def _start(self, trial: Run, outputs: Tensor, batch: Batch, wanted: Form) -> Start | None:
        task = trial.task

        def measure() -> Start:
            targets = task.targets_for_loss(outputs, batch)
            with trial.plan.precision.autocast():
                return starting_loss(task, outputs, targets, form=wanted)

        try:
            return measure()
        except Exception as error:  # the loss may be the user's
            where = f"outputs {list(outputs.shape)}"
            if isinstance(batch.targets, Tensor):
                where += f", targets {list(batch.targets.shape)} {str(batch.targets.dtype).removeprefix('torch.')}"
            self.findings.raised("loss", where, error)
            return None

    def _sizes_fit(self, task: Task, outputs: Tensor) -> bool:
        """Whether there is an output for each class, and a class for each output."""
        given = outputs.shape[1] if outputs.ndim > 1 else 1
        loss = task.loss
        ignored = getattr(loss, "ignore_index", None)
        if not isinstance(task, Classification | Segmentation):
            return True
        known = self.data.classes
        fits = True
        if isinstance(task, Classification) and task.kind == "multilabel":
            fits = self._compare_outputs(given, len(known or ()) or given)
        elif isinstance(task, Classification) and known is not None:
            fits = self._compare_outputs(given, len(known), single=True)
        if not isinstance(task, Classification) or task.kind != "multilabel":
            answers = 2 if given == 1 and isinstance(task, Classification) else given
            if fits:
                fits = check_label_range(self.looked, answers, self.findings, ignored=ignored)
            names = known or [str(number) for number in range(answers)]
            self.judge_classes(names, maps=isinstance(task, Segmentation), compensated=self._compensated(loss))
        return fits

    def judge_classes(self, names: Sequence[str], *, maps: bool, compensated: str | None) -> None:
        """Whether every class can be learned and scored; see `check_classes`."""
        check_classes(self.looked, names, self.findings, maps=maps, compensated=compensated)

    def _compare_outputs(self, given: int, wanted: int, *, single: bool = False) -> bool:
        if given == wanted or (single and given == 1 and wanted == 2):
            return True
        values = {"outputs": given, "classes": wanted}
        if given < wanted or not single:
            self.findings.error(
                "output size", "model", f"the model has {count(given, 'output')}, the data have {wanted} classes",
                f"give the model {wanted} outputs", **values,
            )  # fmt: skip
            return False
        self.findings.warning(
            "output size", "model", f"the model has {given} outputs, the data only {wanted} classes",
            f"give the model {wanted} outputs, or see whether classes are missing from the data", **values,
        )  # fmt: skip
        return True

    def _compensated(self, loss: Any) -> str | None:
        weight = getattr(loss, "weight", None)
        if weight is None:
            weight = getattr(loss, "pos_weight", None)
        if isinstance(weight, Tensor):
            return "the loss weighs classes"
        return "a sampler balances training" if "train" in self.experiment.dataset.samplers else None

    def _check_single_sample(self, trial: Run, model: nn.Module, batch: Batch) -> None:
        """A last batch of one sample, where batch normalisation cannot work with one."""
        training = self.experiment.training
        alone = {
            place: items for place, items in self.training_items().items()
            if items % training.items_per_batch == 1
            and not training.drop_last
            and "train" not in self.experiment.dataset.samplers
        }  # fmt: skip
        if not alone or not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
            return
        try:
            forward(trial, model, narrowed(batch, [0]))
        except Exception as error:  # torch says ValueError, other layers something else
            for place, items in alone.items():
                self.findings.error(
                    "batch of one",
                    f"{place}training.batch_size",
                    f"the last batch of each epoch has one item ({items} items in batches of "
                    f"{training.items_per_batch}), and the model "
                    f"cannot train on one: {error}",
                    "set training.drop_last: true, or another batch_size",
                )

    def training_items(self) -> dict[str, int]:
        """How many items make an epoch; by what stands before the key in a finding, which is nothing in one place."""
        return {"": len(self.data.splits["train"])}

    def _check_unused(self, trial: Run, batch: Batch) -> None:
        """Inputs that do not change the outputs."""
        model = trial.state.model.eval()
        unused = ignored_inputs(trial, model, batch)
        ready(trial)
        if not unused:
            return
        several = isinstance(batch.inputs, tuple)
        whole = [place for place, feature in unused if feature is None]
        if whole and len(whole) == (len(batch.inputs) if several else 1):
            self.findings.error(
                "unused input", "model", "the outputs do not depend on the inputs at all",
                "look at the layers: an activation that is always off, weights of zero, or forward that "
                "drops its inputs",
            )  # fmt: skip
            return
        places = [self.names.input(p) if f is None else self.names.feature(p, f) for p, f in unused]
        self.findings.warning(
            "unused input", listed(places), "the outputs do not depend on it",
            "use it in the model's forward, or leave it out of the inputs", inputs=places[:50],
        )  # fmt: skip

    # --- steps --------------------------------------------------------------------------------------------------------

    def _steps(self, trial: Run, batches: list[Batch]) -> Measured | None:
        """A few steps of the experiment's own optimizer, and a validation step."""
        ready(trial)
        device = trial.plan.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for number in range(_STEPS):
            batch = batches[number % len(batches)]
            step = self._guarded("training step", lambda batch=batch: trial_step(trial, batch))
            if step is None:
                return None
            self.steps.append(step)
        undecided = self.measured.get("loss_undecided", 1.0)
        self.measured["gradient_norm"] = math.sqrt(sum(g.norm**2 for g in self.steps[0].gradients))
        learning.check_gradients(self.steps, abs(undecided), self.findings)
        if is_plain(trial.task):
            after = self._loss_again(trial, batches[0])
            rates = [float(group["lr"]) for o in trial.state.optimizers.values() for group in o.param_groups]
            self.measured["loss_after_first_steps"] = after
            learning.check_progress(self.steps[0].loss, after, abs(undecided), rates, self.findings)
        seconds = self._validation_step(trial)
        peak = peak_memory(device, batches)
        return Measured(min(step.seconds for step in self.steps), seconds, self.kept, peak)

    @torch.no_grad()
    def _loss_again(self, trial: Run, batch: Batch) -> float:
        answer = forward(trial, ready(trial), batch)
        return float(trial.task.loss_of(answer[0], trial.task.targets_for_loss(answer[0], batch)))

    def _validation_step(self, trial: Run) -> float:
        """Seconds that scoring a batch takes; a failure becomes a finding."""
        name = "validation" if "validation" in trial.splits else next(iter(trial.splits))
        split = trial.splits[name]
        module = trial.scored_module().eval()
        seconds = math.inf
        for _ in range(2):  # the first one loads libraries
            with torch.no_grad(), ShapeTrace() as trace:
                try:
                    batch = trial.place(next(iter(split.loader.epoch(0))))
                    started = time.perf_counter()
                    with trial.plan.precision.autocast():
                        evaluation = trial.task.evaluation_step(module, batch)
                    split.book.reset()
                    split.book.update(
                        evaluation.outputs.float() if evaluation.outputs.is_floating_point() else evaluation.outputs,
                        evaluation.targets,
                        loss=evaluation.loss,
                        weight=evaluation.weight,
                        spacing=evaluation.spacing,
                    )
                    seconds = min(seconds, time.perf_counter() - started)
                except Exception as error:  # model, loss and metrics may be the user's
                    if trace.broken:
                        self._report_broken(trace, error)
                    else:
                        self.findings.raised("validation step", name, error)
                    return 0.0
        self._check_monitored(split.book.names)
        return seconds

    def _check_monitored(self, names: Any) -> None:
        metric = self.experiment.training.monitor.metric
        if metric != "loss" and metric not in list(names):
            self.findings.error(
                "monitor metric", "training.monitor.metric", f"the score '{metric}' is not measured",
                f"measured are: {', '.join(['loss', *names])}",
            )  # fmt: skip

    def _overfit(self, trial: Run, batch: Batch) -> None:
        if len(trial.task.updates) != 1:
            self.left_out["overfit one batch"] = "the task trains several networks against each other"
            return
        if self.findings.has("error"):
            self.left_out["overfit one batch"] = "there are errors to be mended first"
            return
        with as_it_was(trial):
            fit = self._guarded("overfitting", lambda: overfit(trial, batch, self.seconds))
        if fit is not None:
            self.measured["overfit"] = {
                "outcome": fit.outcome,
                "first": fit.first,
                "last": fit.last,
                "steps": fit.steps,
            }
            learning.check_fit(fit, self.findings, self.left_out)
