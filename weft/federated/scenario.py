"""Scenarios: what goes wrong in a simulated study, at which site and when, so that it can be planned for.

A scenario is a YAML file with a list of `events`. Steps are counted over the whole study, as in its history: an event
at step 10 happens after ten optimizer steps. Nothing in it depends on clocks, so a study with a scenario has the same
result each time, also when it is stopped and resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from weft.config.document import Document
from weft.config.federation import SiteName
from weft.config.fields import Count, NotNegative, Section
from weft.config.problems import schema_problems
from weft.config.yamlfile import read_yaml
from weft.errors import ConfigError, Problem
from weft.runs import write_atomically

What = Literal[
    "leaves", "slow", "duplicated", "reordered", "truncated", "corrupted", "replayed", "update", "weights",
    "version", "experiment",
]  # fmt: skip
_AT_JOINING = ("version", "experiment")
_OF_MESSAGES: tuple[What, ...] = ("duplicated", "reordered", "truncated", "corrupted", "replayed")


class ScenarioEvent(Section):
    """One thing that goes wrong."""

    site: SiteName
    """At which site."""
    event: What
    """`leaves`: the site's process dies. `slow`: its messages take `seconds`. `duplicated`, `reordered`, `truncated`,
    `corrupted`, `replayed`: what becomes of its messages. `update`: what it sends is not finite, or `times` as large.
    `weights`: its weights are changed. `version`, `experiment`: it wants to join with another one."""
    step: Annotated[int, Field(ge=0)] = 0
    """After how many optimizer steps of the study."""
    exchange: Count | None = None
    """At which exchange of that step, from 1; without it, at all of them, or for `leaves` at the first."""
    returns: Count | None = None
    """For `leaves`: after how many steps of the study it is back; without it, never."""
    seconds: NotNegative = 0.0
    """For `slow`: how long its messages take, in simulated time."""
    times: float | None = None
    """For `update`: what its numbers are multiplied by; without it they are not numbers."""
    answers: bool = False
    """Whether it happens to what the hub sends the site, for what becomes of messages."""


class Scenario(Section):
    """All that goes wrong in a study."""

    events: list[ScenarioEvent]
    """In any order."""

    def at_joining(self, site: str) -> list[ScenarioEvent]:
        """What makes that a site cannot join."""
        return [event for event in self.events if event.site == site and event.event in _AT_JOINING]

    def happening(self, site: str, step: int, exchange: int, *what: What) -> Iterable[ScenarioEvent]:
        """The events of a site at an exchange of a step."""
        for event in self.events:
            if event.site == site and event.step == step and event.event in what:
                wanted = event.exchange or (1 if event.event in ("leaves", "weights") else exchange)
                if wanted == exchange:
                    yield event

    def of_messages(self, site: str, step: int, exchange: int, *, answers: bool) -> list[What]:
        """What becomes of a site's message, or of the answer to it."""
        found = self.happening(site, step, exchange, *_OF_MESSAGES)
        return [event.event for event in found if event.answers == answers]

    def away(self, step: int, *, begun: bool = False) -> set[str]:
        """Sites that left before the beginning of a step, or where it has `begun` in it, and are not back."""
        return {
            event.site
            for event in self.events
            if event.event == "leaves"
            and event.step < step + int(begun)
            and (event.returns is None or event.returns > step)
        }

    def returning(self, step: int) -> set[str]:
        """Sites that left and are to be back by a step."""
        left = {event.site for event in self.events if event.event == "leaves" and event.step < step}
        return left - self.away(step)

    def without_effect(self, steps: int, deadline: float | None) -> Iterator[str]:
        """What of it changed nothing, in words.

        Args:
            steps: that the study took.
            deadline: seconds after which a site is late; None where there is no such thing.
        """
        for event in self.events:
            told = f"'{event.event}' of {event.site} at step {event.step}"
            if event.step > steps:
                yield f"{told} never happened: the study took {steps} steps"
            elif event.event == "slow" and (deadline is None or event.seconds <= deadline):
                limit = "federation.cohort has no deadline" if deadline is None else f"the deadline is {deadline:g} s"
                yield f"{told} changed nothing: {event.seconds:g} s, and {limit}"


def load_scenario(source: Path | str | Mapping[str, Any], sites: Iterable[str] | None = None) -> Scenario:
    """Read a scenario.

    Args:
        source: a YAML file, or its content.
        sites: names of the study's sites, where they are to be checked.

    Raises:
        ConfigError: it is none, or names a site that there is not.
    """
    if isinstance(source, Mapping):
        document = Document(dict(source))
    else:
        if not Path(source).is_file():
            raise ConfigError(f"there is no scenario file {source}", "give a YAML file with a list of events")
        document = read_yaml(Path(source))
    problems = list(document.problems)
    try:
        scenario = Scenario.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError([*problems, *schema_problems(error, Scenario, document)]) from error
    known = None if sites is None else sorted(sites)
    for number, event in enumerate(scenario.events):
        if known is not None and event.site not in known:
            message, hint = f"the study has no site {event.site!r}", f"its sites are {', '.join(known)}"
            problems.append(document.at(Problem(message, hint, ("events", number, "site"))))
        if event.returns is not None and (event.event != "leaves" or event.returns <= event.step):
            message, hint = "a site returns after it has left", "give a later step, and only with event: leaves"
            problems.append(document.at(Problem(message, hint, ("events", number, "returns"))))
    if problems:
        raise ConfigError(problems)
    return scenario


def write_scenario(scenario: Scenario, file: Path) -> None:
    """Write a scenario as `load_scenario` reads it."""
    text = yaml.safe_dump(scenario.model_dump(exclude_defaults=True), sort_keys=False)
    write_atomically(file, text.encode())
