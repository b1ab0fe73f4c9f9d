"""Checkpoints: written whole or not at all, and the one before kept until the new one is proven.

A file is named `<kind>-<step>-<digest>.pt`; the digest is the start of the sha256 of its content, so a damaged file is
recognised by its name alone, and no second file can fall out of step with it.

Where the state of a boundary also holds the best weights so far, a small one is written once and has two names, `last`
and `best` (a hard link): making and syncing a second file costs more than the room it saves.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from weft.engine.checkpoint_files import (
    NAME,
    Boundary,
    best_steps,
    boundary_of,
    read_checkpoint,
    scored_weights_of,
    size_of,
    step_of,
    write_checkpoint,
)
from weft.engine.shard_files import damage_of, sweep_folders
from weft.engine.state import plain
from weft.errors import CheckpointError
from weft.runs.files import sweep, write_atomically

logger = logging.getLogger("weft")

_SMALL = 16 * 2**20  # bytes

Saved = tuple[Path, str]  # a file that lies safely on the disk, and its kind: "last" or "best"


class CheckpointStore(Protocol):
    """Where a run keeps its state: a folder, or memory for participants that are simulated."""

    def save_last(self, state: dict[str, Any], step: int, *, best: bool = False) -> list[Saved]:
        """Keep the state of a step boundary, and where `best` its weights that are scored, as one of the best epochs.

        Returns:
            the files that lie safely on the disk since the last time that was told.
        """

    def save_best(self, weights: dict[str, Tensor], step: int, wanted: Collection[int] = ()) -> list[Saved]:
        """Keep the weights of one of the best epochs; `wanted` are the steps of all of them."""

    def load_last(self) -> dict[str, Any] | None:
        """The newest sound state, None when there is none."""

    def load_best(self, step: int) -> dict[str, Tensor]:
        """The weights of the best epochs that were saved at `step`."""

    def folder_of_shards(self) -> Path | None:
        """Where processes write their parts of sharded states; None where there are no files."""

    def newest(self) -> Path | None:
        """The file of the newest state; None where there is none, or no files."""

    def best_file(self, step: int) -> Path | None:
        """The file of the weights saved as best at `step`; None where there is none, or no files."""

    def settle(self, *, wait: bool) -> list[Saved]:
        """What became safe since the last time that was told, of writes that go on beside the training.

        Args:
            wait: for those that are under way.

        Raises:
            CheckpointError, RunDirectoryError: one of them failed; the checkpoint before is kept.
        """


@dataclass(frozen=True, slots=True)
class _Kept:
    """A state that is kept, the steps of the best weights and the folder of parts that it refers to."""

    file: Path
    place: Boundary | int  # what a new state of the same replaces
    best: set[int]
    shards: str | None

    @classmethod
    def of(cls, file: Path, state: dict[str, Any], *, apart: bool) -> Self:
        folder = state["shards"]["folder"] if "shards" in state else None
        return cls(file, boundary_of(state) if apart else step_of(file), best_steps(state), folder)


class CheckpointFolder:
    """Checkpoints in a folder.

    Args:
        folder: it is created; leftovers of writes that were killed are swept.
        keep: how many of the newest states are kept, at least 2.
        small: a state of up to so many bytes is written once where it holds best weights too; a larger one is not
            kept longer than needed only because its weights are among the best, and is not made in memory first.
        apart: states of several boundaries at one step are kept: a participant needs the earlier one where others
            were killed before they had saved the later one.
    """

    def __init__(self, folder: Path, keep: int = 2, small: int = _SMALL, *, apart: bool = False) -> None:
        self.folder = folder
        self.keep = max(keep, 2)
        self.small, self.apart = small, apart
        # The states that are kept, newest first. All are sound: written here, or read when we went on from them.
        self._kept: list[_Kept] = []
        self._sound = set[str]()  # folders of parts that were found to be what was written
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        sweep_folders(folder)

    def save_last(self, state: dict[str, Any], step: int, *, best: bool = False) -> list[Saved]:
        """Write the state of a step boundary; older states go only after it lies safely on the disk.

        Args:
            state: from `TrainingState.state_dict`; of a sharded model what is left beside its parts, which lie on the
                disk already.
            step: optimizer steps taken.
            best: the weights of this state are among the best so far.
        """
        small = size_of(state) <= self.small
        # Best weights come first: a state never refers to weights that are not there yet.
        saved = self.save_best(scored_weights_of(state), step) if best and not small else []
        path, twin = self._write("last", state, step, also="best" if best and small else None)
        if twin is not None:
            saved.append((twin, "best"))
        new = _Kept.of(path, state, apart=self.apart)
        self._kept = [new, *(kept for kept in self._kept if kept.place != new.place)][: self.keep]
        self._clear()
        return [*saved, (path, "last")]

    def save_best(self, weights: dict[str, Tensor], step: int, wanted: Collection[int] = ()) -> list[Saved]:
        """Write the weights of one of the best epochs.

        Args:
            weights: those that scores are taken from.
            step: optimizer steps taken.
            wanted: the steps of all epochs that are the best ones now. Others go, unless a state that is kept refers
                to them; states may be written much less often than weights.
        """
        path, _ = self._write("best", {"model": plain(weights, "best"), "step": step}, step)
        if wanted and (self._kept or self.newest() is None):
            self._clear_best({step, *wanted})
        return [(path, "best")]

    def load_last(self) -> dict[str, Any] | None:
        """The newest sound state; damaged ones are passed over, each with a warning that names it.

        Raises:
            CheckpointError: there are checkpoints, but none is sound.
        """
        found = self._newest("last", lambda file: True)
        if found is None:
            return None
        step = step_of(found[0])
        file, state = found
        for twin in self._files("last"):
            if step_of(twin) == step and twin != file and not isinstance(content := self._read(twin), str):
                file, state = max((file, state), (twin, content), key=lambda one: boundary_of(one[1]))
        self._kept = [_Kept.of(file, state, apart=self.apart), *self._older(step)]
        if "shards" in state:
            state["shards"]["folder"] = str((self.folder / state["shards"]["folder"]).absolute())
        elif step in best_steps(state) and self.best_file(step) is None:  # a power cut may keep one name of two
            self.save_best(scored_weights_of(state), step)
        return state

    def boundaries(self) -> list[Boundary]:
        """Where the sound states were saved, newest first."""
        contents = (self._read(file) for file in self._files("last"))
        return [boundary_of(content) for content in contents if not isinstance(content, str)]

    def give_up(self, boundary: Boundary) -> None:
        """Remove the states of one of `boundaries`: a run that goes on from an earlier one saves another there."""
        for file in self._files("last"):
            if not isinstance(content := self._read(file), str) and boundary_of(content) == boundary:
                file.unlink(missing_ok=True)

    def load_at(self, boundary: Boundary) -> dict[str, Any]:
        """The state of one of `boundaries`.

        Raises:
            CheckpointError: there is no sound state of it.
        """
        for file in self._files("last"):
            content = self._read(file)
            if not isinstance(content, str) and boundary_of(content) == tuple(boundary):
                self._kept = [_Kept.of(file, content, apart=self.apart), *self._older(step_of(file))]
                return content
        raise CheckpointError(
            f"{self.folder} holds no sound state of step {boundary[2]}", "start the run again in a new directory"
        )

    def load_best(self, step: int) -> dict[str, Tensor]:
        """The weights saved as best at `step`.

        Raises:
            CheckpointError: they are damaged or missing.
        """
        found = self._newest("best", lambda file: step_of(file) == step)
        if found is None:
            raise CheckpointError(
                f"the weights of the best epoch (step {step}) are missing from {self.folder}",
                "restore the folder from a backup, or start the run again in a new directory",
            )
        return scored_weights_of(found[1])

    def folder_of_shards(self) -> Path | None:
        """The folder itself."""
        return self.folder.absolute()

    def newest(self) -> Path | None:
        """The file of the newest state."""
        return next(iter(self._files("last")), None)

    def best_file(self, step: int) -> Path | None:
        """The file of the weights saved as best at `step`."""
        return next((file for file in self._files("best") if step_of(file) == step), None)

    def settle(self, *, wait: bool) -> list[Saved]:
        """Nothing: what was saved was told at once."""
        return []

    def _write(
        self, kind: str, content: dict[str, Any], step: int, also: str | None = None
    ) -> tuple[Path, Path | None]:
        """Write a checkpoint, under the name of another kind too where one is given (it is small then)."""

        def named(kind: str, digest: str) -> Path:
            return self.folder / f"{kind}-{step:09d}-{digest[:16]}.pt"

        if size_of(content) > self.small:
            path = write_atomically(
                self.folder / f"{kind}-{step:09d}.pt", lambda file: named(kind, write_checkpoint(content, file))
            )
            self._remove_twins(path)
            return path, None
        buffer = io.BytesIO()
        torch.save(content, buffer)
        data = buffer.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        path, second = named(kind, digest), named(also, digest) if also is not None else None
        write_atomically(path, data, also=second)
        self._remove_twins(path)
        if second is not None:
            self._remove_twins(second)
        return path, second

    def _remove_twins(self, path: Path) -> None:
        """The same step written again (a resumed run) leaves one file: the newest content counts."""
        kind = path.name.partition("-")[0]
        if kind == "last" and self.apart:
            return
        for twin in self._files(kind):
            if step_of(twin) == step_of(path) and twin != path:
                twin.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove what no state that is kept needs."""
        states = [kept.file for kept in self._kept]
        for old in self._files("last"):  # also damaged ones, which were passed over when we resumed
            if old not in states:
                old.unlink(missing_ok=True)
        sweep_folders(self.folder, needed={kept.shards for kept in self._kept if kept.shards is not None})
        self._clear_best(set())

    def _clear_best(self, wanted: set[int]) -> None:
        needed = wanted.union(*(kept.best for kept in self._kept))
        for old in self._files("best"):
            if step_of(old) not in needed:
                old.unlink(missing_ok=True)

    def _older(self, step: int) -> list[_Kept]:
        """Sound states before `step` that are still wanted when the next one is saved."""
        found: list[_Kept] = []
        for file in self._files("last"):
            if step_of(file) >= step or len(found) >= self.keep - 2:
                continue
            content = self._read(file)
            if not isinstance(content, str):
                found.append(_Kept.of(file, content, apart=self.apart))
        return found

    def _read(self, file: Path) -> dict[str, Any] | str:
        """A checkpoint whose files are all sound, or in words why they are not."""
        content = read_checkpoint(file)
        if isinstance(content, str) or "shards" not in content or content["shards"]["folder"] in self._sound:
            return content
        damage = damage_of(self.folder, content["shards"])
        if damage is not None:
            return damage
        self._sound.add(content["shards"]["folder"])  # large: they are read and digested once
        return content

    def _files(self, kind: str) -> list[Path]:
        """Checkpoints of a kind, newest first."""
        found = [
            file for file in self.folder.iterdir() if (match := NAME.fullmatch(file.name)) and match["kind"] == kind
        ]
        return sorted(found, key=step_of, reverse=True)

    def _newest(self, kind: str, wanted: Callable[[Path], bool]) -> tuple[Path, dict[str, Any]] | None:
        files = [file for file in self._files(kind) if wanted(file)]
        damaged: list[str] = []
        for file in files:
            content = self._read(file)
            if isinstance(content, str):
                damaged.append(f"{file.name}: {content}")
                logger.warning("checkpoint %s is damaged (%s); trying the one before it", file, content)
                continue
            return file, content
        if damaged:
            raise CheckpointError(
                f"no sound checkpoint in {self.folder}: {'; '.join(damaged)}",
                "restore the folder from a backup, or start the run again in a new directory",
            )
        return None
