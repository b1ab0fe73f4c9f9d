"""COINSTAC's pipeline, played on this machine over the folder of a computation.

    DIR/inputspec.json                          what each site is told at first
    DIR/input/localN/simulatorRun/              what site N has: its baseDirectory
    DIR/output/localN/simulatorRun/             what it writes
    DIR/{cache,transfer}/localN/simulatorRun/   what it keeps between calls, and sends
    DIR/{input,output,...}/remote/simulatorRun/ the remote's; files of site N arrive in input/remote/simulatorRun/localN

In each round all sites are called, what they put into their transfer directories is moved to the remote, the remote is
called, and what it puts there is copied to all sites. The pipeline ends when the remote says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft import __version__
from weft.errors import ConfigError, DataError, RunDirectoryError, UsageError
from weft.interop.coinstac.processes import Lines, Parent, PerCall, Persistent, Processes
from weft.interop.coinstac.storing import write
from weft.runs.lock import RunLock

REMOTE = "remote"
RUN = "simulatorRun"
PATIENCE = 10.0  # seconds that calls of a killed simulator are waited for
_STATE = Path("cache") / "pipeline.json"


@dataclass(slots=True)
class Pipeline:
    """Where a pipeline is: written after each half of a round, so that it can be gone on with.

    Args:
        sites: names.
        iteration: rounds done.
        inputs: what each site is told next.
        told: what the sites told in this round, where they did.
        caches: of each node.
        done: whether the remote has ended it.
        sent: names of the files that the remote has sent to the sites.
        verbose: whether what the scripts print is shown.
        weft: the version that began it.
    """

    sites: list[str]
    iteration: int = 0
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] | None = None
    caches: dict[str, dict[str, Any]] = field(default_factory=dict)
    done: bool = False
    sent: list[str] = field(default_factory=list)
    verbose: bool = False
    weft: str = __version__


def simulate(
    folder: Path,
    local: Path,
    remote: Path,
    *,
    alias: bool = False,
    persistent: bool = False,
    resume: bool = False,
    watch: Callable[[int, str], None] = lambda iteration, phase: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Play a computation to its end.

    Args:
        folder: with `inputspec.json` and `input/localN/simulatorRun/`.
        local: the script that each site runs.
        remote: the script that the remote runs.
        alias: make `import coinstac_dinunet` work in the scripts.
        persistent: one process per node that is called again and again, instead of a process for each call.
        resume: go on with a pipeline that was stopped or killed, where there is one.
        watch: called after each round with its number and the phase.
        tell: called with lines that scripts printed, the node's name before them: warnings, and all lines where the
            arguments say `verbose`.

    Returns:
        the folder of what was written: `DIR/output`.

    Raises:
        UsageError: a script or the folder's inputspec is missing.
        RunDirectoryError: another process plays this computation, or another version of Weft has begun it.
        ScriptError: a script failed; the site is named.
    """
    for script in (local, remote):
        if not script.is_file():
            raise UsageError(f"there is no script {script}", "name the files of sites and remote: --local, --remote")
    if not hasattr(os, "fork"):
        raise UsageError("this system cannot fork processes", "simulate on Linux or macOS, or with COINSTAC itself")
    folder = folder.resolve()
    inputs = read_inputspec(folder)
    with _alone(folder) as lock:
        pipeline = (_resumed(folder) if resume else None) or _begun(folder, inputs)
        if pipeline.done:
            return folder / "output"
        scripts = {name: local.resolve() for name in pipeline.sites} | {REMOTE: remote.resolve()}
        parent = Parent(scripts, folder / "cache" / "calls", lock, alias=alias)
        processes: Processes = Persistent(parent) if persistent else PerCall(parent)
        lines = Lines({name: parent.log(name) for name in scripts}, tell)
        try:
            while not pipeline.done:
                try:
                    _round(folder, pipeline, processes)
                finally:
                    lines.pass_on(every=pipeline.verbose)
                watch(pipeline.iteration, str(next(iter(pipeline.inputs.values()), {}).get("phase", "")))
        finally:
            processes.close()
    return folder / "output"


@contextmanager
def _alone(folder: Path) -> Iterator[RunLock]:
    """Let nobody else play the same computation; calls that a killed simulator left are waited for."""
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    lock, patience = RunLock(folder / "cache" / "lock"), time.monotonic() + PATIENCE
    while True:
        try:
            lock.acquire()
            break
        except RunDirectoryError:
            if time.monotonic() > patience:
                raise
            time.sleep(0.1)
    try:
        yield lock
    finally:
        lock.release()


def _round(folder: Path, pipeline: Pipeline, processes: Processes) -> None:
    if pipeline.told is None:
        calls = {name: _call(folder, name, pipeline, pipeline.inputs[name]) for name in pipeline.sites}
        answers = processes.call_all(calls)
        pipeline.told = {name: answer["output"] for name, answer in answers.items()}
        pipeline.verbose = pipeline.verbose or any(_is_verbose(told) for told in pipeline.told.values())
        _keep_caches(pipeline, answers)
        for name in pipeline.sites:
            _move(_directory(folder, "transfer", name), _directory(folder, "input", REMOTE) / name)
        _save(folder, pipeline)
    answer = processes.call_all({REMOTE: _call(folder, REMOTE, pipeline, pipeline.told)})[REMOTE]
    sent = {file.name for file in _directory(folder, "transfer", REMOTE).iterdir()}
    if not sent <= set(pipeline.sent):  # known before the first of them lies among a site's data
        pipeline.sent = sorted(sent | set(pipeline.sent))
        _save(folder, pipeline)
    _keep_caches(pipeline, {REMOTE: answer})
    for name in pipeline.sites:
        _copy(_directory(folder, "transfer", REMOTE), _directory(folder, "input", name))
        pipeline.inputs[name] = answer["output"]
    _clear(_directory(folder, "transfer", REMOTE))
    pipeline.told, pipeline.iteration, pipeline.done = None, pipeline.iteration + 1, answer.get("success") is True
    _save(folder, pipeline)


