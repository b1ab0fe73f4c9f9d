"""`weft test-model`: properties that a network should have before anyone trusts what it says."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weft.actions.batch_size import settle
from weft.actions.checking.findings import count, listed, number
from weft.actions.checking.fitting import overfit
from weft.actions.checking.tracing import ShapeTrace
from weft.actions.checking.trial import (
    as_it_was,
    build_trial,
    first_batches,
    is_plain,
    narrowed,
    ready,
    trial_step,
)
from weft.actions.checking.unused import ignored_inputs
from weft.actions.opening import Source, load, one_fold, open_experiment_data, open_run, threads_of
from weft.config import Experiment
from weft.data import Batch, Data
from weft.engine import pick_device
from weft.engine.determinism import reproducible
from weft.engine.network import build_model
from weft.engine.run import Run
from weft.engine.seeding import outer_randomness_kept, seed_everything
from weft.engine.weights import load_weights, save_weights
from weft.errors import UsageError, WeftError
from weft.runs import is_run

Status = Literal["passed", "failed", "skipped"]
_SECONDS = 3.0
_ALONE = 1e-3  # relative to the largest output: kernels sum in another order for another batch size
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class ModelTest:
    """One property that was tested.

    Args:
        name: of the property.
        status: "passed", "failed", or "skipped" with the reason in `message`.
        message: the values that the verdict rests on.
        remedy: what to do where it failed.
    """

    name: str
    status: Status
    message: str
    remedy: str = ""


@dataclass(slots=True)
class ModelReport:
    """What `weft test-model` came to: a result for each property."""

    name: str
    parameters: int = 0
    tests: list[ModelTest] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether no test failed."""
        return all(test.status != "failed" for test in self.tests)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "model": self.name,
            "ok": self.ok,
            "parameters": self.parameters,
            "tests": [asdict(test) for test in self.tests],
            "seconds": round(self.seconds, 3),
        }


class Skipped(Exception):
    """A property that cannot be tested here, with the reason."""


def test_model(
    source: Source,
    overrides: Sequence[str] = (),  # noqa: PT028 - no test of pytest
    *,
    seconds: float = _SECONDS,  # noqa: PT028
) -> ModelReport:
    """Test the network of a run, with its weights, or of an experiment, as it is initialised.

    Random generators are afterwards as they were before; nothing is written beside a temporary file.

    Args:
        source: a run directory, or an experiment (file, dict or `Experiment`).
        overrides: `key=value` texts as for `--set`.
        seconds: how long to try to overfit a batch.

    Raises:
        ConfigError, DataError: experiment or data are wrong; `weft check` tells more.
        UsageError: the run has no weights.
    """
    started = time.monotonic()
    with outer_randomness_kept():
        experiment, data, weights = _open(source, overrides)
        report = ModelReport(experiment.model.component.name)
        device = pick_device(experiment.run.device)
        deterministic = experiment.training.deterministic
        with reproducible(threads=threads_of(experiment, data), deterministic=deterministic, device=device):
            _Tests(experiment, data, weights, report, seconds).run()
    report.seconds = time.monotonic() - started
    return report


test_model.__test__ = False  # type: ignore[attr-defined]  # pytest takes what is called so for a test


def _open(source: Source, overrides: Sequence[str]) -> tuple[Experiment, Data, Path | None]:
    if isinstance(source, str | Path) and (Path(source).is_dir() or is_run(source)):
        opened = open_run(source, overrides)
        directory = opened.directory
        if not directory.weights.exists():
            raise UsageError(
                f"{directory.path} has no model.safetensors: it did not finish",
                "finish it, or test the model of its experiment file",
            )
        experiment = one_fold(opened.experiment)
        return (
            experiment,
            open_experiment_data(experiment, directory.read_json(directory.statistics_file)),
            directory.weights,
        )
    experiment = one_fold(load(source, overrides))
    data = open_experiment_data(experiment)
    return settle(experiment, data=data), data, None


