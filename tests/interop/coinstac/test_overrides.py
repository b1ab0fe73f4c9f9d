"""Methods that users override: which are called, when, with what; and which are refused, with what to do instead."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.interop.coinstac.tables import (
    SIZES,
    SPEC,
    Patients,
    Trainer,
    site_run,
    to_the_end,
    train,
    train_with,
    write_site,
    write_sites,
)
from weft.engine import Together
from weft.errors import ConfigError, DataError, UsageError
from weft.interop.coinstac import COINNLearner, COINNLocal, COINNReducer, COINNRemote
from weft.interop.coinstac.handle import require_plain_loading
from weft.interop.coinstac.overrides import REMOTE, require_called
from weft.interop.coinstac.running import SiteRun, UserCode
from weft.interop.coinstac.site_runner import SiteRunner

SITE = "local0"


def alone(folder: Path, kind: type[Trainer], **arguments: Any) -> list[dict[str, Any]]:
    """What a site alone reports."""
    if not (folder / "input").exists():
        write_site(folder / "input" / SITE / "simulatorRun", 0, 60)
        (folder / "inputspec.json").write_text(json.dumps([{key: {"value": value} for key, value in SPEC.items()}]))
    return SiteRunner("tumours", folder).run(kind, Patients, **arguments)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    file = folder / "output" / SITE / "simulatorRun" / "tumours" / "fold_0" / "latest.tumours-0.pt"
    found: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["models"]["model"]
    return found


def final(run: SiteRun) -> torch.Tensor:
    return torch.cat([value.flatten() for value in run.trainer.nn["model"].state_dict().values()])


class AsItIs(Trainer):
    """Does what is done anyway."""

    def training_iteration_local(self, i: int, batch: Any) -> dict[str, Any]:
        return super().training_iteration_local(i, batch)


def test_an_iteration_of_ones_own_that_changes_nothing_changes_no_bit(tmp_path: Path) -> None:
    ends = []
    for name, kind in (("plain", Trainer), ("own", AsItIs)):
        write_sites(tmp_path / name)
        code, options = UserCode(kind, Patients), {"pretrain_args": {"epochs": 3, "learning_rate": 0.03}}
        runs = [site_run(tmp_path / name, site, code=code, epochs=1, options=options) for site in SIZES]
        train(runs)
        ends.append(final(runs[0]))
    assert torch.equal(*ends)


class OwnSteps(Trainer):
    """Steps once for two batches, with a penalty; counts what it sees."""

    def _init_optimizer(self) -> None:
        self.optimizer["sgd"] = torch.optim.SGD(self.nn["model"].parameters(), lr=0.1)

    def training_iteration_local(self, i: int, batch: Any) -> dict[str, Any]:
        it = self.iteration(batch)
        it["loss"] = it["loss"] + 0.01 * self.nn["model"].out.weight.square().sum()
        it["loss"].backward()
        self.cache.setdefault("seen", []).append(i)
        if i % 2 == 0:
            self.optimizer["sgd"].step()
            self.optimizer["sgd"].zero_grad()
        return it


class ByHand(OwnSteps):
    """Notes the weights that it begins with, and its batches."""

    batches: list[dict[str, Any]]
    begun: dict[str, torch.Tensor]

    def training_iteration_local(self, i: int, batch: Any) -> dict[str, Any]:
        if not self.batches:
            self.begun.update({name: value.clone() for name, value in self.nn["model"].state_dict().items()})
        self.batches.append(batch)
        return super().training_iteration_local(i, batch)


def test_steps_that_a_user_takes_are_the_only_ones(tmp_path: Path) -> None:
    kind = type("Noting", (ByHand,), {"batches": [], "begun": {}})
    (report,) = alone(tmp_path, kind, epochs=2, batch_size=9)
    assert json.loads((tmp_path / "output" / SITE / "simulatorRun" / "tumours" / "fold_0" / "logs.json").read_text())
    assert len(kind.batches) == 8
    assert len(report["train_log"]) == 2
    network = Trainer._init_nn_model
    made = type("Bare", (), {"nn": {}, "cache": SPEC})()
    network(made)
    model = made.nn["model"]
    model.load_state_dict(kind.begun)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number, batch in enumerate(kind.batches, start=1):
        loss = functional.nll_loss(functional.log_softmax(model(batch["inputs"].float()), 1), batch["labels"].long())
        (loss + 0.01 * model.out.weight.square().sum()).backward()
        if number % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, model.state_dict()[name]), name


class Epochs(Trainer):
    """Looks at the end of each epoch, and divides the learning rate there."""

    ends: list[dict[str, Any]]

    def init_training_cache(self) -> None:
        super().init_training_cache()
        self.cache["begun"] = [*self.nn]

    def _on_epoch_end(self, ep: int, **kw: Any) -> Any:
        counts = {name: sum(kw[name].serialize()) for name in ("ep_metrics", "val_metrics")}
        mean = kw["ep_averages"].get()
        rate = self.optimizer["adam"].param_groups[0]["lr"]
        self.ends.append({"ep": ep, "loss": mean, "rate": rate, "begun": self.cache["begun"], **counts})
        self.optimizer["adam"].param_groups[0]["lr"] = rate / 2

    def on_iteration_end(self, i: int, ep: int, it: dict[str, Any]) -> Any:
        self.cache.setdefault("seen", []).append([ep, i])


@pytest.mark.parametrize("pretraining", [False, True])
def test_the_end_of_an_epoch_is_told_where_a_site_trains_alone(tmp_path: Path, pretraining: bool) -> None:
    kind = type("Noting", (Epochs,), {"ends": []})
    if pretraining:
        write_site(tmp_path / SITE / "in", 0, 60)
        options = {"pretrain_args": {"epochs": 3}}
        run = site_run(tmp_path, SITE, [SITE], code=UserCode(kind, Patients), epochs=1, options=options)
        train([run])
    else:
        (report,) = alone(tmp_path, kind, epochs=3)
        assert [end["loss"][0] for end in kind.ends] == [line[0] for line in report["train_log"]]
    assert [end["ep"] for end in kind.ends] == [1, 2, 3]
    assert [end["rate"] for end in kind.ends] == [0.01, 0.005, 0.0025]
    assert all((end["ep_metrics"], end["val_metrics"]) == (36, 12) for end in kind.ends)  # items
    assert kind.ends[0]["begun"] == ["model"]


def test_batches_of_pretraining_are_numbered_in_their_epochs(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    class Noting(Trainer):
        def on_iteration_end(self, i: int, ep: int, it: dict[str, Any]) -> Any:
            seen.append((ep, i))

    write_site(tmp_path / SITE / "in", 0, 40)
    options = {"pretrain_args": {"epochs": 2}}
    train([site_run(tmp_path, SITE, [SITE], code=UserCode(Noting, Patients), epochs=1, options=options)])
    assert seen == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (1, 1), (1, 2), (1, 3)]


def test_what_is_for_training_alone_is_not_called_where_sites_train_together(tmp_path: Path, caplog: Any) -> None:
    write_sites(tmp_path)
    kind = type("Both", (AsItIs, Epochs), {"ends": []})
    train([site_run(tmp_path, name, code=UserCode(kind, Patients), epochs=1) for name in SIZES])
    assert kind.ends == []
    named = "training_iteration_local, init_training_cache, _on_epoch_end of Both is not called"
    assert caplog.text.count(named) == len(SIZES)


class OwnLoop(Trainer):
    def train_local(self, train_dataset: Any, val_dataset: Any) -> Any:
        raise AssertionError("nobody calls this")


def test_a_loop_of_ones_own_is_refused_only_where_the_original_would_call_it(tmp_path: Path) -> None:
    write_sites(tmp_path)
    code = UserCode(OwnLoop, Patients)
    train([site_run(tmp_path, name, code=code, epochs=1) for name in SIZES])
    with pytest.raises(ConfigError, match=r"test_overrides.py:\d+: OwnLoop.train_local would not be called") as raised:
        site_run(tmp_path, SITE, code=code, options={"pretrain_args": {"epochs": 1}})
    assert "training_iteration_local" in str(raised.value)
    with pytest.raises(ConfigError, match=r"OwnLoop.train_local"):
        alone(tmp_path / "alone", OwnLoop)


def test_an_iteration_of_ones_own_that_returns_no_loss_is_named(tmp_path: Path) -> None:
    class Nothing(Trainer):
        def training_iteration_local(self, i: int, batch: Any) -> dict[str, Any]:
            return {}

    with pytest.raises(DataError, match="Nothing.training_iteration_local returned no loss"):
        alone(tmp_path, Nothing)


class Steps(Trainer):
    """Notes what each step was made of."""

    def reduce_iteration(self, its: Any) -> dict[str, Any]:
        if self.nn["model"].training:
            self.cache.setdefault("made", []).append(len(its))
        return {**super().reduce_iteration(its), "of": len(its)}

    def on_iteration_end(self, i: int, ep: int, it: dict[str, Any]) -> Any:
        items = sum(it["metrics"].serialize())
        self.cache.setdefault("ended", []).append([ep, i, it["of"], items, len(it["out"]())])


@pytest.mark.parametrize("pretraining", [False, True])
def test_batches_of_a_step_are_reduced_and_told_together(tmp_path: Path, pretraining: bool) -> None:
    write_site(tmp_path / SITE / "in", 0, 60)
    split = {"batch_size": 8, "local_iterations": 2, "split_ratio": [0.6, 0.2, 0.2]}  # 36 items: 5 batches
    lines = []
    for kind in (Trainer, Steps):
        options = {"pretrain_args": {"epochs": 2} if pretraining else {}}
        run = site_run(tmp_path, SITE, [SITE], code=UserCode(kind, Patients), epochs=2, options=options, **split)
        lines.append(train([run])[SITE]["train_log"])
    assert lines[0] == lines[1]
    assert run.cache["made"] == [2, 2, 1] * 2
    steps = [[1, 2, 16, 16], [2, 2, 16, 16], [3, 1, 4, 4]]
    assert run.cache["ended"] == [[epoch, *step] for epoch in (1, 2) for step in steps]


def test_a_step_that_is_interrupted_by_a_save_is_told_once(tmp_path: Path) -> None:
    """Saved after every step, and gone on with in another process, every batch is told of once."""
    ended = []
    for name, deaths in (("undisturbed", ()), ("disturbed", (3, 8))):
        folder = tmp_path / name
        write_sites(folder)
        code = UserCode(Steps, Patients)

        def made(site: str, folder: Path = folder, code: UserCode = code) -> SiteRun:
            options = {"folder": folder / site / "fold", "every_step": True}
            return site_run(folder, site, code=code, epochs=2, local_iterations=2, batch_size=6, options=options)

        for site in SIZES:
            (folder / site / "fold").mkdir()
        runs = {site: made(site) for site in SIZES}
        together = Together([run.participant() for run in runs.values()])
        to_the_end(together, runs, made, deaths)
        ended.append([run.cache["ended"] for run in runs.values()])
    assert ended[0] == ended[1]


def test_a_reduction_without_scores_is_named(tmp_path: Path) -> None:
    class Nothing(Trainer):
        def reduce_iteration(self, its: Any) -> dict[str, Any]:
            return {"loss": its[0]["loss"]}

    write_sites(tmp_path)
    with pytest.raises(DataError, match="Nothing.reduce_iteration returned no averages and metrics"):
        train([site_run(tmp_path, name, code=UserCode(Nothing, Patients), epochs=1) for name in SIZES])


class Frozen(Trainer):
    """Makes everything itself."""

    def init_nn(self, **kw: Any) -> None:
        super().init_nn(**kw)
        self.nn["model"].hidden.requires_grad_(False)
        torch.nn.init.ones_(self.nn["model"].hidden.weight)
        self.optimizer["adam"].param_groups[0]["lr"] = 0.02


def test_networks_may_be_made_in_a_way_of_ones_own(tmp_path: Path) -> None:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, code=UserCode(Frozen, Patients), epochs=1) for name in SIZES]
    train(runs)
    model = runs[1].trainer.nn["model"]
    assert torch.equal(model.hidden.weight, torch.ones_like(model.hidden.weight))
    assert runs[1].trainer.optimizer["adam"].param_groups[0]["lr"] == 0.02
    assert not torch.equal(model.out.bias, torch.zeros(2))  # it was trained


# --- learners and reducers --------------------------------------------------------------------------------------------


class Seldom(COINNLearner):
    """Sends its gradients in every second step."""

    def __init__(self, trainer: Any, mp_pool: Any, **kw: Any) -> None:
        super().__init__(trainer, mp_pool, **kw)
        assert self.pool.map(abs, [-1]) == [1]
        assert self.global_modes == {self.state["clientId"]: "train"}

    def to_reduce(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self.cache["sent"] = self.cache.get("sent", 0) + 1
        it, out = super().to_reduce()
        return it, {**out, "reduce": self.cache["sent"] % 2 == 0}

    def step(self) -> dict[str, Any]:
        self.cache["stepped"] = self.cache.get("stepped", 0) + 1
        assert "round" in self.input
        return super().step()


class Telling(Trainer):
    """Says something more to the reducer; names of arguments are its own."""

    def on_iteration_end(self, batch: int, epoch: int, its: dict[str, Any]) -> Any:
        return {"number": batch}


class Listening(COINNReducer):
    """Has the sites step when it was called an odd number of times."""

    def reduce(self) -> dict[str, Any]:
        assert {said["number"] % 2 for said in self.input.values()} == {0}
        self.cache["reduced"] = self.cache.get("reduced", 0) + 1
        return {**super().reduce(), "update": self.cache["reduced"] % 2 == 1, "round": self.cache["reduced"]}


def test_sites_step_where_all_send_and_the_reducer_says_so(tmp_path: Path, caplog: Any) -> None:
    sites = dict.fromkeys(SIZES, 40)
    write_sites(tmp_path, sites)
    code = UserCode(Telling, Patients, learner=Seldom)
    spec = {"batch_size": 6, "epochs": 2, "split_ratio": [0.6, 0.2, 0.2], "agg_engine": "mine"}
    runs = [site_run(tmp_path, name, code=code, options={"reduced": True}, **spec) for name in sites]
    remote = train_with(runs, Listening)
    steps = 2 * 4  # epochs of four batches
    assert len(remote.asked) == steps
    assert remote.trainer.cache["reduced"] == steps // 2
    assert [run.cache["stepped"] for run in runs] == [steps // 4] * 3
    assert torch.equal(final(runs[0]), final(runs[2]))
    assert "no step was taken" not in caplog.text


class Silent(COINNReducer):
    def reduce(self) -> dict[str, Any]:
        return {}


def test_an_epoch_in_which_nothing_was_learned_is_told(tmp_path: Path, caplog: Any) -> None:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, options={"reduced": True}, epochs=1) for name in SIZES]
    train_with(runs, Silent)
    assert "site local0: no step was taken in this epoch" in caplog.text


# --- nodes ------------------------------------------------------------------------------------------------------------


class Stopping(COINNRemote):
    def _stop_early(self, **kw: Any) -> bool:
        return True


class Beginning(COINNLocal):
    def _next_run(self, trainer: Any) -> Any:
        return {}


@pytest.mark.parametrize(
    ("kind", "given", "message", "hint"),
    [
        (Stopping, {SITE: {"phase": "init_runs", "shared_args": {}}}, "Stopping._stop_early", "patience"),
        (Beginning, {"mode": "train"}, "Beginning._next_run", "prepare_data"),
    ],
)
def test_a_node_that_decides_otherwise_is_refused_with_what_to_do(
    tmp_path: Path, kind: Any, given: Any, message: str, hint: str
) -> None:
    state = {f"{name}Directory": str(tmp_path / name) for name in ("base", "output", "cache", "transfer")}
    node = kind(cache={}, input=given, state={**state, "clientId": SITE})
    with pytest.raises(ConfigError, match=f"{message} would not be called") as raised:
        node.compute(Trainer, Patients)
    assert hint in str(raised.value)


SCRIPT = """
from weft.interop.coinstac import COINNDataHandle, COINNRemote


