"""Checkpoints of sharded models: each process writes the parts that it has, and reads those that it needs.

The parts of one state lie in a folder, one safetensors file of each process, planned by torch.distributed.checkpoint;
so they can be read by any number of processes. An ordinary checkpoint, which holds the rest of the state, is written
after them and names the folder and the digest of each file: without it the parts do not count. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weft.engine.fully_sharded import is_sharded, local, no_part_of, part_of
from weft.errors import CheckpointError, ExchangeError, RunDirectoryError, WeftError
from weft.runs.files import sync_folder

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from weft.engine.state import TrainingState

KEY = "shards"  # of a state: where its sharded tensors are
_FOLDER = re.compile(r"shards-\d{9}-[0-9a-f]{16}")
_UNFINISHED = re.compile(r"\.shards-\d{9}\.partial")
_FILE = re.compile(r"part-\d{5}\.safetensors")


# --- a state and its tensors ------------------------------------------------------------------------------------------


def separated(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A state without its sharded tensors, and these by the names that they have in files.

    What is left says under `shards` what was taken out: key path, shape and type of each.
    """
    taken: dict[str, Tensor] = {}
    entries: list[dict[str, Any]] = []

    def rest(value: Any, path: list[Any]) -> Any:
        if not isinstance(value, dict):
            return value
        left = {}
        for key, item in value.items():
            if isinstance(item, Tensor) and is_sharded(item):
                where = [*path, key]
                taken[_name(where)] = item
                kind = str(item.dtype).removeprefix("torch.")
                entries.append({"path": where, "shape": list(item.shape), "dtype": kind})
            else:
                left[key] = rest(item, [*path, key])
        return left

    left: dict[str, Any] = rest(state, [])
    return left | {KEY: {"tensors": entries}}, taken


def _name(path: Sequence[Any]) -> str:
    return ".".join(map(str, path))


def placed(state: dict[str, Any], own: TrainingState) -> dict[str, Any]:
    """A state with all its tensors, as the processes that run now have them: parts of them, or whole.

    Args:
        state: with whole tensors, or from `separated`, with the files that `write_parts` made.
        own: the state that is to become this one.

    Raises:
        CheckpointError: files do not hold what the state says.
    """
    if KEY in state:
        return _read(state, own.mesh)
    return state if own.mesh is None else _parted(state, own, own.mesh)


def _parted(state: dict[str, Any], own: TrainingState, mesh: DeviceMesh) -> dict[str, Any]:
    """Whole tensors become parts where the model has parts, and where an optimizer's are shaped like parameters."""
    live = own.model.state_dict()
    model = {
        name: part_of(tensor, mesh) if name in live and is_sharded(live[name]) else tensor
        for name, tensor in state["model"].items()
    }
    optimizers = dict(state["optimizers"])
    for network, optimizer in own.optimizers.items():
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        kept = {
            number: {
                key: part_of(value, mesh)
                if isinstance(value, Tensor) and value.ndim and value.shape == parameters[number].shape
                else value
                for key, value in values.items()
            }
            for number, values in optimizers[network]["state"].items()
        }
        optimizers[network] = optimizers[network] | {"state": kept}
    return state | {"model": model, "optimizers": optimizers}


def _read(state: dict[str, Any], mesh: DeviceMesh | None) -> dict[str, Any]:
    entries, folder = state[KEY]["tensors"], Path(state[KEY]["folder"])
    found: dict[str, Tensor] = {}
    for entry in entries:
        kind, shape = getattr(torch, entry["dtype"]), entry["shape"]
        found[_name(entry["path"])] = torch.zeros(shape, dtype=kind) if mesh is None else no_part_of(shape, kind, mesh)
    read_parts(found, folder)
    complete: dict[str, Any] = _copied({key: value for key, value in state.items() if key != KEY})
    for entry in entries:
        *parents, last = entry["path"]
        place = complete
        for key in parents:
            place = place[key]
        place[last] = found[_name(entry["path"])]
    return complete


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, dict) else value


# --- files ------------------------------------------------------------------------------------------------------------


