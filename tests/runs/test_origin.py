"""Provenance, secrets, the snapshot of the code and the table of experiments."""

from __future__ import annotations

import csv
import json
import multiprocessing
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch  # threads and devices are recorded only where torch is loaded

import weft
from weft.config.patches import load_patch
from weft.errors import RunDirectoryError
from weft.runs import (
    RunDirectory,
    append_experiment_row,
    code_digest,
    collect_provenance,
    git_state,
    mask,
    mask_arguments,
    snapshot_code,
    write_requirements,
)

RESULT = {"status": "finished", "epochs": 3, "steps": 30, "scores": {"validation": {"accuracy": 0.1 + 0.2}}}


def test_provenance_tells_code_environment_machine_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MY_DATABASE_PASSWORD", "hunter2")
    record = collect_provenance("ab" * 32, {"seed": 42}, ["weft", "train", "x.yaml"], extra={"data": {"digest": "cd"}})
    text = json.dumps(record)
    assert record["fingerprint"] == "ab" * 32
    assert record["seeds"] == {"seed": 42}
    assert record["command"] == ["weft", "train", "x.yaml"]
    assert record["versions"]["weft"] == weft.__version__
    assert record["versions"]["torch"] == torch.__version__
    assert record["packages"]["numpy"]
    assert record["cpu"]["cores"] >= 1
    assert record["threads"]["torch"] == torch.get_num_threads()
    assert record["environment"]["OMP_NUM_THREADS"] == "1"
    assert record["data"] == {"digest": "cd"}
    assert "hunter2" not in text


