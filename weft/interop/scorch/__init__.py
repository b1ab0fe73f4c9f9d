"""scorch's interface: model files with Network and Socket, dataset files with DataSetIndex and DataSet, `scorch-train`.

`train` makes an experiment of them (experiment.py) that runs through Weft's own loop; the classes here are what that
experiment is made of.
"""

from weft.interop.scorch.checkpoints import read_checkpoint
from weft.interop.scorch.experiment import Flags, as_experiment
from weft.interop.scorch.inference import Inferred, infer
from weft.interop.scorch.items import ScorchItems
from weft.interop.scorch.model import ScorchModel
from weft.interop.scorch.opening import open_batches, open_items, open_model
from weft.interop.scorch.samplers import FirstShard, FixedOrder
from weft.interop.scorch.task import ScorchTask
from weft.interop.scorch.training import train
from weft.interop.scorch.watching import ScorchFiles, ScorchPrinter

__all__ = [
    "FirstShard",
    "FixedOrder",
    "Flags",
    "Inferred",
    "ScorchFiles",
    "ScorchItems",
    "ScorchModel",
    "ScorchPrinter",
    "ScorchTask",
    "as_experiment",
    "infer",
    "open_batches",
    "open_items",
    "open_model",
    "read_checkpoint",
    "train",
]
