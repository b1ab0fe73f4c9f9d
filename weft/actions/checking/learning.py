"""Checks of how the model learns: loss at the start, gradients, steps of the experiment's optimizer, overfitting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from weft.actions.checking.findings import Findings, count, listed, number
from weft.actions.checking.fitting import Fit
from weft.actions.checking.scale import Form, Start, last_operation
from weft.actions.checking.trial import Gradient, TrialStep
from weft.tasks import Regression, Task

_VANISHED = 1e-6  # of the largest gradient (root mean square per entry)
_EXPLODED = 1e4  # gradient norm, in units of the loss of outputs that say nothing
_MANY = 0.1  # share of parameters from which on a defect is an error
_FAR_FROM_CONSTANT = 1000.0  # how many times the loss of the best constant a regression may start at


def check_form(task: Task, outputs: Tensor, given: Form, wanted: Form, findings: Findings) -> None:
    """Whether the loss takes what the model gives: softmax twice is the classic mistake."""
    last = last_operation(outputs)
    made = f"the model's last operation is {last}" if last else "the outputs"
    evidence = {"outputs": given, "loss": wanted, "last_operation": last}
    loss = getattr(task.loss, "__name__", None) or type(task.loss).__name__
    loss = "the task's loss" if loss.startswith("_") else loss.replace("_", " ")
    if isinstance(task, Regression):
        return
    if wanted == "logits" and given == "probabilities":
        findings.error(
            "loss scale", "model",
            f"the model gives probabilities ({made}), but {loss} applies softmax or sigmoid itself: applied twice, it "
            "cannot fall far and learns slowly",
            "remove the last softmax or sigmoid of the model: losses and scores take logits", **evidence,
        )  # fmt: skip
    elif wanted == "log-probabilities" and given != "log-probabilities":
        findings.error(
            "loss scale", "model", f"{loss} takes log-probabilities, but the model gives {given}",
            "use CrossEntropyLoss, or let the model end in LogSoftmax", **evidence,
        )  # fmt: skip
    elif wanted == "probabilities":
        findings.error(
            "loss scale", "training.loss",
            f"{loss} takes probabilities, but "
            + (f"the model gives {given}" if given != "probabilities" else "the scores would apply softmax again"),
            "let the model give logits and the loss apply softmax or sigmoid (BCEWithLogitsLoss; softmax: "
            "true for MONAI's)",
            **evidence,
        )  # fmt: skip


def check_start(start: Start, findings: Findings, *, pretrained: bool, task: Task) -> None:
    """The loss at the start against that of outputs that say nothing."""
    evidence = {"loss": start.loss, "expected": start.undecided, "constant": start.constant}
    if not math.isfinite(start.loss):
        findings.error(
            "loss at start", "model", f"the loss is {start.loss} before the first step",
            "look for a logarithm or a division by zero in model and loss, and for huge inputs", **evidence,
        )  # fmt: skip
        return
    if isinstance(task, Regression):
        _check_regression_start(start, findings, evidence)
        return
    if findings.has("error", "loss scale"):
        return
    expected = start.undecided
    if start.loss > 3 * expected + 1 and not pretrained:
        findings.warning(
            "loss at start", "model",
            f"the loss starts at {number(start.loss)}; a model that has not decided yet has {number(expected)}",
            "scale the inputs (dataset.standardize: true), or look at the initialisation of the last layer", **evidence,
        )  # fmt: skip
    elif start.loss < 0.5 * expected and not pretrained:
        findings.warning(
            "loss at start", "model",
            f"the loss starts at {number(start.loss)}, far below the {number(expected)} of a model that has "
            "not decided yet",
            "see whether the loss takes logits, and whether the inputs hold the answer", **evidence,
        )  # fmt: skip


def _check_regression_start(start: Start, findings: Findings, evidence: dict[str, Any]) -> None:
    if start.constant is None or start.constant <= 0 or start.loss <= 3 * start.constant:
        return
    findings.report(
        "warning" if start.loss > _FAR_FROM_CONSTANT * start.constant else "note",
        "loss at start",
        "targets",
        f"the loss starts at {number(start.loss)}, always saying the mean has {number(start.constant)}: the "
        "targets lie far from "
        "where the model begins",
        "scale the targets to mean 0 and standard deviation 1, or raise the learning rate",
        **evidence,
    )


def check_gradients(steps: Sequence[TrialStep], loss_unit: float, findings: Findings) -> None:
    """Gradients over the first steps: not reached, zero, not finite, vanishing or exploding; layer by layer.

    Args:
        steps: what was seen in each step.
        loss_unit: what a gradient's size is compared with.
        findings: goes in here.
    """
    by_name: dict[str, list[Gradient]] = {}
    for step in steps:
        for gradient in step.gradients:
            by_name.setdefault(gradient.name, []).append(gradient)
    everything = sum(seen[0].size for seen in by_name.values())
    if not everything:
        return
    unreached = [seen[0] for seen in by_name.values() if not any(gradient.reached for gradient in seen)]
    if unreached:
        _report_layers(
            "unused parameters", unreached, everything, findings, "no gradient reaches them",
            "use these layers in forward and do not cut the graph (detach, item, numpy, no_grad), or freeze them "
            "(model.freeze)",
        )  # fmt: skip
    broken = [seen[0] for seen in by_name.values() if not all(math.isfinite(gradient.norm) for gradient in seen)]
    if broken:
        _report_layers(
            "gradients not finite", broken, everything, findings, "their gradients are not finite in the first steps",
            "look for a logarithm, square root or division at zero; clip gradients (training.clip_norm: "
            "1.0)", always=True,
        )  # fmt: skip
        return
    _check_dead(by_name, {gradient.name for gradient in unreached}, everything, findings)
    _check_sizes(by_name, everything, loss_unit, findings)


def _check_dead(by_name: dict[str, list[Gradient]], left_out: set[str], everything: int, findings: Findings) -> None:
    """Modules none of whose parameters ever has a gradient other than zero: one zero bias is no dead layer."""
    alive = {g.module for seen in by_name.values() for g in seen if g.norm > 0}
    dead = [seen[0] for name, seen in by_name.items() if seen[0].module not in alive and name not in left_out]
    if dead:
        _report_layers(
            "dead gradients", dead, everything, findings,
            "their gradients are exactly zero in the first steps: nothing behind them reacts",
            "look at the layers behind them: units that are always off (ReLU with large negative inputs), "
            "saturated sigmoids, "
            "or weights that are zero",
        )  # fmt: skip


def _check_sizes(by_name: dict[str, list[Gradient]], everything: int, loss_unit: float, findings: Findings) -> None:
    weights = {name: seen for name, seen in by_name.items() if seen[0].is_weight}
    sizes = {name: max(g.norm for g in seen) / seen[0].size ** 0.5 for name, seen in weights.items()}
    largest = max(sizes.values(), default=0.0)
    vanished = [weights[name][0] for name, size in sizes.items() if 0 < size < _VANISHED * largest]
    if vanished:
        smallest = min(sizes[gradient.name] for gradient in vanished)
        _report_layers(
            "vanishing gradients", vanished, everything, findings,
            f"their gradients are {number(largest / smallest)} times smaller than those of other layers",
            "add normalisation or residual connections, use ReLU-like activations, or initialise with larger weights",
        )  # fmt: skip
    unit = max(loss_unit, 1.0)
    exploded = [seen[0] for seen in by_name.values() if max(g.norm for g in seen) > _EXPLODED * unit]
    if exploded:
        worst = max(max(g.norm for g in by_name[gradient.name]) for gradient in exploded)
        _report_layers(
            "exploding gradients", exploded, everything, findings, f"gradients have norms up to {number(worst)}",
            "scale inputs and targets, initialise with smaller weights, or clip gradients (training.clip_norm: 1.0)",
        )  # fmt: skip


def _report_layers(
    check: str,
    gradients: Sequence[Gradient],
    everything: int,
    findings: Findings,
    message: str,
    remedy: str,
    *,
    always: bool = False,
) -> None:
    share = sum(gradient.size for gradient in gradients) / everything
    layers = list(dict.fromkeys(gradient.module or gradient.name for gradient in gradients))
    findings.report(
        "error" if always or share >= _MANY else "warning",
        check,
        listed(layers),
        f"{count(len(gradients), 'parameter tensor')} ({share:.0%} of all parameters): {message}",
        remedy,
        parameters={gradient.name: gradient.norm for gradient in gradients[:50]},
        share=share,
    )


def check_progress(before: float, after: float, undecided: float, rates: Sequence[float], findings: Findings) -> None:
    """Whether the first steps of the experiment's own optimizer made the loss of a batch much worse."""
    if math.isfinite(after) and after <= 3 * max(before, undecided) + 1:
        return
    findings.report(
        "error" if not math.isfinite(after) else "warning",
        "learning rate",
        "training.optimizer",
        f"after the first steps the loss of the same batch went from {number(before)} to {number(after)} "
        "(learning rate "
        f"{listed(map(number, rates))})",
        "lower the learning rate, warm up (training.warmup_steps), or clip gradients (training.clip_norm: 1.0)",
        before=before,
        after=after,
        learning_rates=list(rates),
    )


def check_fit(fit: Fit, findings: Findings, left_out: dict[str, str]) -> None:
    """Whether a few samples can be learned by heart."""
    if fit.outcome == "no time":
        left_out["overfit one batch"] = f"not enough steps in the time: {fit.words()}"
    elif fit.outcome == "stuck":
        findings.warning(
            "overfit one batch",
            "model",
            f"a few samples cannot be learned by heart: {fit.words()}",
            "see whether inputs and targets belong together, whether gradients reach the layers, and what "
            "the last layer "
            "does",
            first=fit.first,
            last=fit.last,
            steps=fit.steps,
        )
    elif fit.outcome == "partly":
        findings.note(
            "overfit one batch",
            "model",
            f"a few samples were learned by heart in part only: {fit.words()}",
            "a larger model would have more room, if scores stay low in training, too",
            first=fit.first,
            last=fit.last,
            steps=fit.steps,
        )
