"""Parts of the `run:` section about who is told of a run, and what it is estimated to emit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from weft.config.fields import FilePath, Items, NotNegative, Positive, Section

NotifyEvent = Literal["start", "improvement", "end", "failure"]
_REFUSED = (
    "addresses of notifications hold passwords and tokens, and this file is copied into every run: none is read here"
)
_INSTEAD = "put them into an environment variable (WEFT_NOTIFY, or `environment: NAME`) or a file (`file: PATH`)"


def _refuse(text: Any) -> None:
    """Refuse an address, without repeating it."""
    if "://" in str(text):
        raise PydanticCustomError("secret", _REFUSED, {"hint": _INSTEAD})


def _name(value: str) -> str:
    _refuse(value)
    if not value.isidentifier():
        raise PydanticCustomError(
            "variable", "expected the name of an environment variable", {"hint": "e.g. WEFT_NOTIFY"}
        )
    return value


def _told() -> list[NotifyEvent]:
    return ["start", "end", "failure"]


class NotifyConfig(Section):
    """Messages about a run by mail, chat or phone (extra `notify`). Their addresses, one per line, are URLs as apprise
    reads them. They stand in an environment variable or in a file outside the run directory, never in the experiment.
    """

    environment: Annotated[str, AfterValidator(_name)] = "WEFT_NOTIFY"
    """Name of the environment variable that holds the addresses."""
    file: FilePath | None = None
    """File with the addresses, in place of the environment variable; lines that begin with # are comments."""
    on: Items[NotifyEvent] = Field(default_factory=_told)
    """What is told: start, improvement (of the monitored score), end, failure."""
    improvement_minutes: NotNegative = 10.0
    """Least number of minutes between two messages about improvements."""
    timeout: Positive = 10.0
    """Seconds that the end of a run waits for messages that are still on their way."""

    @model_validator(mode="before")
    @classmethod
    def _no_addresses(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for key, item in value.items():
                if str(key) in ("url", "urls", "to", "addresses"):
                    raise PydanticCustomError("secret", _REFUSED, {"hint": _INSTEAD})
                _refuse(item)
        else:
            _refuse(value)
        return value


class CarbonConfig(Section):
    """An estimate of energy and CO2 (extra `carbon`), from the hardware's power and the country's electricity. It needs
    no network."""

    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    """Three letters of the country whose electricity is used, e.g. DEU (ISO 3166-1 alpha-3)."""
    region: str | None = None
    """Region of the country, where one is known: a state of the USA or a province of Canada, e.g. california."""
    seconds: Positive = 15.0
    """Seconds between two measurements of power."""
