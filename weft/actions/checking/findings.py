"""What a check finds: each finding says what, where, the evidence, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from weft.errors import ConfigError, WeftError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    Args:
        severity: "error" (training would fail or mean nothing), "warning" (it may), "note" (good to know).
        check: short name of what was checked, e.g. "constant input"; the same in every report.
        where: the split, column, layer or key that it is about.
        message: what is so, with the values.
        remedy: what to do about it.
        evidence: the values that it rests on, for programs.
    """

    severity: Severity
    check: str
    where: str
    message: str
    remedy: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Findings(list[Finding]):
    """Findings as they are collected, with a method for each severity."""

    def error(self, check: str, where: str, message: str, remedy: str = "", **evidence: Any) -> None:
        """Training would fail, or its result would mean nothing."""
        self.append(Finding("error", check, where, message, remedy, evidence))

    def warning(self, check: str, where: str, message: str, remedy: str = "", **evidence: Any) -> None:
        """Training may fail, or its result may mean less than it seems."""
        self.append(Finding("warning", check, where, message, remedy, evidence))

    def note(self, check: str, where: str, message: str, remedy: str = "", **evidence: Any) -> None:
        """Good to know."""
        self.append(Finding("note", check, where, message, remedy, evidence))

    def report(
        self, severity: Severity, check: str, where: str, message: str, remedy: str = "", **evidence: Any
    ) -> None:
        """A finding whose severity depends on the evidence."""
        self.append(Finding(severity, check, where, message, remedy, evidence))

    def raised(self, check: str, where: str, error: Exception) -> None:
        """An error that something raised; problems of an experiment file become one finding each."""
        if isinstance(error, ConfigError):
            for problem in error.problems:
                place = ":".join(str(part) for part in (problem.file, problem.line, problem.column) if part is not None)
                key = ".".join(str(part) for part in problem.path)
                self.error(
                    check, ", ".join(part for part in (key, place) if part) or where, problem.message, problem.hint
                )
        elif isinstance(error, WeftError):
            self.error(check, where, error.message, error.hint)
        else:
            self.error(check, where, f"{type(error).__name__}: {error}".strip(": "))

    def has(self, severity: Severity, check: str | None = None) -> bool:
        """Whether there is a finding of this severity (and check)."""
        return any(one.severity == severity and check in (None, one.check) for one in self)


@dataclass(slots=True)
class CheckReport:
    """What `weft check` came to.

    Args:
        name: name of the experiment.
        findings: sorted, errors first.
        looked_at: split to how many items were looked at, of how many, and their shapes.
        measured: what the probes of the model measured, e.g. the loss at the start.
        estimates: memory, disk and time that training will take.
        study: of a study, what its sites have and send.
        left_out: checks that were not made, with the reason.
        seconds: how long the check took.
    """

    name: str
    findings: Findings = field(default_factory=Findings)
    looked_at: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    estimates: dict[str, Any] = field(default_factory=dict)
    study: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.findings.has("error")

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by severity."""
        counted = Counter(finding.severity for finding in self.findings)
        return {severity: counted[severity] for severity in SEVERITIES}

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "experiment": self.name,
            "ok": self.ok,
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
            "looked_at": self.looked_at,
            "measured": self.measured,
            "estimates": self.estimates,
            **({"study": self.study} if self.study else {}),
            "left_out": self.left_out,
            "seconds": round(self.seconds, 3),
        }

    def sort(self) -> None:
        """Bring the findings into their order: by severity, else as they were found."""
        self.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))


def number(value: float) -> str:
    """A number in a message: four significant digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def listed(values: Any, most: int = 5) -> str:
    """Values in a message, the first few of them."""
    values = list(values)
    shown = ", ".join(str(value) for value in values[:most])
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown


def count(amount: int, word: str) -> str:
    """An amount with its word: "1 item", "3 items"."""
    if amount == 1:
        return f"1 {word}"
    return f"{amount:,} {word[:-1]}ies" if word.endswith("y") and word[-2:-1] not in "aeiou" else f"{amount:,} {word}s"
