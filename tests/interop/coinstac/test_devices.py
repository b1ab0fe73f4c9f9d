"""Where a site computes. On a CPU `DataParallel` hands batches on whole; that they are divided is shown by the last
test alone, which needs two GPUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.interop.coinstac.tables import SIZES, Patients, Trainer, alive_and_revived, site_run, train, write_sites
from weft.errors import ConfigError
from weft.interop.coinstac import running
from weft.interop.coinstac.running import SiteRun, UserCode


class Looking(Trainer):
    """Notes what it trains with."""

    seen: list[tuple[str, bool]] = []

    def iteration(self, batch: Any) -> dict[str, Any]:
        network = self.nn["model"]
        within = network.module if isinstance(network, torch.nn.DataParallel) else network
        assert network.training == within.training
        type(self).seen.append((type(network).__name__, network.training))
        return super().iteration(batch)

    def _init_optimizer(self) -> None:
        self.optimizer["sgd"] = torch.optim.SGD(self.nn["model"].hidden.parameters(), lr=0.1)


def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with two GPUs, as far as a site without any can be."""
    monkeypatch.setattr(running, "gpus_of", lambda cache, site: [0, 1] if site == "local1" else [])
    monkeypatch.setattr(running, "device_of", lambda gpus: torch.device("cpu"))


def outcome(run: SiteRun) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.run.state.model.state_dict().items()} if run.run else {}


def test_a_site_with_several_gpus_trains_the_model_of_those_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = UserCode(Looking, Patients)
    write_sites(tmp_path / "one")
    plain = [site_run(tmp_path / "one", name, code=code) for name in SIZES]
    train(plain)
    several(monkeypatch)
    Looking.seen.clear()
    write_sites(tmp_path / "two")
    spread = [site_run(tmp_path / "two", name, code=code) for name in SIZES]
    train(spread)
    assert set(Looking.seen) == {(kind, mode) for kind in ("Net", "Spread") for mode in (True, False)}
    for one, other in zip(plain, spread, strict=True):
        for (name, before), (same, after) in zip(outcome(one).items(), outcome(other).items(), strict=True):
            assert name == same
            assert torch.equal(before, after)
    spread[1].trainer.save_checkpoint(tmp_path / "of_two.pt")
    assert [*torch.load(tmp_path / "of_two.pt", weights_only=True)["models"]["model"]] == [
        name.removeprefix("networks.model.") for name in outcome(plain[0])
    ]
    plain[0].trainer.load_checkpoint(tmp_path / "of_two.pt")
    spread[1].trainer.load_checkpoint(tmp_path / "of_two.pt")


def test_a_site_with_several_gpus_that_dies_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several(monkeypatch)
    write_sites(tmp_path)
    found = [outcome(run) for run in alive_and_revived(tmp_path, UserCode(Looking, Patients), [9, 20])]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_rank_dad_on_several_gpus_is_refused_with_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several(monkeypatch)
    write_sites(tmp_path)
    for spec in ({}, {"precision_bits": 16}):
        runs = [site_run(tmp_path, name, agg_engine="rankDAD", **spec) for name in SIZES]
        with pytest.raises(ConfigError, match=r"gpus is \[0, 1\], but rankDAD .* in one piece") as raised:
            train(runs)
        assert "write gpus: [0]" in str(raised.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_a_site_computes_on_the_cpu_and_says_so_once(tmp_path: Path, caplog: Any) -> None:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, gpus=[0] if name == "local0" else None, epochs=1) for name in SIZES]
    report = train(runs)["local0"]
    assert runs[0].trainer.device["gpu"].type == "cpu"
    assert caplog.text.count("site local0: gpus is [0], but there is no CUDA device: it computes on the CPU") == 1
    assert caplog.text.count("there is no CUDA device") == 1
    assert report["test_metrics"]


def test_a_gpu_that_there_is_not_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    write_sites(tmp_path)
    with pytest.raises(ConfigError, match=r"gpus is \[0, 2\], but site local0 has 2") as raised:
        site_run(tmp_path, "local0", gpus=[0, 2])
    assert "known are: 0, 1" in str(raised.value)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_give_what_one_gives_up_to_rounding(tmp_path: Path) -> None:
    found = []
    for gpus in ([0], [0, 1]):
        folder = tmp_path / f"on{len(gpus)}"
        write_sites(folder)
        runs = [site_run(folder, name, gpus=gpus) for name in SIZES]
        train(runs)
        found.append(outcome(runs[0]))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-5)
