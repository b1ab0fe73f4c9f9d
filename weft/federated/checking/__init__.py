"""Looking before leaping, over several sites: what `weft check` examines for one place examined for each site's data,
and what only a study can have. Nothing is trained, written or sent; all data must lie within reach.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.actions.checking.checks import check as check_one_place
from weft.actions.checking.findings import CheckReport
from weft.actions.opening import Source

__all__ = ["check"]


def check(source: Source, overrides: Sequence[str] = (), *, thorough: bool = False) -> CheckReport:
    """Look at an experiment, also at one whose data lie at several sites; see `weft.actions.check`.

    Args:
        source: experiment file, dict or `Experiment`.
        overrides: `key=value` texts as for `--set`.
        thorough: look at every item, however long it takes, and try longer to overfit a batch.

    Returns:
        the report; of a study with its sites, each finding with those that it is about.

    Raises:
        ConfigError: there is no such file.
    """
    from weft.federated.checking.study import examine_study  # which needs the sites, who need checks of their settings

    return check_one_place(source, overrides, thorough=thorough, study=examine_study)
