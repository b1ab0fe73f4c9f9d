"""What processes of one run tell one another besides sums: states and rows of cases.

They share one run directory, which the first of them writes.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from weft.engine.agreeing import BEGINNING
from weft.engine.collectives import Answer, Collective
from weft.engine.fully_sharded import gathered
from weft.engine.replicas import require_replicas, what_is_alike
from weft.engine.run import Run
from weft.engine.telling import everybodys
from weft.errors import UsageError


def share_state(run: Run) -> Generator[Collective, Answer, None]:
    """Everybody takes the state, and the best weights, that the first one resumes from.

    Raises:
        ProtocolError, DataError: networks or data differ between processes.
    """
    if not run.shares_directory:
        return
    mine: dict[str, Any] = {}
    sharded = run.state.sharded
    if run.participant == 0 and sharded and (folder := run.checkpoints.folder_of_shards()) is not None:
        mine["shards"] = str(folder)
    if run.participant == 0 and run.resumed:
        state = run.state
        best = None  # of a sharded model only the first process has them
        if state.best.step is not None and not sharded:
            best = run.checkpoints.load_best(state.best.step)
        mine |= {"state": run.checkpoints.load_last(), "best": best}
    if run.path is not None:
        mine["path"] = str(run.path)
    mine["alike"] = what_is_alike(run)
    told = yield from everybodys(BEGINNING, mine)
    yield from require_replicas(run, [one["alike"] for one in told])
    first = told[0]
    if "path" in first:
        run.path = Path(first["path"])
    if "shards" in first:
        run.shards = _seen(Path(first["shards"]), run)
    if run.participant == 0 or "state" not in first:
        return
    run.resumed = True
    run.state.load_state_dict(first["state"], run.participant, run.participants)
    if first["best"] is not None:
        run.checkpoints.save_best(first["best"], first["state"]["best"]["step"])


def save(run: Run, *, best: bool = False) -> Generator[Collective, Answer, None]:
    """Save the state of this boundary: everybody its own, or the first process for all.

    Args:
        run: this participant's.
        best: its weights are among the best so far; every process keeps those.
    """
    if not run.shares_directory:
        run.save(best=best)
        return
    if run.state.sharded:
        yield from _save_sharded(run, best=best)
        return
    processes = yield from everybodys("private states", run.state.private_state())
    if run.participant == 0:
        run.save(processes, best=best)
        return
    if best:
        run.save_best()
    run.saved()


def save_best(run: Run) -> Generator[Collective, Answer, None]:
    """Save the weights that scores were just taken from: everybody its own, or the first process the whole ones."""
    if not run.state.sharded:
        run.save_best()
        return
    yield from _require_finite(run)
    _save_whole(run)


def _seen(folder: Path, run: Run) -> Path:
    if folder.is_dir():
        return folder
    raise UsageError(
        f"rank {run.participant} does not see {folder}, where it shall write its parts of the model",
        "with run.sharding: fsdp the run directory must be on a file system that all machines share",
    )


def _require_finite(
    run: Run, content: dict[str, Any] | None = None
) -> Generator[Collective, Answer, list[dict[str, Any]]]:
    """Everybody's `content`; each process sees its own parts only, so all end alike where one is not finite."""
    told = yield from everybodys("private states", {"own": content or {}, "lost": run.lost_weights()})
    if lost := sorted({name for one in told for name in one["lost"]}):
        raise run.not_finite_weights(lost)
    return [one["own"] for one in told]


def _save_whole(run: Run) -> None:
    weights = gathered(run.state.model, keep=run.participant == 0)
    if weights is not None:
        run.save_as_best(weights)


def _save_sharded(run: Run, *, best: bool) -> Generator[Collective, Answer, None]:
    """Everybody writes its parts; then the first process writes the rest, which makes them count."""
    from weft.engine.shard_files import KEY, commit, separated, unfinished_folder, write_parts

    processes = yield from _require_finite(run, run.state.private_state())
    if best:  # first: a state never refers to weights that are not there yet
        _save_whole(run)
    if run.shards is None:
        run.saved()
        return
    first, step = run.participant == 0, run.state.position.step
    state, parts = separated(run.state.state_dict())
    folder = unfinished_folder(run.shards, step)
    written = yield from everybodys("parts", write_parts(parts, folder, first=first))
    if first:
        files = {name: digest for part in written for name, digest in part.items()}
        state[KEY] |= commit(folder, files, step)
        run.save_state(state | {"processes": processes})
    else:
        run.saved()


def all_rows(run: Run, rows: list[dict[str, Any]]) -> Generator[Collective, Answer, list[dict[str, Any]]]:
    """Rows per case of all processes; of this participant alone where its cases must not leave it."""
    if not run.shares_directory:
        return rows
    parts = yield from everybodys("cases", {"rows": json.dumps(rows)})
    return [row for part in parts for row in json.loads(part["rows"])]
