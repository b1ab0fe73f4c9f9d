"""Sites that train a model on given batches, driven together: a small loop, to try strategies on many examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from weft.engine import Gradients, Participant, RunResult, Strategy, Together
from weft.engine.collectives import combine
from weft.engine.seeding import random_state
from weft.engine.state import Position
from weft.federated import encoded_bytes

Batches = list[tuple[Tensor, Tensor] | None]  # one per step; None where a site has no data left


@dataclass
class Sites:
    """Sites on batches of their own.

    Args:
        make_model: the same weights each time.
        make_strategy: one for each site.
        batches: by name of site; as many steps for all.
        make_optimizer: from parameters; gradient descent with a rate of 0.1 by default.
        loss: mean loss of outputs and targets.
    """

    make_model: Callable[[], nn.Module]
    make_strategy: Callable[[], Strategy]
    batches: dict[str, Batches]
    make_optimizer: Callable[[Any], torch.optim.Optimizer] = lambda parameters: torch.optim.SGD(parameters, lr=0.1)
    loss: Callable[[Tensor, Tensor], Tensor] = functional.mse_loss
    models: dict[str, nn.Module] = field(default_factory=dict)
    strategies: dict[str, Strategy] = field(default_factory=dict)
    sent: int = 0
    received: int = 0

    def run(self) -> dict[str, dict[str, Tensor]]:
        """Train; everybody's weights."""
        participants = []
        for name in self.batches:
            self.models[name], self.strategies[name] = self.make_model(), self.make_strategy()
            participants.append(Participant(name, self._begin(name), Position, random_state()))
        together = Together(participants)
        while together.turn():
            for entry in together.waiting.values():
                self.sent += encoded_bytes(entry.asked.tensors, entry.asked.encoding)
                self.received += encoded_bytes(entry.answer or [], entry.asked.encoding)
        return {name: model.state_dict() for name, model in self.models.items()}

    def _begin(self, name: str) -> Callable[[], Any]:
        return lambda: self._steps(self.models[name], self.strategies[name], self.batches[name])

    def _steps(self, model: nn.Module, strategy: Strategy, batches: Batches) -> Iterator[Any]:
        optimizer = self.make_optimizer(model.parameters())
        strategy.watch(model)
        for step, batch in enumerate(batches):
            optimizer.zero_grad()
            if batch is not None:
                loss = self.loss(model(batch[0]), batch[1])
                term = strategy.loss_term(model)
                (loss if term is None else loss + term).backward()
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            yield from strategy.average_gradients(Gradients("main", trained, 0 if batch is None else len(batch[0])))
            optimizer.step()
            strategy.after_step(model)
            if strategy.steps_per_round is not None and (step + 1) % strategy.steps_per_round == 0:
                yield from strategy.end_of_round(model)
        if strategy.steps_per_round is None:
            yield from strategy.end_of_round(model)
        return RunResult("finished", 1, len(batches), 0.0)


def random_batches(
    sizes: dict[str, list[int]], inputs: tuple[int, ...], outputs: int, seed: int = 0
) -> dict[str, Batches]:
    """Batches of float64 noise; a size of 0 is a step without data."""
    generator = torch.Generator().manual_seed(seed)

    def batch(size: int) -> tuple[Tensor, Tensor] | None:
        if size == 0:
            return None
        shapes = (size, *inputs), (size, outputs)
        first, second = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
        return first, second

    return {name: [batch(size) for size in steps] for name, steps in sizes.items()}


def seeded(make: Callable[[], nn.Module], seed: int = 3) -> Callable[[], nn.Module]:
    """A maker of models in float64 with the same weights each time."""

    def model() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return make().double()

    return model


def farthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The largest difference between two sets of weights."""
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def drive(steps: Sequence[Iterator[object]]) -> list[list[Tensor]]:
    """Drive exchanges together to their end; the answers."""
    answers: list[list[Tensor]] = []
    asked = [next(step) for step in steps]
    while asked:
        answers.append(combine(asked))
        following = []
        for step in steps:
            try:
                following.append(step.send(answers[-1]))
            except StopIteration:
                pass
        asked = following
    return answers
