"""Scenarios: what goes wrong in a simulated study, at which site and when, so that it can be planned for.

A scenario is a YAML file with a list of `events`. Steps are counted over the whole study, as in its history: an event
at step 10 happens after ten optimizer steps. Nothing in it depends on clocks, so a study with a scenario has the same
result each time, also when it is stopped and resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, PrivateAttr, ValidationError

from weft.config.document import Document
from weft.config.federation import SiteName
from weft.config.fields import Count, NotNegative, Section
from weft.config.hints import did_you_mean
from weft.config.problems import schema_problems
from weft.config.yamlfile import read_yaml
from weft.errors import ConfigError, Problem
from weft.runs import write_atomically

What = Literal[
    "leaves", "slow", "duplicated", "reordered", "truncated", "corrupted", "replayed", "update", "weights",
    "version", "experiment",
]  # fmt: skip
AT_JOINING: tuple[What, ...] = ("version", "experiment")
_OF_MESSAGES: tuple[What, ...] = ("duplicated", "reordered", "truncated", "corrupted", "replayed")
_IN_STEPS: tuple[What, ...] = tuple(what for what in get_args(What) if what not in AT_JOINING)
_BELONGS: Mapping[str, tuple[What, ...]] = {  # which events a key says something about
    "step": _IN_STEPS, "exchange": _IN_STEPS, "seconds": ("slow",), "times": ("update",), "returns": ("leaves",),
    "answers": tuple(what for what in _OF_MESSAGES if what != "reordered"),  # each site is answered once
}  # fmt: skip


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
    """Whether it happens to what the hub sends the site, for what becomes of messages but `reordered`."""

    def words(self) -> str:
        """What happens and when, as in the file."""
        if self.event in AT_JOINING:
            return f"'{self.event}' at joining"
        exchange = "" if self.exchange is None else f", exchange {self.exchange}"
        return f"'{self.event}' at step {self.step}{exchange}{', of answers' if self.answers else ''}"


class Scenario(Section):
    """All that goes wrong in a study."""

    events: list[ScenarioEvent]
    """In any order."""
    _document: Document = PrivateAttr(default_factory=lambda: Document({}))
    _text: bytes | None = PrivateAttr(default=None)

    def place(self, number: int) -> str:
        """Where an event is written, by its number from 0: file and line, or which one of the list it is."""
        place = self._document.place(("events", number), key=True)
        return f"event {number + 1}" if place.line is None else f"{Path(place.file or '').name}:{place.line}"

    def require_within(self, steps: int) -> None:
        """Refuse events that can never come.

        Args:
            steps: that the study takes where nothing ends it earlier.

        Raises:
            ConfigError: an event is planned after the end.
        """
        problems = []
        for number, event in enumerate(self.events):
            for key, value in (("step", event.step), ("returns", event.returns or 0)):
                if value > steps:
                    message = f"the study takes {steps} steps: {value} is after its end"
                    hint = f"write at most {steps}" + ("; without it the site stays away" if key == "returns" else "")
                    problems.append(self._document.at(Problem(message, hint, ("events", number, key))))
        if problems:
            raise ConfigError(problems)

    def at_joining(self, site: str) -> list[ScenarioEvent]:
        """What makes that a site cannot join."""
        return [event for event in self.events if event.site == site and event.event in AT_JOINING]

    def happening(self, site: str, step: int, exchange: int, *what: What) -> Iterable[ScenarioEvent]:
        """The events of a site at an exchange of a step."""
        for event in self.events:
            if event.site == site and event.step == step and event.event in what:
                wanted = event.exchange or (1 if event.event in ("leaves", "weights") else exchange)
                if wanted == exchange:
                    yield event

    def of_messages(self, site: str, step: int, exchange: int, *, answers: bool) -> list[ScenarioEvent]:
        """What becomes of a site's message, or of the answer to it."""
        found = self.happening(site, step, exchange, *_OF_MESSAGES)
        return [event for event in found if event.answers == answers]

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
            message, near = f"the study has no site {event.site!r}", did_you_mean(event.site, known)
            hint = f"{near}; its sites are {', '.join(known)}" if near.startswith("did") else near
            problems.append(document.at(Problem(message, hint, ("events", number, "site"))))
        problems += [document.at(problem, key=True) for problem in _contradictions(scenario.events, number)]
    if problems:
        raise ConfigError(problems)
    scenario._document = document
    scenario._text = None if isinstance(source, Mapping) else Path(source).read_bytes()
    return scenario


def _contradictions(events: list[ScenarioEvent], number: int) -> Iterator[Problem]:
    """What of an event can never be, by itself or because of another one."""
    event, at = events[number], ("events", number)
    for key, kinds in _BELONGS.items():
        if key in event.model_fields_set and getattr(event, key) not in (None, False) and event.event not in kinds:
            if key == "returns":
                message, hint = "a site returns after it has left", "give a later step, and only with event: leaves"
            elif event.event in AT_JOINING:
                message = f"{key!r} says nothing of '{event.event}', which happens when the site joins"
                hint = "remove it"
            else:
                message, hint = f"{key!r} says nothing of '{event.event}'", f"remove it; it is for {', '.join(kinds)}"
            yield Problem(message, hint, (*at, key))
    if event.event == "leaves" and event.returns is not None and event.returns <= event.step:
        yield Problem("a site returns after it has left", f"give a step after {event.step}", (*at, "returns"))
    if event.event == "slow" and event.seconds == 0:
        yield Problem("a site that takes 0 s is not slow", "add seconds: 900, for example", (*at, "seconds"))
    if event.event == "update" and event.times == 1:
        yield Problem("an update times 1 is as it was", "leave it out, or write another factor", (*at, "times"))
    yield from _while_away(events, number)


def _while_away(events: list[ScenarioEvent], number: int) -> Iterator[Problem]:
    event, path = events[number], ("events", number, "step")
    for other in events:
        if other is event or other.site != event.site or event.event in AT_JOINING:
            continue
        if other.event in AT_JOINING:
            message = f"{event.site} never joins, because of its event '{other.event}'"
            yield Problem(message, "remove one of both events", path)
            return
        gone = other.event == "leaves" and other.step < event.step
        if gone and (other.returns is None or event.step < other.returns):
            back = "and never returns" if other.returns is None else f"and returns after step {other.returns}"
            message = f"{event.site} is not there at step {event.step}: it leaves at step {other.step} {back}"
            yield Problem(message, "choose a step at which it is there", path)
            return


def write_scenario(scenario: Scenario, file: Path) -> None:
    """Write a scenario as `load_scenario` reads it; one from a file as it is, so that lines are the same."""
    if scenario._text is not None:
        write_atomically(file, scenario._text)
        return
    text = yaml.safe_dump(scenario.model_dump(exclude_defaults=True), sort_keys=False)
    write_atomically(file, text.encode())
