"""Studies with a table of each site, as a research group would write them, to put faults into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.actions.check_projects import write_table
from tests.experiments import changed
from weft.actions.checking import CheckReport, Finding

ITEMS = {"north": 40, "south": 60, "west": 50}
Columns = dict[str, Any]
NORMALISING = {"MLP": {"in_features": 3, "out_features": 2, "hidden": [8], "normalization": "batch"}}


def columns(site: str, items: int | None = None, classes: int = 2) -> Columns:
    """A clean table of a site: three inputs and a class, about equally many of each."""
    random = np.random.default_rng(list(ITEMS).index(site) + 10)
    count = ITEMS[site] if items is None else items
    labels = np.arange(count) % classes
    random.shuffle(labels)
    inputs = random.normal(0, 1, (count, 3)) + 2 * labels[:, None]
    made = {name: inputs[:, place].copy() for place, name in enumerate("abc")}
    return {**made, "kind": np.array([f"kind {label}" for label in labels])}


def study(folder: Path, tables: dict[str, Columns] | None = None, **changes: Any) -> Path:
    """Write a table for each site and a study on them; a key `a__b` replaces the entry `b` of section `a`."""
    tables = {name: columns(name) for name in ITEMS} | (tables or {})
    for name, table in tables.items():
        write_table(folder / f"{name}.csv", table)
    content: dict[str, Any] = {
        "seed": 4,
        "dataset": {
            "inputs": ["a", "b", "c"],
            "targets": ["kind"],
            "split": {"ratio": [0.6, 0.2, 0.2], "stratified": True},
            "standardize": True,
        },
        "model": {"MLP": {"in_features": 3, "out_features": 2, "hidden": [8]}},
        "training": {
            "task": "classification",
            "epochs": 2,
            "batch_size": 8,
            "optimizer": {"Adam": {"lr": 0.01}},
            "metrics": ["accuracy", "auroc"],
        },
        "federation": {"sites": {name: {"table": {"file": f"{name}.csv"}} for name in tables}},
        "run": {"device": "cpu", "num_workers": 0, "threads": 1, "progress": False},
    }
    return write(folder, content, **changes)


def write(folder: Path, content: dict[str, Any], **changes: Any) -> Path:
    """Write a study with changes."""
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(changed(content, **changes)), encoding="utf-8")
    return file


def arrays(folder: Path, by_site: dict[str, tuple[Any, Any]], **changes: Any) -> Path:
    """Write inputs and labels of each site as arrays, and a study on them."""
    sites = {}
    for name, (inputs, labels) in by_site.items():
        np.save(folder / f"{name}_x.npy", inputs)
        np.save(folder / f"{name}_y.npy", labels)
        sites[name] = {"arrays": {"inputs": f"{name}_x.npy", "targets": f"{name}_y.npy"}}
    file = study(folder, {}, **changes)
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["dataset"] = {"split": {"ratio": [0.6, 0.2, 0.2]}, "standardize": content["dataset"]["standardize"]}
    content["federation"]["sites"] = sites
    return write(folder, content)


def told(report: CheckReport, name: str) -> list[Finding]:
    """All findings of a name."""
    return [finding for finding in report.findings if finding.check == name]


def found(report: CheckReport, name: str, severity: str, *sites: str) -> Finding:
    """The one finding of this name and severity; it names these sites and no other."""
    these = [one for one in told(report, name) if one.severity == severity]
    assert len(these) == 1, [(one.severity, one.check, one.where, one.message) for one in report.findings]
    for site in ITEMS:
        assert (site in these[0].where) == (site in sites), these[0].where
    return these[0]


def serious(report: CheckReport) -> list[tuple[str, str, str]]:
    """What is more than a note."""
    return [(one.check, one.where, one.message) for one in report.findings if one.severity != "note"]


def files(folder: Path, shared: range = range(0), **changes: Any) -> Path:
    """A study of two sites on images in files, of which south names some of north's."""
    random = np.random.default_rng(0)
    for name in ("north", "south"):
        (folder / name).mkdir()
        for number in range(20):
            np.save(folder / name / f"{number}.npy", random.normal(size=(1, 6, 6)).astype(np.float32))
        paths = [f"{'north' if name == 'south' and number in shared else name}/{number}.npy" for number in range(20)]
        write_table(folder / f"{name}.csv", {"file": paths, "kind": [f"kind {number % 2}" for number in range(20)]})
    content = yaml.safe_load(study(folder / "north").read_text(encoding="utf-8"))
    content["dataset"] |= {"inputs": ["file"], "standardize": False}
    content["model"] = {"SmallCNN": {"in_channels": 1, "out_features": 2, "channels": [4]}}
    content["federation"]["sites"] = {name: {"table": {"file": f"{name}.csv"}} for name in ("north", "south")}
    return write(folder, content, **changes)


def vectors(site: str, features: int = 3, dtype: type = np.float32) -> tuple[Any, Any]:
    """Arrays of a site."""
    random = np.random.default_rng(len(site) * 7 + features)
    labels = np.arange(ITEMS[site]) % 2
    return (random.normal(0, 1, (ITEMS[site], features)) + labels[:, None]).astype(dtype), labels
