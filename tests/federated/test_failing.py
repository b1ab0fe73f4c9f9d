"""Where a site fails it is named, and a study that was killed before it trained can begin again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.engine.studies import share
from tests.federated.lab import Rows, outcome, study
from weft.engine import Participant
from weft.engine.collectives import Sum
from weft.engine.seeding import random_state
from weft.engine.state import Position
from weft.errors import ConfigError, DataError, RunDirectoryError
from weft.federated.evaluating import evaluate
from weft.federated.failing import SitesTogether
from weft.federated.study import simulate


class BrokenRows(Rows):
    """Rows of which one cannot be read.

    Args:
        start, stop: which.
        broken: the number of that one; none by default.
        error: the name of what is raised.
    """

    def __init__(self, start: int, stop: int, broken: int = -1) -> None:
        super().__init__(start, stop)
        self.broken = broken

    def __getitem__(self, row: int) -> tuple[Any, int]:
        if row == self.broken:
            raise ValueError("this scan is damaged")
        return super().__getitem__(row)


def dying_share(start: int, stop: int, alive: str) -> Any:
    """A share of the table; the process dies in reading it while a file is not there."""
    if not Path(alive).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return share(start, stop)


def sites(**broken: int) -> dict[str, Any]:
    """Sites with classes of the user's own, some of which have an item that cannot be read."""
    bounds = {"north": (0, 40), "south": (40, 90), "west": (90, 150)}
    where = "tests.federated.test_failing.BrokenRows"
    return {
        name: {"class": {where: {"start": start, "stop": stop, "broken": broken.get(name, -1)}}}
        for name, (start, stop) in bounds.items()
    }


def test_an_item_that_cannot_be_loaded_is_told_with_its_site(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^site south: item cannot be loaded: BrokenRows item 7: ValueError"):
        simulate(study(sites(south=7)), out=tmp_path / "study")


def test_what_cannot_be_loaded_in_testing_is_told_with_its_site(tmp_path: Path) -> None:
    done = simulate(study(sites(), training__epochs=1), out=tmp_path / "study")
    with pytest.raises(DataError, match=r"^site west: item cannot be loaded"):
        evaluate(study(sites(west=3)), weights=done.path / "model.safetensors", out=tmp_path / "tested")


def test_a_setting_that_does_not_fit_one_site_is_told_with_its_place_and_that_site(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"  # west has 43 training items: with batches of 7 one is left
    model = {"tests.engine.studies.DoubleNet": {"batch_norm": True}}
    file.write_text(yaml.safe_dump(study(model=model, training__batch_size=7)))
    with pytest.raises(ConfigError, match=r"study.yaml:\d+:\d+: training.batch_size: site west: .* one item"):
        simulate(file, out=tmp_path / "study")


def test_a_mistake_that_all_sites_share_names_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        simulate(study(model={"MLP": {"in_features": 30, "out_features": 2, "hiden": [3]}}), out=tmp_path / "study")
    assert "site " not in caught.value.message


def _site(name: str, error: Exception) -> Participant:
    def steps() -> Iterator[Sum]:
        yield Sum("x", [torch.ones(2)])
        raise error

    return Participant(name, steps, Position, random_state())  # type: ignore[arg-type]


def test_an_error_of_a_users_program_has_the_site_as_a_note() -> None:
    def steps() -> Iterator[Sum]:
        yield Sum("x", [torch.ones(2)])
        yield Sum("y", [torch.ones(2)])

    sound = Participant("east", steps, Position, random_state())  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="no such batch") as caught:
        SitesTogether([sound, _site("south", KeyError("no such batch")), _site("west", KeyError("nor here"))]).run()
    assert caught.value.__notes__ == ["at site south"]


def test_an_error_that_all_sites_have_names_none() -> None:
    with pytest.raises(DataError, match="^too few") as caught:
        SitesTogether([_site(name, DataError("too few", "get more")) for name in ("east", "west")]).run()
    assert caught.value.message == "too few"


@pytest.mark.parametrize("scenario", [None, {"events": [{"site": "west", "event": "slow", "seconds": 1, "step": 2}]}])
def test_a_study_killed_before_it_trained_begins_again_by_the_same_command(
    scenario: dict[str, Any] | None, tmp_path: Path
) -> None:
    out, alive = tmp_path / "study", tmp_path / "alive"
    written = study(training__epochs=1)
    west = written["federation"]["sites"]["west"]["arrays"]
    (arguments,) = west.values()
    west.clear()
    west["tests.federated.test_failing.dying_share"] = {**arguments, "alive": str(alive)}
    child = os.fork()
    if child == 0:
        try:
            simulate(written, out=out, scenario=scenario)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert any(out.rglob("*.lock"))
    alive.touch()
    with pytest.raises(RunDirectoryError, match=r"already holds a run\n.*--resume"):
        simulate(written, out=out)
    done = simulate(written, out=out, resume=True)
    assert outcome(done.path) == outcome(simulate(written, out=tmp_path / "undisturbed").path)


def test_a_study_killed_before_its_report_was_written_gets_it_when_it_goes_on(tmp_path: Path) -> None:
    done = simulate(study(training__epochs=1), out=tmp_path / "study")
    report, result = done.path / "report.html", done.path / "result.json"
    report.unlink()
    before = result.stat()
    simulate(done.path, resume=True)
    assert report.exists()
    assert result.stat() == before