def _call(folder: Path, name: str, pipeline: Pipeline, given: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {"base": "input", "output": "output", "cache": "cache", "transfer": "transfer"}
    state = {f"{key}Directory": str(_directory(folder, kind, name)) for key, kind in kinds.items()}
    return {
        "cache": pipeline.caches.get(name, {}),
        "input": dict(given),
        "state": {**state, "clientId": name, "iteration": pipeline.iteration + 1},
    }


def _is_verbose(told: Mapping[str, Any]) -> bool:
    """Whether a site tells arguments that say so."""
    shared = told.get("shared_args")
    return isinstance(shared, dict) and bool(shared.get("verbose"))


def _keep_caches(pipeline: Pipeline, answers: Mapping[str, Mapping[str, Any]]) -> None:
    for name, answer in answers.items():
        if isinstance(answer.get("cache"), dict):
            pipeline.caches[name] = answer["cache"]


# --- beginning and going on -------------------------------------------------------------------------------------------


def _begun(folder: Path, inputs: dict[str, dict[str, Any]]) -> Pipeline:
    """A pipeline before its first round; what an earlier one sent is cleared away."""
    _clear_what_was_sent(folder, inputs)
    pipeline = Pipeline(sorted(inputs), inputs=inputs)
    for name in [*pipeline.sites, REMOTE]:
        for kind in ("output", "cache", "transfer"):
            _directory(folder, kind, name).mkdir(parents=True, exist_ok=True)
        _clear(_directory(folder, "transfer", name))
        if (kept := _directory(folder, "cache", name) / "weft").exists():  # of an earlier computation
            shutil.rmtree(kept)
    _directory(folder, "input", REMOTE).mkdir(parents=True, exist_ok=True)
    _save(folder, pipeline)
    return pipeline


def _clear_what_was_sent(folder: Path, sites: Iterable[str]) -> None:
    """Remove what the remote of an earlier pipeline sent: among a site's data it would count as one of their files."""
    try:
        names = json.loads((folder / _STATE).read_text(encoding="utf-8"))["sent"]
        names = [name for name in names if isinstance(name, str)]
    except (OSError, ValueError, LookupError, TypeError):  # there was none, or it is damaged
        return
    for file in (_directory(folder, "input", site) / Path(name).name for site in sites for name in names):
        if file.is_file():
            file.unlink()


def _resumed(folder: Path) -> Pipeline | None:
    file = folder / _STATE
    if not file.exists():
        return None
    again = "simulate again, without --resume"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "iteration" in content and content.get("weft") != __version__:
            found = f"Weft {content['weft']}" if "weft" in content else "an earlier version of Weft"
            raise RunDirectoryError(f"{file} was begun with {found}, this is {__version__}; nothing was changed", again)
        return Pipeline(**content)
    except (ValueError, TypeError) as error:
        raise DataError(f"{file} does not say where the pipeline is: {error}", again) from None


def _save(folder: Path, pipeline: Pipeline) -> None:
    names = ("sites", "iteration", "inputs", "told", "caches", "done", "sent", "verbose", "weft")
    content = json.dumps({name: getattr(pipeline, name) for name in names})
    write(folder / _STATE, content.encode())


def read_inputspec(folder: Path) -> dict[str, dict[str, Any]]:
    """What each site is told at first: `{"key": {"value": ...}}`, one for each site, or one for all.

    Raises:
        UsageError: there is no inputspec, or no site.
        ConfigError: it is damaged.
    """
    file = folder / "inputspec.json"
    sites = sorted(
        (path.name for path in (folder / "input").glob("local*") if re.fullmatch(r"local\d+", path.name)),
        key=lambda name: int(name.removeprefix("local")),
    )
    if not file.is_file() or not sites:
        missing = "inputspec.json" if not file.is_file() else "input/local0/simulatorRun"
        raise UsageError(
            f"{folder} has no {missing}", "name the folder of a computation as COINSTAC's simulator has it"
        )
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is no JSON: {error}", "look at that place") from None
    numbers = {name: int(name.removeprefix("local")) for name in sites}
    specs = [written] * (max(numbers.values()) + 1) if isinstance(written, dict) else written
    if not isinstance(specs, list) or len(specs) <= max(numbers.values()):
        count = len(specs) if isinstance(specs, list) else "no list of"
        raise ConfigError(
            f"{file} has {count} entries, but there is {sites[-1]}", "the entry of localN is number N, from 0"
        )
    return {name: _values(specs[number], file, name) for name, number in numbers.items()}


def _values(spec: Any, file: Path, name: str) -> dict[str, Any]:
    if not isinstance(spec, dict) or not all(isinstance(one, dict) and "value" in one for one in spec.values()):
        raise ConfigError(f'{file}: the entry of {name} is not {{"key": {{"value": ...}}}}', "write each value so")
    return {key: one["value"] for key, one in spec.items()}


# --- files ------------------------------------------------------------------------------------------------------------


def _directory(folder: Path, kind: str, name: str) -> Path:
    return folder / kind / name / RUN


def _move(source: Path, target: Path) -> None:
    _copy(source, target)
    _clear(source)


def _copy(source: Path, target: Path) -> None:
    """Copy what a node sends: plain files only, no links."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.is_symlink():
            shutil.copyfile(file, target / file.name)


def _clear(folder: Path) -> None:
    for file in folder.iterdir():
        if file.is_file() or file.is_symlink():
            file.unlink()
