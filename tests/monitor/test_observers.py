from __future__ import annotations

import io
import os
import pty
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.monitor.scripted import STEPS, events, play
from weft.config import Experiment
from weft.engine import Epoch, Observer, Start
from weft.errors import UsageError
from weft.monitor import ConsoleSummary, LogFile, ProgressBar, StepsCSV, TensorBoard, standard_observers
from weft.runs import RunDirectory, read_rows

REPOSITORY = Path(__file__).parents[2]


def make_run(path: Path) -> RunDirectory:
    run = RunDirectory.create(path)
    run.experiment_file.write_text("name: digits\n")
    return run


class BestTracker(Observer):
    """An observer as a user would write it."""

    def __init__(self) -> None:
        self.best: list[float] = []

    def on_epoch(self, epoch: Epoch) -> None:
        if epoch.improved:
            self.best.append(epoch.row["validation_accuracy"])


def test_users_observe_a_run_by_overriding_what_they_need() -> None:
    tracker = BestTracker()
    play([tracker], events(None, 6))
    assert tracker.best == pytest.approx([0.5, 0.6, 0.7, 0.8])


def test_a_log_gets_one_plain_line_per_epoch() -> None:
    output = io.StringIO()
    play([ProgressBar(Console(file=output))], events(None, 12))
    lines = output.getvalue().splitlines()
    assert lines[0] == "digits: 12 epochs, 10 steps each, 1,234 parameters, on cpu"
    assert len(lines) == 13
    assert lines[4].startswith(
        "epoch  4/12: train_loss 0.025, validation_loss 0.05, validation_accuracy 0.8 (best so far)"
    )
    assert "best so far" not in lines[5]
    assert "\x1b" not in output.getvalue()


def test_a_resumed_run_says_where_it_goes_on() -> None:
    output = io.StringIO()
    play([ProgressBar(Console(file=output))], events(None, 4, first_step=25))
    assert "resumed after 25 steps" in output.getvalue()
    assert re.findall(r"epoch (\d)/4", output.getvalue()) == ["3", "4"]


ON_TERMINAL = """
import sys, time
sys.path.insert(0, {root!r})
from tests.monitor.scripted import events, play
from weft.monitor import ConsoleSummary, ProgressBar
from weft.engine import Step
def slowly(stream):
    for event in stream:
        yield event
        if isinstance(event, Step):
            time.sleep(0.02)
play([ProgressBar(), ConsoleSummary()], slowly(events(None, 6)))
print("the result of the command")
"""


def test_on_a_terminal_one_line_moves_and_standard_output_stays_the_commands() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "160"}
    code = ON_TERMINAL.format(root=str(REPOSITORY))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the terminal's other end was closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert child.stdout is not None
    assert child.stdout.read() == b"the result of the command\n"
    child.stdout.close()
    assert child.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert "epoch 6/6 100%" in text
    assert re.search(
        r"loss 0\.0\d+ · best accuracy 0\.8 \(epoch 4\) · \d\.\d s left · [\d,]+ items/s · lr 0\.001", text
    )
    assert "digits: finished after 1:05 min, 6 epochs, 60 steps, best epoch 4" in text
    assert shown.decode().rfind("\x1b[?25h") > shown.decode().rfind("\x1b[?25l"), "the cursor is shown at the end"


def test_the_summary_shows_every_score_of_every_split() -> None:
    output = io.StringIO()
    play([ConsoleSummary(Console(file=output, width=80))], events(None, 2))
    lines = output.getvalue().splitlines()
    assert lines[1].split() == ["score", "train", "validation"]
    assert lines[2].split() == ["loss", "0.2", "0.25"]
    assert lines[3].split() == ["accuracy", "0.95", "0.9"]


def test_steps_are_logged_once_although_a_killed_run_repeats_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    play([StepsCSV()], events(run.path, 5, last_step=34))
    play([StepsCSV()], events(run.path, 5, first_step=20))
    undisturbed = make_run(tmp_path / "undisturbed")
    play([StepsCSV()], events(undisturbed.path, 5))
    assert run.steps_file.read_bytes() == undisturbed.steps_file.read_bytes()
    assert [row["step"] for row in read_rows(run.steps_file)] == list(range(2, 51, 2))


