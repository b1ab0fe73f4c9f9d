"""The training loop of Weft. It exists once; as pseudocode:

    until finished:
        for window of batches in epoch:                    # a window is one optimizer step
            agree with the other participants (control)    # alone: nothing to agree on, nothing is yielded
            for update of the task:                        # one per optimizer
                forward, backward; average; step           # stepping.py
            at the boundary: save, or stop, if it is due
        score the validation split, pooled                 # scoring.py
        row of the history; learning rate; best epoch; early stopping; save
    score every split with the weights of the best epoch

It is a generator: where participants must agree it yields a collective and is resumed with the answer
(collectives.py), and whoever drives it decides what that means (drivers.py). State exists at boundaries only
(state.py); never yield inside a `with` that changes modes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.data import Batch
from weft.engine.collectives import Answer, Collective, Sum
from weft.engine.drivers import Steps
from weft.engine.freezing import prepare_modules
from weft.engine.fully_sharded import gathered, spread
from weft.engine.run import PendingLoss, Run, SplitScores
from weft.engine.scoring import score_split, weights_sha256
from weft.engine.sharing import all_rows, save, save_best, share_state
from weft.engine.smallest_batch import check_smallest_batch
from weft.engine.state import EpochSums
from weft.engine.stepping import StepLoss, not_finite, take_step
from weft.engine.untrained import require_untrained
from weft.errors import NotFiniteError, Stopped
from weft.runs import resume_command


def training(run: Run) -> Steps:
    """Train to the end, then score: the generator that drivers drive.

    Raises:
        Stopped: a signal came; the state was saved.
        NotFiniteError: the loss or the weights are not finite.
        ConfigError: the model cannot train on a last batch of one item, or an earlier run has trained it.
    """
    yield from share_state(run)
    run.announce()
    state = run.state
    require_untrained(run)
    if state.strategy is not None:
        state.strategy.takes_part(run.participant, run.participants)
        state.strategy.watch(state.model)
    if state.position.step == 0:
        prepare_modules(run)
        check_smallest_batch(run)
    while not state.finished:
        clock = Clock()
        yield from train_epoch(run)
        yield from average_buffers(run)
        state.sums.buffers_averaged = True
        clock.lap("seconds_train")
        complete = (yield from validate(run)) if _validation_is_due(run) else None
        if complete is False:
            yield from _stop(run)  # the state is that of the boundary before validation: it is run again on resume
        clock.lap("seconds_validation")
        yield from end_epoch(run, scored=complete is not None, clock=clock)
    return (yield from final_scores(run))


def train_epoch(run: Run) -> Generator[Collective, Answer, None]:
    """Train on what is left of the running epoch."""
    state, plan = run.state, run.plan
    prepare_modules(run)
    windows = run.windows()
    failed = False  # whether this participant's last loss, or its gradients, were not finite
    while plan.steps is None or state.position.step < plan.steps:
        window = next(windows, None)
        decision = Decision(more=window is not None)
        if not run.alone and not run.agrees_with_gradients:
            decision = yield from agree(run, more=window is not None, failed=failed)
        if not decision.more:
            break
        done = yield from take_step(run, window or (), _wishes(run))
        failed = not done.finite
        _count(run, done, window or ())
        if _round_ends(run):
            yield from end_round(run)
        if run.alone:
            decision.save, decision.stop = run.save_is_due(), run.interruption.received is not None
        elif run.agrees_with_gradients:
            decision.stop, decision.save = (flag > 0 for flag in done.flags)
        if decision.stop:
            yield from _stop(run)
        if decision.save:
            settle(run)
            yield from save(run)
    settle(run)
    if not _round_ends(run):  # what is scored is what all agree on
        yield from end_round(run)


def end_round(run: Run) -> Generator[Collective, Answer, None]:
    """All agree on weights. Where they had others meanwhile, only these go into the moving average, which is then the
    same at all; they count for all steps of the round.
    """
    state = run.state
    if state.strategy is None:
        return
    yield from state.strategy.end_of_round(state.model)
    step = state.position.step
    if state.average is None or not state.strategy.has_rounds() or state.sums.round_averaged == step:
        return
    began, length = _epoch_began(run), state.strategy.steps_per_round
    state.average.update(state.model, step - (began if length is None else max(began, (step - 1) // length * length)))
    state.sums.round_averaged = step


@dataclass(slots=True)
class Decision:
    """What all participants agreed on for one step."""

    more: bool
    save: bool = False
    stop: bool = False


def agree(run: Run, *, more: bool, failed: bool) -> Generator[Collective, Answer, Decision]:
    """One small vector per step: is there data left, who failed, shall we stop, shall we save."""
    failures = np.zeros(run.participants, dtype=np.int32)  # it travels in every step; NumPy is quicker in small things
    failures[run.participant] = failed
    flags = np.array([more, *_wishes(run)], dtype=np.int32)
    answer, told = yield Sum("control", [torch.from_numpy(flags), torch.from_numpy(failures)])
    failed_now = told.tolist()
    if sum(failed_now) > run.failures_tolerated:
        names = [str(number) for number, flag in enumerate(failed_now) if flag]
        raise NotFiniteError(
            f"loss or gradients of participant {', '.join(names)} were not finite in step {run.state.position.step}",
            f"look at its data, or lower the learning rate; last good checkpoint: {run.last_good()}",
        )
    some, interrupted, due = answer.tolist()
    return Decision(more=some > 0, stop=interrupted > 0, save=due > 0)


def _wishes(run: Run) -> list[int]:
    """Whether this participant would stop, and save, after the step that comes.

    Saving by the clock is the first one's decision, so that clocks need not agree.
    """
    if run.alone:
        return []
    return [int(run.interruption.received is not None), int(run.participant == 0 and run.save_is_due(steps=1))]


def average_buffers(run: Run) -> Generator[Collective, Answer, None]:
    """Running statistics become those of all participants, weighted by the items they come from, unless kept private.

    Counters (whole numbers) become those of the first participant.
    """
    strategy = run.state.strategy
    if run.alone or strategy is None or strategy.buffers == "private" or run.state.sums.buffers_averaged:
        return
    own = strategy.own_tensors(run.state.model)
    buffers = [buffer for name, buffer in run.state.model.named_buffers() if name not in own]
    if not buffers:
        return
    items = torch.tensor([run.state.sums.items], dtype=torch.float64)
    first = int(run.participant == 0)
    sent = [buffer.double() * items if buffer.is_floating_point() else buffer.long() * first for buffer in buffers]
    *sums, total = yield Sum("buffers", [*sent, items])
    for buffer, summed in zip(buffers, sums, strict=True):
        buffer.copy_(summed / total if buffer.is_floating_point() else summed)
    if run.state.average is not None:
        run.state.average.take_buffers(run.state.model)


def validate(run: Run) -> Generator[Collective, Answer, bool]:
    """Score the validation split, and where it is asked for the training split; False when a signal came in between."""
    if run.plan.score_train == "epochs":
        complete = yield from score_split(run, "train")
        if not complete:
            return False
    return (yield from score_split(run, "validation"))


def end_epoch(run: Run, *, scored: bool, clock: Clock) -> Generator[Collective, Answer, None]:
    """The history row, the learning rate, the best epoch, early stopping, and the boundary after it."""
    state = run.state
    yield from _pool_sums(run)
    row, monitored = _row(run, scored)
    for schedule in state.schedules.values():
        schedule.after_epoch(monitored)
    improved = monitored is not None and state.best.update(monitored, state.position.epoch, state.position.step)
    kept = monitored is not None and state.best.keeps(state.position.step)
    items = state.sums.items
    state.position.epoch += 1
    state.position.batch = 0
    state.sums = EpochSums()
    state.finished = (
        state.position.epoch >= run.plan.epochs
        or (run.plan.steps is not None and state.position.step >= run.plan.steps)
        or state.best.should_stop
    )
    row |= clock.laps | {"items_per_second": items / max(clock.laps["seconds_train"], 1e-9)}
    state.history.append(row)
    every = run.plan.save_epochs
    if state.finished or (every is not None and state.position.epoch % every == 0) or (run.alone and run.save_is_due()):
        yield from save(run, best=kept)
    elif kept:
        yield from save_best(run)
    run.tell_epoch(row, improved)


def final_scores(run: Run) -> Steps:
    """Score every split with the weights of the best epoch (the last ones where nothing was monitored)."""
    state = run.state
    run.settle_saves(wait=True)
    if state.mesh is not None and state.best.step is not None:
        first = run.participant == 0
        spread(state.model, run.checkpoints.load_best(state.best.step) if first else None, state.mesh)
    elif state.best.step is not None:
        module = state.average.module if state.average is not None else state.model
        module.load_state_dict(run.checkpoints.load_best(state.best.step))
    left_out = ("train",) if run.plan.score_train == "never" else ()
    return (yield from scoring(run, left_out))


def scoring(run: Run, left_out: tuple[str, ...] = ()) -> Steps:
    """Score every split but those left out with the weights as they are: the generator for evaluating without
    training.
    """
    for name, split in run.splits.items():
        if name in left_out:
            continue
        complete = yield from score_split(run, name, per_case=True)
        if not complete:
            raise _stopped(run)  # nothing to save: training was over and saved before
        rows = yield from all_rows(run, split.book.case_rows())
        run.final[name] = SplitScores(split.book.compute(), split.book.details(), rows)
    result = run.finish()
    result.model_sha256 = weights_sha256(run.state.scored_weights)
    if run.state.sharded:
        run.state.gathered = gathered(run.state.model, keep=run.participant == 0)
    return result


# --- parts ------------------------------------------------------------------------------------------------------------


class Clock:
    """Wall time of the parts of an epoch, in seconds; these are the history's timing columns."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        """End the part `name`."""
        now = time.monotonic()
        self.laps[name] = round(now - self._since, 6)
        self._since = now


