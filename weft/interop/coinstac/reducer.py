"""What the remote does with what sites send in a step, for users who write it themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from weft.interop.coinstac.config import avg_grads_file
from weft.interop.coinstac.utils.tensorutils import Array, load_arrays, save_arrays


class COINNReducer:
    """The remote's part of a step: `reduce` reads what sites sent and returns what they are answered.

    Args:
        trainer: the remote's; `input` holds what each site said, by its name, `state` the folders.
        mp_pool: `map` and `starmap`, in this process.

    Attributes:
        weights: items of the step's batches by site.
    """

    def __init__(self, trainer: Any = None, mp_pool: Any = None, **kw: Any) -> None:
        self.trainer, self.pool = trainer, mp_pool
        self.cache, self.input, self.state = trainer.cache, trainer.input, trainer.state
        self.device = trainer.device["gpu"]
        self.dtype = f"float{self.cache.get('precision_bits', 32)}"
        self.weights: dict[str, float] = {site: float(said.get("items", 1.0)) for site, said in self.input.items()}

    def _load(self, file_key: str) -> list[list[Array]]:
        """The arrays that each site sent under a key, in order of the sites."""
        folder = Path(self.state["baseDirectory"])
        return [load_arrays(folder / site / said[file_key]) for site, said in self.input.items()]

    def _average(self, file_key: str) -> list[Array]:
        """The mean of arrays over the sites, weighted by the items of their batches, computed in float64."""
        weights = np.array([self.weights[site] for site in self.input])
        total = max(float(weights.sum()), 1e-300)
        means = []
        for arrays in zip(*self._load(file_key), strict=True):
            wide = [torch.from_numpy(array.astype(np.float64)) * weight for array, weight in zip(arrays, weights)]
            means.append((torch.stack(wide).sum(0) / total).numpy().astype(arrays[0].dtype))
        return means

    def reduce(self) -> dict[str, Any]:
        """The mean of the sites' gradients."""
        save_arrays(Path(self.state["transferDirectory"]) / avg_grads_file, self._average("grads_file"))
        return {"avg_grads_file": avg_grads_file, "update": True}
