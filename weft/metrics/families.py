"""Which accumulator serves a family of scores for a kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from weft.metrics.boundary import SurfaceScores
from weft.metrics.confusion import LabelCounts, LabelTables
from weft.metrics.names import KINDS, Kind
from weft.metrics.probability import ProbabilityScores, TopK
from weft.metrics.ranking import BinnedRanking, ExactRanking, RankingScores
from weft.metrics.regression import RegressionSums
from weft.metrics.values import Accumulator, Request, Setting
from weft.metrics.voxels import VoxelScores

Factory = Callable[[Setting, Sequence[Request]], Accumulator]

_BY_KIND: dict[Kind, dict[str, Factory]] = {
    "binary": {"confusion": LabelCounts, "probability": ProbabilityScores},
    "multiclass": {"confusion": LabelCounts, "probability": ProbabilityScores, "top_k": TopK},
    "multilabel": {"confusion": LabelTables, "probability": ProbabilityScores},
    "regression": {"regression": RegressionSums},
    "segmentation": {"confusion": VoxelScores, "surface": SurfaceScores},
}
_RANKING: dict[bool, Factory] = {True: ExactRanking, False: BinnedRanking}

MOST_CURVES = 32  # classes with curves of their own; nobody looks at more


def curve_accumulators(setting: Setting, present: Sequence[Accumulator]) -> list[Accumulator]:
    """What ROC, precision-recall and calibration curves are drawn from, as far as `present` does not give it already.

    Sums only, of fixed size: they pool like all others and need no predictions gathered.
    """
    if setting.kind in ("regression", "segmentation"):
        return []
    added: list[Accumulator] = []
    if setting.classes <= MOST_CURVES and not any(isinstance(part, RankingScores) for part in present):
        added.append(BinnedRanking(setting, ()))
    if setting.minimum_cells <= 1 and not any(isinstance(part, ProbabilityScores) for part in present):
        added.append(ProbabilityScores(setting, ()))
    return added


FACTORIES: Mapping[tuple[str, Kind, bool], Factory] = {
    (family, kind, gather): factory
    for kind in KINDS
    for gather in (True, False)
    for family, factory in {**_BY_KIND[kind], "ranking": _RANKING[gather]}.items()
}
"""By family, kind of task, and whether predictions may be gathered."""
