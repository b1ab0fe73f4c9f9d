"""The run in words: what was trained, how it ended, how good it is, and what to mind."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from weft.report.matrices import confusions, read_confusion
from weft.report.reading import RunFiles
from weft.report.sections import final_scores
from weft.report.words import component_name, duration, listed, number, plain_name, plural
from weft.runs import Row, mask_arguments

_ROSE_BY = 0.1  # a validation loss this much above its lowest is worth a sentence


def summary(files: RunFiles, trivial: str = "", what: str = "") -> list[str]:
    """Sentences for the top of the report.

    Args:
        files: the run.
        trivial: the sentence about the trivial model.
        what: the first sentence, where it is no ordinary run.
    """
    told = [what or _what(files), _how_it_ended(files), _which_weights(files), _how_good(files), trivial]
    told += [_overfitting(files.history), _confusion(files)]
    return [sentence for sentence in told if sentence]


def main_split(scores: Mapping[str, Any]) -> str | None:
    """The split that tells most about new data: test, else validation, else what there is."""
    return next((name for name in ("test", "validation", *scores) if name in scores), None)


def reproduce_commands(files: RunFiles) -> list[tuple[str, str]]:
    """(what it does, command) to get this run again."""
    path = shlex.quote(str(files.directory.path))
    commands = [("Train again from this folder and compare weights and scores", f"weft reproduce {path}")]
    resume = files.result.get("resume")
    if resume:
        commands.insert(0, ("Go on where the run stopped", str(resume)))
    original = files.provenance.get("command")
    if isinstance(original, list) and original:
        commands.append(
            ("The command that started this run", shlex.join(mask_arguments([str(part) for part in original])))
        )
    return commands


def _what(files: RunFiles) -> str:
    task = component_name(files.training.get("task"))
    model = component_name(files.experiment.get("model"))
    if model is None:
        return ""
    items = {name: _items(files.data, name) for name in ("train", "validation", "test")}
    sizes = [
        plural(count, f"{name} item").replace("train item", "training item") for name, count in items.items() if count
    ]
    fold = files.experiment.get("fold")
    return (
        f"“{files.name}” trains {model}" + (f" for {task}" if task else "")
        + (f" on {listed(sizes)}" if sizes else "") + (f", fold {fold}" if fold is not None else "") + "."
    )  # fmt: skip


def _items(data: Mapping[str, Any], split: str) -> int | None:
    splits = data.get("splits", data)
    entry = splits.get(split) if isinstance(splits, Mapping) else None
    count = entry.get("items") if isinstance(entry, Mapping) else None
    return count if isinstance(count, int) else None


def _how_it_ended(files: RunFiles) -> str:
    result, status = files.result, files.result.get("status")
    if result.get("tested"):
        return f"Nothing was trained: the weights that were scored are {result['tested']}."
    epochs = result.get("epochs") or len(files.history)
    steps = f" ({plural(result['steps'], 'step')})" if result.get("steps") else ""
    after = f" after {plural(epochs, 'epoch')}{steps}" if epochs else " before the first epoch was over"
    if isinstance(result.get("seconds"), int | float):
        after += f", in {duration(result['seconds'])}"
    device = files.provenance.get("device")
    where = f" on {device}" if device else ""
    if status == "failed":
        return f"It failed{after}{where}."
    if status == "stopped":
        return f"It was stopped{after}{where} and can be resumed."
    if status == "finished":
        planned = files.training.get("epochs")
        early = isinstance(planned, int) and 0 < epochs < planned
        return f"It finished{after}{where}" + (f"; up to {planned} epochs were planned." if early else ".")
    so_far = f" Done so far: {plural(epochs, 'epoch')}." if epochs else ""
    return f"It has not ended: it is still running, or was killed.{so_far}"


def _which_weights(files: RunFiles) -> str:
    best, monitor = files.result.get("best_epoch"), files.result.get("monitor")
    if best is None:
        return ""
    name = monitor.get("metric") if isinstance(monitor, dict) else monitor
    value = monitor.get("best") if isinstance(monitor, dict) else None
    reached = f" ({number(value)})" if value is not None else ""
    return f"Its weights are those of epoch {best}, the best by validation {plain_name(name)}{reached}." if name else ""


_TOLD = 0.005  # how far a score from bins may be off, from which on the summary says so


def _how_good(files: RunFiles) -> str:
    scores = final_scores(files)
    split = main_split(scores)
    if split is None:
        return ""
    bounds = files.bounds.get(split, {})
    values = [
        f"{plain_name(name)} {number(value)}" + (f" ± {number(off)}" if (off := bounds.get(name, 0)) > _TOLD else "")
        for name, value in scores[split].items()
        if name != "loss" and value is not None
    ]
    values = values[:4] or [f"loss {number(scores[split].get('loss'))}"]
    meaning = {
        "test": "On the test items, which had no part in training,",
        "validation": "On the validation items, which chose the best epoch (so expect a little less on new data),",
    }.get(split, f"On the {split} items")
    return f"{meaning} it reaches {listed(values)}."


def _overfitting(history: Sequence[Row]) -> str:
    losses = [(row["epoch"], row["train_loss"], row["validation_loss"]) for row in history if _has_losses(row)]
    if len(losses) < 4:
        return ""
    epoch, train_then, lowest = min(losses, key=lambda entry: float(entry[2]))
    _, train_now, last = losses[-1]
    if float(lowest) <= 0 or float(last) < float(lowest) * (1 + _ROSE_BY) or float(train_now) >= float(train_then):
        return ""
    return (
        f"After epoch {epoch} the validation loss rose from {number(lowest)} to {number(last)} while the training loss "
        f"went on falling to {number(train_now)}: the network began to learn the training items by heart."
    )


def _has_losses(row: Row) -> bool:
    return all(isinstance(row.get(name), int | float) for name in ("epoch", "train_loss", "validation_loss"))


def _confusion(files: RunFiles) -> str:
    split = main_split(files.scores)
    details = files.scores[split].get("details") if split else None
    matrix = read_confusion(details) if isinstance(details, dict) else None
    if matrix is None:
        return ""
    worst = confusions(*matrix, most=1)
    if not worst:
        return f"It makes no mistake on the {split} items."
    one = worst[0]
    items = "pixels or voxels" if "overlap_definition" in (details or {}) else "items"
    times = "once" if one.count == 1 else f"{one.count:,} times"
    mistake = f"“{one.truth}” taken for “{one.prediction}”"
    return f"Its most frequent mistake there: {mistake}, {times} ({one.share:.1%} of its {items})."