def test_a_run_that_starts_over_forgets_the_steps_of_the_first_try(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    play([StepsCSV()], events(run.path, 2, last_step=7))
    play([StepsCSV()], events(run.path, 2))
    rows = list(read_rows(run.steps_file))
    assert [row["step"] for row in rows] == list(range(2, 21, 2))
    assert [row["epoch"] for row in rows] == [1] * 5 + [2] * 5  # as the history counts them


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points that TensorBoard shows: later files tell from which step on older points are forgotten."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown: list[tuple[str, int, float]] = []
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                shown = [point for point in shown if point[1] < event.step]
            shown += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    tags = dict.fromkeys(tag for tag, _, _ in shown)
    return {tag: [(step, value) for other, step, value in shown if other == tag] for tag in tags}


def test_tensorboard_shows_losses_scores_and_learning_rate_over_steps(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    play([TensorBoard()], events(run.path, 3))
    shown = points(run.tensorboard)
    assert [step for step, _ in shown["train/loss"]] == list(range(2, 31, 2))
    assert shown["validation/accuracy"] == [(10, 0.5), (20, pytest.approx(0.6)), (30, pytest.approx(0.7))]
    assert set(shown) >= {"learning_rate", "validation/loss", "train/epoch_loss", "time/items_per_second"}
    assert not [tag for tag in shown if "epoch" in tag and tag != "train/epoch_loss"]


@pytest.mark.parametrize("resumed_at", [0, 10, 25])
def test_no_point_is_doubled_after_a_kill(tmp_path: Path, resumed_at: int) -> None:
    run, undisturbed = make_run(tmp_path / "run"), make_run(tmp_path / "undisturbed")
    play([TensorBoard()], events(run.path, 4, last_step=27))
    play([TensorBoard()], events(run.path, 4, first_step=resumed_at))
    play([TensorBoard()], events(undisturbed.path, 4))
    assert points(run.tensorboard) == points(undisturbed.tensorboard)


def test_tensorboard_files_pass_the_checksums_of_their_format(tmp_path: Path) -> None:
    from tensorboardX.record_writer import masked_crc32c

    run = make_run(tmp_path / "run")
    play([TensorBoard()], events(run.path, 1))
    data, at = next(run.tensorboard.iterdir()).read_bytes(), 0
    while at < len(data):
        length, check = struct.unpack_from("<QI", data, at)
        record = data[at + 12 : at + 12 + length]
        assert check == masked_crc32c(data[at : at + 8])
        assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked_crc32c(record)
        at += 16 + length


def test_the_log_tells_what_happened(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    log = LogFile()
    play([log], events(run.path, 2, last_step=15))
    log.on_checkpoint(run.checkpoints / "last.pt", "last")
    log.on_error(ValueError("the loss is nan"))
    play([LogFile()], events(run.path, 2, first_step=10))
    text = run.log_file.read_text()
    expected = [
        "INFO started digits at step 0 on cpu, 1,234 parameters",
        "INFO epoch 1, step 10: train_loss 0.1",
        "INFO saved the last checkpoint: last.pt",
        "INFO resumed digits at step 10",
        "INFO finished after 20 steps in 1:05 min",
    ]
    assert [line for line in expected if line not in text] == []


@pytest.mark.parametrize("observer", [StepsCSV, TensorBoard, LogFile])
def test_an_observer_that_writes_asks_for_a_run_directory(observer: type[Observer]) -> None:
    with pytest.raises(UsageError, match="no directory"):
        observer().on_start(Start(None, "x", 1, 1, 0, 0, 1, "cpu", "loss"))


EXPERIMENT = {
    "name": "digits",
    "dataset": {"table": {"train": "train.csv"}, "inputs": ["a"], "targets": ["b"]},
    "model": "MLP",
    "training": {"task": "classification", "epochs": 2, "batch_size": 16, "optimizer": "Adam"},
}


def test_the_standard_observers_fill_the_run_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    play(standard_observers(Experiment.model_validate(EXPERIMENT), run), events(run.path, 2))
    assert run.steps_file.exists()
    assert run.log_file.exists()
    assert list(run.tensorboard.iterdir())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 2/2" in captured.err
    assert "accuracy" in captured.err
    quiet = make_run(tmp_path / "quiet")
    silent = Experiment.model_validate({**EXPERIMENT, "run": {"progress": False, "tensorboard": False}})
    play(standard_observers(silent, quiet), events(quiet.path, 2))
    assert capsys.readouterr().err == ""
    assert not quiet.tensorboard.exists()
    assert standard_observers(silent, None) == []


def test_importing_the_monitor_does_not_import_tensorboardx() -> None:
    code = "import sys, weft.monitor; assert 'tensorboardX' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_scripted_run_is_what_the_tests_count_on() -> None:
    assert STEPS == 10