def _count(run: Run, done: StepLoss, window: tuple[Batch, ...]) -> None:
    position, sums = run.state.position, run.state.sums
    position.batch += len(window)
    position.step += 1
    sums.items += done.items
    if isinstance(done.loss, Tensor):
        run.pending.append(PendingLoss(position.step, done.loss, done.weight, [batch.index for batch in window]))
        run.tell_step(done.items, settle(run) if position.step % run.plan.log_every == 0 else None)
        return
    if done.finite:
        sums.loss += done.loss * done.weight
        sums.weight += done.weight
    run.tell_step(done.items, done.loss)


def settle(run: Run) -> float | None:
    """Fetch the losses that lie on the accelerator, in one go, into the epoch's sums; returns the newest.

    Raises:
        NotFiniteError: one of them is not finite.
    """
    if not run.pending:
        return None
    pending, run.pending = run.pending, []
    values: list[float] = torch.stack([entry.loss for entry in pending]).tolist()
    for entry, value in zip(pending, values, strict=True):
        if not math.isfinite(value):
            raise not_finite(run, torch.cat(entry.rows).tolist(), value, entry.step)
        run.state.sums.loss += value * entry.weight
        run.state.sums.weight += entry.weight
    return values[-1]


def _round_ends(run: Run) -> bool:
    strategy = run.state.strategy
    if strategy is None or strategy.steps_per_round is None:
        return False
    return run.state.position.step % strategy.steps_per_round == 0


