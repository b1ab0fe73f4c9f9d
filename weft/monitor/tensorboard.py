"""Scalars for TensorBoard."""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from weft.engine.events import Epoch, Observer, RunResult, Start, Step
from weft.errors import UsageError
from weft.runs import RunDirectory
from weft.runs.files import explained


class TensorBoard(Observer):
    """Writes losses, scores and learning rate to the run's `tensorboard/`, over optimizer steps.

    A resumed run begins a new file that makes TensorBoard forget what lies after its first step: no point is doubled.

    Args:
        folder: where to write; the run's `tensorboard/` by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._file: EventFile | None = None

    def on_start(self, start: Start) -> None:
        folder = self._folder or (RunDirectory(start.run_path).tensorboard if start.run_path else None)
        if folder is None:
            raise UsageError("TensorBoard has no folder: this run has no directory", "give it one: TensorBoard(folder)")
        # a run that starts over where an earlier one was killed before its first checkpoint also has points to forget
        forget_from = start.step + 1 if start.resumed or folder.exists() else None
        self._file = EventFile(folder, forget_from)

    def on_step(self, step: Step) -> None:
        if step.loss is None or self._file is None:
            return
        values = {"train/loss": step.loss}
        if step.learning_rate is not None:
            values["learning_rate"] = step.learning_rate
        self._file.add(step.step, values)

    def on_epoch(self, epoch: Epoch) -> None:
        if self._file is None:
            return
        self._file.add(epoch.step, {tag: epoch.row[name] for name, tag in _tags(epoch.row).items()})
        self._file.flush()

    def on_end(self, result: RunResult) -> None:
        self._close()

    def on_error(self, error: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _tags(row: dict[str, Any]) -> dict[str, str]:
    """The tag of each number of a history row, by column."""
    tags = {}
    for name, value in row.items():
        if name in ("epoch", "step", "learning_rate") or not isinstance(value, float | int):
            continue  # the learning rate is written with the steps
        group, _, rest = name.partition("_")
        tags[name] = f"{group}/{rest}" if group in ("train", "validation") and rest else f"time/{name}"
        if name == "train_loss":
            tags[name] = "train/epoch_loss"  # train/loss is the curve over the steps
    return tags


class EventFile:
    """A TensorBoard event file, written in the caller's thread: a scalar costs some 10 µs, and a flush is a flush.

    (tensorboardX's own writer passes each event through a queue and a thread; its flush does not wait for them, and two
    runs that resume within a second write over each other's file.)

    Args:
        folder: the log folder; made where it does not exist.
        forget_from: TensorBoard drops the points of older files from this step on; None drops nothing.
    """

    def __init__(self, folder: Path, forget_from: int | None = None) -> None:
        from tensorboardX.proto import event_pb2, summary_pb2  # imports torch and more: only when it is used
        from tensorboardX.record_writer import masked_crc32c

        self._event, self._summary, self._checksum = event_pb2, summary_pb2.Summary, masked_crc32c
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        with explained(folder / name, kept="the run itself, which does not need this file"):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / name).open("xb")
        self._write(file_version="brain.Event:2")
        if forget_from is not None:
            begin = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(step=forget_from, session_log=begin)
        self.flush()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add scalars of one step, by tag."""
        scalars = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=self._summary(value=scalars))

    def flush(self) -> None:
        """Hand over to the system what was added so far: it then outlives a kill of this process."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()

    def _write(self, **content: Any) -> None:
        data = self._event.Event(wall_time=time.time(), **content).SerializeToString()
        length = struct.pack(
            "<Q", len(data)
        )  # the record format of TensorFlow: length, its checksum, data, its checksum
        parts = length, struct.pack("<I", self._checksum(length)), data, struct.pack("<I", self._checksum(data))
        self._file.write(b"".join(parts))
