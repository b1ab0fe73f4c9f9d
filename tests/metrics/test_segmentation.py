"""Overlap and surface scores agree with brute force and with MONAI."""

from __future__ import annotations

import itertools
import json
import math

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from weft.errors import DataError, UsageError
from weft.metrics import build_scores, surface_distances
from weft.metrics import surface as module

SURFACE = ["hd", "hd95", "assd", ("nsd", {"tolerance": 1.1})]
Mask = NDArray[numpy.bool_]


def logits_of(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits [n, C, ...] whose argmax is labels [n, ...]."""
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


def blobs(seed: int, shape: tuple[int, ...]) -> Mask:
    """A random mask with some structure."""
    generator = numpy.random.default_rng(seed)
    mask = generator.random(shape) < generator.uniform(0.02, 0.9)
    if generator.random() < 0.5:
        grown = mask.copy()
        for axis in range(mask.ndim):
            grown |= numpy.roll(mask, 1, axis)
        mask = grown
    return mask


def brute_force(prediction: Mask, truth: Mask, spacing: tuple[float, ...]) -> tuple[NDArray[numpy.float64], ...]:
    """Both lists of distances, voxel by voxel."""

    def surface_points(mask: Mask) -> NDArray[numpy.float64]:
        padded = numpy.pad(mask, 1)
        points = []
        for point in itertools.product(*(range(1, size + 1) for size in mask.shape)):
            faces = [
                tuple(value + step * (axis == other) for other, value in enumerate(point))
                for axis in range(mask.ndim)
                for step in (-1, 1)
            ]
            if padded[point] and not all(padded[face] for face in faces):
                points.append(numpy.array(point) * spacing)
        return numpy.array(points)

    ours, theirs = surface_points(prediction), surface_points(truth)
    table = numpy.linalg.norm(ours[:, None] - theirs[None], axis=2)
    return table.min(1), table.min(0)


@pytest.mark.parametrize("method", ["tree", "scipy", "edt"])
@pytest.mark.parametrize(
    ("shape", "spacing"), [((7, 6, 8), (1.0, 0.7, 2.5)), ((11, 9), (0.5, 1.3)), ((4, 1, 5), (1, 1, 1))]
)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_distances_equal_brute_force(
    method: str, shape: tuple[int, ...], spacing: tuple[float, ...], seed: int
) -> None:
    if method == "edt":
        pytest.importorskip("edt", reason="edt is not installed")
    prediction, truth = blobs(seed, shape), blobs(seed + 1, shape)
    if not (prediction.any() and truth.any()):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ALWAYS_TREE", 10**9 if method == "tree" else 0)
        patch.setattr(module, "TREE_COST", 1e9)
        if method != "tree":
            found = module.find_spec if method == "edt" else lambda name: None
            patch.setattr(module, "find_spec", found)
            module._transform.cache_clear()
        distances = surface_distances(prediction, truth, spacing)
    module._transform.cache_clear()
    expected = brute_force(prediction, truth, spacing)
    close = {"rtol": 1e-6, "atol": 1e-6} if method == "edt" else {"rtol": 1e-12, "atol": 1e-12}
    for list_found, list_expected in zip((distances.to_truth, distances.to_prediction), expected, strict=True):
        numpy.testing.assert_allclose(numpy.sort(list_found), numpy.sort(list_expected), **close)


def test_scores_equal_monai() -> None:
    monai = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    generator = torch.Generator().manual_seed(0)
    spacing = (1.0, 0.8, 1.7)
    truth = torch.zeros(2, 20, 18, 22, dtype=torch.int64)
    truth[:, 4:13, 3:12, 5:16], truth[:, 7:11, 6:10, 8:14] = 1, 2
    said = truth.roll((1, -1, 2), (1, 2, 3)).clone()
    said[torch.rand(said.shape, generator=generator) < 0.05] = 1
    said[torch.rand(said.shape, generator=generator) < 0.03] = 2
    book = build_scores(["dice", "iou", *SURFACE], kind="segmentation", classes=3)
    book.update(logits_of(said, 3), truth[:, None], spacing=spacing)
    found = book.compute()
    ours, theirs = logits_of(said, 3), logits_of(truth, 3)
    expected = {
        "dice": monai.compute_dice(ours, theirs, include_background=False),
        "iou": monai.compute_iou(ours, theirs, include_background=False),
        "hd": monai.compute_hausdorff_distance(ours, theirs, spacing=spacing),
        "hd95": monai.compute_hausdorff_distance(ours, theirs, percentile=95, spacing=spacing),
        "assd": monai.compute_average_surface_distance(ours, theirs, symmetric=True, spacing=spacing),
        "nsd": monai.compute_surface_dice(ours, theirs, class_thresholds=[1.1, 1.1], spacing=spacing),
    }
    for name, values in expected.items():
        assert found[name] == pytest.approx(float(values.mean(0).mean()), rel=2e-6), name


def test_absent_structures_are_left_out_of_overlap_and_false_alarms_count_zero() -> None:
    truth = torch.zeros(3, 4, 4, dtype=torch.int64)
    truth[0, :2], truth[1, 2:] = 1, 2
    said = torch.zeros_like(truth)
    said[0, :2], said[1, 2:, :2], said[2, 0, 0] = 1, 2, 2
    book = build_scores(
        ["dice", "iou", "pooled_dice", "accuracy"], kind="segmentation", classes=3, class_names=["background", "a", "b"]
    )
    book.update(logits_of(said, 3), truth, cases=["x", "y", "z"])
    rows = book.case_rows()
    assert [row["dice_a"] for row in rows] == [1.0, None, None]
    assert [row["dice_b"] for row in rows] == [None, pytest.approx(2 / 3), 0.0]
    assert book.compute()["dice"] == pytest.approx((1 + (2 / 3 + 0) / 2) / 2)
    assert book.compute()["pooled_dice"] == pytest.approx((1 + 2 * 4 / (5 + 8)) / 2)
    assert book.details()["per_class"]["b"]["cases"] == 2
    assert rows[1]["voxels_b"] == 8
    json.dumps([rows, book.details()], allow_nan=False)


@pytest.mark.parametrize("missing", ["leave_out", "penalise"])
def test_missing_structures_follow_the_policy_and_are_counted(missing: str) -> None:
    truth = torch.zeros(4, 6, 8, dtype=torch.int64)
    said = torch.zeros_like(truth)
    truth[0, 1:3, 1:3], said[0, 1:3, 1:4] = 1, 1
    truth[1, 1:3, 1:3] = 1  # missed
    said[2, 1:3, 1:3] = 1  # false alarm; in the last case there is nothing at all
    metrics = [("hd95", {"missing": missing}), ("assd", {"missing": missing}), "nsd"]
    book = build_scores(metrics, kind="segmentation", classes=2)
    book.update(logits_of(said, 2), truth, cases=list("abcd"), spacing=(2.0, 1.0))
    diagonal = math.hypot(12, 8)
    row = book.details()["per_class"]["1"]
    assert (row["missed"], row["false_alarms"]) == (1, 1)
    assert row["hd95_cases"] == (1 if missing == "leave_out" else 3)
    expected = 1.0 if missing == "leave_out" else (1.0 + 2 * diagonal) / 3
    assert book.compute()["hd95"] == pytest.approx(expected)
    assert [case["hd95_1"] for case in book.case_rows()][3] is None
    assert book.compute()["nsd"] == pytest.approx((1 + 0 + 0) / 3)


def test_no_data_and_nothing_to_see_give_nan() -> None:
    for update in (False, True):
        book = build_scores(["dice", "pooled_dice", *SURFACE], kind="segmentation", classes=2)
        if update:
            book.update(logits_of(torch.zeros(1, 4, 4, dtype=torch.int64), 2), torch.zeros(1, 4, 4, dtype=torch.int64))
        assert all(math.isnan(value) for name, value in book.compute().items() if name != "accuracy")


def test_one_output_channel_is_a_logit_of_the_foreground() -> None:
    truth = torch.tensor([[[0, 1], [1, 1]]])
    book = build_scores(["dice"], kind="segmentation", classes=2)
    book.update(torch.tensor([[[[-1.0, 1.0], [2.0, -3.0]]]]), truth)
    assert book.compute()["dice"] == pytest.approx(0.8)


def test_many_small_images_in_one_batch_count_like_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, said = (torch.randint(0, 20, (12, 5, 6), generator=generator) for _ in range(2))
    together, single = (build_scores(["dice", "iou"], kind="segmentation", classes=20) for _ in range(2))
    together.update(logits_of(said, 20), truth)
    for one, other in zip(said, truth):
        single.update(logits_of(one[None], 20), other[None])
    assert together.compute() == pytest.approx(single.compute(), rel=1e-12, nan_ok=True)
    assert together.details()["confusion_matrix"] == single.details()["confusion_matrix"]


@pytest.mark.parametrize("metrics", [["dice"], ["hd95"]])
def test_masks_stored_as_255_are_told(metrics: list[str]) -> None:
    book = build_scores(metrics, kind="segmentation", classes=2)
    with pytest.raises(DataError, match="found 255") as caught:
        book.update(torch.zeros(1, 2, 4, 4), torch.full((1, 1, 4, 4), 255))
    assert "0/255" in caught.value.hint


def test_spacing_is_one_for_all_or_one_per_case() -> None:
    truth = torch.zeros(2, 1, 9, 9, dtype=torch.int64)
    truth[:, :, 1:3, 2:4] = 1
    said = truth[:, 0].roll(3, 1)
    values = []
    for spacing in (None, [2.0, 1.0], torch.tensor([[2.0, 1.0], [4.0, 1.0]])):
        book = build_scores(["hd"], kind="segmentation", classes=2)
        book.update(logits_of(said, 2), truth, spacing=spacing)
        values.append(book.compute()["hd"])
    assert values == [3.0, 6.0, 9.0]
    with pytest.raises(UsageError, match="spacing"):
        build_scores(["hd"], kind="segmentation", classes=2).update(logits_of(said, 2), truth, spacing=(1, 0))


def test_surface_distances_of_arrays_check_their_shapes_and_know_missing_structures() -> None:
    empty, full = numpy.zeros((3, 4), bool), numpy.ones((3, 4), bool)
    with pytest.raises(UsageError, match="differ in shape"):
        surface_distances(empty, empty.T)
    assert math.isnan(surface_distances(empty, full).hausdorff())
    assert math.isnan(surface_distances(empty, full).average())
    assert surface_distances(empty, full).within(1.0) == 0.0
    assert math.isnan(surface_distances(empty, empty).within(1.0))
    assert surface_distances(full, full).average() == 0.0
