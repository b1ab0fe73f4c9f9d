"""One optimizer step, in the order that holds everywhere:

    advance the task (forward) and backward, inside autocast, over the window of batches
    → average over participants, once per window → unscale → clip → step → scaler update → EMA → per-step scheduler

Gradients are averaged before they are unscaled, so that an infinite one at one participant makes all skip alike.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from weft.data import Batch
from weft.engine.batch_norm import has_batch_statistics
from weft.engine.collectives import Answer, Collective
from weft.engine.exchange import exchanging
from weft.engine.run import Run
from weft.engine.strategy import Gradients, all_finite
from weft.engine.telling import everybodys
from weft.engine.uncompiled import step_of
from weft.errors import NotFiniteError, ProtocolError, UsageError
from weft.tasks import Update

_NOT_FINITE_HINT = "look at these items, lower the learning rate, or clip gradients (training.clip_norm: 1.0)"

Exchange = Generator[Collective, Answer, "StepLoss"]


@dataclass(slots=True)
class StepLoss:
    """What a step contributes to the epoch: the mean loss over its window (summed over updates), its weight and
    items.

    On an accelerator the loss stays there as a tensor: looking at it would make the processor wait for every step.
    """

    loss: float | Tensor = 0.0
    weight: float = 0.0
    items: int = 0
    finite: bool = True
    flags: list[int] = field(default_factory=list)  # summed over the participants, where the gradients carry them


def take_step(run: Run, window: tuple[Batch, ...], flags: Sequence[int] = ()) -> Exchange:
    """Train on one window of batches; a participant without items takes part in the exchange with weight 0.

    Args:
        run: the run.
        window: the batches of one optimizer step.
        flags: what this participant says to the others on the way, where the strategy carries flags.

    Raises:
        NotFiniteError: alone, the loss is not finite; nothing was changed.
    """
    step = _Window(run, len(window))
    step.done.flags = list(flags)
    if not window:
        for network in run.task.updates:
            clear_gradients(run, network)
            yield from _apply(run, network, 0.0, step.done)
    for number, raw in enumerate(window):
        batch = run.place(raw)
        with run.plan.precision.autocast():  # the forward happens here, or, where the task is a generator, below
            updates = iter(run.task.training_step(run.state.prepared, batch) if raw.size else ())
        last = number == len(window) - 1
        if not raw.size:
            idle(run, batch, last=last)
        for network in run.task.updates:
            if number == 0:
                clear_gradients(run, network)
            if raw.size:
                with run.plan.precision.autocast():
                    update = next(updates, None)
                step.add(_checked(run, update, network), raw, last=last)
            if last:
                step.divide(network)
                yield from _apply(run, network, step.weight_of(network), step.done, step.error)
        step.done.items += batch.size
    return step.result()


class _Window:
    """What the batches of a window add up to: gradients in the parameters, losses and weights here.

    With one batch and one participant the user's mean loss is used untouched: scaling exists only where something is
    summed.
    """

    def __init__(self, run: Run, batches: int) -> None:
        self.run = run
        self.done = StepLoss()
        self.weighs = batches > 1 or run.shares_directory
        self.error: NotFiniteError | None = None
        self.totals = dict.fromkeys(run.task.updates, 0.0)
        self.losses: dict[str, float | Tensor] = dict.fromkeys(run.task.updates, 0.0)

    def add(self, update: Update, raw: Batch, *, last: bool) -> None:
        """Backward of one update, the last one of the window or not."""
        run = self.run
        value = update.loss.detach() if run.defers_losses else update.loss.item()
        if isinstance(value, float) and not math.isfinite(value):
            error = not_finite(run, raw.index.tolist(), value, run.state.position.step + 1)
            if run.alone:
                raise error
            self.done.finite = False
            self.error = self.error or error
        weight = float(update.weight)
        self.losses[update.network] += value * weight
        self.totals[update.network] += weight
        if run.state.strategy is not None:
            _note(run, update.network)
            if last:
                run.state.strategy.last_backward(run.reached[update.network])
        _backward(run, update, weight / run.plan.batch_size if self.weighs else None)

    def divide(self, network: str) -> None:
        """Make the accumulated gradient a mean; among processes that is done once everybody's is added."""
        if self.weighs and not self.run.shares_directory and self.totals[network] > 0:
            gradients = [parameter.grad for parameter in trainable(self.run, network) if parameter.grad is not None]
            torch._foreach_div_(gradients, self.totals[network] / self.run.plan.batch_size)

    def weight_of(self, network: str) -> float:
        """What this participant's gradient weighs among others; a site that failed weighs nothing, a process of one
        run makes all fail.
        """
        if self.done.finite:
            return self.totals[network]
        return math.nan if self.run.shares_directory else 0.0

    def result(self) -> StepLoss:
        """The window's part of the epoch."""
        self.done.weight = next(iter(self.totals.values()))
        self.done.loss = sum(self.losses[name] / total for name, total in self.totals.items() if total)
        return self.done


