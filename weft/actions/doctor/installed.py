"""Which packages are there, and which are missing for Weft and its extras, told from package metadata alone.

Only the standard library is imported here: `weft doctor` must work where everything else is broken.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass

_REQUIREMENT = re.compile(
    r"^\s*(?P<name>[A-Za-z0-9._-]+)\s*(?:\[(?P<extras>[^\]]*)\])?\s*\(?(?P<versions>[^;)]*)\)?\s*(?:;(?P<marker>.*))?$"
)
_EXTRA = re.compile(r"""extra\s*==\s*['"](?P<extra>[^'"]+)['"]""")
_COMPARISON = re.compile(r"^\s*(?P<operator>>=|<=|==|!=|~=|>|<)\s*(?P<version>[0-9][^\s]*)\s*$")
_DEVELOPMENT = ("dev", "benchmarks", "docs", "all")  # extras that are no feature of their own


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a package asks for.

    Args:
        name: of the other package.
        versions: the range, e.g. ">=2.6"; empty for any.
        extras: of the other package.
        extra: the extra of the asking package that it belongs to; None for its core.
    """

    name: str
    versions: str = ""
    extras: tuple[str, ...] = ()
    extra: str | None = None


@dataclass(frozen=True, slots=True)
class Package:
    """What is known of a required package.

    Args:
        name: of the package.
        wanted: the range.
        installed: the version that is there; None for none.
        fits: whether it is there and within the range.
    """

    name: str
    wanted: str
    installed: str | None
    fits: bool


def requirements_of(name: str) -> list[Requirement]:
    """What an installed package asks for; nothing where it has no metadata."""
    try:
        texts = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [requirement for text in texts if (requirement := parse(text)) is not None]


def parse(text: str) -> Requirement | None:
    """A requirement as metadata write it; None for a text that is none."""
    match = _REQUIREMENT.match(text)
    if match is None:
        return None
    extras = tuple(extra.strip() for extra in (match["extras"] or "").split(",") if extra.strip())
    found = _EXTRA.search(match["marker"] or "")
    return Requirement(match["name"], match["versions"].strip(), extras, found["extra"] if found else None)


def core_packages() -> list[Package]:
    """The packages that Weft cannot do without."""
    return [package_of(requirement) for requirement in requirements_of("weft") if requirement.extra is None]


def extra_packages() -> dict[str, list[Package]]:
    """For each extra, the packages that it brings."""
    requirements = requirements_of("weft")
    names = dict.fromkeys(requirement.extra for requirement in requirements if requirement.extra)
    return {
        extra: sorted({package_of(one) for one in _of_extra(extra, requirements)}, key=lambda one: one.name)
        for extra in names
        if extra not in _DEVELOPMENT
    }


def _of_extra(extra: str, requirements: list[Requirement]) -> Iterator[Requirement]:
    for requirement in requirements:
        if requirement.extra != extra:
            continue
        if requirement.name.lower() == "weft":  # an extra made of others
            for other in requirement.extras:
                yield from _of_extra(other, requirements)
        else:
            yield requirement


def package_of(requirement: Requirement) -> Package:
    """What is there of a required package."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Package(requirement.name, requirement.versions, None, False)
    return Package(requirement.name, requirement.versions, version, is_within(version, requirement.versions))


def is_within(version: str, versions: str) -> bool:
    """Whether a version lies within a range such as ">=2.6,<3"; parts that cannot be read are taken as met."""
    have = _release(version)
    for part in versions.split(","):
        match = _COMPARISON.match(part)
        if match is None or match["version"].endswith("*"):
            continue
        want = _release(match["version"])
        width = max(len(have), len(want))
        left, right = (numbers + (0,) * (width - len(numbers)) for numbers in (have, want))
        good = {
            ">=": left >= right,
            "<=": left <= right,
            "==": left == right,
            "!=": left != right,
            ">": left > right,
            "<": left < right,
            "~=": left >= right and have[: len(want) - 1] == want[:-1],
        }[match["operator"]]
        if not good:
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version: "2.13.0+cpu" is (2, 13, 0)."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()