def _epoch_began(run: Run) -> int:
    """The number of steps before the running epoch."""
    return int(run.state.history[-1]["step"]) if run.state.history else 0


def _validation_is_due(run: Run) -> bool:
    if "validation" not in run.splits:
        return False
    epoch = run.state.position.epoch + 1
    last = epoch >= run.plan.epochs or (run.plan.steps is not None and run.state.position.step >= run.plan.steps)
    return last or epoch % run.plan.evaluate_every == 0


def _pool_sums(run: Run) -> Generator[Collective, Answer, None]:
    if run.alone:
        return
    sums = run.state.sums
    (pooled,) = yield Sum("epoch", [torch.tensor([sums.loss, sums.weight, sums.items], dtype=torch.float64)])
    sums.loss, sums.weight, sums.items = float(pooled[0]), float(pooled[1]), int(pooled[2])


def _row(run: Run, scored: bool) -> tuple[dict[str, Any], float | None]:
    """The history row of the epoch, and the monitored value if it was measured."""
    state = run.state
    row: dict[str, Any] = {
        "epoch": state.position.epoch + 1,
        "step": state.position.step,
        "learning_rate": run.learning_rate,
        "train_loss": state.sums.mean_loss,
    }
    if run.plan.precision.scaler is not None:
        row["skipped_steps"] = state.sums.skipped_steps
    if scored and run.plan.score_train == "epochs":  # train_loss is the mean over the epoch's steps
        measured = run.splits["train"].book.compute()
        row |= {f"train_{name}": value for name, value in measured.items() if name != "loss"}
    if scored:
        row |= {f"validation_{name}": value for name, value in run.splits["validation"].book.compute().items()}
    column = f"validation_{state.best.metric}" if "validation" in run.splits else f"train_{state.best.metric}"
    value = row.get(column)
    return row, None if value is None else float(value)


def _stop(run: Run) -> Generator[Collective, Answer, None]:
    settle(run)
    yield from save(run)
    run.settle_saves(wait=True)
    raise _stopped(run)


def _stopped(run: Run) -> Stopped:
    reason = run.interruption.received or "another participant"
    position = run.state.position
    resume = resume_command(run.path) if run.path is not None else "the saved state"
    return Stopped(
        f"stopped by {reason} in epoch {position.epoch + 1} after step {position.step}", f"resume with: {resume}"
    )
