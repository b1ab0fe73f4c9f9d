"""The division of files under the name of the original's module."""

from weft.interop.coinstac.splitting import init_k_folds

__all__ = ["init_k_folds"]
