"""Real data over five sites, and the studies on them that `benchmarks/federated_quality.py` compares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import sklearn.datasets

from weft.config import Component

SITES = ("site1", "site2", "site3", "site4", "site5")
SHARES = (0.45, 0.25, 0.15, 0.1, 0.05)  # of unequal sites
CONCENTRATION, FEWEST = 0.5, 20  # label skew: shares of each class are drawn from a Dirichlet distribution
PARTITIONS = ("unequal", "skewed")
Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Problem:
    """A data set with a network for it.

    Args:
        title: in tables.
        loader: of scikit-learn.
        features, classes, hidden: of the perceptron.
        epochs: how many.
        score: what is compared, of the test split.
        target: of that score on the validation split, for "epochs to target".
    """

    title: str
    loader: str
    features: int
    classes: int
    hidden: tuple[int, ...]
    epochs: int
    score: str
    target: float


PROBLEMS = {
    "tumours": Problem("breast cancer table", "load_breast_cancer", 30, 2, (16,), 15, "auroc", 0.99),
    "digits": Problem("digits", "load_digits", 64, 10, (32,), 12, "accuracy", 0.9),
}


@cache
def rows_of(problem: str, partition: str) -> list[np.ndarray[Any, Any]]:
    """The rows of the whole table that each site has: none twice, none left out.

    "unequal": rows at random, `SHARES` of them. "skewed": of each class every site has a share of its own (Hsu et al.,
    2019, arXiv:1909.06335).
    """
    targets = getattr(sklearn.datasets, PROBLEMS[problem].loader)().target
    generator = np.random.default_rng(2026)
    if partition == "unequal":
        cuts = (np.cumsum(SHARES)[:-1] * len(targets)).round().astype(int)
        return list(np.split(generator.permutation(len(targets)), cuts))
    while True:
        parts: list[list[Any]] = [[] for _ in SITES]
        for label in np.unique(targets):
            rows = generator.permutation(np.flatnonzero(targets == label))
            cuts = (np.cumsum(generator.dirichlet([CONCENTRATION] * len(SITES)))[:-1] * len(rows)).round().astype(int)
            for part, found in zip(parts, np.split(rows, cuts), strict=True):
                part.append(found)
        joined = [np.concatenate(part) for part in parts]
        if min(map(len, joined)) >= FEWEST:
            return joined


def table_of(problem: str, partition: str, site: int) -> Arrays:
    """Inputs [rows, features] and targets [rows] of a site, from 0."""
    data = getattr(sklearn.datasets, PROBLEMS[problem].loader)()
    rows = rows_of(problem, partition)[site]
    return data.data[rows].astype(np.float32), data.target[rows]


def study_of(
    problem: str, partition: str, strategy: Component, learning_rate: float, seed: int, *, normalised: bool = False
) -> dict[str, Any]:
    """A study, as it would be written in a file.

    Args:
        problem: key of `PROBLEMS`.
        partition: one of `PARTITIONS`.
        strategy: of the study.
        learning_rate: of the SGD that all sites take.
        seed: of the splits of each site's rows (half to train, a fifth to validate, the rest to test), of the order
            and of the weights.
        normalised: whether the network has batch normalisation; batches are then one smaller, so that no site's last
            one is a single item, of which there are no statistics.
    """
    about = PROBLEMS[problem]
    network = {"in_features": about.features, "hidden": list(about.hidden), "out_features": about.classes}
    tables = [Component.of(table_of, problem=problem, partition=partition, site=number) for number in range(len(SITES))]
    return {
        "name": f"{problem}-{partition}",
        "seed": seed,
        "dataset": {"split": {"ratio": [0.5, 0.2, 0.3]}, "standardize": True},
        "model": {"MLP": network | ({"normalization": "batch"} if normalised else {})},
        "training": {
            "task": "classification", "epochs": about.epochs, "batch_size": 15 if normalised else 16,
            "optimizer": {"SGD": {"lr": learning_rate, "momentum": 0.9}}, "metrics": ["accuracy", "auroc"],
        },
        "federation": {
            "strategy": strategy,
            "sites": {name: {"arrays": table} for name, table in zip(SITES, tables, strict=True)},
        },
        "run": {"device": "cpu", "num_workers": 0, "threads": 1, "progress": False, "checkpoint_every": {"epochs": 10}},
    }  # fmt: skip
