"""The site with most items may train alone first; all begin with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.interop.coinstac.tables import SIZES, Patients, Trainer, site_run, train, write_sites
from weft.engine import Together
from weft.interop.coinstac.running import SiteRun, UserCode


class Noted(Trainer):
    """Notes where each batch was trained on, and with which rate."""

    noted: list[tuple[str, float]]

    def _init_optimizer(self) -> None:
        super()._init_optimizer()
        self.noted.append((self.state["clientId"], self.cache["learning_rate"]))


def run_of(place: Path, name: str, code: UserCode, **options: Any) -> SiteRun:
    further = {"pretrain_args": {"epochs": 4, "learning_rate": 0.03}, **options}
    return site_run(place, name, code=code, epochs=1, options=further)


def noting() -> type[Noted]:
    return type("Noting", (Noted,), {"noted": []})


def test_the_largest_site_alone_pretrains_with_its_arguments(tmp_path: Path) -> None:
    write_sites(tmp_path)
    kind = noting()
    runs = [run_of(tmp_path, name, UserCode(kind, Patients)) for name in SIZES]
    with_it = train(runs)
    assert all(torch.equal(run.trainer.nn["model"].out.bias, runs[0].trainer.nn["model"].out.bias) for run in runs)
    without = train([site_run(tmp_path, name, epochs=1) for name in SIZES])
    assert [site for site, rate in kind.noted if rate == 0.03] == ["local1"]
    assert sorted(site for site, rate in kind.noted if rate == 0.01) == [*SIZES]
    assert with_it["local0"]["train_log"][0][0] < without["local0"]["train_log"][0][0]
    assert len(with_it["local0"]["train_log"]) == 1


def test_a_new_process_finds_the_pretrained_weights_again(tmp_path: Path) -> None:
    ends = []
    for label, dies in (("undisturbed", False), ("disturbed", True)):
        folder = tmp_path / label
        write_sites(folder)
        kind = noting()
        code = UserCode(kind, Patients)
        runs = {}
        for name in SIZES:
            (folder / name / "fold").mkdir()
            runs[name] = run_of(folder, name, code, folder=folder / name / "fold", every_step=True)
        together = Together([run.participant() for run in runs.values()])
        turns = 0
        while together.turn():
            turns += 1
            if dies and turns in (2, 3):  # its pretrained weights are asked for; then they are everybody's
                journal = together.participants[1].journal
                together.participants[1].die()
                runs["local1"] = run_of(folder, "local1", code, folder=folder / "local1" / "fold", every_step=True)
                together.participants[1] = runs["local1"].participant()
                together.participants[1].journal = journal
                together.restart("local1")
        assert [site for site, rate in kind.noted if rate == 0.03] == ["local1"]
        networks = [run.trainer.nn["model"] for run in runs.values()]
        ends.append([torch.cat([one.detach().flatten() for one in network.parameters()]) for network in networks])
    assert all(torch.equal(first, second) for first, second in zip(*ends, strict=True))
