"""Names of scores can be checked before torch is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from weft.errors import UsageError
from weft.metrics import KINDS, KNOWN, build_scores, check_arguments, find_metric


def test_names_are_known_without_importing_torch() -> None:
    code = "import sys, weft.metrics as m; m.find_metric('dice'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown metric 'acuracy'(.|\n)*did you mean 'accuracy'"):
        find_metric("acuracy")


def test_a_name_unlike_any_is_answered_with_those_of_the_kind() -> None:
    with pytest.raises(UsageError) as caught:
        find_metric("zzz", "regression")
    assert "rmse" in caught.value.hint
    assert "dice" not in caught.value.hint


def test_a_score_of_another_kind_is_refused_with_the_usable_ones() -> None:
    with pytest.raises(UsageError, match=r"'dice' is for segmentation, not for binary") as caught:
        build_scores(["dice"], kind="binary", classes=2)
    assert "f1" in caught.value.hint


def test_unknown_arguments_and_values_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no argument 'tolerence'(.|\n)*did you mean 'tolerance'"):
        check_arguments("nsd", {"tolerence": 2})
    with pytest.raises(UsageError, match="its arguments: none"):
        check_arguments("accuracy", {"average": "macro"})
    for kind, metric in (
        ("multiclass", ("f1", {"average": "mean"})),
        ("multiclass", ("kappa", {"weights": "cubic"})),
        ("multiclass", ("top_k_accuracy", {"k": 7})),
        ("binary", ("calibration_error", {"bins": 0})),
        ("segmentation", ("hd95", {"missing": "ignore"})),
        ("segmentation", ("nsd", {"tolerance": -1})),
    ):
        with pytest.raises(UsageError, match=metric[0]):
            build_scores([metric], kind=kind, classes=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gather", [True, False])
def test_every_known_score_of_a_kind_can_be_built_and_says_its_direction(kind: str, gather: bool) -> None:
    names = [name for name, info in KNOWN.items() if kind in info.kinds]
    classes = 6 if kind != "regression" else 1
    book = build_scores(names, kind=kind, classes=classes, gather=gather)
    for name in book.names:
        assert book.mode(name) in ("min", "max")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown kind"):
        build_scores([], kind="detection", classes=2)
