"""What a site does in a step, for users who write it themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from weft.interop.coinstac.config import avg_grads_file, grads_file
from weft.interop.coinstac.config.keys import Mode
from weft.interop.coinstac.utils.tensorutils import Array, load_arrays, save_arrays


class COINNLearner:
    """A site's part of a step: `backward` on its batches, `to_reduce` what the sites combine, `step` with the answer.

    Subclasses override what differs. What they save goes through files in the site's folders, as in the original:
    whatever `to_reduce` returns beside the iteration travels to the reducer, values as they are and, where a value is
    the name of a file in `transferDirectory`, the arrays in it. The reducer is called where all sites say
    `"reduce": True`; its answer is in `input`, its files in `baseDirectory`, and `step` is called where it says
    `"update": True`.

    Args:
        trainer: the site's.
        mp_pool: `map` and `starmap`, in this process.

    Attributes:
        global_modes: what this site does, by its name.
    """

    def __init__(self, trainer: Any = None, mp_pool: Any = None, **kw: Any) -> None:
        self.trainer, self.pool = trainer, mp_pool
        self.cache, self.state = trainer.cache, trainer.state
        self.input: dict[str, Any] = dict(trainer.input)
        self.device = trainer.device["gpu"]
        self.global_modes = {str(self.state.get("clientId", "local0")): Mode.TRAIN}
        self.dtype = f"float{self.cache.get('precision_bits', 32)}"

    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters that the optimizers train, in their order."""
        optimizers = self.trainer.optimizer.values()
        return [
            one for each in optimizers for group in each.param_groups for one in group["params"] if one.requires_grad
        ]

    def backward(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Gradients of the mean loss over `local_iterations` batches."""
        for optimizer in self.trainer.optimizer.values():
            optimizer.zero_grad()
        its: list[dict[str, Any]] = []
        out: dict[str, Any] = {}
        batches = max(int(self.cache.get("local_iterations", 1)), 1)
        for _ in range(batches):
            batch, said = self.trainer.data_handle.next_iter()
            it = self.trainer.iteration(batch)
            (it["loss"] / batches).backward()
            its.append(it)
            out.update(said)
        return self.trainer.reduce_iteration(its), out

    def to_reduce(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The iteration of this step, and what is sent."""
        it, out = self.backward()
        parameters = self.trained()
        grads: list[Array] = [
            (torch.zeros_like(one) if one.grad is None else one.grad.detach()).cpu().numpy() for one in parameters
        ]
        save_arrays(Path(self.state["transferDirectory"]) / grads_file, [grad.astype(self.dtype) for grad in grads])
        return it, {**out, "grads_file": grads_file, "reduce": True}

    def step(self) -> dict[str, Any]:
        """Move the weights by the gradients that came back."""
        grads = load_arrays(Path(self.state["baseDirectory"]) / self.input.get("avg_grads_file", avg_grads_file))
        for parameter, grad in zip(self.trained(), grads, strict=True):
            parameter.grad = torch.from_numpy(grad).to(parameter)
        for optimizer in self.trainer.optimizer.values():
            optimizer.step()
        return {}
