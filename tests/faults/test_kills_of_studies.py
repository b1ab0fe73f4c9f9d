"""Studies that are killed at any write of any file, and go on to the same bits."""

from __future__ import annotations

import copy
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.nursery import Nursery
from tests.faults.runs import BASE, PATCH
from tests.federated.lab import outcome

EVERY = 5  # the writes of which one is tried; each moment begins with another one
STRATEGIES: dict[str, Any] = {
    "synced": {"PowerSGD": {"rank": 1}},
    "renamed": {"SCAFFOLD": {"steps_per_round": 2}},
}


def write_study(folder: Path, strategy: Any) -> Path:
    """Three sites of unlike size."""
    written = copy.deepcopy(BASE)
    shared = written["dataset"].pop("class")
    site = {name: {**shared, "train": {"Noisy": {"items": items}}} for name, items in (("a", 22), ("b", 14), ("c", 17))}
    written["training"] |= {"epochs": 2, "ema": {"decay": 0.8}}
    written["federation"] = {
        "strategy": strategy,
        "sites": {name: {"class": sources} for name, sources in site.items()},
    }
    shutil.copy(PATCH, folder / "patch.py")
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(written))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("moment", STRATEGIES)
def test_a_kill_at_any_write_of_any_file_of_a_study_costs_nothing(
    moment: str, nursery: Nursery, tmp_path: Path
) -> None:
    file = write_study(tmp_path, STRATEGIES[moment])
    undisturbed = nursery.weft("federate", "simulate", file, "--out", tmp_path / "alone")
    assert undisturbed.code == 0, undisturbed.text
    expected = outcome(tmp_path / "alone")
    count, kills, begun_again = list(STRATEGIES).index(moment), 0, 0
    while True:
        count += EVERY
        study = tmp_path / f"study-{count}"
        ended = nursery.weft("federate", "simulate", file, "--out", study, trap={"at": moment, "count": count})
        if ended.code == 0:
            break  # it was over before so many files were written
        assert ended.code == -signal.SIGKILL, ended.text
        kills += 1
        resumed = nursery.weft("federate", "simulate", "--resume", study)
        if resumed.code != 0:  # killed before it had anything to go on from
            assert "begin it with weft federate simulate" in resumed.err or "no run has begun" in resumed.err, ended.err
            begun_again += 1
            resumed = nursery.weft("federate", "simulate", file, "--out", study, "--resume")
        assert resumed.code == 0, f"{count}: {resumed.text}"
        assert outcome(study) == expected, count
        assert (study / "report.html").exists()
        assert all((study / "sites" / site / "report.html").exists() for site in "abc")
        shutil.rmtree(study)
    assert kills - begun_again > 10
