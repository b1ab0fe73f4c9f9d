"""What code of users remembers outlives a process, wherever it keeps it."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.interop.coinstac.tables import (
    SIZES,
    Patients,
    Remote,
    Trainer,
    remote_trainer,
    site_run,
    to_the_end,
    write_sites,
)
from weft.interop.coinstac import COINNLearner, COINNReducer
from weft.interop.coinstac.io import plain
from weft.interop.coinstac.keeping import kept, restored, storages
from weft.interop.coinstac.reducing import ReducersMemory
from weft.interop.coinstac.running import SiteRun, UserCode

CPU = torch.device("cpu")
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=4), PLAIN, max_size=4))
def test_plain_values_come_back_as_they_were(values: dict[str, Any]) -> None:
    assert restored(kept(values), CPU) == values


class Colour(enum.StrEnum):
    RED = "red"


def test_tensors_and_arrays_come_back_and_objects_and_weights_are_left_out() -> None:
    network = nn.Linear(3, 2)
    values = {
        "errors": [torch.ones(2), {"deep": np.arange(3)}], "count": np.int64(4), "colour": Colour.RED,
        "loss": nn.CrossEntropyLoss(), "weights": list(network.parameters()), "view": network.weight.data[0],
        "text": np.array(["a"]),
    }  # fmt: skip
    found = restored(kept(values, storages([network])), CPU)
    assert sorted(found) == ["colour", "count", "errors"]
    assert torch.equal(found["errors"][0], torch.ones(2))
    assert np.array_equal(found["errors"][1]["deep"], np.arange(3))
    assert (found["count"], found["colour"]) == (4, "red")


class Feedback(COINNLearner):
    """Sends the signs of its gradients, and adds what they left out to those of the next step; counts in itself."""

    def __init__(self, **kw: Any) -> None:
        super().__init__(**kw)
        self.steps = 0

    def backward(self) -> tuple[dict[str, Any], dict[str, Any]]:
        it, out = super().backward()
        self.steps += 1
        errors = self.cache.get("errors") or [torch.zeros_like(one) for one in self.trained()]
        for place, parameter in enumerate(self.trained()):
            assert parameter.grad is not None
            wanted = parameter.grad + errors[place]
            parameter.grad = wanted.sign() * 0.01 * self.steps
            errors[place] = wanted - parameter.grad
        self.cache["errors"] = errors
        return it, out


def test_a_remote_remembers_what_its_reducer_wrote_and_repeats_a_call_as_it_was(tmp_path: Path) -> None:
    cache: dict[str, Any] = {"folds": []}
    for number in range(3):
        memory = ReducersMemory(tmp_path, cache)
        memory.recall()
        assert float(cache.get("deep", {}).get("mean", torch.zeros(()))) == number
        cache["deep"] = {"mean": torch.tensor(number + 1.0)}
        before = plain(cache)
        memory.keep()
        if number == 1:  # the process dies before the call is over, and it is made again in another one
            cache = before
            again = ReducersMemory(tmp_path, cache)
            again.recall()
            assert float(cache["deep"]["mean"]) == 1
            cache["deep"] = {"mean": torch.tensor(2.0)}
            again.keep()
        cache = plain(cache)  # a process per call
    assert sorted(file.name for file in tmp_path.iterdir()) == ["reducer-2.pt", "reducer-3.pt"]


class Remembering(Trainer):
    """The rate at which it drops inputs depends on how often it was asked."""

    def __init__(self, **kw: Any) -> None:
        super().__init__(**kw)
        self.asked, self.mean = 0, np.zeros(30)

    def iteration(self, batch: Any) -> dict[str, Any]:
        if self.nn["model"].training:
            self.asked += 1
            self.mean = self.mean + batch["inputs"].mean(0).numpy() / self.asked
        return super().iteration({**batch, "inputs": batch["inputs"] - torch.from_numpy(self.mean).float()})


def test_a_site_that_dies_remembers_what_its_learner_and_trainer_did(tmp_path: Path) -> None:
    ends = []
    for name, deaths in (("undisturbed", ()), ("disturbed", (4, 9, 14))):
        folder = tmp_path / name
        write_sites(folder)
        code = UserCode(Remembering, Patients, learner=Feedback)

        def made(site: str, folder: Path = folder, code: UserCode = code) -> SiteRun:
            options = {"folder": folder / site / "fold", "every_step": True, "reduced": True}
            return site_run(folder, site, code=code, epochs=2, options=options)

        for site in SIZES:
            (folder / site / "fold").mkdir()
        runs = {site: made(site) for site in SIZES}
        together = Remote([run.participant() for run in runs.values()], COINNReducer, remote_trainer(runs["local0"]))
        turns = to_the_end(together, runs, made, deaths)
        assert turns > 14
        ends.append([run.trainer.nn["model"].out.weight.detach() for run in runs.values()])
    assert all(torch.equal(first, second) for first, second in zip(*ends, strict=True))
    assert torch.equal(ends[0][0], ends[0][2])
