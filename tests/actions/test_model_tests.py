"""`weft test-model` passes sound networks and names what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import weft
from tests.actions.check_projects import KINDS, clean_project
from tests.actions.test_check import columns, experiment, own_model, tables
from weft.actions import test_model as examine_model
from weft.actions.checking import ModelReport
from weft.errors import UsageError

NAMES = [
    "finite parameters",
    "output shapes",
    "gradients reach every parameter",
    "every input is used",
    "same output alone and in a batch",
    "evaluation is deterministic",
    "overfits a batch",
    "save and load",
    "bf16 is finite",
    "fp16 is finite",
]


def statuses(report: ModelReport) -> dict[str, str]:
    """Test to status."""
    return {test.name: test.status for test in report.tests}


def failed(report: ModelReport) -> list[str]:
    """Names of the tests that failed; each says what to do."""
    assert all(test.message for test in report.tests)
    assert all(test.remedy for test in report.tests if test.status == "failed")
    return [test.name for test in report.tests if test.status == "failed"]


def report_on(folder: Path, forward: str, init: str = "") -> ModelReport:
    """The report on an own model of two layers, `first` and `last`."""
    tables(folder)
    return examine_model(experiment(folder, **own_model(folder, forward, init)), seconds=1.0)


@pytest.mark.parametrize("kind", list(KINDS))
def test_sound_networks_pass(tmp_path: Path, kind: str) -> None:
    report = examine_model(clean_project(tmp_path, list(KINDS).index(kind)))
    assert failed(report) == []
    assert list(statuses(report)) == NAMES
    assert report.ok


def test_a_task_with_several_networks_is_tested_as_far_as_it_can_be() -> None:
    pytest.importorskip("sklearn")
    report = examine_model(Path(__file__).parents[2] / "examples" / "gan" / "digits_gan.yaml")
    assert failed(report) == []
    assert statuses(report)["overfits a batch"] == "skipped"


def test_a_parameter_that_is_not_finite_is_named(tmp_path: Path) -> None:
    report = report_on(
        tmp_path, "return self.last(self.first(x))", "self.register_buffer('scale', torch.tensor(float('nan')))"
    )
    assert failed(report) == ["finite parameters"]
    assert "scale" in report.tests[0].message


def test_samples_that_mix_are_found(tmp_path: Path) -> None:
    report = report_on(tmp_path, "return self.last(self.first(x - x.mean(0)).relu())")
    assert failed(report) == ["same output alone and in a batch"]


def test_chance_in_evaluation_is_found(tmp_path: Path) -> None:
    report = report_on(tmp_path, "return self.last(nn.functional.dropout(self.first(x), 0.5))")
    assert "evaluation is deterministic" in failed(report)


def test_buffers_that_evaluation_changes_are_found(tmp_path: Path) -> None:
    report = report_on(
        tmp_path,
        "self.seen += len(x); return self.last(self.first(x).relu())",
        "self.register_buffer('seen', torch.zeros(()))",
    )
    assert "evaluation is deterministic" in failed(report)
    told = next(test.message for test in report.tests if test.name == "evaluation is deterministic")
    assert "seen" in told


def test_layers_that_no_gradient_reaches_are_named(tmp_path: Path) -> None:
    report = report_on(tmp_path, "return self.last(self.first(x).detach())")
    assert failed(report) == ["gradients reach every parameter"]
    assert "first.weight" in next(test.message for test in report.tests if test.status == "failed")


def test_state_that_is_not_saved_is_found(tmp_path: Path) -> None:
    report = report_on(tmp_path, "return self.last(self.first(x) * self.mask)", "self.mask = torch.rand(16)")
    assert failed(report) == ["save and load"]


def test_numbers_beyond_float16_are_found(tmp_path: Path) -> None:
    report = report_on(tmp_path, "return self.last(self.first(x * 1e6) * 1e2) * 1e-8")
    assert failed(report) == ["fp16 is finite"]


def test_a_model_that_cannot_be_called_fails_with_the_error(tmp_path: Path) -> None:
    report = report_on(tmp_path, "return self.last(self.first(x))", "self.last = nn.Linear(15, 3)")
    assert not report.ok
    assert "output shapes" in failed(report)


def test_nothing_is_changed(tmp_path: Path) -> None:
    file = clean_project(tmp_path, 0)
    before, state = sorted(tmp_path.rglob("*")), torch.get_rng_state()
    assert examine_model(file).ok
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_tested_with_its_weights(tmp_path: Path) -> None:
    tables(tmp_path, columns(0), columns(1))
    run = weft.train(experiment(tmp_path), ["run.progress=false", "run.tensorboard=false"], out=tmp_path / "run")
    report = examine_model(run.path)
    assert failed(report) == []
    weights = load_file(run.path / "model.safetensors")
    weights["layers.0.weight"][0, 0] = float("inf")
    save_file(weights, run.path / "model.safetensors")
    report = examine_model(run.path)
    assert "finite parameters" in failed(report)
    assert "layers.0.weight" in report.tests[0].message
    assert json.loads(json.dumps(report.as_dict()))["ok"] is False
    (run.path / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"no model\.safetensors"):
        examine_model(run.path)
