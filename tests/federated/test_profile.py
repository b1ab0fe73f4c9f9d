"""The live profile of a study: what is counted, that it changes nothing, and that it goes on after a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from tests.federated.lab import SIZES, outcome, simulate_and_die, study
from weft.cli.app import app
from weft.engine import Collective, Epoch, Participant, RunResult, Start, Step, Sum, Together
from weft.engine.collectives import Answer
from weft.engine.seeding import random_state
from weft.engine.state import Position
from weft.federated.evaluating import evaluate
from weft.federated.profile import Profile, Spent
from weft.federated.study import simulate
from weft.monitor import ProgressBar
from weft.runs import RunDirectory, read_rows

pytest.importorskip("sklearn")


def _working(seconds: float, turns: int) -> Generator[Collective, Answer, RunResult]:
    """What a site does that computes so long before every message."""
    for _ in range(turns):
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            pass
        yield Sum("control", [torch.zeros(2)])
    return RunResult("finished", 1, turns, 0.0)


def test_early_sites_wait_for_the_slowest_of_each_turn(tmp_path: Path) -> None:
    profile = Profile(RunDirectory(tmp_path), ["fast", "slow"])
    start = {"fast": lambda: _working(0.002, 10), "slow": lambda: _working(0.01, 10)}
    wound = {name: profile.sites[name].timed(steps) for name, steps in start.items()}
    participants = [Participant(name, steps, Position, random_state()) for name, steps in wound.items()]
    Together(participants).run()
    profile.turn_over()
    fast, slow = (profile.sites[name].spent for name in ("fast", "slow"))
    assert fast.computing >= 10 * 0.002
    assert slow.computing >= 10 * 0.01
    # each turn lasts as long as its slowest: both sites account for the same time
    assert fast.computing + fast.waiting == pytest.approx(slow.computing + slow.waiting, abs=1e-9)


class _Clock:
    """A clock that goes on only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    process_time = perf_counter


def _played(monkeypatch: pytest.MonkeyPatch, folder: Path, work: dict[str, list[tuple[str, float]]]) -> Profile:
    """A profile of sites that take so long before they ask so, with a row for each time that they ask for `epoch`."""
    clock = _Clock()
    monkeypatch.setattr("weft.federated.profile.time", clock)
    profile = Profile(RunDirectory(folder), list(work))

    def steps(name: str) -> Generator[Collective, Answer, RunResult]:
        for tag, seconds in work[name]:
            clock.now += seconds
            with profile.sites[name].not_its_own():
                clock.now += 5.0 * (name == "first")  # it is the one that the study's observers hear
            if tag == "epoch":
                profile.sites[name].due = "epoch"
            yield Sum(tag, [torch.zeros(2)])
        return RunResult("finished", 1, 1, 0.0)

    monkeypatch.setattr("weft.federated.profile.SiteClock.run", _NoRun)
    wound = {name: profile.sites[name].timed(lambda name=name: steps(name)) for name in work}  # type: ignore[misc]
    Together([Participant(name, start, Position, random_state()) for name, start in wound.items()]).run()
    profile.turn_over()
    return profile


class _NoRun:
    class state:
        beside: dict[str, int] = {}


