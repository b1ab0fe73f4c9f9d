"""The trainer under the name of the original's package, and the one for pooled data."""

from weft.interop.coinstac.pooled import PooledTrainer
from weft.interop.coinstac.trainer import COINNTrainer as NNTrainer

__all__ = ["NNTrainer", "PooledTrainer"]
