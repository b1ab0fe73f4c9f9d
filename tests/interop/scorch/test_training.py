"""What a training of scorch's files prints, writes and reaches."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from tests.cli.lab import good
from tests.docs.blocks import REPOSITORY
from tests.interop.scorch.files import NORM, more, result, same, train, weights, write
from weft.interop import scorch

EXAMPLE = REPOSITORY / "examples" / "scorch"


def digits(folder: Path) -> Path:
    """The example's files, and the digits as it wants them."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    numpy.savez(folder / "digits.npz", images=images, labels=labels)
    for name in ("model.py", "dataset.py"):
        (folder / name).write_bytes((EXAMPLE / name).read_bytes())
    return folder


@pytest.mark.slow
def test_digits_are_learnt_from_files_as_the_readme_has_them(tmp_path: Path) -> None:
    """By the command itself, as a process."""
    program = [sys.executable, "-c", "from weft.cli.scorch import main; main()"]
    flags = "--model model.py --dataset dataset.py -dp . -e 15 -cp run1_ --test"
    done = subprocess.run(
        [*program, *flags.split()], cwd=digits(tmp_path), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # -v -1 is silence
    run = Path(done.stderr.splitlines()[-1])
    assert result_of(run)["scores"]["validation"]["main"] >= 0.95
    assert result_of(run)["scores"]["test"]["main"] >= 0.95
    assert result_of(run)["scores"]["test"]["metric_2"] < 0.25  # a list of metrics: the first is the main one
    assert (run / "report.html").exists()


def result_of(run: Path) -> dict[str, Any]:
    import json

    content: dict[str, Any] = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return content


LINES = r"""Training epoch  1
Ep 1\[1/4\]\tTime  \d+\.\d\d\(\d+\.\d\d\)\tData  \d+\.\d\d\(\d+\.\d\d\)\tLoss  NUMBER\(NUMBER\)\tLR 1\.00e-03
Ep 1\[3/4\]\tTime  \d+\.\d\d\(\d+\.\d\d\)\tData  \d+\.\d\d\(\d+\.\d\d\)\tLoss  NUMBER\(NUMBER\)\tLR 1\.00e-03
Validating epoch 1
Metrics:\t main:NUMBER\t\taccuracy:NUMBER\t\terrors:NUMBER
Validating epoch 1
Metrics:\t main:NUMBER\t\taccuracy:NUMBER\t\terrors:NUMBER
""".replace("NUMBER", r"\d\.\d\de[+-]\d\d")


def test_lines_files_and_curves_are_those_of_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, dataset={"items=24": "items=48"})
    flags = (
        "--model model.py --dataset dataset.py -dp . -b 8 -e 2 -v 2 --max-train-iterations 4 --max-valid-iterations 3 "
        "-cp run1_ --validate-on-train"
    )
    done = good("scorch", "train", *flags.split())
    printed, run = done.out.rsplit("\n", 2)[:2]
    assert Path(run, "report.html").exists()
    second = LINES.replace("epoch 1", "epoch 2").replace("epoch  1", "epoch  2").replace("Ep 1", "Ep 2")
    assert re.fullmatch(LINES + second, printed + "\n"), printed
    checkpoint = torch.load(tmp_path / "run1_checkpoint.pth.tar", weights_only=True)
    assert list(checkpoint) == ["epoch", "model_state", "optimizer_state", "verbosity", "info", "metrics"]
    assert (checkpoint["epoch"], checkpoint["verbosity"]) == (2, 2)
    assert list(checkpoint["model_state"]) == ["first.weight", "first.bias", "last.weight", "last.bias"]
    assert list(checkpoint["metrics"]) == ["main", "accuracy", "errors"]
    assert (tmp_path / "run1_checkpoint_best.pth.tar").exists()
    (curves,) = (path for path in (tmp_path / "runs").iterdir() if (path / "metrics").is_dir())
    assert re.fullmatch(r"[A-Z][a-z]{2}\d\d_\d\d-\d\d-\d\d_.+", curves.name)
    files = sorted(path.parent.relative_to(curves).as_posix() for path in curves.rglob("events*"))
    assert files == sorted(
        f"metrics/{name}/run1_/{part}" for name in ("main", "accuracy", "errors") for part in ("train", "valid")
    )
    assert points(next((curves / "metrics/main/run1_/valid").iterdir())) == [
        ("metrics/main/run1_", 1), ("metrics/main/run1_", 2),
    ]  # fmt: skip


