"""Optimizers without torch's compiler: it is not imported, and steps are those that `optimizer.step()` takes."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from weft.engine.uncompiled import spare_compiler, step_of

_TRAIN = """
import sys
import weft
weft.train({
    "dataset": {
        "arrays": {"sklearn.datasets.load_breast_cancer": {"return_X_y": True}},
        "split": {"ratio": [0.7, 0.3]},
    },
    "model": {"MLP": {"in_features": 30, "hidden": [8], "out_features": 2}},
    "training": {
        "task": "classification", "epochs": 2, "batch_size": 64, "clip_norm": 1.0,
        "optimizer": {"AdamW": {"lr": 0.01}}, "scheduler": {"StepLR": {"step_size": 1}},
    },
    "run": {"device": "cpu", "progress": False, "tensorboard": False},
}, out=sys.argv[1])
print("torch._dynamo" in sys.modules)
"""


class Plain(Optimizer):
    """One of a user's, that decorates nothing."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data -= group["lr"] * parameter.grad


class Decorated(Plain):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(group["lr"] * parameter.grad)


MAKERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9),
    "Adam": lambda parameters: Adam(parameters, lr=0.1),
    "AdamW, fused": lambda parameters: AdamW(parameters, lr=0.1, fused=True),
    "plain": lambda parameters: Plain(parameters, lr=0.1),
    "decorated": lambda parameters: Decorated(parameters, lr=0.1),
}


def trained(
    make: Callable[[Any], Optimizer], step: Callable[[Optimizer], Any], *, schedule: bool
) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    optimizer = make(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5) if schedule else None
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.ones(2, 5)).square().mean().backward()
        step(optimizer)
        if scheduler is not None:
            scheduler.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("schedule", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_a_step_is_that_of_the_optimizer(name: str, schedule: bool) -> None:
    expected = trained(MAKERS[name], lambda optimizer: optimizer.step(), schedule=schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # schedulers warn where they were not told of a step
        found = trained(MAKERS[name], step_of, schedule=schedule)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("step", [lambda optimizer: optimizer.step(), step_of])
def test_hooks_are_called_with_what_the_step_is_given(step: Callable[[Optimizer], Any]) -> None:
    called = []

    def make(parameters: Any) -> Optimizer:
        optimizer = SGD(parameters, lr=0.1)
        optimizer.register_step_pre_hook(
            lambda one, arguments, keywords: called.append(("before", arguments[0] is one))
        )
        optimizer.register_step_pre_hook(lambda one, arguments, keywords: (arguments, {"closure": None}))
        optimizer.register_step_post_hook(lambda one, arguments, keywords: called.append(("after", keywords)))
        return optimizer

    trained(make, step, schedule=False)
    assert called == [("before", True), ("after", {"closure": None})] * 4


def test_grad_mode_is_as_it_was_after_a_step() -> None:
    trained(MAKERS["Adam"], step_of, schedule=False)
    assert torch.is_grad_enabled()


def test_the_compiler_finds_methods_as_torch_has_them_once_it_is_imported() -> None:
    spare_compiler()
    import torch._dynamo  # noqa: F401

    model = nn.Linear(2, 2)
    optimizer = Adam(model.parameters())
    assert optimizer.state_dict()["param_groups"][0]["params"] == [0, 1]
    plain = Optimizer.state_dict.__wrapped__  # type: ignore[attr-defined]
    kept = plain.__dict__["__dynamo_disable"]
    assert getattr(kept, "_torchdynamo_disable", False)  # how torch marks what its compiler leaves alone


def test_training_does_not_import_the_compiler(tmp_path: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN, str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "False", done.stdout
