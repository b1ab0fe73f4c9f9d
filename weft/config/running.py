"""The `run:` section: how and where, never what. It does not belong to the fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from weft.config.component import Component
from weft.config.fields import AutoOrCount, Count, FilePath, Items, Positive, Section
from weft.config.watching import CarbonConfig, NotifyConfig


class CheckpointEvery(Section):
    """How often a checkpoint is written: whichever comes first."""

    minutes: Positive | None = None
    """Minutes between checkpoints."""
    steps: Count | None = None
    """Steps between checkpoints."""
    epochs: Count | None = None
    """Epochs between checkpoints."""


class RunConfig(Section):
    """How and where an experiment is run."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    processes: Count = 1
    """Number of processes that train together."""
    restarts: Annotated[int, Field(ge=0)] = 0
    """How often processes that failed are started again, from the last checkpoint."""
    min_processes: Count | None = None
    """Fewest processes to go on with when starting as many again does not help; by default as many as there were."""
    timeout: Positive = 600.0
    """Seconds that an exchange between processes may take before it is an error."""
    num_workers: AutoOrCount = "auto"
    """Number of processes that load data, for each that trains; auto: what this machine bears, for all of them."""
    cache: Literal["none", "memory", "disk"] = "none"
    """Where items are kept after the base transforms: nowhere, in memory, or on disk in `.cache` below `output`."""
    output: FilePath = Path("runs")
    """Folder in which run directories are made."""
    checkpoint_every: CheckpointEvery = CheckpointEvery(epochs=1)
    """How often a checkpoint is written."""
    checkpoint_async: bool = False
    """Whether checkpoints are written beside the training, which waits only until the state is copied in memory."""
    keep_last: Annotated[int, Field(ge=2)] = 2
    """How many of the newest checkpoints are kept."""
    keep_best: Count = 1
    """Of how many of the best epochs, by the monitored score, the weights are kept."""
    activation_checkpointing: bool | Items[str] = False
    """Whether blocks of the network are computed again in the backward pass instead of kept: less memory, more time; or
    patterns of names of modules, e.g. `[encoder.*]`."""
    sharding: Literal["none", "fsdp"] = "none"
    """Whether each of several processes keeps the whole network, or (fsdp) a part of each parameter, its gradient and
    what the optimizer keeps of it."""
    threads: AutoOrCount = "auto"
    """Number of threads of an operation."""
    progress: bool = True
    """Whether progress is shown."""
    tensorboard: bool = True
    """Whether TensorBoard files are written."""
    log_every: Count = 50
    """Number of steps between entries of the step log."""
    debug: bool = False
    """Whether statistics of batches and gradients of the first steps are logged."""
    observers: Items[Component] = Field(default_factory=list)
    """Observers of the run."""
    notify: NotifyConfig | None = None
    """Messages about the run by mail, chat or phone."""
    carbon: CarbonConfig | None = None
    """Estimate of energy and CO2."""
    score_train: Literal["never", "end", "epochs"] = "end"
    """When the training split is scored, without augmentation: never, in the end, or with each validation too."""
    predictions: bool = False
    """Whether predictions on the test split are kept."""