@pytest.mark.parametrize("later", ["control", "epoch"])
def test_what_only_the_first_site_pays_is_told_apart(
    later: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns that begin an exchange of each kind take the first site 3 s longer, later ones do not."""
    kinds = ["weights", *["control", later] * 3]
    own = {"first": 0.25, "second": 0.5}
    work = {name: [(tag, seconds) for tag in kinds] for name, seconds in own.items()}
    work["first"][2] = (kinds[2], 3.25)  # the first time that it comes from control to what is later
    profile = _played(monkeypatch, tmp_path, work)
    written = list(read_rows(tmp_path / "profile.csv")) if later == "epoch" else []
    totals = {
        name: {
            key: sum(float(row[key]) for row in written if row["site"] == name)
            + getattr(profile.sites[name].spent, key)
            for key in ("computing", "waiting", "startup")
        }
        for name in own
    }
    assert totals["first"] == pytest.approx({"computing": 7 * 0.25, "waiting": 7 * 0.25, "startup": 3.0})
    assert totals["second"] == pytest.approx({"computing": 7 * 0.5, "waiting": 0.0, "startup": 0.0})


def test_a_failure_reaches_what_the_clock_is_wound_around() -> None:
    seen: list[BaseException] = []

    def steps() -> Generator[Collective, Answer, RunResult]:
        try:
            yield Sum("control", [torch.zeros(1)])
        except ValueError as error:
            seen.append(error)
            raise
        raise AssertionError

    clock = Profile(RunDirectory(Path("unused")), ["only"]).sites["only"]
    wound = clock.timed(steps)()
    next(wound)
    with pytest.raises(ValueError, match="it failed"):
        wound.throw(ValueError("it failed"))
    assert len(seen) == 1
    again = clock.timed(steps)()
    next(again)
    again.close()  # a generator that is closed sees no error


def test_a_row_per_site_and_epoch_with_the_counts_of_the_result(tmp_path: Path) -> None:
    done = simulate(study(), out=tmp_path / "study")
    rows = list(read_rows(done.path / "profile.csv"))
    for name in SIZES:
        own = [row for row in rows if row["site"] == name]
        assert [(row["part"], row["epoch"]) for row in own] == [
            ("opening", 0), ("epoch", 1), ("epoch", 2), ("epoch", 3), ("end", 3),
        ]  # fmt: skip
        told = done.result["sites"][name]
        assert sum(int(row["items"]) for row in own) == told["trained"]["items"]
        assert sum(int(row["sent"]) for row in own) == told["bytes"]["sent"]
        kinds = told["bytes"]["by_kind"]
        assert set(kinds) == {"opening", "control", "gradients", "scores", "epoch"}
        assert sum(int(row["messages"]) for row in own) == sum(kind["messages"] for kind in kinds.values())
        parameters = 8 * sum(value.numel() for value in _weights(done.path).values())
        assert {row["model_bytes"] for row in own} == {parameters}
        assert own[-1]["optimizer_bytes"] == parameters  # one momentum per parameter
        # the largest exchange is asked and answered
        assert all(int(row["journal_bytes"]) >= 2 * parameters for row in own)
        assert all(float(row["computing"]) > 0 <= float(row["waiting"]) for row in own)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path / "model.safetensors")


@pytest.mark.slow
def test_after_a_kill_no_epoch_is_told_twice_and_all_bytes_once(tmp_path: Path) -> None:
    undisturbed = simulate(study(), out=tmp_path / "whole")
    out = tmp_path / "killed"
    simulate_and_die(study(), out, "south", 2)
    done = simulate(out, ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)
    rows = list(read_rows(out / "profile.csv"))
    for name in SIZES:
        own = [row for row in rows if row["site"] == name]
        assert [row["epoch"] for row in own if row["part"] == "epoch"] == [1, 2, 3]
        assert sum(int(row["sent"]) for row in own) == undisturbed.result["sites"][name]["bytes"]["sent"]
        assert sum(int(row["items"]) for row in own) == undisturbed.result["sites"][name]["trained"]["items"]
        texts = [(path / "sites" / name / "own.csv").read_text() for path in (out, undisturbed.path)]
        assert texts[0] == texts[1]


def test_what_a_site_did_before_it_dropped_out_is_counted_when_it_is_back(tmp_path: Path) -> None:
    faults = {"events": [{"site": "north", "event": "leaves", "step": 5, "returns": 9}]}
    done = simulate(study(), out=tmp_path / "study", scenario=faults)
    north = done.result["sites"]["north"]
    epoch = north["items"]["train"]
    # all of the first epoch, in which it had four batches; what it comes back to of the second; all of the third
    assert north["trained"]["items"] == epoch + (epoch - 8) + epoch
    others = done.result["sites"]["south"]["bytes"]["by_kind"]["opening"]
    assert north["bytes"]["by_kind"]["opening"]["messages"] == others["messages"] > 0
    rows = [row for row in read_rows(done.path / "profile.csv") if row["site"] == "north"]
    for part in ("sent", "received"):
        assert sum(int(row[part]) for row in rows) == north["bytes"][part]
    assert sum(int(row["items"]) for row in rows) == north["trained"]["items"]
    assert [row["part"] for row in rows].count("opening") == 1


def test_a_terminal_shows_the_sites_below_the_progress_and_a_log_does_not(tmp_path: Path) -> None:
    shown = {}
    for terminal in (True, False):
        stream = StringIO()
        profile = Profile(RunDirectory(tmp_path / str(terminal)), [*SIZES])
        (tmp_path / str(terminal)).mkdir()
        for name, clock in profile.sites.items():
            clock.total = Spent(computing=61.0, waiting=2.0, messages=3, sent=len(name) * 2**20)
        console = Console(file=stream, force_terminal=terminal, width=100)
        bar = ProgressBar(console, beside=profile.table)
        start = Start(None, "tumours", 2, 4, 0, 0, 10, "cpu", "loss")
        bar.on_start(start)
        bar.on_step(Step(0, 1, 1, 4, 8, 0.5, 0.1))
        bar.on_epoch(Epoch(0, 4, {"epoch": 1, "step": 4, "train_loss": 0.5}, improved=True, best=0.5))
        bar.on_end(RunResult("finished", 1, 4, 1.0))
        shown[terminal] = stream.getvalue()
    assert "1:01 min" in shown[True]
    assert "5 MiB" in shown[True]  # that north has sent
    assert "computing" not in shown[False]


def test_where_a_site_has_no_items_there_is_no_loss(tmp_path: Path) -> None:
    done = simulate(study(), out=tmp_path / "study")
    told = done.result["sites"]
    for name in SIZES:
        steps = list(read_rows(done.path / "sites" / name / "steps.csv"))
        losses = [float(row["loss"]) for row in steps if "loss" in row]
        assert len(steps) == done.result["steps"]  # every step is logged
        assert len(losses) == told[name]["trained"]["steps"]
        assert min(losses) > 0


def test_the_command_shows_a_study_also_before_its_end(tmp_path: Path) -> None:
    done = simulate(study(training__epochs=1), out=tmp_path / "study")
    (done.path / "result.json").unlink()  # as while it runs
    shown = CliRunner().invoke(app, ["federate", "profile", str(done.path)])
    assert shown.exit_code == 0, shown.output
    for word in (*SIZES, "Computing", "Waiting", "Sent", "Model", "Largest exchange"):
        assert word in shown.output
    told = CliRunner().invoke(app, ["federate", "profile", str(done.path), "--json"])
    sites = json.loads(told.stdout)["sites"]
    assert set(sites) == set(SIZES)
    assert sites["north"]["sent"] == done.result["sites"]["north"]["bytes"]["sent"]
    refused = CliRunner().invoke(app, ["federate", "profile", str(done.path / "sites" / "north")])
    assert refused.exit_code != 0
    tested = evaluate(done.path, splits=["test"], out=tmp_path / "tested")
    refused = CliRunner().invoke(app, ["federate", "profile", str(tested.path)])
    assert "nothing was trained there" in str(refused.exception)
