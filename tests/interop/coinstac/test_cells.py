"""A minimum for bins of predictions that leave a site: no bin of few items is told, and the area keeps to its bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tests.interop.coinstac.tables import SIZES, Patients, Probable, site_run, train, write_sites
from weft.engine import Together
from weft.errors import ConfigError
from weft.interop.coinstac.metrics import AUCROCMetrics
from weft.interop.coinstac.running import UserCode
from weft.interop.coinstac.scores import Pooled, pooled_line
from weft.metrics.ranking import BINS


class OwnAuc(Probable):
    """Scores probabilities with a class of the user's own choice."""

    def new_metrics(self) -> AUCROCMetrics:
        return AUCROCMetrics()


class Watching(Together):
    """Notes the scores that sites send."""

    def __init__(self, participants: list[Any]) -> None:
        super().__init__(participants)
        self.seen: list[np.ndarray[Any, Any]] = []

    def reply(self) -> bool:
        """See `Together`."""
        for one in self.participants:
            asked = self.waiting[one.name].asked
            if "scores" in asked.tag:
                self.seen += [tensor.numpy().copy() for tensor in asked.tensors if tensor.shape[-1:] == (BINS,)]
        return super().reply()


def test_no_bin_of_few_items_leaves_a_site_and_the_area_keeps_to_its_bound(tmp_path: Path) -> None:
    write_sites(tmp_path)
    spec = {"monitor_metric": "auc", "epochs": 3, "log_header": "Loss|AUC"}
    reports = []
    for minimum in (0, 3):
        code = UserCode(OwnAuc, Patients)
        runs = [site_run(tmp_path, name, code=code, minimum_cells=minimum, **spec) for name in SIZES]
        together = Watching([run.participant() for run in runs])
        together.run()
        counts = np.concatenate([seen.reshape(-1) for seen in together.seen])
        assert counts.sum() > 0
        assert bool(((counts > 0) & (counts < 3)).any()) is (minimum == 0)
        report = runs[1].report()
        assert pooled_line(runs[0].trainer, [report["test_sums"]]) == report["test_metrics"]
        assert runs[0].run is not None
        reports.append((report, runs[0].run.splits["test"].book.metrics.value))  # type: ignore[attr-defined]
    (plain, exact), (coarse, hidden) = reports
    assert plain["train_log"][0][0] == coarse["train_log"][0][0]  # the loss
    assert hidden.bound() > exact.bound()
    assert abs(exact.auc() - hidden.auc()) <= hidden.bound() + exact.bound()
    assert 0.5 < hidden.auc() <= 1


SITE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), max_size=25)


@given(st.lists(SITE, min_size=1, max_size=4), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_sites_that_tell_cells_know_the_area_within_the_bound(sites: list[Any], minimum: int) -> None:
    told = []
    for items in sites:
        made = AUCROCMetrics()
        made.keep_cells(minimum)
        for place in range(0, len(items), 4):
            batch = AUCROCMetrics()
            batch.add(*(torch.tensor(column) for column in zip(*items[place : place + 4], strict=True)))
            made.accumulate(batch)
        told.append(made.serialize())
        assert all(count == 0 or count >= minimum for row in told[-1][:-1] for count in row)
    pooled = AUCROCMetrics()
    pooled.reduce_sites(told)
    chances, labels = np.array([item for items in sites for item in items]).reshape(-1, 2).T
    if not np.isnan(pooled.auc()):
        assert abs(roc_auc_score(labels, chances) - pooled.auc()) <= pooled.bound() + 1e-9


def test_a_state_that_stays_at_its_site_is_whole() -> None:
    pooled = Pooled(AUCROCMetrics, "new_metrics", 5)
    batch = AUCROCMetrics()
    batch.add(torch.tensor([0.1, 0.7, 0.9]), torch.tensor([0, 1, 1]))
    pooled.add(batch)
    told = dict(zip(pooled.names or (), pooled.states(), strict=True))
    assert told.pop("left_out").tolist() == [4, 4]  # there may be so many, which were too few
    assert [*told] == ["cells", "positives", "negatives"]
    assert all(state.sum() == 0 for state in told.values())
    assert pooled.filled(pooled.kept()).auc() == 1.0
    assert np.isnan(pooled.filled(pooled.states()).auc())


@pytest.mark.parametrize("wrong", [-1, "5", True])
def test_a_minimum_that_is_none_is_told(tmp_path: Path, wrong: Any) -> None:
    write_sites(tmp_path)
    with pytest.raises(ConfigError, match="minimum_cells is"):
        site_run(tmp_path, "local0", minimum_cells=wrong)


def test_sites_have_one_minimum(tmp_path: Path) -> None:
    write_sites(tmp_path)
    with pytest.raises(ConfigError, match="minimum_cells is 0 at site local0 and 5 at local2"):
        train([site_run(tmp_path, name, **({"minimum_cells": 5} if name == "local2" else {})) for name in SIZES])
