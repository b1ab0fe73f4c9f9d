"""Computations that users break: the message names file and line, or the argument, and what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.interop.coinstac.computation import CLASSES, LASTING_LOCAL, LASTING_REMOTE, write
from tests.interop.coinstac.tables import SIZES, Patients, Trainer, site_run, train, write_sites
from tests.interop.coinstac.test_nodes import SITES, Pipeline
from weft.errors import CheckpointError, ConfigError, DataError
from weft.interop.coinstac import COINNRemote
from weft.interop.coinstac.arguments import cached_arguments
from weft.interop.coinstac.metrics import ConfusionMatrix
from weft.interop.coinstac.nodes import close_live
from weft.interop.coinstac.processes import ScriptError
from weft.interop.coinstac.running import UserCode
from weft.interop.coinstac.simulator import simulate


def runs_of(folder: Path, code: UserCode | None = None, **spec: Any) -> list[Any]:
    write_sites(folder)
    return [site_run(folder, name, code=code, **{"epochs": 1, **spec}) for name in SIZES]


def line_of(text: str) -> int:
    """The line of this file that says something."""
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if line.strip() == text)


ASKED = 'self.cache["labels_fil"]'


def test_a_misspelt_argument_is_told_with_the_line_that_asks_for_it_and_the_nearest_name(tmp_path: Path) -> None:
    class Asking(Patients):
        def load_index(self, id: str, file: str) -> None:  # type: ignore[override]
            self.cache["labels_fil"]
            super().load_index(id, file)

    with pytest.raises(DataError) as raised:
        train(runs_of(tmp_path, UserCode(Trainer, Asking)))
    place = f"test_breakages.py:{line_of(ASKED)}"
    assert f"{place}: the train dataset failed" in raised.value.message
    assert "the site was told no argument 'labels_fil'" in raised.value.message
    assert "write labels_fil into inputspec.json" in raised.value.hint
    assert "did you mean 'labels_file'?" in raised.value.hint


def test_an_argument_that_is_missing_is_still_a_key_error_for_those_who_expect_one(tmp_path: Path) -> None:
    class Trying(Trainer):
        def iteration(self, batch: Any) -> dict[str, Any]:
            try:
                self.cache["missing"]
            except KeyError:
                assert self.cache.get("missing") is None
                assert "missing" not in self.cache
            return super().iteration(batch)

    assert train(runs_of(tmp_path, UserCode(Trying, Patients)))["local0"]["test_metrics"]


def test_a_bad_item_is_told_with_what_can_be_done_about_it_here(tmp_path: Path) -> None:
    class Bad(Patients):
        def __getitem__(self, ix: int) -> Any:
            return open(self.path("local0", "data_dir") + "/nowhere")

    with pytest.raises(DataError, match=r"case patient\d+.txt.*test_breakages\.py:\d+: Bad.__getitem__") as raised:
        train(runs_of(tmp_path, UserCode(Trainer, Bad)))
    assert raised.value.hint == "repair or remove the item; one for which __getitem__ returns None is left out"


def test_items_of_unlike_shapes_are_told_with_what_can_be_done_about_them_here(tmp_path: Path) -> None:
    class Unlike(Patients):
        def __getitem__(self, ix: int) -> Any:
            return {**super().__getitem__(ix), "inputs": torch.zeros(30 + ix % 2)}

    with pytest.raises(DataError, match=r"items of a batch differ: .*\(30,\)") as raised:
        train(runs_of(tmp_path, UserCode(Trainer, Unlike)))
    assert "in __getitem__, or put them together in a collate_fn" in raised.value.hint
    assert "evaluation_batch_size" not in raised.value.hint


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"num_class": "2"}, "num_class is '2'"),
        ({"num_class": 0}, "num_class is 0"),
        ({"learning_rate": "0.001"}, "learning_rate is '0.001'"),
        ({"learning_rate": -1}, "learning_rate is -1"),
        ({"gpus": 0}, "gpus is 0"),
        ({"gpus": [0, 0]}, r"gpus is \[0, 0\]"),
        ({"gpus": "0"}, "gpus is '0'"),
    ],
)
def test_an_argument_of_another_kind_is_told_by_its_name(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        cached_arguments({}, {"mode": "train", **spec})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": "2"}, "pretrain_args is {'epochs': '2'}"),
        ({"epochs": -1}, "pretrain_args is {'epochs': -1}"),
        ([2], r"pretrain_args is \[2\]"),
        ({"epochs": 1, "learning_rate": "0.1"}, "learning_rate is '0.1'"),
        ({"epochs": 1, "batch_size": 0}, "batch_size is 0"),
    ],
)
def test_arguments_of_pretraining_are_checked_before_anything_is_trained(
    tmp_path: Path, given: Any, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        runs_of(tmp_path, pretrain_args=given)


def test_what_nobody_will_see_is_told(tmp_path: Path, caplog: Any) -> None:
    train(runs_of(tmp_path / "a", split_ratio=[0.8, 0.2], pretrain_args={"batch_size": 4}))
    assert caplog.text.count("no site has items to validate on: the weights of the last epoch are kept") == 1
    assert caplog.text.count("pretrain_args says nothing of epochs, or 0: no site trains beforehand") == len(SIZES)
    caplog.clear()
    train(runs_of(tmp_path / "b", split_ratio=[0.8, 0.2, 0.0]))
    assert caplog.text.count("no site has items to test") == 1
    caplog.clear()
    train(runs_of(tmp_path / "c"))
    assert caplog.text == ""


def test_weights_that_are_none_are_told_without_advice_to_trust_them(tmp_path: Path) -> None:
    write_sites(tmp_path)
    for name in SIZES:
        (tmp_path / name / "in" / "weights.pt").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"weights\.pt cannot be loaded into model") as raised:
        train([site_run(tmp_path, name, mode="test", pretrained_path="weights.pt") for name in SIZES])
    assert "weights_only" not in str(raised.value)


class OtherRemote(COINNRemote):
    """Counts in another way than the sites."""

    def _new_metrics(self) -> Any:
        return ConfusionMatrix(num_classes=3)


def test_scores_that_sites_and_remote_make_differently_are_told_when_a_fold_begins(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path)
    pipeline.round()
    told = {name: pipeline.local(name) for name in SITES}
    for name in SITES:
        folder = pipeline.directory("base", "remote") / name
        folder.mkdir(exist_ok=True)
        message = pipeline.directory("transfer", name) / "weft-message.bin"
        (folder / message.name).write_bytes(message.read_bytes())
    node = OtherRemote(cache={**pipeline.caches["remote"]}, input=told, state=pipeline.state("remote"))
    with pytest.raises(ConfigError, match=r"new_metrics makes a Prf1a at local0 and a ConfusionMatrix at the remote"):
        node(None)
    assert pipeline.remote(told)["output"]["phase"] == "computation"
    for cache in pipeline.caches.values():
        close_live(cache)


def test_a_remote_without_code_of_its_own_counts_as_many_classes_as_the_sites(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path)
    for spec in pipeline.inputs.values():
        spec["num_class"] = 3
    while True:
        told = {name: pipeline.local(name) for name in SITES}
        for name in SITES:
            source, target = pipeline.directory("transfer", name), pipeline.directory("base", "remote") / name
            target.mkdir(exist_ok=True)
            for file in source.iterdir():
                (target / file.name).write_bytes(file.read_bytes())
        answer = COINNRemote(cache=pipeline.caches["remote"], input=told, state=pipeline.state("remote"))(None)
        for name in SITES:
            pipeline.inputs[name] = answer["output"]
            for file in pipeline.directory("transfer", "remote").iterdir():
                (pipeline.directory("base", name) / file.name).write_bytes(file.read_bytes())
        pipeline.iteration += 1
        if answer["success"]:
            break
        assert pipeline.iteration < 50
    table = pipeline.directory("output", "remote") / "t" / "global_test_metrics.csv"
    assert table.read_text().startswith("Loss,Accuracy,F1,Precision,Recall\n")


SUBMODULES = """
import coinstac_dinunet.metrics as metrics
from coinstac_dinunet.config.keys import *
from coinstac_dinunet.data.data import COINNDataset
from coinstac_dinunet.trainer import COINNTrainer
from coinstac_dinunet.utils.logger import *
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the simulator forks")
def test_code_that_imports_from_submodules_runs_and_its_mistakes_name_the_log(tmp_path: Path) -> None:
    classes = CLASSES.replace("from coinstac_dinunet import COINNDataHandle, COINNDataset, COINNTrainer", SUBMODULES)
    assert SUBMODULES in classes
    lasting = {"local": LASTING_LOCAL, "remote": LASTING_REMOTE}
    write(tmp_path / "good", {"epochs": 1}, classes=classes, **lasting)
    folder = tmp_path / "good"
    simulate(folder, folder / "local.py", folder / "remote.py", alias=True, persistent=True)
    broken = classes.replace("loss = F.nll_loss(out, labels)", "loss = F.nll_loss(out[:, :1], labels)")
    folder = write(tmp_path / "broken", {"epochs": 1}, classes=broken, **lasting)
    with pytest.raises(ScriptError, match=r"classes\.py:\d+: iteration failed") as raised:
        simulate(folder, folder / "local.py", folder / "remote.py", alias=True, persistent=True)
    assert "--traceback" not in str(raised.value)
    site = raised.value.message.partition(":")[0]
    log = folder / "cache" / "calls" / f"{site}.log"
    assert str(log.resolve()) in raised.value.hint
    assert "Traceback" in log.read_text()
    assert json.loads((folder / "inputspec.json").read_text())
