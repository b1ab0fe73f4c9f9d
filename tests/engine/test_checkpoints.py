"""Where states and best weights are kept: names, links, copies, writes beside the training, and which epochs stay."""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.engine.background import BackgroundCheckpoints
from weft.engine.checkpoint_files import read_checkpoint
from weft.engine.checkpoints import CheckpointFolder, Saved
from weft.engine.monitoring import BestEpoch
from weft.engine.weights import read_weights
from weft.errors import RunDirectoryError

LARGE = 0  # as `small`: every state counts as large


def state_of(
    step: int, best: int | None = None, average: bool = False, kept: list[int] | None = None
) -> dict[str, Any]:
    """A state with tensors that share memory, of several kinds, told by its step."""
    shared = torch.full((300,), float(step))
    model = {"first": shared, "tied": shared, "part": shared[10:40], "turned": torch.arange(12.0).reshape(3, 4).T}
    kept_epochs = [[0.5, other, other] for other in kept or ([best] if best is not None else [])]
    return {
        "model": model,
        "optimizers": {"model": {"state": {0: {"step": torch.tensor(float(step)), "empty": torch.empty(0)}}}},
        "average": {name: tensor + 0.5 for name, tensor in model.items()} if average else None,
        "best": {"step": best, "kept": kept_epochs},
        "history": "[]",
    }


def names(folder: Path, kind: str) -> list[str]:
    return sorted(file.name for file in folder.glob(f"{kind}-*"))


def steps(folder: Path, kind: str) -> list[int]:
    return [int(name[5:14]) for name in names(folder, kind)]


# --- one file, two names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [False, True])
def test_a_small_state_with_the_best_weights_is_one_file_with_two_names(tmp_path: Path, average: bool) -> None:
    store = CheckpointFolder(tmp_path)
    saved = store.save_last(state_of(8, best=8, average=average), 8, best=True)
    assert [kind for _, kind in saved] == ["best", "last"]
    (best, _), (last, _) = saved
    assert best.samefile(last)
    expected = 8.5 if average else 8.0
    assert store.load_best(8)["first"][0] == expected
    assert read_weights(best)["first"][0] == expected, "`--weights` takes the weights that were scored"


def test_a_large_state_is_not_kept_because_its_weights_are_the_best(tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path, small=LARGE)
    (best, _), (last, _) = store.save_last(state_of(8, best=8, average=True), 8, best=True)
    assert not best.samefile(last)
    assert set(read_checkpoint(best)) == {"model", "step"}
    assert store.load_best(8)["first"][0] == 8.5
    state = store.load_last()
    assert state is not None
    assert torch.equal(state["model"]["turned"], state_of(8)["model"]["turned"])


def test_where_the_file_system_has_no_links_there_are_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*names: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    (best, _), (last, _) = CheckpointFolder(tmp_path).save_last(state_of(8, best=8), 8, best=True)
    assert not best.samefile(last)
    assert isinstance(read_checkpoint(best), dict)


def test_the_second_name_that_a_power_cut_took_comes_back(tmp_path: Path) -> None:
    (best, _), _ = CheckpointFolder(tmp_path).save_last(state_of(8, best=8, average=True), 8, best=True)
    best.unlink()
    store = CheckpointFolder(tmp_path)
    store.load_last()
    store.save_last(state_of(12, best=8), 12)
    assert store.load_best(8)["first"][0] == 8.5


def test_best_weights_stay_as_long_as_a_state_that_is_kept_refers_to_them(tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path, keep=3)
    for step in (4, 8, 12, 16):
        store.save_last(state_of(step, best=step, kept=[step, step - 4] if step > 4 else [step]), step, best=True)
    assert steps(tmp_path, "last") == [8, 12, 16]
    assert steps(tmp_path, "best") == [4, 8, 12, 16]
    store.save_last(state_of(20, best=16, kept=[16, 12]), 20)
    assert steps(tmp_path, "best") == [8, 12, 16]


def test_best_weights_do_not_pile_up_between_two_states(tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path)
    store.save_last(state_of(4, best=4), 4, best=True)
    for step in (8, 12, 16):
        store.save_best(state_of(step)["model"], step, wanted=[step])
        assert steps(tmp_path, "best") == [4, step], "the state at 4 is all that a killed run could go on from"
    again = CheckpointFolder(tmp_path)
    assert again.load_last() is not None
    assert again.load_best(4)["first"][0] == 4


def test_a_resumed_run_keeps_as_many_states_as_asked(tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path, keep=4)
    for step in (4, 8, 12, 16):
        store.save_last(state_of(step, best=step), step, best=True)
    (broken,) = tmp_path.glob("last-000000008-*")
    broken.write_bytes(b"damaged")
    store = CheckpointFolder(tmp_path, keep=4)
    store.load_last()
    store.save_last(state_of(20, best=20), 20, best=True)
    assert steps(tmp_path, "last") == [4, 12, 16, 20]
    assert steps(tmp_path, "best") == [4, 12, 16, 20]


# --- beside the training ----------------------------------------------------------------------------------------------


class Held(CheckpointFolder):
    """Writes only when it may, and notes how many write at a time."""

    def __init__(self, folder: Path, small: int = 1 << 20) -> None:
        super().__init__(folder, small=small)
        self.may_write, self.writing, self.most = Event(), 0, 0

    def save_last(self, state: dict[str, Any], step: int, *, best: bool = False) -> list[Saved]:
        self.writing += 1
        self.most = max(self.most, self.writing)
        assert self.may_write.wait(60)
        saved = super().save_last(state, step, best=best)
        self.writing -= 1
        return saved


