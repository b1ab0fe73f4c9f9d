"""Datasets and splits under the name of the original's module."""

from weft.interop.coinstac.dataset import COINNDataset
from weft.interop.coinstac.handle import COINNDataHandle, safe_collate
from weft.interop.coinstac.padding import COINNPaddedDataSampler
from weft.interop.coinstac.splitting import prepare_splits

__all__ = ["COINNDataHandle", "COINNDataset", "COINNPaddedDataSampler", "prepare_splits", "safe_collate"]
