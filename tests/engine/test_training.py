"""What the settings of `training:` do, on real runs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from tests.engine.runs import build, last_weights, rows, small_experiment, trained, untimed
from tests.engine.studies import same
from weft.config import Component
from weft.data import Batch, make_loader
from weft.engine import Epoch, Observer, Run, Step, drive_alone, training
from weft.errors import NotFiniteError, ProtocolError, Stopped
from weft.nets import MLP
from weft.tasks import Classification, Update


class Recorder(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.epochs: list[Epoch] = []

    def on_step(self, step: Step) -> None:
        self.steps.append(step)

    def on_epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)


class WeightedLoss(nn.CrossEntropyLoss):
    """Cross entropy with class weights: its mean is not a mean over items."""

    def __init__(self) -> None:
        super().__init__(weight=torch.tensor([1.0, 5.0]))


class Remembering(Classification):
    """Weighs its loss by a running mean of the losses before."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = 1.0

    def training_step(self, model: nn.Module, batch: Batch) -> Iterable[Update]:
        (update,) = super().training_step(model, batch)
        update.loss = update.loss / self.mean
        self.mean += 0.5 * float(update.loss.detach())
        return (update,)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean = state["mean"]


class StopsAt(Observer):
    """Asks a run to stop after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_build(self, run: Run) -> None:
        self.run = run

    def on_step(self, step: Step) -> None:
        if step.step == self.step:
            self.run.interruption.request("a test")


def test_what_a_task_remembers_is_part_of_the_state() -> None:
    undisturbed, _ = trained(small_experiment(task=Remembering))
    stopped = build(small_experiment(task=Remembering), (StopsAt(8),))
    with pytest.raises(Stopped):
        drive_alone(training(stopped))
    resumed = build(small_experiment(task=Remembering))
    resumed.state.load_state_dict(stopped.checkpoints.load_last() or {})
    resumed.checkpoints = stopped.checkpoints
    drive_alone(training(resumed))
    assert untimed(resumed) == untimed(undisturbed)
    assert same(last_weights(resumed), last_weights(undisturbed))


PLAIN = Component.of(MLP, in_features=30, out_features=2, hidden=[16])


@pytest.mark.parametrize("loss", [None, Component.of(WeightedLoss)], ids=["mean over items", "class weights"])
def test_accumulated_batches_equal_one_large_batch_last_window_included(loss: Component | None) -> None:
    settings: dict[str, Any] = {"model": PLAIN, "epochs": 2, **({"loss": loss} if loss else {})}
    # 96 items: 6 batches of 16 in windows of 4 and then 2
    small, _ = trained(small_experiment(batch_size=16, accumulate=4, **settings))
    large, _ = trained(small_experiment(batch_size=64, **settings))
    assert small.state.position.step == large.state.position.step == 4
    for name, tensor in last_weights(small).items():
        assert torch.allclose(tensor, last_weights(large)[name], atol=1e-6)
    assert small.state.history[0]["train_loss"] == pytest.approx(large.state.history[0]["train_loss"], rel=1e-6)


def test_gradients_are_clipped_to_their_global_norm() -> None:
    experiment = small_experiment(model=PLAIN, optimizer={"SGD": {"lr": 1.0}}, clip_norm=0.01, epochs=1, batch_size=96)
    run = build(experiment)
    before = {name: tensor.clone() for name, tensor in run.state.model.state_dict().items()}
    drive_alone(training(run))
    moved = torch.cat([(last_weights(run)[name] - before[name]).flatten() for name in before])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_warm_up_raises_the_rate_linearly_and_leaves_the_schedule_alone() -> None:
    recorder = Recorder()
    trained(small_experiment(warmup_steps=4, epochs=1, run={"log_every": 1}), (recorder,))
    rates = [step.learning_rate for step in recorder.steps]
    assert rates == pytest.approx([0.05 / 4, 0.05 * 2 / 4, 0.05 * 3 / 4, 0.05, 0.05, 0.05])


def test_one_cycle_goes_by_steps_and_ends_with_the_last_one() -> None:
    run, _ = trained(small_experiment(scheduler={"OneCycleLR": {"max_lr": 0.1}}))
    scheduler = run.state.schedules["main"].scheduler
    assert scheduler is not None
    assert scheduler.last_epoch == run.state.position.step == 18
    assert run.learning_rate < 1e-4


def test_step_schedules_go_by_epochs() -> None:
    run, _ = trained(small_experiment(scheduler={"StepLR": {"step_size": 1, "gamma": 0.1}}))
    assert [row["learning_rate"] for row in run.state.history] == pytest.approx([0.05, 0.005, 0.0005])


class HalfWay(torch.optim.lr_scheduler.LRScheduler):
    """Halves the rate after half of the run."""

    def __init__(self, optimizer: torch.optim.Optimizer, num_training_steps: int) -> None:
        self.num_training_steps = num_training_steps
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        late = 2 * self.last_epoch >= self.num_training_steps
        return [rate * (0.5 if late else 1.0) for rate in self.base_lrs]


@pytest.mark.parametrize(
    ("scheduler", "interval", "argument", "length"),
    [
        ("CosineAnnealingLR", "auto", "T_max", 3),
        ("CosineAnnealingLR", "step", "T_max", 18),
        ({"CosineAnnealingLR": {"T_max": 7}}, "auto", "T_max", 7),
        ("PolynomialLR", "auto", "total_iters", 3),
        ("PolynomialLR", "step", "total_iters", 18),
        ("LinearLR", "auto", "total_iters", 5),  # torch's default makes sense: a warm-up
        ({"OneCycleLR": {"max_lr": 0.1}}, "auto", "total_steps", 18),
        ({"OneCycleLR": {"max_lr": 0.1}}, "epoch", "total_steps", 3),
        ({"OneCycleLR": {"max_lr": 0.1, "epochs": 4, "steps_per_epoch": 9}}, "auto", "total_steps", 36),
        (Component.of(HalfWay), "step", "num_training_steps", 18),
    ],
)
def test_a_schedule_is_as_long_as_the_run_where_nothing_else_is_written(
    scheduler: Any, interval: str, argument: str, length: int
) -> None:
    experiment = small_experiment(scheduler=scheduler, scheduler_interval=interval)
    assert getattr(build(experiment).state.schedules["main"].scheduler, argument) == length


@pytest.mark.parametrize(("interval", "length"), [("step", 8), ("epoch", 2)])
def test_a_schedule_of_a_run_that_ends_by_steps_ends_with_it(interval: str, length: int) -> None:
    run, _ = trained(small_experiment(scheduler="CosineAnnealingLR", scheduler_interval=interval, steps=8))
    scheduler = run.state.schedules["main"].scheduler
    assert isinstance(scheduler, torch.optim.lr_scheduler.CosineAnnealingLR)
    assert scheduler.T_max == scheduler.last_epoch == length


def test_a_plateau_schedule_follows_the_monitored_score() -> None:
    run, _ = trained(
        small_experiment(scheduler={"ReduceLROnPlateau": {"patience": 0, "threshold": 100.0, "factor": 0.5}}, epochs=3)
    )
    assert [row["learning_rate"] for row in run.state.history] == pytest.approx([0.05, 0.025, 0.0125])


def test_the_moving_average_is_what_is_scored_and_kept() -> None:
    run, result = trained(small_experiment(ema={"decay": 0.9}, epochs=2))
    assert run.state.average is not None
    live = build(small_experiment(epochs=2))
    names = [name for name, _ in live.state.model.named_parameters()]
    average = {name: tensor.detach().clone() for name, tensor in live.state.model.named_parameters()}

    class Follow(Observer):
        def on_step(self, step: Step) -> None:
            for name, tensor in live.state.model.named_parameters():
                average[name].lerp_(tensor.detach(), 0.1)

    live.observers.observers.append(Follow())
    drive_alone(training(live))
    kept = run.checkpoints.last["average"]  # type: ignore[attr-defined]
    assert all(torch.equal(kept[name], average[name]) for name in names)
    assert same(last_weights(run), last_weights(live))  # averaging does not change training
    assert result.scores["validation"] != drive_alone(training(build(small_experiment(epochs=2)))).scores["validation"]


def test_early_stopping_ends_after_patience_without_improvement() -> None:
    run, result = trained(
        small_experiment(epochs=50, optimizer={"SGD": {"lr": 0.0}}, monitor={"metric": "loss", "patience": 3})
    )
    assert result.epochs == 4  # the first is the best
    assert result.best_epoch == 1
    assert run.state.finished


def test_the_result_holds_the_weights_of_the_best_epoch() -> None:
    recorder = Recorder()
    _, result = trained(small_experiment(epochs=12, optimizer={"SGD": {"lr": 0.5}}), (recorder,))
    losses = [epoch.row["validation_loss"] for epoch in recorder.epochs]
    assert result.best_epoch == 1 + losses.index(min(losses))
    assert result.best_epoch < 12
    assert result.scores["validation"]["loss"] == min(losses)


def test_training_by_steps_ends_inside_an_epoch_and_is_validated() -> None:
    run, result = trained(small_experiment(steps=8))
    assert result.steps == 8
    assert "validation_loss" in run.state.history[-1]


def test_validation_every_other_epoch_and_always_at_the_end() -> None:
    run, _ = trained(small_experiment(evaluate_every=2, epochs=3))
    assert ["validation_loss" in row for row in run.state.history] == [False, True, True]


def test_frozen_parameters_do_not_move_until_they_are_thawed() -> None:
    model = {"component": PLAIN, "freeze": ["layers.0.*"], "unfreeze": {3: ["layers.0.*"]}}
    run = build(small_experiment(model=model, epochs=3))
    first = run.state.model.layers[0].weight.detach().clone()  # type: ignore[index, union-attr]
    moved: list[bool] = []

    class Watch(Observer):
        def on_epoch(self, epoch: Epoch) -> None:
            moved.append(not torch.equal(first, run.state.model.layers[0].weight))  # type: ignore[index, union-attr]

    run.observers.observers.append(Watch())
    drive_alone(training(run))
    assert moved == [False, False, True]


def test_running_statistics_of_frozen_layers_do_not_drift() -> None:
    model = {
        "component": Component.of(MLP, in_features=30, out_features=2, hidden=[16], normalization="batch"),
        "freeze": ["layers.1.*"],
    }
    run, _ = trained(small_experiment(model=model, epochs=1))
    weights = last_weights(run)
    running = next(tensor for name, tensor in weights.items() if name.endswith("running_mean"))
    assert torch.count_nonzero(running) == 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lowered_precision_trains_and_resumes_exactly(precision: str) -> None:
    run, result = trained(small_experiment(precision=precision, epochs=4))
    assert result.scores["validation"]["accuracy"] > 0.8
    again = build(small_experiment(precision=precision, epochs=4))
    _interrupt_after(again, steps=9)
    resumed = build(small_experiment(precision=precision, epochs=4))
    resumed.state.load_state_dict(again.checkpoints.load_last() or {})
    drive_alone(training(resumed))
    assert same(last_weights(resumed), last_weights(run))
    assert untimed(resumed) == untimed(run)


def _interrupt_after(run: Any, steps: int) -> None:
    from weft.errors import Stopped

    class Stop(Observer):
        def on_step(self, step: Step) -> None:
            if step.step == steps:
                run.interruption.request("SIGTERM")

    run.observers.observers.append(Stop())
    with pytest.raises(Stopped):
        drive_alone(training(run))


def test_fp16_skips_steps_whose_gradients_overflow_and_counts_them() -> None:
    run = build(small_experiment(precision="fp16", epochs=1))
    assert run.plan.precision.scaler is not None
    run.plan.precision.scaler.load_state_dict(
        {"scale": 2.0**40, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0}
    )
    drive_alone(training(run))
    assert run.state.history[0]["skipped_steps"] > 0
    assert all(bool(torch.isfinite(tensor).all()) for tensor in last_weights(run).values())


def test_channels_last_trains_the_same_network_up_to_rounding() -> None:
    from weft.nets import SmallCNN

    def images() -> tuple[Tensor, Tensor]:
        inputs, targets = rows(96)
        return functional.pad(inputs, (0, 6)).reshape(-1, 1, 6, 6), targets

    dataset = {"arrays": Component.of(images), "split": {"ratio": [0.8, 0.2]}}
    model = Component.of(SmallCNN, in_channels=1, out_features=2, channels=[8, 8], normalization="none")
    default, _ = trained(small_experiment(dataset, model=model))
    last, _ = trained(small_experiment(dataset, model=model, channels_last=True))
    for name, tensor in last_weights(default).items():
        assert torch.allclose(tensor, last_weights(last)[name], atol=1e-5)


class Poisoned(Dataset[tuple[Tensor, Tensor]]):
    """Item 17 is not a number, which shows only when it is loaded."""

    def __init__(self) -> None:
        self.inputs, self.targets = rows(60)

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index] * (float("nan") if index == 17 else 1.0), self.targets[index]


def test_a_loss_that_is_not_finite_names_step_and_rows_and_changes_nothing() -> None:
    run = build(small_experiment({"class": {"train": Component.of(Poisoned)}}, model=PLAIN))
    with pytest.raises(NotFiniteError, match=r"step \d+; items of the batch: .*\b17\b"):
        drive_alone(training(run))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in run.state.model.state_dict().values())


def test_weights_that_are_not_finite_are_never_saved() -> None:
    run = build(small_experiment())
    with torch.no_grad():
        next(run.state.model.parameters()).fill_(float("inf"))
    with pytest.raises(NotFiniteError, match="weights are not finite"):
        run.save()
    assert run.checkpoints.load_last() is None


def test_an_observer_that_raises_is_left_out_and_nothing_else_changes(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Observer):
        def on_step(self, step: Step) -> None:
            raise OSError("no space for pictures")

    watched, _ = trained(small_experiment(), (Broken(), Recorder()))
    alone, _ = trained(small_experiment())
    assert same(last_weights(watched), last_weights(alone))
    assert "no space for pictures" in caplog.text


def test_a_model_may_return_a_regularization_loss_beside_its_output() -> None:
    class Regularized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(30, 2)

        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(inputs), 0.1 * self.layer.weight.square().sum()

    class Bare(Regularized):
        def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
            return self.layer(inputs)

    with_term, _ = trained(small_experiment(model=Component.of(Regularized)))
    without, _ = trained(small_experiment(model=Component.of(Bare)))
    norms = [run.state.model.layer.weight.norm().item() for run in (with_term, without)]  # type: ignore[union-attr, operator]
    assert norms[0] < norms[1]


def test_training_loss_is_the_mean_over_items_not_over_batches() -> None:
    run = build(small_experiment(model=PLAIN, optimizer={"SGD": {"lr": 0.0}}, epochs=1, batch_size=40))
    split_losses = []
    assert run.train is not None
    drive_alone(training(run))
    for batch in make_loader(run.train.split, batch_size=1, seed=3, shuffle=False).epoch(0):
        with torch.no_grad():
            split_losses.append(functional.cross_entropy(run.state.model(batch.inputs), batch.targets).item())
    assert run.state.history[0]["train_loss"] == pytest.approx(math.fsum(split_losses) / len(split_losses), rel=1e-6)


def test_a_task_that_yields_other_updates_than_it_declares_is_an_error() -> None:
    class Wrong(Classification):
        def training_step(self, model: nn.Module, batch: Any) -> list[Update]:
            return []

    with pytest.raises(ProtocolError, match="gave nothing where it declares"):
        trained(small_experiment(task=Component.of(Wrong)))


def test_hooks_of_an_optimizer_are_called_in_every_step() -> None:
    run = build(small_experiment(epochs=1))
    called = []
    run.state.optimizers["main"].register_step_post_hook(lambda *_: called.append(1))
    drive_alone(training(run))
    assert len(called) == run.state.position.step == 6