@pytest.mark.parametrize("small", [LARGE, 1 << 20])
@pytest.mark.parametrize("average", [False, True])
def test_files_written_beside_the_training_have_the_same_bytes(tmp_path: Path, small: int, average: bool) -> None:
    beside = BackgroundCheckpoints(CheckpointFolder(tmp_path / "beside", small=small))
    at_once = CheckpointFolder(tmp_path / "at once", small=small)
    for step in (4, 8, 12):  # the buffers of the first copy serve the others too
        for store in (beside, at_once):
            store.save_last(state_of(step, best=step, average=average), step, best=True)
    beside.settle(wait=True)
    for kind in ("last", "best"):
        assert names(tmp_path / "beside", kind) == names(tmp_path / "at once", kind)
    assert all(isinstance(read_checkpoint(file), dict) for file in (tmp_path / "beside").iterdir())


@pytest.mark.parametrize("small", [LARGE, 1 << 20])
def test_what_is_trained_meanwhile_does_not_reach_the_file(tmp_path: Path, small: int) -> None:
    folder = Held(tmp_path, small=small)
    store, state = BackgroundCheckpoints(folder), state_of(4, best=4)
    assert store.save_last(state, 4, best=True) == []
    assert store.settle(wait=False) == []
    state["model"]["first"].fill_(99.0)
    state["model"]["new"] = torch.zeros(1)
    assert not list(tmp_path.iterdir())
    folder.may_write.set()
    assert [kind for _, kind in store.settle(wait=True)] == ["best", "last"]
    assert store.settle(wait=True) == [], "it is told once"
    loaded = store.load_last()
    assert loaded is not None
    assert set(loaded["model"]) == {"first", "tied", "part", "turned"}
    assert loaded["model"]["first"].eq(4).all()
    assert loaded["model"]["first"].untyped_storage().data_ptr() == loaded["model"]["tied"].untyped_storage().data_ptr()


def test_only_one_write_is_under_way_at_a_time(tmp_path: Path) -> None:
    folder = Held(tmp_path)
    folder.may_write.set()
    store = BackgroundCheckpoints(folder)
    told = [saved for step in range(1, 20) for saved in store.save_last(state_of(step), step)]
    told += store.settle(wait=True)
    assert [int(path.name[5:14]) for path, _ in told] == list(range(1, 20))
    assert folder.most == 1


@pytest.mark.parametrize("small", [LARGE, 1 << 20])
@pytest.mark.parametrize(
    "look",
    [
        lambda store: store.settle(wait=True),
        lambda store: store.save_last(state_of(12), 12),
        lambda store: store.save_best(state_of(12)["model"], 12),
    ],
)
def test_an_error_of_the_writer_is_raised_once_at_the_next_look_as_it_is(
    tmp_path: Path, look: Callable[[BackgroundCheckpoints], Any], small: int
) -> None:
    folder = tmp_path / "checkpoints"
    store = BackgroundCheckpoints(CheckpointFolder(folder, small=small))
    shutil.rmtree(folder)
    store.save_last(state_of(8), 8)
    with pytest.raises(RunDirectoryError, match="last-000000008.*No such file"):
        look(store)
    folder.mkdir()
    store.save_last(state_of(12), 12)
    store.settle(wait=True)
    assert steps(folder, "last") == [12]


def test_loading_waits_for_the_writer(tmp_path: Path) -> None:
    store = BackgroundCheckpoints(CheckpointFolder(tmp_path))
    for step in range(1, 6):
        store.save_best(state_of(step)["model"], step)
        assert store.load_best(step)["first"][0] == step
        store.save_last(state_of(step), step)
        newest = store.newest()
        assert newest is not None
        assert newest.name.startswith(f"last-{step:09d}")


# --- which epochs stay ------------------------------------------------------------------------------------------------

values = st.lists(st.one_of(st.integers(0, 5).map(float), st.just(math.nan)), max_size=12)


@given(values, st.sampled_from(["min", "max"]), st.integers(1, 5), st.integers(0, 12))
def test_the_best_epochs_are_kept_in_order_also_over_a_resume(
    values: list[float], mode: str, keep: int, cut: int
) -> None:
    best, chosen = BestEpoch("loss", mode, keep=keep), set[int]()
    for epoch, value in enumerate(values):
        if epoch == cut:
            state, best = best.state_dict(), BestEpoch("loss", mode, keep=keep)
            best.load_state_dict(state)
        best.update(value, epoch, 10 * (epoch + 1))
        if best.keeps(10 * (epoch + 1)):
            chosen.add(epoch)
    sign = -1 if mode == "max" else 1
    numbers = [(sign * value, epoch) for epoch, value in enumerate(values) if not math.isnan(value)]
    assert [kept.epoch for kept in best.kept] == [epoch for _, epoch in sorted(numbers)[:keep]]
    assert {kept.epoch for kept in best.kept} <= chosen, "its weights were saved when it ended"
    assert best.epoch == (best.kept[0].epoch if best.kept else None)


def test_the_best_epoch_is_first_also_where_another_is_better_by_less_than_counts() -> None:
    best = BestEpoch("accuracy", "max", min_delta=0.1, keep=2)
    for epoch, value in enumerate((0.5, 0.55, 0.3, 0.58)):
        best.update(value, epoch, epoch + 1)
    assert best.epoch == 0
    assert [kept.epoch for kept in best.kept] == [0, 3]


def test_a_state_saved_before_several_epochs_could_be_kept_has_its_best_one() -> None:
    best = BestEpoch("loss", "min", keep=3)
    best.load_state_dict({"value": 0.5, "epoch": 1, "step": 20, "waited": 1})
    assert [tuple(kept) for kept in best.kept] == [(0.5, 1, 20)]
    best.update(0.7, 3, 40)
    assert [kept.epoch for kept in best.kept] == [1, 3]
