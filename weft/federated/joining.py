"""How a site joins a study: what it says of itself, and what is compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from weft import __version__
from weft.config import Experiment, to_dict
from weft.errors import MessageRefused
from weft.federated.messages import Message
from weft.federated.scenario import Scenario
from weft.runs import flatten

_LEFT_OUT = ("name", "run", "patches")  # where and how it runs, and where files lie
_MOST_SHOWN = 4
Settings = dict[str, str]


def settings_of(study: Experiment) -> Settings:
    """What must be written alike at all sites, as JSON by key; where the data of sites lie is theirs alone."""
    written = {key: value for key, value in to_dict(study).items() if key not in _LEFT_OUT}
    written["federation"] = {key: value for key, value in written["federation"].items() if key != "sites"}
    return {key: json.dumps(value, default=str) for key, value in flatten(written)}


def hello_of(
    site: str, study: str, settings: Settings, scenario: Scenario | None, *, epoch: int = 0, step: int = 0
) -> Message:
    """What a site says to join: its versions, the experiment's fingerprint and settings.

    Args:
        site: its name.
        study: the fingerprint.
        settings: from `settings_of`.
        scenario: may make it another version's, or another experiment's.
        epoch, step: where the study is.
    """
    version = __version__
    for event in scenario.at_joining(site) if scenario is not None else []:
        if event.event == "version":
            version = "0.0.0"
        else:
            study, settings = study[::-1], settings | {"seed": "-1"}
    said = {"weft": version, "torch": torch.__version__, "settings": settings}
    return Message("hello", study, site, epoch, step, content=said)


def require_same(hello: Message, study: str, settings: Mapping[str, str]) -> None:
    """Refuse a site that would train something else.

    Raises:
        MessageRefused: its version of Weft or its experiment is another one; says what differs.
    """
    site, said = hello.sender, hello.content
    if said.get("weft") != __version__:
        raise MessageRefused(
            f"{site} has Weft {_shown(said.get('weft'))}, this study runs with {__version__}",
            f"install it there: pip install weft=={__version__}",
        )
    if hello.study != study:
        raise MessageRefused(
            f"the experiment of {site} is another one: {_difference(said.get('settings'), settings)}",
            "give it the study's file and patches: weft show FILE tells the fingerprint",
        )


def _difference(there: Any, here: Mapping[str, str]) -> str:
    if not isinstance(there, dict):
        return "it does not tell its settings"
    keys = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    if not keys:
        return "its settings are the same, but not its code or the weights that it begins with"
    found = [f"{_shown(key)} is {_shown(there.get(key))} there and {_shown(here.get(key))} here" for key in keys]
    more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    return "; ".join(found[:_MOST_SHOWN]) + more


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)[:80]