def points(file: Path) -> list[tuple[str, int]]:
    """Tag and step of each scalar in an event file."""
    from tensorboardX.proto import event_pb2

    content, at, found = file.read_bytes(), 0, []
    while at < len(content):
        size = int.from_bytes(content[at : at + 8], "little")
        event = event_pb2.Event.FromString(content[at + 12 : at + 12 + size])
        found += [(value.tag, event.step) for value in event.summary.value]
        at += 16 + size
    return found


def test_every_flag_of_the_original_is_known_in_both_forms() -> None:
    text = good("scorch", "train", "--help").out
    short = {"-b": "batch-size", "-w": "workers", "-d": "dump-period", "-e": "epochs", "-c": "checkpoint",
             "-dp": "dataset-path", "-v": "verbosity", "-cp": "checkpoint-prefix"}  # fmt: skip
    for flag, name in short.items():
        assert f"{flag}, --{name}" in text
    for name in ("use-cuda", "validate-on-train", "model", "dataset", "max-train-iterations", "max-valid-iterations",
                 "model-args", "dataset-args"):  # fmt: skip
        assert f"--{name} " in text
    defaults = {"batch_size": 8, "workers": 0, "dump_period": 1, "epochs": 1000, "verbosity": -1,
                "max_train_iterations": -1, "max_valid_iterations": -1, "checkpoint_prefix": ""}  # fmt: skip
    flags = scorch.Flags(Path("model.py"), Path("dataset.py"), ".")
    assert {name: getattr(flags, name) for name in defaults} == defaults


@pytest.mark.slow
def test_checkpoints_are_written_every_few_epochs_and_the_best_at_once(tmp_path: Path) -> None:
    run = train(tmp_path, epochs=4, dump_period=3)
    checkpoint = scorch.read_checkpoint(tmp_path / "run_checkpoint.pth.tar")
    best = scorch.read_checkpoint(tmp_path / "run_checkpoint_best.pth.tar")
    assert checkpoint["epoch"] == 4
    assert best["epoch"] == result(run)["best_epoch"]
    assert best["metrics"]["main"] == result(run)["monitor"]["best"]


def test_only_trainable_modules_are_trained_under_either_name(tmp_path: Path) -> None:
    for name in ("trainable_modules", "train_modules"):
        lines = more(f"self.{name} = torch.nn.ModuleList([model.last])")
        for steps in (0, 2):
            train(tmp_path, model=lines, epochs=max(steps, 1), out=f"{name}-{steps}", max_train_iterations=2)
        begun, trained = (weights(tmp_path, f"{name}-{steps}") for steps in (0, 2))
        assert torch.equal(begun["first.weight"], trained["first.weight"])
        assert not torch.equal(begun["last.weight"], trained["last.weight"])


def test_the_optimizer_and_the_scheduler_of_the_socket_are_used(tmp_path: Path) -> None:
    lines = more(
        "self.optimizer = torch.optim.SGD(model.parameters(), lr=0.4, momentum=0.5)",
        "self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 1, gamma=0.5)",
    )
    run = train(tmp_path, model=lines)
    assert [row["learning_rate"] for row in rows(run)] == [0.4, 0.2, 0.1]
    state = scorch.read_checkpoint(tmp_path / "run_checkpoint.pth.tar")["optimizer_state"]
    assert state["param_groups"][0]["momentum"] == 0.5
    assert state["param_groups"][0]["lr"] == 0.05