def _checked(run: Run, update: Update | None, network: str) -> Update:
    if update is None or update.network != network:
        raise ProtocolError(
            f"task {type(run.task).__name__} gave {'nothing' if update is None else repr(update.network)} "
            f"where it declares an update of '{network}'",
            f"training_step must yield one Update per name in `updates`, in this order: {run.task.updates}",
        )
    if run.state.strategy is not None:
        with run.plan.precision.autocast():
            _add_loss_term(run, update)
    return update


def idle(run: Run, batch: Batch, *, last: bool) -> None:
    """Forward and backward without items, where the others need it: normalising over the global batch takes
    everybody, and so does putting sharded parameters together.
    """
    if not run.state.sharded and (not run.shares_directory or not has_batch_statistics(run.state.model)):
        return
    if len(run.task.updates) > 1:
        raise UsageError(
            f"rank {run.participant} has no items in a batch, and the task's networks normalise over the global batch",
            "use training.drop_last: true, a batch size that is a multiple of the processes, or batch_norm: local",
        )
    if last and run.state.strategy is not None:
        run.state.strategy.last_backward(exchanged(run, run.task.updates[0]))
    outputs, _ = run.task.forward(run.state.prepared, batch)
    parts: list[Tensor] = outputs if isinstance(outputs, list) else [outputs]  # a task of its own may have several
    torch.stack([part.sum() * 0.0 for part in parts]).sum().backward()  # type: ignore[no-untyped-call]


def _add_loss_term(run: Run, update: Update) -> None:
    term = run.state.strategy.loss_term(run.state.model) if run.state.strategy is not None else None
    if term is not None:
        update.loss = update.loss + term


def _backward(run: Run, update: Update, scale: float | None) -> None:
    """Accumulate gradients; `scale` weighs this batch within its window (None: the mean loss is used untouched)."""
    loss: Tensor = update.loss if scale is None else update.loss * scale
    scaler = run.plan.precision.scaler
    if scaler is not None:
        loss = scaler.scale(loss)
    if len(run.task.updates) == 1:
        loss.backward()  # type: ignore[no-untyped-call]
    else:  # an update reaches its own network only: a generator's loss must not move the discriminator
        loss.backward(inputs=trainable(run, update.network))  # type: ignore[no-untyped-call]


def clear_gradients(run: Run, network: str) -> None:
    """What `optimizer.zero_grad()` does, without its profiling, which costs more than the work."""
    for group in run.state.optimizers[network].param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def trainable(run: Run, network: str) -> list[torch.nn.Parameter]:
    """The parameters of a network that are trained now, in the model's order."""
    groups = run.state.optimizers[network].param_groups  # its own list: walking through the modules costs more
    return [parameter for group in groups for parameter in group["params"] if parameter.requires_grad]


def note_trainable(run: Run) -> None:
    """Before a task has frozen anything: what processes of one run exchange the gradients of, the same in all."""
    run.reached = {network: trainable(run, network) for network in run.task.updates}


def _note(run: Run, network: str) -> None:
    """Note what an update trains. Among processes of one run that takes nothing away: in one of them a task may freeze
    what it trains in others, and they send as many numbers. What has no gradient there counts as not reached.
    """
    now, known = trainable(run, network), run.reached.get(network, [])
    if run.shares_directory and (len(now) != len(known) or not all(map(operator.is_, now, known))):
        either = {*now, *known}
        groups = run.state.optimizers[network].param_groups
        now = [parameter for group in groups for parameter in group["params"] if parameter in either]
    run.reached[network] = now


def exchanged(run: Run, network: str) -> list[torch.nn.Parameter]:
    """The parameters whose gradients participants exchange: those that the network's last update here has reached.

    A task may freeze a network while it trains another, but it does nothing where there are no items.
    """
    found = run.reached.get(network)
    return trainable(run, network) if found is None else found