def test_collecting_provenance_does_not_import_torch() -> None:
    code = "import sys, weft.runs; weft.runs.collect_provenance(None, {}); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(weft.__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_git_commit_and_uncommitted_changes_are_recorded(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a.txt").write_text("1")
    subprocess.run([*git, "add", "a.txt"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    clean = git_state(tmp_path)
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "a.txt").write_text("2")
    dirty = git_state(tmp_path)
    assert dirty is not None
    assert dirty["dirty"] is True


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("--set=run.database=postgresql://me:hunter2@host/db", "--set=run.database=postgresql://***@host/db"),
        ("mailtos://me:hunter2@example.org", "mailtos://***"),
        ("[slack://TokenA/TokenB/TokenC]", "[slack://***]"),
        ("https://hooks.example.org/services/T024BE7LD/a8fj2nd92nfks02nfklsd93", "https://hooks.example.org/services/T024BE7LD/***"),
        ("https://example.org/data.csv?token=abc&part=2", "https://example.org/data.csv?token=***&part=2"),
        ("--api-key=abc", "--api-key=***"),
        ("password: hunter2", "password: ***"),
        ('{"secret": "abc", "a": 1}', '{"secret": ***, "a": 1}'),
        ("training.optimizer.AdamW.lr=3e-4", "training.optimizer.AdamW.lr=3e-4"),
        ("data/author=me/table.csv", "data/author=me/table.csv"),
        ("https://example.org/a-dataset-with-a-long-name", "https://example.org/a-dataset-with-a-long-name"),
    ],
)  # fmt: skip
def test_secrets_are_masked_and_the_rest_is_not(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_the_value_after_a_secret_option_is_masked() -> None:
    assert mask_arguments(["weft", "--password", "hunter2", "--seed", "4"]) == [
        "weft",
        "--password",
        "***",
        "--seed",
        "4",
    ]


def test_requirements_list_what_is_installed(tmp_path: Path) -> None:
    write_requirements(tmp_path / "requirements.txt")
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    assert lines[0].startswith("# Python 3.")
    assert any(line.startswith("numpy==") for line in lines)


def test_the_snapshot_holds_weft_and_the_patches_and_is_the_same_every_time(tmp_path: Path) -> None:
    patches = [tmp_path / "a" / "transforms.py", tmp_path / "b" / "transforms.py", tmp_path / "package"]
    for patch in patches[:2]:
        patch.parent.mkdir()
        patch.write_text(f"NAME = {patch.parent.name!r}\n")
    (patches[2] / "__pycache__").mkdir(parents=True)
    (patches[2] / "__pycache__" / "x.pyc").touch()
    (patches[2] / "inner").mkdir()
    (patches[2] / "inner" / "x.py").write_text("X = 1\n")
    runs = [RunDirectory.create(tmp_path / name) for name in ("run-1", "run-2")]
    stored = [snapshot_code(run, patches) for run in runs]
    assert stored[0] == stored[1]
    assert stored[0][str(patches[1])] == "code/patches/transforms-2.py"
    assert (runs[0].code / "patches" / "transforms-2.py").read_text() == "NAME = 'b'\n"
    assert sorted(path.name for path in (runs[0].code / "patches" / "package").rglob("*")) == ["inner", "x.py"]
    assert (runs[0].code / "weft.zip").read_bytes() == (runs[1].code / "weft.zip").read_bytes()
    with zipfile.ZipFile(runs[0].code / "weft.zip") as archive:
        assert archive.read("weft/errors.py") == (Path(weft.__file__).parent / "errors.py").read_bytes()
        assert not [name for name in archive.namelist() if "__pycache__" in name]
    assert len(code_digest()) == 64


def test_what_a_patch_imports_from_beside_it_is_kept_with_it(tmp_path: Path) -> None:
    """Modules and packages, and no others that lie there."""
    folder = tmp_path / "work"
    (folder / "kept_parts").mkdir(parents=True)
    (folder / "kept_parts" / "__init__.py").write_text("")
    (folder / "kept_parts" / "inner.py").write_text("WIDTH = 3\n")
    (folder / "unused.py").write_text("")
    (folder / "patch.py").write_text("import json\nfrom kept_parts.inner import WIDTH\n")
    load_patch(folder / "patch.py")
    with RunDirectory.create(tmp_path / "run") as run:
        stored = snapshot_code(run, [folder / "patch.py"])
    kept = sorted(path.relative_to(run.code / "patches").as_posix() for path in (run.code / "patches").rglob("*.py"))
    assert list(stored.values()) == ["code/patches/patch.py"]
    assert kept == ["kept_parts/__init__.py", "kept_parts/inner.py", "patch.py"]


def test_weft_can_be_imported_from_the_snapshot(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    snapshot_code(run)
    code = "import weft, weft.runs; print(weft.__file__)"
    environment = {"PYTHONPATH": str(run.code / "weft.zip"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(run.code) in done.stdout


def test_a_missing_patch_is_named(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match=r"gone\.py"):
        snapshot_code(run, [tmp_path / "gone.py"])


def rows(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_a_run_has_one_row_with_dotted_configuration_and_scores(tmp_path: Path) -> None:
    configuration = {"training": {"optimizer": {"AdamW": {"lr": 3e-4}}, "epochs": 3}, "dataset": {"inputs": ["a", "b"]}}
    table = append_experiment_row(tmp_path / "run-1", configuration, RESULT)
    row = rows(table)["run-1"]
    assert table == tmp_path / "experiments.csv"
    assert row["training.optimizer.AdamW.lr"] == "0.0003"
    assert json.loads(row["dataset.inputs"]) == ["a", "b"]
    assert float(row["validation.accuracy"]) == 0.1 + 0.2
    assert row["status"] == "finished"


def test_a_resumed_run_replaces_its_row_and_columns_grow(tmp_path: Path) -> None:
    append_experiment_row(tmp_path / "run-1", {"seed": 1}, {**RESULT, "status": "stopped"})
    append_experiment_row(tmp_path / "run-2", {"seed": 2, "model": {"MLP": {"depth": 3}}}, RESULT)
    table = append_experiment_row(tmp_path / "run-1", {"seed": 1}, RESULT)
    assert {name: (row["status"], row["model.MLP.depth"]) for name, row in rows(table).items()} == {
        "run-1": ("finished", ""),
        "run-2": ("finished", "3"),
    }


def test_secrets_do_not_reach_the_table(tmp_path: Path) -> None:
    configuration = {"run": {"observers": [{"Notify": {"url": "mailto://me:hunter2@example.org"}}], "token": "hunter2"}}
    table = append_experiment_row(tmp_path / "run-1", configuration, RESULT)
    assert "hunter2" not in table.read_text()
    assert "mailto://***" in table.read_text()


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "run\n\xff\n"])
def test_a_foreign_table_is_not_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / "experiments.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(RunDirectoryError, match="move it away"):
        append_experiment_row(tmp_path / "run-1", {}, RESULT)
    assert (tmp_path / "experiments.csv").read_bytes() == content.encode("latin-1")


def _write_rows(root: Path, writer: int, ready: object) -> None:
    ready.wait()  # type: ignore[attr-defined]
    for number in range(5):
        append_experiment_row(root / f"run-{writer}-{number}", {"seed": writer, f"only_{writer}": number}, RESULT)


def test_eight_processes_write_the_table_at_once_and_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(8)
    writers = [context.Process(target=_write_rows, args=(tmp_path, writer, ready)) for writer in range(8)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(120)
        assert process.exitcode == 0
    found = rows(tmp_path / "experiments.csv")
    assert len(found) == 40
    assert all(found[f"run-{writer}-{n}"][f"only_{writer}"] == str(n) for writer in range(8) for n in range(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".experiments.csv.lock", "experiments.csv"]
