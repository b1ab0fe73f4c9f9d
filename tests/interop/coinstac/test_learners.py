"""Learners and reducers of users: what a site does in a step, and what the remote does with what sites send."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop.coinstac.tables import (
    SIZES,
    Patients,
    Trainer,
    remote_trainer,
    site_run,
    train,
    train_with,
    write_sites,
)
from weft.engine import Gather
from weft.errors import DataError, MessageRefused
from weft.interop.coinstac import COINNLearner, COINNReducer
from weft.interop.coinstac.parcels import TAG, Parcel, decode, encode, packed, unpacked
from weft.interop.coinstac.reducing import reduced
from weft.interop.coinstac.running import SiteRun, UserCode
from weft.interop.coinstac.utils.tensorutils import extract_grads, load_arrays, save_arrays


def final(run: SiteRun) -> torch.Tensor:
    return torch.cat([value.flatten() for value in run.trainer.nn["model"].state_dict().values()])


def runs_of(
    folder: Path, learner: type[COINNLearner] = COINNLearner, reduced: bool = True, **spec: Any
) -> list[SiteRun]:
    write_sites(folder)
    code = UserCode(Trainer, Patients, learner=learner)
    spec = {"epochs": 2, **spec}
    return [site_run(folder, name, code=code, options={"reduced": reduced}, **spec) for name in SIZES]


def test_the_default_learner_and_reducer_do_what_dsgd_does(tmp_path: Path) -> None:
    plain = runs_of(tmp_path / "plain", reduced=False)
    train(plain)
    runs = runs_of(tmp_path / "reduced")
    train_with(runs, COINNReducer)
    assert torch.allclose(final(plain[0]), final(runs[0]), atol=1e-4)
    assert torch.equal(final(runs[0]), final(runs[2]))


class FirstSite(COINNReducer):
    """Takes the gradients of the site that comes first, halved."""

    def reduce(self) -> dict[str, Any]:
        sites = self._load("grads_file")
        out = {"avg_grads_file": "mine.npz", "update": True, "steps": self.cache.get("steps", 0) + 1}
        self.cache["steps"] = out["steps"]
        path = self.state["transferDirectory"] + os.sep + out["avg_grads_file"]
        save_arrays(path, np.array([grad / 2 for grad in sites[0]] + [None], dtype=object)[:-1])
        return out


def test_a_reducer_of_the_users_decides_what_the_gradient_is(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    remote = train_with(runs, FirstSite)
    assert remote.trainer.cache["steps"] == len(remote.asked) == 12
    assert torch.equal(final(runs[0]), final(runs[1]))


def median(columns: tuple[np.ndarray[Any, Any], ...]) -> np.ndarray[Any, Any]:
    return np.median(np.stack(columns), 0)


def read(key: str, state: dict[str, Any], site: str, said: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    return load_arrays(state["baseDirectory"] + os.sep + site + os.sep + said[key])


class Median(COINNReducer):
    """Reads the files itself, with the pool."""

    def reduce(self) -> dict[str, Any]:
        assert all(said["note"] == f"from {site}" for site, said in self.input.items())
        every = self.pool.starmap(partial(read, "mine_file", self.state), self.input.items())
        grads = self.pool.map(median, list(zip(*every, strict=True)))
        save_arrays(self.state["transferDirectory"] + os.sep + "avg_grads.npz", [g.astype(self.dtype) for g in grads])
        return {"avg_grads_file": "avg_grads.npz", "update": True}


class OwnWay(COINNLearner):
    """As a user would write one: a clipped gradient, and another file."""

    def backward(self) -> tuple[dict[str, Any], dict[str, Any]]:
        model, optimizer = self.trainer.nn["model"], self.trainer.optimizer["adam"]
        self.cache["steps"] = self.cache.get("steps", 0) + 1
        model.train()
        optimizer.zero_grad()
        its = []
        for _ in range(self.cache["local_iterations"]):
            batch, out = self.trainer.data_handle.next_iter()
            it = self.trainer.iteration(batch)
            it["loss"].backward()
            its.append(it)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        return self.trainer.reduce_iteration(its), out

    def to_reduce(self) -> tuple[dict[str, Any], dict[str, Any]]:
        it, out = self.backward()
        grads = extract_grads(self.trainer.nn["model"], dtype=self.dtype)
        out["mine_file"], out["note"] = "mine.npz", f"from {self.state['clientId']}"
        save_arrays(self.state["transferDirectory"] + os.sep + out["mine_file"], grads)
        out["reduce"] = True
        return it, out

    def step(self) -> dict[str, Any]:
        grads = load_arrays(self.state["baseDirectory"] + os.sep + self.input["avg_grads_file"])
        for parameter, grad in zip(self.trainer.nn["model"].parameters(), grads, strict=True):
            parameter.grad = torch.tensor(grad, dtype=torch.float32).to(self.device)
        self.trainer.optimizer["adam"].step()
        return {}


def test_a_learner_and_a_reducer_of_the_users_train_together(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, OwnWay, reduced=False, local_iterations=2, batch_size=4)
    remote = train_with(runs, Median)
    assert torch.equal(final(runs[0]), final(runs[1]))
    lines = runs[0].report()["train_log"]
    assert lines[-1][0] < lines[0][0]
    assert not any(path.is_file() for run in runs for path in Path(run.state["transferDirectory"]).rglob("*"))
    assert [run.cache["steps"] for run in runs] == [6, 12, 4]  # 24, 42 and 15 items in steps of 8, twice
    norms = [
        sum(float((grad**2).sum()) for grad in one.files["mine_file"])
        for ask in remote.asked
        for one in ask
        if one.files
    ]
    assert max(norms) <= 0.25 + 1e-5
    assert len(remote.asked) == 12  # 6 steps of 2 · 4 items at the largest site, 2 epochs


def test_a_site_without_items_left_is_no_part_of_what_is_reduced(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, OwnWay, reduced=False, epochs=1)
    remote = train_with(runs, Median)
    assert [len([one for one in ask if one.said["items"]]) for ask in remote.asked] == [3, 3, 2, 1, 1, 1]


@pytest.mark.parametrize(("bad", "message"), [("no dict", "returned a list"), ("fails", "reduce failed: KeyError")])
def test_a_reducer_that_fails_is_named(tmp_path: Path, bad: str, message: str) -> None:
    class Broken(COINNReducer):
        def reduce(self) -> Any:
            return [] if bad == "no dict" else self.input["nowhere"]

    with pytest.raises(DataError, match=message):
        train_with(runs_of(tmp_path), Broken)


def test_what_is_returned_must_be_a_file_below_the_folder_or_a_value(tmp_path: Path) -> None:
    save_arrays(tmp_path / "in.npz", [np.ones(3)])
    (tmp_path / "below").mkdir()
    with pytest.raises(Exception, match="leaves"):
        packed({"grads_file": "../in.npz"}, tmp_path / "below")
    with pytest.raises(DataError, match="cannot be sent"):
        packed({"model": torch.nn.Linear(1, 1)}, tmp_path)


def test_parcels_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array(2.5, dtype=np.float64),
        np.zeros((0, 4), np.float32),
    ]
    save_arrays(tmp_path / "a.npz", arrays)
    one = packed({"grads_file": "a.npz", "n": 3}, tmp_path)
    sides = [encode(one), encode(Parcel({"items": 0.0}))]
    first, second = decode(
        [
            torch.cat([a.double() if a.is_floating_point() else a, b.double() if b.is_floating_point() else b])
            for a, b in zip(*sides, strict=True)
        ]
    )
    assert first.said == one.said
    assert second.files == {}
    for found, array in zip(first.files["grads_file"], arrays, strict=True):
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


@pytest.mark.parametrize("place", range(3))
def test_a_damaged_parcel_is_refused(tmp_path: Path, place: int) -> None:
    save_arrays(tmp_path / "a.npz", [np.ones((4, 5), np.float32)])
    tensors = encode(packed({"grads_file": "a.npz"}, tmp_path))
    tensors[place] = tensors[place].flatten()[:-1]
    with pytest.raises(MessageRefused):
        decode(tensors)


PARCEL = Parcel(
    {"grads_file": "a.npz", "n": 3, "items": 4.0}, {"grads_file": [np.ones((2, 3), np.float32), np.zeros(2)]}
)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_mutated_parcel_is_read_or_refused(data: st.DataObject) -> None:
    tensors = [tensor.clone() for tensor in encode(PARCEL)]
    place = data.draw(st.integers(0, 2))
    flat = tensors[place].reshape(-1)
    for _ in range(data.draw(st.integers(1, 3))):
        spot, value = data.draw(st.integers(0, len(flat) - 1)), data.draw(st.integers(0, 255))
        flat[spot] = value - 40 if place == 2 else value
    try:
        read = decode(tensors)
    except MessageRefused:
        return
    assert all(isinstance(parcel, Parcel) for parcel in read)
    arrays = [array for parcel in read for found in parcel.files.values() for array in found]
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in arrays)


@pytest.mark.parametrize("name", ["../labels.csv", "/tmp/a.npz", "labels.csv", "", 7, None])
def test_what_a_remote_says_cannot_be_written_elsewhere(tmp_path: Path, name: Any) -> None:
    parcel = Parcel({"avg_grads_file": name}, {"avg_grads_file": [np.ones(2)]})
    with pytest.raises(MessageRefused, match="is to be a file"):
        unpacked(parcel, tmp_path / "base", below="kept")
    assert [path.name for path in tmp_path.rglob("*")] == ["base", "kept"]


def test_what_a_remote_says_lies_in_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "subject.npz").write_text("mine")
    said = unpacked(Parcel({"f": "subject.npz"}, {"f": [np.ones(2)]}), tmp_path, below="kept")
    assert said == {"f": "kept/subject.npz"}
    assert (tmp_path / "subject.npz").read_text() == "mine"


@pytest.mark.parametrize("items", [-1, "4", None, True, float("nan")])
def test_a_site_that_says_an_impossible_number_of_items_is_refused(tmp_path: Path, items: Any) -> None:
    (run,) = runs_of(tmp_path)[:1]
    asked = Gather(TAG, encode(Parcel({**PARCEL.said, "items": items}, PARCEL.files)))
    with pytest.raises(MessageRefused, match="site local0 says that its batch has"):
        reduced(COINNReducer, remote_trainer(run), ["local0"], [asked])


def test_arrays_that_need_unpickling_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "grads.npy"
    np.save(file, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="holds no arrays of numbers"):
        load_arrays(file)