def _apply(
    run: Run, network: str, weight: float, done: StepLoss, error: NotFiniteError | None = None
) -> Generator[Collective, Answer, None]:
    """Average, unscale, clip, step, and what follows a step; `error` is this participant's."""
    state, plan = run.state, run.plan
    if plan.precision.scaler is not None and plan.precision.scaler._scale is None:
        plan.precision.scaler.scale(torch.zeros((), device=plan.device))  # else it begins with the first loss here
    if state.strategy is not None:
        first = network == run.task.updates[0]
        flags = done.flags if first else []
        weight = _counting(run, network, weight, done)
        gradients = Gradients(network, exchanged(run, network), weight, flags=flags, scaler=plan.precision.scaler)
        yield from state.strategy.average_gradients(gradients)
        if first:
            done.flags = gradients.flags
        if gradients.failed:
            yield from _fail_together(run, error)
    optimizer, schedule, scaler = state.optimizers[network], state.schedules[network], plan.precision.scaler
    if scaler is not None and (plan.clip_norm is not None or plan.clip_value is not None):
        scaler.unscale_(optimizer)
    if plan.clip_value is not None:
        torch.nn.utils.clip_grad_value_(exchanged(run, network), plan.clip_value)
    if plan.clip_norm is not None:
        with exchanging("the norm of gradients") if state.sharded else nullcontext():
            torch.nn.utils.clip_grad_norm_(exchanged(run, network), plan.clip_norm)
    rates = schedule.scaled_rates() if schedule.warming else None
    skipped = False
    if scaler is None:
        step_of(optimizer)
    elif any(parameter.grad is not None for parameter in exchanged(run, network)):  # a site without items has none
        # The scaler returns the optimizer's own result, or None when it skipped; only its records tell for sure.
        scaler.step(optimizer)
        found = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
        skipped = any(bool(flag.item()) for flag in found.values())
    if rates is not None:
        schedule.restore_rates(rates)
    if scaler is not None and network == run.task.updates[-1] and _has_checked(scaler):
        scaler.update()
    if skipped:
        state.sums.skipped_steps += 1
        return
    if network == run.task.updates[-1]:
        if state.average is not None and (state.strategy is None or not state.strategy.has_rounds()):
            state.average.update(state.model)
        if state.strategy is not None:
            state.strategy.after_step(state.model)
    schedule.after_step()


def _counting(run: Run, network: str, weight: float, done: StepLoss) -> float:
    """What a site's gradient weighs: nothing where it is not finite, and nobody else would see it."""
    strategy, among_sites = run.state.strategy, not (run.alone or run.shares_directory)
    if not among_sites or weight <= 0 or run.plan.precision.scaler is not None:
        return weight
    if strategy is None or strategy.shows_gradients:
        return weight
    if all_finite([parameter.grad for parameter in exchanged(run, network) if parameter.grad is not None]):
        return weight
    done.finite = False
    return 0.0


def _has_checked(scaler: torch.amp.GradScaler) -> bool:
    """Whether there were gradients in this step, from which the scaler learns."""
    return any(records["found_inf_per_device"] for records in scaler._per_optimizer_states.values())


def _fail_together(run: Run, error: NotFiniteError | None) -> Generator[Collective, Answer, None]:
    """Before anything is changed, everybody stops with the words of those whose loss was not finite."""
    told = yield from everybodys(
        "failures", {"message": "" if error is None else error.message, "saved": run.last_good()}
    )
    message = "; ".join(f"process {rank}: {said['message']}" for rank, said in enumerate(told) if said["message"])
    raise NotFiniteError(f"{message}; last good checkpoint: {told[0]['saved']}", _NOT_FINITE_HINT)


def not_finite(run: Run, rows: list[int], value: float, step: int) -> NotFiniteError:
    """The error for a loss that is not finite, with the rows of its batch."""
    names = [run.cases[row] if row < len(run.cases) else str(row) for row in rows]
    shown = ", ".join(names[:16]) + (" …" if len(names) > 16 else "")
    saved = "" if run.shares_directory else f"; last good checkpoint: {run.last_good()}"  # the first process knows
    return NotFiniteError(
        f"the loss is {value} in epoch {run.state.position.epoch + 1}, step {step}; items of the batch: {shown}{saved}",
        _NOT_FINITE_HINT,
    )
