"""What a folder tells the simulator, and what is wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from weft.errors import ConfigError, DataError, UsageError
from weft.interop.coinstac.processes import ScriptError, checked
from weft.interop.coinstac.simulator import read_inputspec, simulate


def sites(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / "input" / name / "simulatorRun").mkdir(parents=True)
    return folder


def test_each_site_is_told_its_own_entry_or_all_the_same(tmp_path: Path) -> None:
    sites(tmp_path, "local0", "local2", "local10", "remote", "local_backup")
    file = tmp_path / "inputspec.json"
    file.write_text(json.dumps([{"n": {"value": number}} for number in range(11)]))
    assert read_inputspec(tmp_path) == {"local0": {"n": 0}, "local2": {"n": 2}, "local10": {"n": 10}}
    file.write_text(json.dumps({"n": {"value": [1, None]}}))
    assert read_inputspec(tmp_path) == {name: {"n": [1, None]} for name in ("local0", "local2", "local10")}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("[", "is no JSON"),
        ("[]", "0 entries, but there is local1"),
        ('[{"n": {"value": 1}}]', "1 entries, but there is local1"),
        ('"text"', "no list of entries"),
        ('[{"n": 1}, {"n": 1}]', "the entry of local0"),
        ('[{"n": {"value": 1}}, 7]', "the entry of local1"),
    ],
)
def test_a_damaged_inputspec_is_told_with_its_place(written: str, words: str, tmp_path: Path) -> None:
    sites(tmp_path, "local0", "local1")
    (tmp_path / "inputspec.json").write_text(written)
    with pytest.raises(ConfigError, match=words):
        read_inputspec(tmp_path)


def test_a_gap_in_the_numbers_of_sites_needs_entries_up_to_the_last(tmp_path: Path) -> None:
    sites(tmp_path, "local0", "local5")
    (tmp_path / "inputspec.json").write_text('[{"n": {"value": 0}}, {"n": {"value": 1}}]')
    with pytest.raises(ConfigError, match="2 entries, but there is local5"):
        read_inputspec(tmp_path)


def test_a_folder_that_is_none_is_left_as_it_was(tmp_path: Path) -> None:
    script = tmp_path / "local.py"
    script.touch()
    with pytest.raises(UsageError, match=r"has no inputspec\.json"):
        simulate(tmp_path / "nowhere", script, script)
    assert list(tmp_path.iterdir()) == [script]
    (tmp_path / "inputspec.json").write_text("{}")
    with pytest.raises(UsageError, match="has no input/local0"):
        simulate(tmp_path, script, script)
    with pytest.raises(UsageError, match="there is no script"):
        simulate(tmp_path, script, tmp_path / "remote.py")


def test_a_damaged_state_of_the_pipeline_is_not_gone_on_with(tmp_path: Path) -> None:
    sites(tmp_path, "local0")
    (tmp_path / "inputspec.json").write_text("{}")
    (tmp_path / "cache").mkdir()
    script = tmp_path / "local.py"
    script.touch()
    for content in ("", "[]", '{"sites": ["local0"], "elsewhere": 1}'):
        (tmp_path / "cache" / "pipeline.json").write_text(content)
        with pytest.raises(DataError, match=r"pipeline\.json does not say where the pipeline is"):
            simulate(tmp_path, script, script, resume=True)


LISTING = """
import os

def run(data):
    state = data["state"]
    seen = sorted(os.listdir(state["baseDirectory"]))
    with open(os.path.join(state["outputDirectory"], f"seen{state['iteration']}"), "w") as file:
        file.write(" ".join(seen))
    return {"output": {}, "cache": {}}
"""
SENDING = """
import os

def run(data):
    state = data["state"]
    for name in ("answer.bin", f"{data['cache'].get('began', 'results')}.zip"):
        open(os.path.join(state["transferDirectory"], name), "w").close()
    return {"output": {}, "cache": {"began": "later"}, "success": state["iteration"] == 2}
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the simulator forks")
def test_what_an_earlier_computation_sent_to_a_site_is_not_among_its_data_again(tmp_path: Path) -> None:
    sites(tmp_path, "local0")
    (tmp_path / "inputspec.json").write_text("{}")
    (tmp_path / "input" / "local0" / "simulatorRun" / "person.txt").touch()
    for name, text in {"local": LISTING, "remote": SENDING}.items():
        (tmp_path / f"{name}.py").write_text(text)
    written = tmp_path / "output" / "local0" / "simulatorRun"
    for _ in range(2):
        simulate(tmp_path, tmp_path / "local.py", tmp_path / "remote.py", persistent=True)
        assert (written / "seen1").read_text() == "person.txt"
        assert (written / "seen2").read_text() == "answer.bin person.txt results.zip"


def test_what_a_process_answers_is_told_apart(tmp_path: Path) -> None:
    log = tmp_path / "local0.log"
    assert checked("local0", '{"output": {"n": 1}}\n', 0, log)["output"] == {"n": 1}
    for text, code, words in (
        ("", 0, "local0: its script ended and sent no answer"),
        ("no JSON", 3, "ended with exit code 3 and sent no answer"),
        ('{"output": 1}', 0, "sent no answer"),
        ("", -11, r"local0: its process was killed \(SIGSEGV\)"),
        ('{"error": {"message": "m.py:3: it broke", "hint": ""}}', 1, "local0: m.py:3: it broke"),
    ):
        with pytest.raises(ScriptError, match=words):
            checked("local0", text, code, log)
