"""The parts of a run's report as plain data for the templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weft.report.reading import RunFiles
from weft.report.words import component_name, duration, label, number, score, size
from weft.runs import Row, mask

SPLITS = ("train", "validation", "test")
_MOST_ROWS = 200  # of a table: classes, epochs


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a heading row and a heading column.

    Args:
        caption: what it shows.
        head: column names; the first is that of the heading column.
        rows: cells as text; the first of each row is its heading.
        note: what was left out, or how to read it.
    """

    caption: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


def in_order(splits: Mapping[str, Any]) -> list[str]:
    """Splits as one reads them: train, validation, test, others."""
    return sorted(splits, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))


def final_scores(files: RunFiles) -> dict[str, dict[str, Any]]:
    """The final scores by split: of scores/, else of result.json."""
    found = {name: content.get("scores") for name, content in files.scores.items()}
    for name, scores in (files.result.get("scores") or {}).items():
        found.setdefault(name, scores)
    return {name: scores for name in in_order(found) if isinstance(scores := found[name], dict)}


def first_score(files: RunFiles) -> str | None:
    """The score that tells most: the monitored one, else the first that is not the loss."""
    monitor = files.training.get("monitor")
    name = monitor.get("metric") if isinstance(monitor, dict) else None
    known = [score for scores in final_scores(files).values() for score in scores]
    return name if name in known and name != "loss" else next((score for score in known if score != "loss"), None)


def detail_tables(details: Mapping[str, Any]) -> Iterator[Table]:
    """A table for every detail of the form {name: {measure: number}}, such as per class or per output."""
    for key, value in details.items():
        if not isinstance(value, dict) or not value or not all(_is_numbers(item) for item in value.values()):
            continue
        measures = list(dict.fromkeys(measure for item in value.values() for measure in item))
        if measures:
            shown = list(value.items())[:_MOST_ROWS]
            rows = [
                [str(name), *(_measure(measure, item.get(measure)) for measure in measures)] for name, item in shown
            ]
            left_out = len(value) - len(shown)
            note = f"{left_out:,} more rows in scores/." if left_out else ""
            yield Table(
                label(key), [key.removeprefix("per_").capitalize(), *(label(name) for name in measures)], rows, note
            )


def _is_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(item is None or isinstance(item, int | float) for item in value.values())


def _measure(name: str, value: object) -> str:
    return number(value) if name in ("support", "count", "items") else score(value)


