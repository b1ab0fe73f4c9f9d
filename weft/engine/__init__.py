"""The engine: the loop (written once, as a generator of collectives), its drivers, checkpoints, precision, determinism.

Read `loop.py` first: it tells the story of a run.
"""

import gc

# A full collection visits all that torch made, which takes a quarter of the time of these imports, and finds nothing.
_collecting = gc.isenabled()
gc.disable()

from weft.engine.build import build_run
from weft.engine.checkpoint_memory import CheckpointMemory
from weft.engine.checkpoints import CheckpointFolder
from weft.engine.collectives import Collective, Gather, Robust, Sum
from weft.engine.drivers import Participant, Together, drive_alone
from weft.engine.events import Epoch, Observer, RunResult, Start, Step, Validation
from weft.engine.loop import training
from weft.engine.membership import Membership
from weft.engine.network import pick_device
from weft.engine.run import Run
from weft.engine.strategy import AverageGradients, Gradients, Strategy

if _collecting:
    gc.enable()

__all__ = [
    "AverageGradients",
    "CheckpointFolder",
    "CheckpointMemory",
    "Collective",
    "Epoch",
    "Gather",
    "Gradients",
    "Membership",
    "Observer",
    "Participant",
    "Robust",
    "Run",
    "RunResult",
    "Start",
    "Step",
    "Strategy",
    "Sum",
    "Together",
    "Validation",
    "build_run",
    "drive_alone",
    "pick_device",
    "training",
]