def rows(run: Any) -> list[dict[str, float]]:
    """The history."""
    import csv

    with (run.path / "history.csv").open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_modules_that_are_not_trained_are_in_evaluation_mode(tmp_path: Path) -> None:
    """In the original they stay in training mode, so that running statistics drift; strictly, they do."""
    for name, lines in (("others", "model.first, model.last"), ("all", "model.first, model.norm, model.last")):
        for strict in (False, True):
            model = NORM | more(f"self.trainable_modules = torch.nn.ModuleList([{lines}])")
            train(tmp_path, model=model, out=f"{name}-{strict}", strict=strict, epochs=1)
    moved = {
        key: bool(weights(tmp_path, key)["norm.running_mean"].any())
        for key in ("others-False", "others-True", "all-False", "all-True")
    }
    assert moved == {"others-False": False, "others-True": True, "all-False": True, "all-True": True}


@pytest.mark.slow
def test_an_optimizer_over_everything_trains_what_is_named_and_strictly_everything(tmp_path: Path) -> None:
    lines = more(
        "self.train_modules = torch.nn.ModuleList([model.last])",
        "self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)",
    )
    networks = {}
    for name, strict in (("begun", False), ("mended", False), ("strict", True)):
        network = lines if name != "begun" else more("self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0)")
        train(tmp_path, model=network, out=name, strict=strict, epochs=1)
        networks[name] = weights(tmp_path, name)["first.weight"]
    assert torch.equal(networks["begun"], networks["mended"])
    assert not torch.equal(networks["begun"], networks["strict"])


@pytest.mark.slow
def test_modules_beside_the_network_are_trained_and_part_of_the_state(tmp_path: Path) -> None:
    """As a Socket may have them, e.g. for a loss that learns."""
    model = {
        "# MORE": "self.scale, both = torch.nn.Linear(3, 3), torch.nn.Sequential(model.first, model.last)\n"
        "        self.trainable_modules = torch.nn.ModuleList([both, self.scale])",
        "cross_entropy(pred[0]": "cross_entropy(self.scale(pred[0])",
    }
    found = train(tmp_path, model=model, epochs=1).model
    assert isinstance(found, scorch.ScorchModel)
    begun = scorch.open_model(scorch.Flags(tmp_path / "model.py", tmp_path / "dataset.py", str(tmp_path)))
    assert torch.equal(found.socket.scale.weight, found.beside[0].weight)
    assert not torch.equal(found.socket.scale.weight, begun.socket.scale.weight)


PLATEAU = more(
    "self.optimizer = torch.optim.SGD(model.parameters(), lr=0.4)",
    "self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, patience=0, factor=0.5)",
)
RISING = {
    "accuracy = (pred[0].numpy().argmax(axis=1) == target[0].numpy()).mean()":
    "self.count = getattr(self, 'count', 0) + 1; accuracy = self.count"
}  # fmt: skip


@pytest.mark.slow
def test_a_plateau_is_watched_for_in_a_score_that_shall_rise(tmp_path: Path) -> None:
    run = train(tmp_path, model=PLATEAU | RISING, out="mended")
    assert [row["learning_rate"] for row in rows(run)] == [0.4, 0.4, 0.4]
    run = train(tmp_path, model=PLATEAU | RISING, out="strict", strict=True)
    assert [row["learning_rate"] for row in rows(run)] == [0.4, 0.4, 0.2]  # min mode, on a score that rises


@pytest.mark.slow
def test_other_schedulers_are_given_the_score_strictly(tmp_path: Path) -> None:
    lines = more(
        "self.optimizer = torch.optim.SGD(model.parameters(), lr=0.4)",
        "self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 1, gamma=0.5)",
    )
    constant = {"accuracy = (pred[0].numpy().argmax(axis=1) == target[0].numpy()).mean()": "accuracy = 0.25"}
    run = train(tmp_path, model=lines | constant, strict=True)
    assert [row["learning_rate"] for row in rows(run)] == [0.4, 0.4, 0.4]  # "epoch 0.25", every time


