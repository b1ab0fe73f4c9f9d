"""Data: tables, arrays, folders and datasets; their division into splits; transforms; loaders with exact resume.

What a sample looks like depends on (seed, epoch, row, occurrence) and on nothing else; the order of samples on (seed,
epoch). So batches are the same with any number of workers and ranks, and after a restart anywhere.
"""

from weft.data.batches import Batch
from weft.data.checks import check_targets
from weft.data.digest import Manifest, digest_data
from weft.data.loader import Loader, build_sampler, make_loader
from weft.data.order import seed_for
from weft.data.randomness import item_seed
from weft.data.samplers import BalancedSampler
from weft.data.sources import Data, class_names, fold_count, measure, open_data
from weft.data.split_data import SplitData
from weft.data.worker_count import auto_workers

__all__ = [
    "BalancedSampler",
    "Batch",
    "Data",
    "Loader",
    "Manifest",
    "SplitData",
    "auto_workers",
    "build_sampler",
    "check_targets",
    "class_names",
    "digest_data",
    "fold_count",
    "item_seed",
    "make_loader",
    "measure",
    "open_data",
    "seed_for",
]
