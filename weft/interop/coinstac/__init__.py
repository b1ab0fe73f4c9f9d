"""The interface of coinstac-dinunet: datasets, trainers and nodes written for it run on Weft's engine.

`SiteRun` (running.py) makes a run of a user's classes; nodes (nodes.py) carry its questions from call to call.
"""

from typing import TYPE_CHECKING, Any

from weft.interop.coinstac.dataset import COINNDataset
from weft.interop.coinstac.handle import COINNDataHandle
from weft.interop.coinstac.learner import COINNLearner
from weft.interop.coinstac.reducer import COINNReducer
from weft.interop.coinstac.trainer import COINNTrainer

if TYPE_CHECKING:
    from weft.interop.coinstac.nodes import COINNLocal, COINNRemote

__all__ = [
    "COINNDataHandle",
    "COINNDataset",
    "COINNLearner",
    "COINNLocal",
    "COINNReducer",
    "COINNRemote",
    "COINNTrainer",
]


def __getattr__(name: str) -> Any:
    if name not in ("COINNLocal", "COINNRemote"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from weft.interop.coinstac import nodes

    return getattr(nodes, name)
