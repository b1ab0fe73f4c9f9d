"""What another version of Weft has begun is not gone on with."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.interop.coinstac.computation import write
from tests.interop.coinstac.test_nodes import SITES, Pipeline
from weft import __version__
from weft.errors import MessageRefused, RunDirectoryError
from weft.interop.coinstac import nodes, remotes, simulator, sites, storing
from weft.interop.coinstac.nodes import close_live
from weft.interop.coinstac.simulator import simulate


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def begun(folder: Path, rounds: int = 4) -> Pipeline:
    """A computation in the middle of its training, whose processes have ended."""
    pipeline = Pipeline(folder)
    for _ in range(rounds):
        pipeline.round()
    for name, cache in pipeline.caches.items():
        close_live(cache)
        pipeline.caches[name] = {}
    return pipeline


def another(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, this is another version."""
    for module in (storing, sites, remotes, simulator):
        monkeypatch.setattr(module, "__version__", "9.9.9")


def test_a_site_refuses_what_another_version_began_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = begun(tmp_path)
    another(monkeypatch)
    before = contents(tmp_path)
    with pytest.raises(RunDirectoryError) as raised:
        pipeline.local(SITES[0])
    assert f"{SITES[0]}: the computation in " in raised.value.message
    assert f"begun with Weft {__version__} and this is 9.9.9" in raised.value.message
    assert f"pip install weft=={__version__}" in raised.value.hint
    assert "begin the computation again" in raised.value.hint
    assert contents(tmp_path) == before


def test_the_remote_refuses_it_too_and_a_call_that_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = begun(tmp_path)
    told = {name: pipeline.local(name) for name in SITES}
    another(monkeypatch)
    with pytest.raises(RunDirectoryError, match=r"^remote: the computation in .* was begun with Weft"):
        pipeline.remote(told)
    with pytest.raises(RunDirectoryError, match=rf"^{SITES[0]}: the computation in .* was begun with Weft"):
        pipeline.local(SITES[0])  # which would only be answered again
    for cache in pipeline.caches.values():
        close_live(cache)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"weft": None}, "another version of Weft, which does not say its number"),
        ({"weft": "\x1b[2J; rm"}, "another version of Weft, which does not say its number"),
        ("{", r"last\.json cannot be read"),
        (None, "nothing of this computation is left in"),
    ],
)
def test_a_folder_that_tells_no_version_or_nothing_is_refused(tmp_path: Path, written: Any, words: str) -> None:
    pipeline = begun(tmp_path)
    file = pipeline.directory("cache", SITES[0]) / "weft" / "last.json"
    if written is None:
        shutil.rmtree(file.parent)
    else:
        file.write_text(
            written if isinstance(written, str) else json.dumps({**json.loads(file.read_text()), **written})
        )
    with pytest.raises(RunDirectoryError, match=words) as raised:
        pipeline.local(SITES[0])
    assert "begin the computation again" in raised.value.hint


@pytest.mark.parametrize("left", ["another version's", "damaged"])
def test_a_new_computation_begins_where_another_one_lay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    begun(tmp_path / "before")
    if left == "damaged":
        for file in (tmp_path / "before").rglob("last.json"):
            file.write_text("{")
    else:
        another(monkeypatch)
    pipeline = Pipeline(tmp_path / "after")
    for kind in ("cache", "output"):
        shutil.copytree(tmp_path / "before" / kind, tmp_path / "after" / kind, dirs_exist_ok=True)
    pipeline.iteration = 1
    while not pipeline.round()["success"]:
        assert pipeline.iteration < 60
    for cache in pipeline.caches.values():
        close_live(cache)


def test_sites_of_unlike_versions_do_not_begin_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(tmp_path)
    told = {name: pipeline.local(name) for name in SITES}
    for version, words in (("9.9.9", "Weft 9.9.9"), (None, "no version of Weft")):
        other = {**told, SITES[1]: {**told[SITES[1]], "weft": {"version": version}}}
        pipeline.caches["remote"].clear()
        with pytest.raises(MessageRefused, match=f"{SITES[1]} tells {words}, the remote runs with {__version__}"):
            pipeline.remote(other)
    assert nodes.COINNRemote(cache={}, input=told, state=pipeline.state("remote")).first


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the simulator forks")
def test_a_pipeline_of_another_version_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"epochs": 1})
    places = tmp_path, tmp_path / "local.py", tmp_path / "remote.py"

    def stop(iteration: int, phase: str) -> None:
        if iteration == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(*places, alias=True, watch=stop)
    file = tmp_path / "cache" / "pipeline.json"
    for found in ("0.0.1", None):
        content = {key: value for key, value in json.loads(file.read_text()).items() if key != "weft"}
        file.write_text(json.dumps(content | ({"weft": found} if found else {})))
        before = file.read_bytes()
        with pytest.raises(RunDirectoryError, match=rf"pipeline.json was begun with .*this is {__version__}"):
            simulate(*places, alias=True, resume=True)
        assert file.read_bytes() == before
    assert simulate(*places, alias=True) == tmp_path.resolve() / "output"
