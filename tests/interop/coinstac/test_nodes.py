"""The nodes, called in this process: phases, calls that are made again, and what others tell that is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.coinstac.tables import SIZES, Patients, Trainer, write_site
from weft.errors import ConfigError, MessageRefused, ProtocolError, UsageError, WeftError
from weft.interop.coinstac import COINNLocal, COINNRemote
from weft.interop.coinstac.io import read_call
from weft.interop.coinstac.nodes import close_live

SITES = list(SIZES)[:2]
SPEC = {"data_dir": "data", "labels_file": "labels.csv", "mode": "train", "batch_size": 16, "input_size": 30,
        "num_class": 2, "epochs": 1, "learning_rate": 0.01, "split_ratio": [0.6, 0.2, 0.2]}  # fmt: skip


class Pipeline:
    """Nodes of a computation that live on in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.caches: dict[str, dict[str, Any]] = {name: {} for name in (*SITES, "remote")}
        self.inputs: dict[str, dict[str, Any]] = {name: dict(SPEC) for name in SITES}
        self.iteration = 1
        start = 0
        for name in SITES:
            write_site(self.directory("base", name), start, SIZES[name])
            start += SIZES[name]

    def directory(self, kind: str, name: str) -> Path:
        folder = self.folder / kind / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def state(self, name: str) -> dict[str, Any]:
        kinds = ("base", "output", "cache", "transfer")
        places = {f"{kind}Directory": str(self.directory(kind, name)) for kind in kinds}
        return places | {"clientId": name, "iteration": self.iteration}

    def local(self, name: str, given: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
        """A site's call; its output."""
        given = self.inputs[name] if given is None else given
        node = COINNLocal(cache=self.caches[name], input=given, state=self.state(name), task_id="t", **arguments)
        output: dict[str, Any] = node(None, Trainer, Patients)["output"]
        return output

    def remote(self, told: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The remote's call; its answer."""
        return COINNRemote(cache=self.caches["remote"], input=told, state=self.state("remote"))(None, Trainer)

    def round(self) -> dict[str, Any]:
        """A whole round; the remote's answer."""
        told = {name: self.local(name) for name in SITES}
        for name in SITES:
            shutil.copytree(
                self.directory("transfer", name), self.directory("base", "remote") / name, dirs_exist_ok=True
            )
        answer = self.remote(told)
        for name in SITES:
            shutil.copytree(self.directory("transfer", "remote"), self.directory("base", name), dirs_exist_ok=True)
            self.inputs[name] = answer["output"]
        self.iteration += 1
        return answer


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    made = Pipeline(tmp_path)
    yield made
    for cache in made.caches.values():
        close_live(cache)


def test_a_computation_goes_through_its_phases_and_ends_with_results_at_all_sites(pipeline: Pipeline) -> None:
    phases = []
    while not (answer := pipeline.round())["success"]:
        phases.append(answer["output"]["phase"])
        assert len(phases) < 50
    assert list(dict.fromkeys(phases)) == ["next_run", "computation", "success"]
    for name in SITES:
        assert len(list(pipeline.directory("output", name).glob("t_dSGD_*.zip"))) == 1
    header, line = (pipeline.directory("output", "remote") / "t" / "global_test_metrics.csv").read_text().splitlines()
    assert len(header.split(",")) == len(line.split(","))


def test_a_call_that_is_made_again_gives_the_same_answer_and_file_and_changes_nothing(pipeline: Pipeline) -> None:
    pipeline.round()
    pipeline.round()
    pipeline.round()
    (name, other) = SITES
    first = pipeline.local(name)
    sent = pipeline.directory("transfer", name) / "weft-message.bin"
    content = sent.read_bytes()
    sent.unlink()
    assert pipeline.local(name) == first
    assert sent.read_bytes() == content
    close_live(pipeline.caches[name])  # its process is lost
    pipeline.caches[name] = {}
    assert pipeline.local(name) == first
    del other
    for _ in range(3):
        pipeline.round()


def test_what_the_remote_tells_is_checked_before_it_is_used(pipeline: Pipeline) -> None:
    pipeline.round()
    name = SITES[0]
    good = json.loads(json.dumps(pipeline.inputs[name]))
    about = good["global_runs"][name]
    wrong: list[dict[str, Any]] = [
        {**good, "phase": "elsewhere"},
        {**good, "phase": None},
        {**good, "phase": "init_runs_"},
        {**good, "global_runs": {}},
        {**good, "global_runs": {name: {**about, "split_ix": "../../x"}}},
        {**good, "global_runs": {name: {**about, "split_ix": ["0"]}}},
        {**good, "global_runs": {name: {**about, "seed": "3"}}},
        {**good, "global_runs": {name: {**about, "weft": {**about["weft"], "study": "../x"}}}},
        {**good, "global_runs": {name: {**about, "weft": {**about["weft"], "sites": [1, 2]}}}},
        {**good, "global_runs": {name: {**about, "weft": {**about["weft"], "sites": ["elsewhere"]}}}},
        {"phase": "success", "results_zip": "../../outside"},
        {"phase": "success"},
    ]
    for given in wrong:
        with pytest.raises(MessageRefused):
            pipeline.local(name, given)
    assert pipeline.local(name, good)["phase"] == "computation"
    message = {"phase": "computation", "weft": {"number": 0, "file": "weft-answer.bin"}}
    hostile: list[Any] = ["../weft-answer.bin", "/etc/passwd", None, "weft-answer.bin"]  # the last one is not there
    for file in hostile:
        with pytest.raises(MessageRefused, match="the remote names"):
            pipeline.local(name, {**message, "weft": {"number": 0, "file": file}})
    for weft in (None, {}, {"number": "0", "file": "weft-answer.bin"}, [1]):
        with pytest.raises(MessageRefused):
            pipeline.local(name, {**message, "weft": weft})


def test_what_sites_tell_is_checked_before_it_is_used(pipeline: Pipeline) -> None:
    told = {name: pipeline.local(name) for name in SITES}
    first, other = SITES

    def changed(**entries: Any) -> dict[str, dict[str, Any]]:
        return {first: told[first], other: {**told[other], **entries}}

    shared = told[other]["shared_args"]
    refused: list[dict[str, dict[str, Any]]] = [
        changed(phase="elsewhere"), changed(shared_args=None), changed(data_size=None), changed(data_size={}),
        changed(data_size={"0": {"train": "many"}}), changed(phase=["init_runs"]),
        {name: {**own, "shared_args": {**own["shared_args"], "task_id": "../../t"}} for name, own in told.items()},
        {name: {**own, "shared_args": {**own["shared_args"], "agg_engine": "a/b"}} for name, own in told.items()},
        {name: {**own, "data_size": {"../0": {"train": 1}}} for name, own in told.items()},
    ]  # fmt: skip
    for given in refused:
        pipeline.caches["remote"].clear()
        with pytest.raises(MessageRefused):
            pipeline.remote(given)
    pipeline.caches["remote"].clear()
    with pytest.raises(ConfigError, match=rf"learning_rate is 0.01 at {first} and 0.5 at {other}"):
        pipeline.remote(changed(shared_args={**shared, "learning_rate": 0.5}))
    pipeline.caches["remote"].clear()
    with pytest.raises(ConfigError, match=rf"{first} has 1 folds, {other} has 2"):
        pipeline.remote(changed(data_size={"0": {"train": 1}, "1": {"train": 1}}))
    with pytest.raises(ProtocolError, match=rf"{first} is in init_runs, {other} is in computation"):
        pipeline.remote(changed(phase="computation"))
    assert not [path for path in pipeline.folder.rglob("*") if path.name == "t" and "remote" in path.parts]


def test_sites_at_different_exchanges_are_told_apart(pipeline: Pipeline) -> None:
    pipeline.round()
    told = {name: pipeline.local(name) for name in SITES}
    told[SITES[1]]["weft"]["number"] = 5
    with pytest.raises(ProtocolError, match=rf"{SITES[0]} is at 0, {SITES[1]} is at 5"):
        pipeline.remote(told)
    told[SITES[1]]["weft"] = None
    with pytest.raises(MessageRefused, match=SITES[1]):
        pipeline.remote(told)


def test_wrong_calls_say_what_to_do(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"input": {}}', "nonsense"):
        with pytest.raises(UsageError, match="holds no call"):
            read_call(text)
    assert read_call('{"input": {}, "state": {}}')["cache"] == {}
    with pytest.raises(UsageError, match="state has no baseDirectory"):
        COINNLocal(cache={}, input={}, state={})
    state = {f"{kind}Directory": str(tmp_path) for kind in ("base", "output", "transfer")} | {"clientId": "local0"}
    with pytest.raises(UsageError, match="names no sites"):
        COINNRemote(cache={}, input={}, state=state)
    local = COINNLocal(cache={}, input={"mode": "train"}, state=state)
    for classes, words in (((Patients,), "no trainer"), ((Trainer, dict), "dict is no COINNTrainer")):
        with pytest.raises(WeftError, match=words):
            local.compute(*classes)
