"""The `model:` and `training:` sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from weft.config.component import Component
from weft.config.fields import AutoOrSize, Count, FilePath, Items, NotNegative, Positive, Section
from weft.errors import ConfigError, Problem

MODEL_KEYS = ("component", "weights", "freeze", "unfreeze")


class ModelConfig(Section):
    """The network. `model: UNet` and `model: {UNet: {...}}` are short for `model: {component: {UNet: {...}}}`."""

    component: Component
    """The network's class with its arguments."""
    weights: FilePath | None = None
    """File with weights to start from (.safetensors or .pt)."""
    freeze: Items[str] = Field(default_factory=list)
    """Patterns of names of parameters that are not trained, e.g. `encoder.*`."""
    unfreeze: dict[Annotated[int, Field(ge=1)], Items[str]] = Field(default_factory=dict)
    """Patterns of names of parameters that are trained from this epoch on, e.g. `{5: [encoder.*]}`."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, ModelConfig) or is_long_model(value):
            return value
        return {"component": value}


def is_long_model(value: Any) -> bool:
    """Whether a `model:` section is written in its long form, with keys of its own rather than a component."""
    return isinstance(value, Mapping) and bool(set(value) & set(MODEL_KEYS))


class MonitorConfig(Section):
    """Which score decides about the best epoch and about stopping early."""

    metric: str = "loss"
    """Name of a score on the validation split."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Which direction is better; `auto` follows the score."""
    patience: Count | None = None
    """Number of evaluations without improvement after which training stops; without it, never."""
    min_delta: NotNegative = 0.0
    """Change that counts as improvement."""


class EmaConfig(Section):
    """Exponential moving average of the weights."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Share of the old average that is kept in each step."""


class GradientCompression(Section):
    """How gradients travel between processes on a slow network. `bf16` is short for `{method: bf16}`."""

    method: Literal["bf16", "fp16", "powersgd"]
    """`bf16`, `fp16`: rounded to 16 bits; `powersgd`: matrices as factors of low rank."""
    rank: Count = 2
    """Rank of PowerSGD's factors."""
    warmup_steps: Annotated[int, Field(ge=2)] = 1000
    """Number of steps before PowerSGD begins."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value


class TrainingConfig(Section):
    """How the network is trained."""

    task: Component
    """What a batch means: classification, regression, segmentation, or a class of your own."""
    epochs: Count
    """Number of passes over the training split."""
    steps: Count | None = None
    """Number of optimizer steps after which training ends, also inside an epoch."""
    batch_size: AutoOrSize
    """Number of items in a batch; `auto` for as many as fit into memory, found by trying when training begins."""
    effective_batch_size: Count | None = None
    """Number of items that make one step, a multiple of `batch_size`; `accumulate` follows from it."""
    evaluation_batch_size: Count | None = None
    """Number of items in a batch of validation and test; without it, `batch_size`, or up to eight times that where the
    items are small and lie in memory. Volumes of unlike size need 1.
    """
    drop_last: bool = False
    """Whether a last, smaller batch of an epoch is left out."""
    optimizer: Component | None = None
    """The optimizer with its arguments; without it, Adam."""
    optimizers: dict[str, Component] = Field(default_factory=dict)
    """Optimizers by the name of the network, for tasks with several."""
    scheduler: Component | None = None
    """The learning rate's schedule. Its length (`total_steps`, `T_max`, PolynomialLR's `total_iters`) is the run's
    where the file does not write it, counted in steps or epochs as `scheduler_interval` says."""
    scheduler_interval: Literal["auto", "step", "epoch"] = "auto"
    """When the scheduler moves on; `auto` follows the scheduler."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Number of steps in which the learning rate rises linearly to its value."""
    loss: Component | None = None
    """The loss; without it, the task's."""
    metrics: Items[Component] | None = None
    """Scores on the validation and test split; without them, the task's."""
    monitor: MonitorConfig = MonitorConfig()
    """Which score decides."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of forward and backward pass."""
    accumulate: Count = 1
    """Number of batches whose gradients make one step."""
    clip_norm: Positive | None = None
    """Greatest global norm of the gradients."""
    clip_value: Positive | None = None
    """Greatest absolute value of a gradient."""
    ema: EmaConfig | None = None
    """Averaged weights, used for validation and kept as the result."""
    channels_last: bool = False
    """Whether tensors lie channels-last in memory: often faster, other rounding."""
    fused: bool = False
    """Whether the optimizer runs as one fused kernel: faster, other rounding."""
    compile: bool = False
    """Whether the network is compiled by torch.compile."""
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = "default"
    """What torch.compile looks for; `reduce-overhead` replays CUDA graphs, which small networks with batches of one
    shape gain from.
    """
    deterministic: bool = True
    """Whether only deterministic algorithms are used."""
    batch_norm: Literal["global", "local"] = "global"
    """Whether batch statistics are shared among processes."""
    gradient_compression: GradientCompression | None = None
    """How gradients travel between processes; without it, as they are. With it, their number matters for results."""
    evaluate_every: Count = 1
    """Number of epochs between evaluations on the validation split."""
    train_batches: Count | None = None
    """At most so many batches of an epoch are trained on; without it, all."""
    evaluation_batches: Count | None = None
    """At most so many batches of a split are scored; without it, all."""

    @property
    def items_per_batch(self) -> int:
        """`batch_size` as a number.

        Raises:
            ConfigError: it is still to be found.
        """
        if isinstance(self.batch_size, int):
            return self.batch_size
        raise ConfigError(
            Problem(
                "training.batch_size is auto, which is found when training begins",
                "write a number, or train first: the run's experiment.yaml has it",
                ("training", "batch_size"),
            )
        )