@dataclass(slots=True)
class _Tests:
    experiment: Experiment
    data: Data
    weights: Path | None
    report: ModelReport
    seconds: float

    def run(self) -> None:
        """All tests, in order; after one that raises, the others are still made."""
        trial = self._build()
        if trial is None:
            return
        batch = first_batches(trial, 1)[0]
        self.report.parameters = sum(parameter.numel() for parameter in trial.state.model.parameters())
        for name, test in _TESTS:
            try:
                with as_it_was(trial):
                    result = test(self, trial, batch)
            except Skipped as reason:
                result = "skipped", str(reason), ""
            except Exception as error:  # the user's code may raise anything
                message = error.message if isinstance(error, WeftError) else f"{type(error).__name__}: {error}"
                result = "failed", message, getattr(error, "hint", "")
            self.report.tests.append(ModelTest(name, *result))

    def _build(self) -> Run | None:
        """The run; a model that cannot even be called is the one result then."""
        with ShapeTrace() as trace:
            try:
                trial = build_trial(self.experiment, self.data)
                if self.weights is not None:
                    load_weights(trial.state.model, self.weights)
                return trial
            except Exception as error:
                if not trace.broken:
                    raise
                layer, given, _ = trace.place()
                self.report.tests.append(
                    ModelTest(
                        "forward pass", "failed", f"{layer}, given {given}: {error}", "see weft check for the way there"
                    )
                )
                return None


Result = tuple[Status, str, str]


def _verdict(good: bool, message: str, remedy: str) -> Result:
    return ("passed", message, "") if good else ("failed", message, remedy)


def _finite(tests: _Tests, trial: Run, batch: Batch) -> Result:
    model = trial.state.model
    named = [*model.named_parameters(), *model.named_buffers()]
    broken = [name for name, tensor in named if not bool(torch.isfinite(tensor).all())]
    amount = sum(tensor.numel() for _, tensor in named)
    if broken:
        return "failed", f"not finite: {listed(broken)}", "train again from weights that are finite"
    return "passed", f"all {amount:,} numbers in {count(len(named), 'tensor')}", ""


def _outputs(tests: _Tests, trial: Run, batch: Batch) -> Result:
    model = trial.state.model.eval()
    with torch.no_grad():
        outputs = _evaluate(trial, model, batch)
        shape = str(list(outputs.shape))
        if outputs.shape[:1] != (batch.size,):
            return "failed", f"outputs {shape} for {batch.size} samples", "the first axis of outputs is the sample"
        if not bool(torch.isfinite(outputs).all()):
            return "failed", f"outputs {shape} are not all finite", "look for a logarithm or division at zero"
        if is_plain(trial.task):
            targets = trial.task.targets_for_loss(outputs, batch)
            loss = float(trial.task.loss_of(outputs, targets))
            return _verdict(
                math.isfinite(loss), f"{shape} for {_shape(batch.inputs)}, loss {number(loss)}", "see weft check"
            )
    return "passed", f"{shape} for {_shape(batch.inputs)}", ""


def _gradients(tests: _Tests, trial: Run, batch: Batch) -> Result:
    ready(trial)
    steps = [trial_step(trial, batch) for _ in range(2)]  # zero weights of a last layer hide what lies before it
    names = [gradient.name for gradient in steps[0].gradients]
    seen = [{gradient.name: gradient for gradient in step.gradients} for step in steps]
    missing = [name for name in names if not any(step[name].reached for step in seen)]
    alive = {step[name].module for step in seen for name in names if step[name].norm != 0}
    dead = [name for name in names if seen[0][name].module not in alive and name not in missing]
    broken = [name for name in names if not all(math.isfinite(step[name].norm) for step in seen)]
    for words, bad in (("no gradient reaches", missing), ("zero in", dead), ("not finite in", broken)):
        if bad:
            return (
                "failed",
                f"{words} {listed(bad)}",
                "do not cut the graph (detach, item, numpy), leave out layers that are not used, or freeze them",
            )
    return "passed", f"all {count(len(names), 'parameter tensor')}", ""


def _inputs_used(tests: _Tests, trial: Run, batch: Batch) -> Result:
    if not is_plain(trial.task):
        raise Skipped("the task calls the model in its own way")
    unused = ignored_inputs(trial, trial.state.model.eval(), batch)
    words = [f"input {place}" + ("" if feature is None else f", feature {feature}") for place, feature in unused]
    return _verdict(not words, listed(words) if words else "every input changes the outputs", "use it, or leave it out")


@torch.no_grad()
def _alone(tests: _Tests, trial: Run, batch: Batch) -> Result:
    if batch.size < 2:
        raise Skipped("the batch has one sample only")
    if not is_plain(trial.task):
        raise Skipped("the task evaluates a batch as a whole")
    model = trial.state.model.eval()
    together = _evaluate(trial, model, batch).float()
    worst = 0.0
    for row in range(min(batch.size, 4)):
        alone = _evaluate(trial, model, narrowed(batch, [row])).float()
        worst = max(worst, float((alone[0] - together[row]).abs().max()))
    scale = max(float(together.abs().max()), 1e-6)
    return _verdict(
        worst <= _ALONE * scale,
        f"largest difference {number(worst)}, outputs up to {number(scale)}",
        "samples of a batch must not mix in evaluation: no statistics over the batch, no reshaping across it",
    )


