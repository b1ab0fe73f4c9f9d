"""Observers of a run: progress on the terminal, TensorBoard, tables, the log. What they print goes to standard error.

Write your own by subclassing `weft.engine.Observer`; name it under `run.observers` of the experiment.
"""

from weft.engine.events import Observer
from weft.monitor.logfile import LogFile
from weft.monitor.progress import ProgressBar
from weft.monitor.tables import ConsoleSummary, StepsCSV, score_table
from weft.monitor.tensorboard import TensorBoard

__all__ = [
    "ConsoleSummary",
    "LogFile",
    "ProgressBar",
    "StepsCSV",
    "TensorBoard",
    "score_table",
    "standard_observers",
]


def standard_observers(*, progress: bool = True, tensorboard: bool = True) -> list[Observer]:
    """The observers that a run has unless it asks for others.

    Args:
        progress: show progress and the final scores on standard error (`run.progress`).
        tensorboard: write scalars for TensorBoard (`run.tensorboard`).
    """
    observers: list[Observer] = [StepsCSV(), LogFile()]
    if tensorboard:
        observers.append(TensorBoard())
    if progress:
        observers += [ProgressBar(), ConsoleSummary()]
    return observers