def unfinished_folder(folder: Path, step: int) -> Path:
    """Where the parts of a state are written before all of them lie safely on the disk."""
    return folder / f".shards-{step:09d}.partial"


def write_parts(tensors: dict[str, Tensor], folder: Path, *, first: bool) -> dict[str, str]:
    """Write this process's parts into a file of its own and sync it; every process must call it.

    Args:
        tensors: sharded, by name; the same names in all processes.
        folder: seen by all processes; what lies there is removed.
        first: whether this is the first process.

    Returns:
        the name of this process's file, and its sha256; nothing where it has no part of anything.

    Raises:
        RunDirectoryError, CheckpointError: in all processes, where one could not write.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save

    from weft.engine.shard_storage import PartWriter

    if first:
        shutil.rmtree(folder, ignore_errors=True)
    writer = PartWriter(folder)
    try:
        save({name: tensor for name, tensor in tensors.items() if local(tensor).numel()}, storage_writer=writer)
    except CheckpointException as error:
        raise _explained(error.failures) from error
    except RuntimeError as error:  # another process is gone
        raise ExchangeError(
            f"parts of a checkpoint could not be written: {str(error).splitlines()[0][:160]}",
            "look at what the other processes printed; then resume with the last checkpoint",
        ) from error
    return writer.digests


def _explained(failures: dict[int, Any]) -> WeftError:
    """The first failure of a process, in words."""
    rank, (error, _) = min(failures.items())
    hint = "free some space or choose another folder, then resume"
    if isinstance(error, WeftError):
        return type(error)(f"rank {rank}: {error.message}", error.hint)
    return RunDirectoryError(f"rank {rank} could not write its part of the checkpoint: {error}", hint)


def commit(unfinished: Path, files: dict[str, str], step: int) -> dict[str, Any]:
    """Give a folder whose files are all written its name; returns what the state says of it.

    Args:
        unfinished: the folder.
        files: name of each file to its sha256.
        step: optimizer steps taken.
    """
    files = dict(sorted(files.items()))
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    folder = unfinished.with_name(f"shards-{step:09d}-{digest[:16]}")
    sync_folder(unfinished)
    if folder.exists():  # the same content, from before the run was resumed; perhaps damaged since
        shutil.rmtree(folder)
    unfinished.rename(folder)
    sync_folder(folder.parent)
    return {"folder": folder.name, "files": files}


def read_parts(tensors: dict[str, Tensor], folder: Path) -> None:
    """Read what this process needs into tensors, whole or sharded, in place; without asking other processes.

    Raises:
        CheckpointError: the files do not hold them.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    needed = {name: tensor for name, tensor in tensors.items() if local(tensor).numel()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about asking no other process, which is meant
            load(needed, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        raise CheckpointError(
            f"the parts of the checkpoint in {folder} cannot be read: {cause}",
            "all processes must see the run directory; if they do, resume from another checkpoint",
        ) from error


def damage_of(folder: Path, shards: Any) -> str | None:
    """In words why the parts that a state names are not sound; None where they are.

    Args:
        folder: of the checkpoints.
        shards: what the state says.
    """
    name, files = str(shards.get("folder")), shards.get("files", {})
    if not _FOLDER.fullmatch(name) or not all(_FILE.fullmatch(file) for file in files):
        return "it names no folder of parts"
    try:
        there = {entry.name for entry in (folder / name).iterdir()}
        if there != set(files):
            return f"{name} has other files than were written"
        for file, digest in files.items():
            with (folder / name / file).open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                    return f"the bytes of {name}/{file} are not those that were written"
    except OSError as error:
        return f"{name}: {error.strerror or 'cannot be read'}"
    return None


def sweep_folders(folder: Path, needed: set[str] | None = None) -> None:
    """Remove what was not finished and, where it is known which folders are needed, all others."""
    for entry in _folders(folder):
        if _UNFINISHED.fullmatch(entry.name) or (needed is not None and entry.name not in needed):
            shutil.rmtree(entry, ignore_errors=True)


def _folders(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if (_FOLDER.fullmatch(entry.name) or _UNFINISHED.fullmatch(entry.name)) and not entry.is_symlink():
            yield entry
