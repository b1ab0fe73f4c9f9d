"""Observers of a run: progress on the terminal, TensorBoard, tables, the log. What they print goes to standard error.

Write your own by subclassing `weft.engine.Observer`; name it under `run.observers` of the experiment.
"""

from weft.config import Experiment
from weft.engine.events import Observer
from weft.monitor.heartbeat import HEARTBEATS, Heartbeat
from weft.monitor.logfile import LogFile, messages_kept, words_of
from weft.monitor.progress import ProgressBar
from weft.monitor.tables import ConsoleSummary, StepsCSV, score_table
from weft.monitor.tensorboard import TensorBoard
from weft.runs import RunDirectory

__all__ = [
    "HEARTBEATS",
    "ConsoleSummary",
    "Heartbeat",
    "LogFile",
    "ProgressBar",
    "StepsCSV",
    "TensorBoard",
    "messages_kept",
    "score_table",
    "standard_observers",
    "words_of",
]


def standard_observers(experiment: Experiment, directory: RunDirectory | None) -> list[Observer]:
    """The observers that a run has besides those it asks for.

    Args:
        experiment: `run.progress` shows progress and final scores on standard error, `run.tensorboard` writes scalars.
        directory: the run directory; without one nothing is written to files.
    """
    observers: list[Observer] = []
    if directory is not None:
        observers += [StepsCSV(), LogFile()]
        if experiment.run.tensorboard:
            observers.append(TensorBoard())
    if experiment.run.progress:
        observers += [ProgressBar(), ConsoleSummary()]
    return observers
