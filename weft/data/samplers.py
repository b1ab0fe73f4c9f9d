"""Samplers that look at the data; any sampler of torch can be named as well."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from weft.data.split_data import SplitData
from weft.errors import DataError


class BalancedSampler(Sampler[int]):
    """Draws items with replacement so that every class comes equally often.

    Args:
        split: the data; class labels must lie in memory.
        num_samples: items of an epoch; as many as the split has when None.

    Raises:
        DataError: the split has no class labels in memory.
    """

    generator: torch.Generator | None = None  # the loader sets one seeded with (seed, epoch)

    def __init__(self, split: SplitData, num_samples: int | None = None) -> None:
        labels = None if split.arrays is None else split.arrays[1]
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dim() != 1:
            raise DataError(
                f"BalancedSampler needs one class label per item of {split.name} in memory", "use another sampler"
            )
        self.num_samples = len(split) if num_samples is None else num_samples
        self.weights = 1.0 / torch.bincount(labels).to(torch.float64)[labels]

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        yield from torch.multinomial(self.weights, self.num_samples, True, generator=self.generator).tolist()
