"""The interface of coinstac-dinunet: datasets, trainers and nodes written for it run on Weft's engine.

`SiteRun` (running.py) makes a run of a user's classes; nodes (nodes.py) carry its questions from call to call, and the
simulator (simulator.py) plays the pipeline that calls them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft.interop.coinstac.dataset import COINNDataset
    from weft.interop.coinstac.handle import COINNDataHandle
    from weft.interop.coinstac.learner import COINNLearner
    from weft.interop.coinstac.nodes import COINNLocal, COINNRemote
    from weft.interop.coinstac.pooled import PooledTrainer
    from weft.interop.coinstac.reducer import COINNReducer
    from weft.interop.coinstac.trainer import COINNTrainer

__all__ = [
    "COINNDataHandle",
    "COINNDataset",
    "COINNLearner",
    "COINNLocal",
    "COINNReducer",
    "COINNRemote",
    "COINNTrainer",
    "PooledTrainer",
]
# Looked up when they are asked for: the simulator needs none of them, nor torch.
_PLACES = {
    "COINNDataHandle": "handle",
    "COINNDataset": "dataset",
    "COINNLearner": "learner",
    "COINNLocal": "nodes",
    "COINNReducer": "reducer",
    "COINNRemote": "nodes",
    "COINNTrainer": "trainer",
    "PooledTrainer": "pooled",
}
_MODULES = (
    "config",
    "data",
    "io",
    "metrics",
    "nn",
    "utils",
    "vision",
)  # the original's, which users reach through the package


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