def test_metrics_may_be_a_list_and_see_the_whole_split_once(tmp_path: Path) -> None:
    lists = {
        'return {"main": accuracy, "accuracy": accuracy, "errors": 1.0 - accuracy}':
        "return [accuracy, len(pred[0]), torch.tensor(2.5)]"
    }  # fmt: skip
    scores = result(train(tmp_path, model=lists, batch_size=5))["scores"]["validation"]
    assert (scores["metric_2"], scores["metric_3"]) == (24, 2.5)


@pytest.mark.slow
def test_a_socket_without_an_index_file_gets_the_path(tmp_path: Path) -> None:
    dataset = {
        "class DataSetIndex():": "class Index():",
        "def __init__(self, ds_index, mode='train'):": "def __init__(self, path, mode='train', items=24):",
        "self.ds_index = ds_index": "self.ds_index = Index(path, items)",
    }
    with_index = train(tmp_path, out="with")
    without = train(tmp_path, dataset=dataset, out="without")
    assert same(weights(tmp_path, "with"), weights(tmp_path, "without"))
    assert result(with_index)["scores"] == result(without)["scores"]


def test_arguments_reach_network_and_index(tmp_path: Path) -> None:
    run = train(tmp_path, model_args="'hidden': 5", dataset_args="'items': 30")
    assert weights(tmp_path, "run")["first.weight"].shape == (5, 4)
    assert result(run)["steps"] == 3 * (30 // 8)


def test_scores_of_test_mode_are_taken_where_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "test" not in result(train(tmp_path, out="without"))["scores"]
    run = train(tmp_path, out="with", test=True, verbosity=0)
    assert 0 <= result(run)["scores"]["test"]["main"] <= 1
    assert re.search(r"Testing\nMetrics:\t main:\S+\t\taccuracy", capsys.readouterr().out)
    assert same(weights(tmp_path, "without"), weights(tmp_path, "with"))


def test_items_without_targets_are_no_error_in_test_mode(tmp_path: Path) -> None:
    """Predicted they can be, scored they cannot."""
    from weft import actions

    dataset = {"return [img], [target]": "return [img], [None if self.mode == 'test' else target]"}
    run = train(tmp_path, dataset=dataset, test=True)
    scores = result(run)["scores"]["test"]
    assert scores["main"] is None or scores["main"] != scores["main"]
    table, *_ = actions.predict(run.path, split="test")
    assert len(table.read_text(encoding="utf-8").splitlines()) == 25


@pytest.mark.slow
def test_strictly_the_order_is_the_same_in_every_epoch(tmp_path: Path) -> None:
    seen = {
        "def __getitem__(self, index):": "def __getitem__(self, index):\n        "
        "print(index, end=' ', file=open(self.mode + '.txt', 'a'))"
    }
    orders = {}
    for strict in (False, True):
        folder = tmp_path / str(strict)
        folder.mkdir()
        log = {"self.mode + '.txt'": f"{str(folder)!r} + '/' + self.mode + '.txt'"}
        train(folder, dataset={old: new.replace(*next(iter(log.items()))) for old, new in seen.items()}, strict=strict)
        visits = list(map(int, (folder / "train.txt").read_text().split()))[-72:]
        orders[strict] = [visits[start : start + 24] for start in (0, 24, 48)]
    first, second, third = orders[True]
    assert first == second == third
    generator = torch.Generator().manual_seed(0)
    assert first == torch.randperm(24, generator=generator).tolist()
    assert len({tuple(order) for order in orders[False]}) == 3


def test_the_command_is_installed_under_its_name() -> None:
    import tomllib
    from importlib import import_module

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["scorch-train"].partition(":")
    assert callable(getattr(import_module(module), name))


def test_predictions_of_several_processes_are_put_into_the_order_of_items() -> None:
    from weft.interop.scorch.scores import together

    parts = [
        {"rows": torch.tensor(rows), "outputs": [torch.tensor(rows) * 10.0], "targets": [list(map(str, rows))]}
        for rows in ([0, 2, 4], [5], [1, 3])
    ]
    outputs, targets = together(parts)
    assert outputs[0].tolist() == [0, 10, 20, 30, 40, 50]
    assert targets == [list("012345")]
