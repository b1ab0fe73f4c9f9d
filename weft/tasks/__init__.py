"""What a batch means: loss, predictions, scores. Classification, regression, segmentation, and the base class for
own tasks.
"""

from weft.tasks.base import OwnOptimizer, Task
from weft.tasks.classification import Classification
from weft.tasks.regression import Regression
from weft.tasks.segmentation import Segmentation, cross_entropy_and_dice
from weft.tasks.updates import Evaluation, Update

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "regression": Regression,
    "segmentation": Segmentation,
}

__all__ = [
    "TASKS",
    "Classification",
    "Evaluation",
    "OwnOptimizer",
    "Regression",
    "Segmentation",
    "Task",
    "Update",
    "cross_entropy_and_dice",
]
