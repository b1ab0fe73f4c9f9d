"""What the commands do, as functions: train, resume, evaluate, predict, show, components, reproduce, report."""

from weft.actions.evaluate import evaluate
from weft.actions.launching import reports
from weft.actions.looking import ShownExperiment, components, report, show
from weft.actions.predict import predict
from weft.actions.reproduce import Comparison, reproduce
from weft.actions.train import resume, train
from weft.actions.trained import TrainedRun, open

__all__ = [
    "Comparison",
    "ShownExperiment",
    "TrainedRun",
    "components",
    "evaluate",
    "open",
    "predict",
    "report",
    "reports",
    "reproduce",
    "resume",
    "show",
    "train",
]