@torch.no_grad()
def _deterministic(tests: _Tests, trial: Run, batch: Batch) -> Result:
    model = trial.state.model.eval()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    seeded = not is_plain(trial.task)  # what generates may draw, from the stream that scoring gives it
    first, second = (_evaluate(trial, model, batch, seeded=seeded) for _ in range(2))
    changed = [name for name, buffer in model.named_buffers() if not same(buffer, before[name])]
    if changed:
        return "failed", f"evaluating changes the buffers {listed(changed)}", "change them only when self.training"
    return _verdict(
        same(first, second),
        "two passes are equal to the bit"
        if same(first, second)
        else f"two passes differ by up to {number(float((first - second).abs().max()))}",
        "draw random numbers only when self.training; use nn.Dropout rather than functional.dropout",
    )


def _overfits(tests: _Tests, trial: Run, batch: Batch) -> Result:
    if len(trial.task.updates) != 1:
        raise Skipped("the task trains several networks against each other")
    fit = overfit(trial, batch, tests.seconds)
    if fit.outcome == "no time":
        raise Skipped(f"not enough steps in {tests.seconds:g} s: {fit.words()}")
    return _verdict(fit.outcome != "stuck", fit.words(), "see weft check for losses, labels and gradients")


@torch.no_grad()
def _round_trip(tests: _Tests, trial: Run, batch: Batch) -> Result:
    """Weights into a file, and from there into a new model of another seed."""
    model = trial.state.model.eval()
    before = _evaluate(trial, model, batch)
    with tempfile.TemporaryDirectory(prefix="weft-") as folder:
        file = Path(folder) / "model.safetensors"
        save_weights(model.state_dict(), file)
        seed_everything(tests.experiment.seed + 1)
        fresh = build_model(tests.experiment, tests.experiment.namespace(), trial.plan.device).eval()
        load_weights(fresh, file)
        size = file.stat().st_size
    state = fresh.state_dict()
    lost = [name for name, tensor in model.state_dict().items() if not same(tensor, state[name])]
    if lost:
        return "failed", f"not as before: {listed(lost)}", "keep state in parameters and buffers"
    equal = same(before, _evaluate(trial, fresh, batch))
    return _verdict(
        equal,
        f"{size:,} bytes; outputs of a new model with these weights are {'equal' if equal else 'NOT equal'} to the bit",
        "keep all that outputs depend on in parameters and buffers",
    )


def _autocast(name: str) -> Callable[[_Tests, Run, Batch], Result]:
    @torch.no_grad()
    def test(tests: _Tests, trial: Run, batch: Batch) -> Result:
        model, kind = trial.state.model.eval(), trial.plan.device.type
        exact = _evaluate(trial, model, batch).float()
        try:
            seed_everything(0)
            with torch.autocast(kind, dtype=_AUTOCAST[name]):
                outputs = trial.task.evaluation_step(model, batch).outputs.float()
        except (RuntimeError, NotImplementedError) as error:
            raise Skipped(f"not supported on {kind}: {str(error).splitlines()[0]}") from error
        difference = float((outputs - exact).abs().max())
        return _verdict(
            bool(torch.isfinite(outputs).all()),
            f"largest difference to fp32 {number(difference)}, outputs up to {number(float(exact.abs().max()))}",
            f"do not use precision {name}: numbers leave its range",
        )

    return test


def _evaluate(trial: Run, model: nn.Module, batch: Batch, *, seeded: bool = True) -> Tensor:
    """Outputs in evaluation mode, without autocast; with a random stream of their own, as when Weft scores."""
    if seeded:
        seed_everything(0)
    if is_plain(trial.task):
        return trial.task.forward(model, batch)[0]
    return trial.task.evaluation_step(model, batch).outputs


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are equal to the bit, or not a number in the same places."""
    return first.shape == second.shape and bool(((first == second) | (first.isnan() & second.isnan())).all())


def _shape(inputs: Any) -> str:
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    return ", ".join(str(list(part.shape)) for part in parts if isinstance(part, Tensor))


_TESTS: tuple[tuple[str, Callable[[_Tests, Run, Batch], Result]], ...] = (
    ("finite parameters", _finite),
    ("output shapes", _outputs),
    ("gradients reach every parameter", _gradients),
    ("every input is used", _inputs_used),
    ("same output alone and in a batch", _alone),
    ("evaluation is deterministic", _deterministic),
    ("overfits a batch", _overfits),
    ("save and load", _round_trip),
    ("bf16 is finite", _autocast("bf16")),
    ("fp16 is finite", _autocast("fp16")),
)
