"""The `federation:` section: the sites of a study, and what they exchange."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from weft.config.component import Component
from weft.config.dataset import Arrays, ClassOrClasses, TableConfig
from weft.config.fields import Count, FilePath, Section

# Sites are folders of the study's directory.
SiteName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


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


class FederationConfig(Section):
    """A study: several sites train one model and keep their data to themselves."""

    sites: dict[SiteName, SiteConfig]
    """The sites by name (letters, digits, `-` and `_`), at least two."""
    strategy: Component = Component("dSGD")
    """What the sites exchange, and when; see `weft components strategy`."""
    steps_per_round: Count | None = None
    """Number of optimizer steps of a round, for strategies that have rounds; without it, an epoch."""
    uneven: Literal["weight_zero", "wrap", "stop"] = "weight_zero"
    """What a site does in an epoch when it has no batches left and others have: `weight_zero`, it takes part and counts
    nothing; `wrap`, it begins its items again, in a new order; `stop`, the epoch ends for all. Sites without training
    data count nothing in any case."""
    exact: bool = False
    """Whether anything is refused that would make training differ from training on all data in one place."""
