"""The trainer under the name of the original's package."""

from weft.interop.coinstac.trainer import COINNTrainer as NNTrainer

__all__ = ["NNTrainer"]