class Remote(COINNRemote):
    def _on_run_end(self, trainer):
        pass


class Handle(COINNDataHandle):
    def next_iter(self, *args, **kw):
        pass
"""


def test_methods_in_a_script_that_is_no_module_are_named_with_their_file(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    names = runpy.run_path(str(tmp_path / "script.py"), run_name="script")
    with pytest.raises(ConfigError, match=r"script\.py:6: Remote\._on_run_end would not be called"):
        require_called(names["Remote"], COINNRemote, REMOTE)
    with pytest.raises(UsageError, match=r"Handle has a next_iter of its own"):
        require_plain_loading(names["Handle"])


class Choosing(COINNLocal):
    def _get_learner_cls(self, learner_cls: Any) -> Any:
        return Seldom if self.cache["agg_engine"] == "mine" else super()._get_learner_cls(learner_cls)


class ChoosingRemote(COINNRemote):
    def _get_reducer_cls(self, reducer_cls: Any) -> Any:
        return Listening


def test_nodes_may_choose_learner_and_reducer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weft.interop.coinstac import remotes, sites

    chosen: list[Any] = []
    monkeypatch.setattr(sites.SiteCalls, "init_runs", lambda self: chosen.append(self.code.learner))
    monkeypatch.setattr(remotes.RemoteCalls, "init_runs", lambda self: chosen.append(self.reducer))
    state = {f"{name}Directory": str(tmp_path / name) for name in ("base", "output", "cache", "transfer")}
    state["clientId"] = SITE
    Choosing(cache={}, input={"mode": "train", "agg_engine": "mine"}, state=state).compute(Trainer, Patients)
    told = {SITE: {"phase": "init_runs", "shared_args": {}}}
    ChoosingRemote(cache={}, input=told, state={**state, "clientId": "remote"}).compute(Trainer)
    assert chosen == [Seldom, Listening]
