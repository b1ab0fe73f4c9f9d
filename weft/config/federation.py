"""The `federation:` section: the sites of a study, and what they exchange."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from weft.config.component import Component
from weft.config.dataset import Arrays, ClassOrClasses, TableConfig
from weft.config.fields import Count, FilePath, Positive, Section

# Sites are folders of the study's directory.
SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
SiteName = Annotated[str, StringConstraints(pattern=SITE_NAME)]


class SiteConfig(Section):
    """Where the data of a site lie: exactly one source. What all sites share stands under `dataset`."""

    table: TableConfig | None = None
    """Tables whose columns are numbers, class names or file paths."""
    arrays: Arrays | None = None
    """Array files, or a component that returns `(inputs, targets)` arrays."""
    folder: FilePath | None = None
    """Folder with `train/x/*.npy` and `train/y/*.npy`, and likewise `validation` and `test`."""
    class_: ClassOrClasses | None = Field(default=None, alias="class")
    """A torch `Dataset` class, or one for each split."""


class CohortConfig(Section):
    """Who must take part, and what of a site is left out."""

    minimum_sites: Annotated[int, Field(ge=2)] = 2
    """With fewer sites the study stops, and can be resumed when they are back; what the hub sums over one site is that
    site's."""
    deadline: Positive | None = None
    """Seconds that the others wait for a site's answer; then they go on without it, and it comes back with the next
    step. Without it they wait for ever."""
    largest_update: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = 1e4
    """An update so many times as large as is usual among the sites counts nothing; null takes any that is finite."""
    compare_weights: Count | None = 100
    """After so many steps the sites compare digests of their weights where these must be equal (at the end of a round);
    null never does."""


class PretrainingConfig(Section):
    """The site with most items to train on trains alone first, and all sites begin with its weights."""

    epochs: Count
    """Number of epochs."""
    batch_size: Count | None = None
    """Items of a batch; by default as in the study."""
    optimizer: Component | None = None
    """The optimizer with its arguments; by default as in the study."""


class FederationConfig(Section):
    """A study: several sites train one model and keep their data to themselves."""

    sites: dict[SiteName, SiteConfig]
    """The sites by name (letters, digits, `-` and `_`), at least two."""
    strategy: Component = Component("dSGD")
    """What the sites exchange, and when; see `weft components strategy`."""
    private: list[str] = Field(default_factory=list)
    """Patterns of the names of parameters and buffers that stay at the sites, which train their own; e.g. `head.*`."""
    cohort: CohortConfig = CohortConfig()
    """Who must take part."""
    steps_per_round: Count | None = None
    """Number of optimizer steps of a round, for strategies that have rounds; without it, an epoch."""
    pretraining: PretrainingConfig | None = None
    """Whether the largest site first trains alone, and how."""
    uneven: Literal["weight_zero", "wrap", "stop"] = "weight_zero"
    """What a site does in an epoch when it has no batches left and others have: `weight_zero`, it takes part and counts
    nothing; `wrap`, it begins its items again, in a new order; `stop`, the epoch ends for all. Sites without training
    data count nothing in any case."""
    minimum_cells: Annotated[int, Field(ge=0)] = 0
    """Number of items of a class that a bin of predictions has at least, where AUROC and average precision are pooled
    from bins; smaller ones are put together before they leave a site, and the bounds of the scores grow."""
    exact: bool = False
    """Whether anything is refused that would make training differ from training on all data in one place."""
