"""Notifications reach servers, keep secrets, and never stop or hold up a run."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

import weft
import weft.errors
from tests.monitor.helpers import small_experiment, web_server
from weft.errors import ConfigError, UsageError

pytest.importorskip("apprise")

SECRET = "hunter2hunter2"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    received: list[dict[str, Any]] = []
    with web_server(received) as port:
        monkeypatch.setenv("WEFT_NOTIFY", f"json://someone:{SECRET}@127.0.0.1:{port}/hook")
        yield received


def all_text(folder: Path) -> str:
    """Everything in text that a run wrote."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".pt", ".safetensors")]
    return "\n".join(file.read_bytes().decode(errors="replace") for file in files)


def test_start_improvement_and_end_are_told_in_their_order(told: list[dict[str, Any]], tmp_path: Path) -> None:
    events = {"on": ["start", "improvement", "end"], "improvement_minutes": 0}
    run = weft.train(small_experiment(tmp_path, notify=events), out=tmp_path / "run")
    titles = [message["title"] for message in told]
    assert titles[0] == "small has started"
    assert titles[-1] == "small is finished"
    assert "small has improved" in titles
    assert f"{run.scores['test']['accuracy']:.4g}" in told[-1]["message"]
    assert str(run.path) in told[-1]["message"]


def test_the_address_appears_in_no_file_of_the_run(told: list[dict[str, Any]], tmp_path: Path) -> None:
    weft.train(small_experiment(tmp_path, notify={}), out=tmp_path / "run")
    assert told
    written = all_text(tmp_path / "run")
    assert SECRET not in written
    assert "json://" not in written


def test_a_failure_is_told_with_its_reason(told: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from torch import nn\n\nclass Nan(nn.Module):\n    def forward(self, outputs, targets):\n"
        "        return outputs.sum() * float('nan')\n"
    )
    experiment = small_experiment(tmp_path, notify={"on": ["failure"]})
    experiment |= {"patches": [str(tmp_path / "bad.py")]}
    experiment["training"] |= {"loss": "Nan"}
    with pytest.raises(weft.errors.NotFiniteError) as error:
        weft.train(experiment, out=tmp_path / "run")
    assert [message["title"] for message in told] == ["small has failed"]
    assert error.value.message.splitlines()[0] in told[0]["message"]


def test_mail_reaches_an_smtp_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = pytest.importorskip("aiosmtpd.controller")
    letters: list[Message] = []

    class Postbox:
        async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
            letters.append(message_from_bytes(envelope.content, policy=default))
            return "250 OK"

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = controller.Controller(Postbox(), hostname="127.0.0.1", port=port)
    server.start()
    addresses = tmp_path / "addresses"
    addresses.write_text(f"# mine\nmailto://127.0.0.1:{port}?from=weft@example.org&to=me@example.org&mode=insecure\n")
    try:
        weft.train(small_experiment(tmp_path, notify={"file": str(addresses), "on": ["end"]}), out=tmp_path / "run")
    finally:
        server.stop()
    assert [str(letter["Subject"]) for letter in letters] == ["small is finished"]
    assert "me@example.org" in str(letters[0]["To"])


def test_a_server_that_is_away_stops_nothing_and_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_NOTIFY", f"json://someone:{SECRET}@127.0.0.1:1/hook")
    run = weft.train(small_experiment(tmp_path, notify={"on": ["start", "end"]}), out=tmp_path / "run")
    assert run.result["status"] == "finished"
    log = (run.path / "log.txt").read_text()
    assert log.count("a notification failed") == 1
    assert SECRET not in log


def test_a_server_that_never_answers_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[dict[str, Any]] = []
    release = threading.Event()
    with web_server(received, release) as port:
        monkeypatch.setenv("WEFT_NOTIFY", f"json://127.0.0.1:{port}/hook?rto=50")
        run = weft.train(small_experiment(tmp_path, notify={"timeout": 0.2}), out=tmp_path / "run")
        assert run.result["status"] == "finished"
        assert len(received) == 1  # the second one waits behind the first, which has no answer
    assert "still on its way" in (run.path / "log.txt").read_text()


@pytest.mark.parametrize(
    "notify",
    [
        {"urls": [f"json://me:{SECRET}@example.org"]},
        {"environment": f"json://me:{SECRET}@example.org"},
        {"file": f"json://me:{SECRET}@example.org"},
        f"json://me:{SECRET}@example.org",
        [f"json://me:{SECRET}@example.org"],
    ],
)
def test_addresses_in_the_experiment_are_refused_without_repeating_them(tmp_path: Path, notify: object) -> None:
    with pytest.raises(ConfigError) as error:
        weft.load_experiment(small_experiment(tmp_path, notify=notify))
    assert "environment variable" in str(error.value)
    assert SECRET not in str(error.value)


def test_nothing_is_trained_where_addresses_are_missing_or_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small_experiment(tmp_path, notify={})
    monkeypatch.delenv("WEFT_NOTIFY", raising=False)
    with pytest.raises(UsageError, match="holds no address"):
        weft.train(experiment, out=tmp_path / "run")
    monkeypatch.setenv("WEFT_NOTIFY", f"nonsense://{SECRET}")
    with pytest.raises(UsageError, match="none that apprise understands") as error:
        weft.train(experiment, out=tmp_path / "run")
    assert SECRET not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_addresses_in_the_run_directory_are_refused(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path, notify={"file": str(tmp_path / "run" / "addresses")})
    with pytest.raises(UsageError, match="lies in the run directory"):
        weft.train(experiment, out=tmp_path / "run")
