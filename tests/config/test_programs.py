"""Classes of the running program: named in what is stored so that later processes find them again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from weft.actions import evaluate, reproduce, resume
from weft.config import load_experiment
from weft.errors import ConfigError

OWN = """\
import torch
from torch import nn

import weft


class Own(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(30, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, inputs):
        return self.layers(inputs)


def own_rows(count: int = 64):
    inputs = torch.linspace(-1, 1, 30 * count).reshape(count, 30).sin()
    return inputs, (inputs.sum(1) > 0).long()


def own_loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)


experiment = weft.Experiment(
    name="own",
    dataset={
        "arrays": {own_rows: {}},
        "standardize": True,
        "split": {"ratio": [0.6, 0.2, 0.2]},
    },
    model={Own: {"width": 8}},
    training={"task": "classification", "epochs": 1, "batch_size": 32, "loss": own_loss},
    run={"device": "cpu", "progress": False, "tensorboard": False},
)

"""
TRAINED = 'weft.train(experiment, out="runs/own")\n'
GUARD = 'if __name__ == "__main__":\n    '


def run_python(folder: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, input=stdin)


def test_a_run_of_a_programs_own_classes_is_evaluated_and_reproduced_by_other_processes(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN + GUARD + TRAINED)
    done = run_python(tmp_path, "own.py")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "own"
    stored = (run / "experiment.yaml").read_text()
    assert "  Own: {width: 8}" in stored
    assert "loss: own_loss" in stored
    assert "patches: [own.py]" in stored
    (tmp_path / "own.py").unlink()  # the run keeps what it needs
    scores = evaluate(run)["scores"]
    assert scores == resume(run).scores
    assert reproduce(run, out=tmp_path / "again").identical


@pytest.mark.parametrize("command", [("own.py",), ("-m", "weft", "train", "own.py")])
def test_a_program_that_trains_whenever_it_is_loaded_is_told_so_once(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "own.py").write_text(OWN + TRAINED)
    done = run_python(tmp_path, *command)
    assert done.returncode != 0
    assert f"own.py:{OWN.count(chr(10)) + 1}: runs `{TRAINED.strip()}` whenever it is loaded" in done.stderr
    assert "__name__ == '__main__'" in done.stderr
    assert "RecursionError" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_program_that_leaves_whenever_it_is_loaded_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN + "import sys\nsys.exit(3)\n")
    done = run_python(tmp_path, "-m", "weft", "show", "own.py")
    assert done.returncode == 2
    assert f"own.py:{OWN.count(chr(10)) + 2}: SystemExit: 3" in done.stderr
    assert "it ends the program" in done.stderr


def test_a_class_of_a_console_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    done = run_python(tmp_path, "-", stdin=OWN + TRAINED)
    assert done.returncode != 0
    assert "was typed into a notebook or console" in done.stderr
    assert "move it to a file" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_class_under_the_guard_of_the_program_is_not_found_again(tmp_path: Path) -> None:
    own_class = OWN[OWN.index("class Own") : OWN.index("def own_rows")]
    text = OWN.replace(own_class, GUARD + own_class.rstrip().replace("\n", "\n    ") + "\n\n\n")
    text = text.replace("model={Own", "model={globals().get('Own', 'MLP')") + GUARD + TRAINED
    (tmp_path / "own.py").write_text(text)
    done = run_python(tmp_path, "own.py")
    assert done.returncode != 0
    assert "own.py has no 'Own' when it is loaded" in done.stderr
    assert "top level" in done.stderr


@pytest.mark.slow
def test_a_module_of_a_package_that_is_run_goes_by_its_import_path(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    last = "print(weft.config.dump_yaml(weft.load_experiment(experiment)))\n"
    (tmp_path / "package" / "own.py").write_text(OWN + GUARD + last)
    done = run_python(tmp_path, "-m", "package.own")
    assert done.returncode == 0, done.stderr
    assert "package.own.Own: {width: 8}" in done.stdout
    assert "loss: package.own.own_loss" in done.stdout
    assert "patches" not in done.stdout


def test_two_files_that_have_the_same_name_for_different_things_are_told(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "other.py").write_text(OWN)
    experiment = load_experiment(tmp_path / "own.py")
    assert [patch.name for patch in experiment.patches] == ["own.py"]
    with pytest.raises(ConfigError, match="'Own' of own.py cannot be told from that of another file"):
        load_experiment(tmp_path / "own.py", ["patches=[other.py]"])
