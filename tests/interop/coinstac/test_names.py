"""Names that code for coinstac-dinunet imports, and what the helpers among them do."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from weft.errors import ConfigError
from weft.interop.coinstac import COINNTrainer, utils
from weft.interop.coinstac.aliasing import _Finder, advice, install
from weft.interop.coinstac.data import COINNPaddedDataSampler
from weft.interop.coinstac.datautils import create_k_fold_splits, create_ratio_split, split_place_holder
from weft.interop.coinstac.losses import dice_loss_binary
from weft.interop.coinstac.metrics import AUCROCMetrics
from weft.interop.coinstac.utils.tensorutils import safe_concat
from weft.interop.coinstac.vision.plotter import plot_progress

NODES = ["COINNLocal", "COINNRemote"]
NAMES = {
    "": ["COINNDataset", "COINNDataHandle", "COINNLearner", "COINNReducer", "COINNTrainer", "PooledTrainer", *NODES],
    "config": ["CUDA_AVAILABLE", "NUM_GPUS", "boolean_string", "current_seed", "grad_file_ext", "grads_file",
               "avg_grads_file", "max_size", "metrics_eps", "metrics_num_precision", "score_delta", "score_high",
               "score_low", "weights_file", "gpu_available", "num_gpus", "grad_precision_bit", "min_batch_size"],
    "config.keys": ["AGG_Engine", "GatherMode", "Key", "Mode", "Phase"],
    "data": ["COINNDataset", "COINNDataHandle", "COINNPaddedDataSampler", "safe_collate"],
    "data.data": ["COINNDataset"],
    "data.datautils": ["create_k_fold_splits", "create_ratio_split", "init_k_folds", "split_place_holder"],
    "distrib": ["COINNLearner", "COINNReducer", *NODES],
    "distrib.learner": ["COINNLearner"],
    "distrib.reducer": ["COINNReducer"],
    "distrib.nodes": NODES,
    "distrib.nodes.local": NODES[:1],
    "distrib.nodes.remote": NODES[1:],
    "io": ["COINPyService"],
    "metrics": ["AUCROCMetrics", "COINNAverages", "COINNMetrics", "ConfusionMatrix", "Prf1a", "SerializableMetrics"],
    "metrics.metrics": ["COINNMetrics", "Prf1a"],
    "metrics.loss": ["dice_loss_binary"],
    "nn": ["NNTrainer", "PooledTrainer"],
    "nn.pooled": ["PooledTrainer"],
    "nn.basetrainer": ["NNTrainer"],
    "nodes": NODES,
    "site_runner": ["SiteRunner"],
    "trainer": ["COINNTrainer"],
    "utils": ["FrozenDict", "clean_recursive", "duration", "jsonable", "lazy_debug", "performance_improved_",
              "save_cache", "save_scores", "stop_training_"],
    "utils.logger": ["error", "info", "lazy_debug", "success", "warn"],
    "utils.tensorutils": ["caste_ndarray", "extract_grads", "initialize_weights", "load_arrays", "safe_concat",
                          "save_arrays"],
    "utils.utils": ["duration", "performance_improved_", "stop_training_"],
    "vision.plotter": ["plot_progress"],
}  # fmt: skip


def imported(name: str) -> ModuleType:
    """A module under the original's name, for this test alone."""
    spec = _Finder().find_spec(f"coinstac_dinunet.{name}".rstrip("."))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("module", NAMES)
def test_names_of_the_original_are_there(module: str) -> None:
    found = imported(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"vision.imageutils has no counterpart"):
        imported("vision.imageutils")


def test_words_in_a_path_are_no_name_that_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, _Finder()])
    error = ImportError("cannot import name 'x' from 'coinstac_dinunet' (/home/granddad/rankdad/__init__.py)")
    error.name = "coinstac_dinunet"
    assert advice(error).startswith("docs/coinstac.md")