def history_table(history: Sequence[Row]) -> Table | None:
    """The history in numbers; of very many epochs every n-th and the last."""
    if not history:
        return None
    columns = list(dict.fromkeys(name for row in history for name in row))
    stride = -(-len(history) // _MOST_ROWS)
    rows = [row for index, row in enumerate(history) if index % stride == 0 or index == len(history) - 1]
    cells = [[number(row[name]) if name in row else "" for name in columns] for row in rows]
    note = f"Every {stride} epochs; history.csv has all." if stride > 1 else ""
    return Table("History", [label(name) for name in columns], cells, note)


def data_tables(data: Mapping[str, Any]) -> list[Table]:
    """Splits with their sizes, classes per split, and everything else that the data summary says."""
    splits = data.get("splits") if isinstance(data.get("splits"), dict) else data
    if not isinstance(splits, Mapping):
        return []
    own = {name: splits[name] for name in in_order(splits) if isinstance(splits[name], dict)}
    tables = [*_split_facts(own), *_classes(own)]
    shown = {"splits", "classes", *own}
    rest = {key: value for key, value in data.items() if key not in shown and value is not None}
    if rest:
        tables.append(Table("Further facts", ["Fact", "Value"], [list(fact) for fact in _facts_of(rest)]))
    return tables


def _split_facts(splits: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    told_of = {
        name: dict(_facts_of({key: value for key, value in split.items() if key not in _CLASS_KEYS}))
        for name, split in splits.items()
    }
    facts = dict.fromkeys(key for split in told_of.values() for key in split)
    if not facts:
        return []
    rows = [[key, *(split.get(key, "") for split in told_of.values())] for key in facts]
    return [Table("Splits", ["Fact", *(label(name) for name in splits)], rows)]


def _facts_of(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, value in words) of nested facts: {"inputs": {"shape": [1, 8]}} is `Inputs shape`, 1 × 8."""
    for key, item in value.items():
        name = f"{prefix} {key}".strip()
        if isinstance(item, Mapping) and item:
            yield from _facts_of(item, name)
        else:
            is_shape = key == "shape" and isinstance(item, list)
            yield label(name), " × ".join(str(length) for length in item) or "one number" if is_shape else told(item)


_CLASS_KEYS = ("class_counts", "classes")


def _classes(splits: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    counts = {name: _class_counts(split) for name, split in splits.items()}
    names = list(dict.fromkeys(name for split in counts.values() for name in split))
    if not names:
        return []
    rows = []
    for name in names[:_MOST_ROWS]:
        cells = []
        for split in counts.values():
            count, total = split.get(name, 0), sum(split.values())
            cells.append(f"{count:,} ({count / total:.1%})" if total else number(count))
        rows.append([name, *cells])
    note = f"{len(names) - _MOST_ROWS:,} more classes in data.json." if len(names) > _MOST_ROWS else ""
    return [Table("Classes", ["Class", *(label(name) for name in splits)], rows, note)]


def _class_counts(split: Mapping[str, Any]) -> dict[str, int]:
    for key in _CLASS_KEYS:
        value = split.get(key)
        if isinstance(value, dict) and all(isinstance(count, int) for count in value.values()):
            return {str(name): count for name, count in value.items()}
    return {}


def told(value: object) -> str:
    """Any value of a JSON file in words: lists with commas, dicts as `key: value`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) or value is None:
        return number(value)
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{label(str(key))}: {told(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join([told(item) for item in value[:20]] + (["…"] if len(value) > 20 else [])) or "–"
    return str(value)


def provenance_rows(provenance: Mapping[str, Any], result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is worth reading first of the provenance, as (name, value)."""
    versions, cpu = _part(provenance, "versions"), _part(provenance, "cpu")
    git, threads = _part(provenance, "git"), _part(provenance, "threads")
    rows: list[tuple[str, object]] = [
        ("Started", provenance.get("started")),
        ("Fingerprint", provenance.get("fingerprint") or result.get("fingerprint")),
        ("Weights (SHA-256)", result.get("model_sha256")),
        ("Data digest", _part(provenance, "data").get("digest")),
        ("Seeds", _seeds(provenance.get("seeds"))),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)),
        ("Weft's code (SHA-256)", provenance.get("weft_code")),
        ("Git commit", _commit(git)),
        ("System", _part(provenance, "platform").get("system")),
        ("Processor", _processor(cpu)),
        ("GPU", _gpus(provenance.get("gpu"))),
        ("Device", provenance.get("device")),
        ("Threads", threads.get("torch")),
        ("Emissions (estimate)", _emissions(_part(result, "carbon"))),
        ("Environment", ", ".join(f"{key}={value}" for key, value in _part(provenance, "environment").items())),
    ]
    return [(name, told(value)) for name, value in rows if value not in (None, "")]


def _part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = value.get(name)
    return part if isinstance(part, Mapping) else {}


def _emissions(carbon: Mapping[str, Any]) -> str:
    kilograms, energy = carbon.get("kg_co2eq"), carbon.get("energy_kwh")
    if not isinstance(kilograms, int | float) or not isinstance(energy, int | float):
        return ""
    return f"{1000 * kilograms:.3g} g CO2-equivalents, {1000 * energy:.3g} Wh, electricity of {carbon.get('country')}"


def _seeds(seeds: object) -> str:
    if not isinstance(seeds, Mapping):
        return ""
    if len(seeds) == 1:
        return str(next(iter(seeds.values())))
    return ", ".join(f"{name} {seed}" for name, seed in seeds.items())


def _commit(git: Mapping[str, Any]) -> str:
    if not git.get("commit"):
        return ""
    return f"{git['commit']}{' with uncommitted changes' if git.get('dirty') else ''}"


def _gpus(gpus: object) -> str:
    if not isinstance(gpus, list):
        return ""
    return ", ".join(str(gpu.get("name")) for gpu in gpus if isinstance(gpu, dict)) or "none"


def _processor(cpu: Mapping[str, Any]) -> str:
    parts = [str(cpu["model"])] if cpu.get("model") else []
    if cpu.get("usable_cores"):
        parts.append(f"{cpu['usable_cores']} of {cpu.get('cores', '?')} cores")
    if isinstance(cpu.get("memory_bytes"), int):
        parts.append(f"{size(cpu['memory_bytes'])} of memory")
    return ", ".join(parts)


def facts(files: RunFiles) -> list[tuple[str, str]]:
    """The few facts that stand under the title."""
    seconds = files.result.get("seconds")
    rows: list[tuple[str, object]] = [
        ("Model", component_name(files.experiment.get("model"))),
        ("Task", component_name(files.training.get("task"))),
        (
            "Epochs",
            files.result.get("epochs") if files.result.get("epochs") is not None else len(files.history) or None,
        ),
        ("Duration", duration(seconds) if isinstance(seconds, int | float) else None),
        ("Device", files.provenance.get("device")),
        ("Seed", files.experiment.get("seed")),
        ("Started", str(files.provenance.get("started") or "")[:16].replace("T", " ")),
    ]
    return [(name, told(value)) for name, value in rows if value not in (None, "")]
