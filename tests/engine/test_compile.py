"""Compiled networks train as others do."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.engine.runs import last_weights, small_experiment, trained
from weft.config import Component
from weft.errors import ConfigError
from weft.nets import MLP


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_network_ends_as_one_that_is_not(mode: str) -> None:
    """Also with a last batch of another shape; its weights have the names of the network as it was written."""
    model = Component.of(MLP, in_features=30, out_features=2, hidden=[16])
    plain, _ = trained(small_experiment(model=model, epochs=2))
    compiled, result = trained(small_experiment(model=model, epochs=2, compile=True, compile_mode=mode))
    assert compiled.state.prepared is not compiled.state.model
    assert last_weights(compiled).keys() == last_weights(plain).keys()
    for name, value in last_weights(plain).items():
        torch.testing.assert_close(last_weights(compiled)[name], value, rtol=1e-3, atol=1e-4)
    assert result.steps == plain.state.position.step


def test_a_mode_without_compiling_is_an_error() -> None:
    with pytest.raises(ConfigError, match="compile_mode needs compile: true"):
        small_experiment(compile_mode="max-autotune")