@pytest.mark.parametrize(
    ("statement", "hint"),
    [
        ("from coinstac_dinunet.distrib.rankdad import DADLearner", "write agg_engine: rankDAD"),
        ("import coinstac_dinunet.distrib.powersgd", "write agg_engine: powerSGD"),
        ("from coinstac_dinunet.distrib.nodes.remote import EmptyDataHandle", "gets a data handle without data"),
        ("from coinstac_dinunet.data import nothing", "docs/coinstac.md lists what is there"),
        ("import torch_of_old", ""),
    ],
)
def test_a_name_that_cannot_be_imported_is_told_with_what_to_write(
    statement: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = dict(sys.modules)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    try:
        with pytest.raises(ImportError) as raised:
            exec(statement)
        first = "simulate with --alias" if "coinstac" in statement else ""
        assert advice(raised.value).startswith(first)
        install()
        with pytest.raises(ImportError) as raised:
            exec(statement)
        assert hint in advice(raised.value)
        assert bool(advice(raised.value)) == bool(hint)
    finally:
        for name in set(sys.modules) - set(known):
            if name.partition(".")[0] in ("coinstac", "coinstac_dinunet"):
                del sys.modules[name]


def test_the_trainer_is_known_by_both_names() -> None:
    assert imported("nn").NNTrainer is COINNTrainer


def test_a_frozen_dict_takes_new_entries_only() -> None:
    frozen = utils.FrozenDict({"a": 1})
    frozen.update(b=2)
    with pytest.raises(ValueError, match="'a' is 1 and stays so"):
        frozen.update(a=2)
    assert frozen == {"a": 1, "b": 2}


@pytest.mark.parametrize(("direction", "scores"), [("maximize", [0.5, 0.50001, 0.6]), ("minimize", [2.0, 1.99995, 1])])
def test_the_best_epoch_is_noted(direction: str, scores: list[float]) -> None:
    cache = {"best_val_score": 0 if direction == "maximize" else 9, "best_val_epoch": 0, "metric_direction": direction}
    improved = [utils.performance_improved_(epoch, score, cache) for epoch, score in enumerate(scores, start=1)]
    assert improved == [True, False, True]
    assert (cache["best_val_epoch"], cache["best_val_score"]) == (3, scores[-1])
    assert [utils.stop_training_(epoch, {**cache, "patience": 2}) for epoch in (5, 6)] == [False, True]


def test_caches_and_scores_are_written(tmp_path: Path) -> None:
    cache = {"log_header": "Loss|F1", "train_log": [[1, 0.5], [0.5, 0.75]], "net": nn.Linear(1, 1), "deep": [object()]}
    utils.save_cache(cache, tmp_path)
    utils.save_scores(cache, tmp_path, file_keys=["train_log"])
    plot_progress(cache, tmp_path, plot_keys=["train_log", "validation_log"], epoch=2)
    assert json.loads((tmp_path / "logs.json").read_text())["train_log"] == cache["train_log"]
    assert (tmp_path / "train_log.csv").read_text() == "Loss|F1\n1,0.5\n0.5,0.75\n"
    assert sorted(file.name for file in tmp_path.glob("*.png")) == ["train_log_0.png", "train_log_1.png"]
    utils.clean_recursive(cache)
    assert json.loads(json.dumps(cache))["net"].startswith("Linear")


def test_a_larger_tensor_is_cut_in_its_middle() -> None:
    large = torch.arange(36.0).reshape(1, 1, 6, 6)
    found = safe_concat(large, torch.zeros(1, 2, 3, 4))
    assert found.shape == (1, 3, 3, 4)
    assert torch.equal(found[0, 0], large[0, 0, 1:4, 1:5])


def test_the_dice_loss_is_none_for_the_mask_itself() -> None:
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert float(dice_loss_binary(mask, mask)) == 0
    assert float(dice_loss_binary(1 - mask, mask)) == pytest.approx(1 - 1 / 5)
    twice = dice_loss_binary(torch.ones(2, 2), mask, beta=2), dice_loss_binary(torch.ones(2, 2), mask)
    assert twice[0] > twice[1]  # one item too many, which counts more


def test_a_padded_sampler_fills_the_last_batch_with_the_first_rows() -> None:
    assert [*COINNPaddedDataSampler(range(5), 4)] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert [*COINNPaddedDataSampler(range(2), 5)] == [0, 1, 0, 1, 0]
    assert [*COINNPaddedDataSampler(range(5), 4, drop_last=True)] == [0, 1, 2, 3]
    mixed = COINNPaddedDataSampler(range(6), 4, seed=1, shuffle=True)
    first = [*mixed]
    mixed.set_epoch(1)
    assert (len(mixed), len(first), sorted(set(first))) == (8, 8, [*range(6)])
    assert [*mixed] != first


def test_files_are_divided_by_the_helpers_of_the_original(tmp_path: Path) -> None:
    files = [f"f{number}" for number in range(10)]
    ordered = create_ratio_split(files, {"split_ratio": [0.6, 0.2, 0.2]}, shuffle_files=False)
    assert ordered == {"train": files[:6], "validation": files[6:8], "test": files[8:]}
    only = create_ratio_split(files, {"split_ratio": [1], "first_key": "test"})
    assert only is not None
    assert (sorted(only["test"]), only["train"]) == (files, [])
    with pytest.raises(ConfigError, match="first_key is 'tests'"):
        create_ratio_split(files, {"split_ratio": [1], "first_key": "tests"})
    create_k_fold_splits(files, {"num_folds": 5, "split_dir": str(tmp_path)}, name="FOLD")
    split_place_holder(None, {"split_dir": str(tmp_path)})
    assert len(list(tmp_path.glob("FOLD_*.json"))) == 5
    tested = [name for file in tmp_path.glob("FOLD_*.json") for name in json.loads(file.read_text())["test"]]
    assert sorted(tested) == files
    assert json.loads((tmp_path / "empty_split.json").read_text())["train"] == []


def test_what_scores_in_bins_do_not_keep_is_told() -> None:
    with pytest.raises(AttributeError, match="no item's probability is kept"):
        AUCROCMetrics().probabilities
    assert not hasattr(AUCROCMetrics(), "anything")
