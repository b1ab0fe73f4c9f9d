"""Something like a mean, that a few participants cannot spoil: computed where everybody's tensors come together."""

from __future__ import annotations

import torch
from torch import Tensor


def robust_mean(kind: str, rows: list[list[Tensor]], tolerated: int) -> list[Tensor]:
    """Combine the tensors of those participants that take part; see `Robust`.

    Args:
        kind: "median" (Yin et al., 2018, arXiv:1803.01498; of an even number the mean of the middle two),
            "trimmed_mean" (the same paper; at least one or two numbers are left), or "krum" (Blanchard et al., 2017,
            arXiv:1703.02757; each is measured by its distances to the nearest n - tolerated - 2 others, at least one;
            of several that are as near, the mean is taken).
        rows: the tensors of each participant, in order of names; the last one is its weight.
        tolerated: so many participants may send anything.

    Returns:
        tensors as one participant sent; zeros with weight 0 when nobody takes part, and not numbers when none of those
        with a weight is finite.
    """
    like = rows[0]
    weighing = [row for row in rows if float(row[-1]) > 0]
    present = [row for row in weighing if all(bool(torch.isfinite(tensor).all()) for tensor in row)]
    if not present:
        filling = float("nan") if weighing else 0.0
        return [torch.full_like(tensor, filling) for tensor in like[:-1]] + [torch.zeros_like(like[-1])]
    matrix = torch.stack([torch.cat([part.double().reshape(-1) for part in row[:-1]]) for row in present])
    if kind == "krum":
        mean = _krum(matrix, tolerated)
    else:
        half = (len(matrix) - 1) // 2
        cut = half if kind == "median" else min(tolerated, half)
        mean = matrix.sort(dim=0).values[cut : len(matrix) - cut].mean(dim=0)
    parts = torch.split(mean, [tensor.numel() for tensor in like[:-1]])
    tensors = [part.reshape(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, like, strict=False)]
    return [*tensors, torch.stack([row[-1] for row in present]).sum(dim=0)]


def _krum(matrix: Tensor, tolerated: int) -> Tensor:
    """The row that is nearest to its neighbours."""
    if len(matrix) == 1:
        return matrix[0]
    neighbours = max(1, len(matrix) - tolerated - 2)
    distances = torch.stack([(matrix - row).square().sum(dim=1) for row in matrix]).fill_diagonal_(torch.inf)
    scores = distances.sort(dim=1).values[:, :neighbours].sum(dim=1)
    return matrix[scores == scores.min()].mean(dim=0)
