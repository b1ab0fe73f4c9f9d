"""Observers of a run: progress on the terminal, TensorBoard, tables, the log, notifications, CO2, MLflow. What they
print goes to standard error.

Write your own by subclassing `weft.engine.Observer`; name it under `run.observers` of the experiment.
"""

from weft.config import Experiment
from weft.engine.events import Observer
from weft.monitor.carbon import CARBON_FILE, Carbon, carbon_of
from weft.monitor.debugging import Debugging
from weft.monitor.heartbeat import Heartbeat, Signs
from weft.monitor.logfile import LogFile, messages_kept, words_of
from weft.monitor.mlflow import MLflow
from weft.monitor.notifications import Notifications, notifications_of
from weft.monitor.progress import ProgressBar
from weft.monitor.tables import ConsoleSummary, StepsCSV, score_table
from weft.monitor.tensorboard import TensorBoard
from weft.monitor.waiting import Waiting
from weft.runs import RunDirectory

__all__ = [
    "CARBON_FILE",
    "Carbon",
    "ConsoleSummary",
    "Debugging",
    "Heartbeat",
    "LogFile",
    "MLflow",
    "Notifications",
    "ProgressBar",
    "Signs",
    "StepsCSV",
    "TensorBoard",
    "Waiting",
    "messages_kept",
    "score_table",
    "standard_observers",
    "words_of",
]


def standard_observers(experiment: Experiment, directory: RunDirectory | None) -> list[Observer]:
    """The observers that a run has besides those it asks for.

    Args:
        experiment: `run.progress` shows progress and final scores on standard error, `run.tensorboard` writes scalars,
            `run.notify` sends messages, `run.carbon` estimates emissions.
        directory: the run directory; without one nothing is written to files.

    Raises:
        UsageError: a package that is asked for is not installed, or there is no address to notify.
    """
    observers: list[Observer] = []
    if directory is not None:
        observers += [StepsCSV(), LogFile(), Waiting()]
        if experiment.run.tensorboard:
            observers.append(TensorBoard())
    if experiment.run.debug:
        observers.append(Debugging())
    told = (notifications_of(experiment, directory), carbon_of(experiment))
    observers += [observer for observer in told if observer is not None]
    if experiment.run.progress:
        observers += [ProgressBar(), ConsoleSummary()]
    return observers
