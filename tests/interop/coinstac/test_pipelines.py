"""COINSTAC's pipeline in both forms: the same bits as in one process, also when processes are killed; results at all
sites; what is hostile or broken ends it, and is named.
"""

from __future__ import annotations

import csv
import json
import os
import runpy
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.interop.coinstac.computation import CLASSES, LASTING_LOCAL, LASTING_REMOTE, LOCAL, SIZES, write
from weft.engine import Together
from weft.errors import RunDirectoryError
from weft.interop.coinstac import simulator
from weft.interop.coinstac.processes import ScriptError
from weft.interop.coinstac.running import SiteRun, UserCode
from weft.interop.coinstac.simulator import simulate

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="the simulator forks")]

# Kills the process of one site when it has found what to ask second in a step, before it could say so; once.
KILLER = """
import os, pathlib, signal
from weft.engine.drivers import Participant

ARMED, plain = pathlib.Path(__file__).parent / 'armed', Participant.advance


def advance(self, answer):
    entry = plain(self, answer)
    between = entry is not None and entry.id.tag.startswith('right factors') and entry.id.step >= 2
    if between and self.name == 'local1' and ARMED.exists():
        ARMED.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return entry


Participant.advance = advance
"""
POWER = {"agg_engine": "powerSGD", "start_powerSGD_iter": 1, "matrix_approximation_rank": 2, "epochs": 2}


def outcome(folder: Path) -> dict[str, Any]:
    """Weights of all sites, and everything that the remote wrote, by file."""
    found: dict[str, Any] = {}
    for site in SIZES:
        file = folder / "output" / site / "simulatorRun" / "tumours" / "fold_0" / "best.tumours-0.pt"
        found[site] = file.read_bytes()
    results = folder / "output" / "remote" / "simulatorRun" / "tumours"
    return found | {file.name: file.read_bytes() for file in sorted(results.rglob("*")) if file.is_file()}


def lasting(folder: Path, **scripts: str) -> Path:
    """Plays the persistent form; returns the folder."""
    write(folder, POWER, **({"local": LASTING_LOCAL, "remote": LASTING_REMOTE} | scripts))
    simulate(folder, folder / "local.py", folder / "remote.py", alias=True, persistent=True)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A computation with PowerSGD, in processes that are called again and again."""
    return lasting(tmp_path_factory.mktemp("undisturbed"))


def test_both_forms_give_the_bits_of_one_process(undisturbed: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes.py"
    classes.write_text(CLASSES.replace("coinstac_dinunet", "weft.interop.coinstac"))
    names = runpy.run_path(str(classes))
    code = UserCode(names["MyTrainer"], names["MyDataset"])
    runs = {}
    for site in SIZES:
        kept = json.loads((undisturbed / "cache" / site / "simulatorRun" / "weft" / "last.json").read_text())["cache"]
        kinds = {"baseDirectory": "input", "outputDirectory": "output"}
        state = {key: str(undisturbed / kind / site / "simulatorRun") for key, kind in kinds.items()}
        runs[site] = SiteRun(
            code, cache=kept, input={}, state=state | {"clientId": site}, site=site, sites=list(SIZES)
        )  # fmt: skip
    Together([run.participant() for run in runs.values()]).run()
    for site, run in runs.items():
        file = undisturbed / "output" / site / "simulatorRun" / "tumours" / "fold_0" / "best.tumours-0.pt"
        written = torch.load(file, weights_only=True)["models"]["model"]
        assert all(torch.equal(value, written[name]) for name, value in run.trainer.nn["model"].state_dict().items())
        rows = (undisturbed / "output/remote/simulatorRun/tumours/fold_0/validation_log.csv").read_text().splitlines()
        assert [list(map(float, row.split(","))) for row in rows[1:]] == run.report()["validation_log"]
        run.close()


@pytest.mark.parametrize("persistent", [False, True])
def test_a_site_that_is_killed_between_the_two_sums_of_powersgd_goes_on_to_the_same_bits(
    persistent: bool, undisturbed: Path, tmp_path: Path
) -> None:
    scripts = {"local": KILLER + LASTING_LOCAL, "remote": LASTING_REMOTE} if persistent else {"local": KILLER + LOCAL}
    write(tmp_path, POWER, **scripts)
    (tmp_path / "armed").touch()
    arguments: dict[str, Any] = {"alias": True, "persistent": persistent}
    with pytest.raises(ScriptError, match=r"local1: its process was killed \(SIGKILL\)") as raised:
        simulate(tmp_path, tmp_path / "local.py", tmp_path / "remote.py", **arguments)
    assert "--resume" in raised.value.hint
    assert not (tmp_path / "armed").exists()
    before = json.loads((tmp_path / "cache" / "pipeline.json").read_text())["iteration"]
    simulate(tmp_path, tmp_path / "local.py", tmp_path / "remote.py", resume=True, **arguments)
    assert before > 5
    assert _without_places(outcome(tmp_path)) == _without_places(outcome(undisturbed))


def test_a_simulator_that_is_killed_is_followed_by_one_that_goes_on_to_the_same_bits(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it lives nobody else may play the computation; its processes end with it."""
    write(tmp_path, POWER, local=LASTING_LOCAL, remote=LASTING_REMOTE)
    scripts = tmp_path / "local.py", tmp_path / "remote.py"
    words = ["--local", scripts[0], "--remote", scripts[1], "--alias", "--persistent"]
    command = [sys.executable, "-m", "weft", "interop", "coinstac", "simulate", tmp_path, *words]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        state = tmp_path / "cache" / "pipeline.json"
        while not state.exists() or json.loads(state.read_text())["iteration"] < 9:
            assert running.poll() is None
            time.sleep(0.01)
        monkeypatch.setattr(simulator, "PATIENCE", 0.0)
        with pytest.raises(RunDirectoryError, match=f"process {running.pid} on"):
            simulate(tmp_path, *scripts, alias=True, persistent=True, resume=True)
        monkeypatch.undo()
    finally:
        running.kill()
        running.wait()
    simulate(tmp_path, *scripts, alias=True, persistent=True, resume=True)
    assert _without_places(outcome(tmp_path)) == _without_places(outcome(undisturbed))


def test_scripts_for_a_process_per_call_may_be_run_again_and_again_in_one(undisturbed: Path, tmp_path: Path) -> None:
    write(tmp_path, POWER)
    simulate(tmp_path, tmp_path / "local.py", tmp_path / "remote.py", alias=True, persistent=True)
    assert _without_places(outcome(tmp_path)) == _without_places(outcome(undisturbed))
    silent = tmp_path / "silent.py"
    silent.write_text("x = 1\n")
    with pytest.raises(ScriptError, match=r"silent\.py sent no answer"):
        simulate(tmp_path, silent, tmp_path / "remote.py", persistent=True)


def _without_places(found: dict[str, Any]) -> dict[str, Any]:
    """What was written, but for names of folders."""
    logs = json.loads(found["logs.json"])
    return found | {"logs.json": {key: value for key, value in logs.items() if not key.endswith("dir")}}


def test_the_results_lie_at_every_site_and_say_the_same(undisturbed: Path) -> None:
    results = undisturbed / "output" / "remote" / "simulatorRun" / "tumours"
    with (results / "global_test_metrics.csv").open(newline="") as file:
        header, line = csv.reader(file)
    assert header == ["Loss", "Accuracy", "F1", "Precision", "Recall"]
    assert len(line) == 5
    for number in (0, 1):
        with Image.open(results / "fold_0" / f"train_log_{number}.png") as drawn:
            assert drawn.size == (1280, 720)
            assert len(drawn.getcolors(1 << 20) or ()) > 3  # white, the frame, and curves
    for site in SIZES:
        (archive,) = (undisturbed / "output" / site / "simulatorRun").glob("tumours_powerSGD_*.zip")
        with zipfile.ZipFile(archive) as opened:
            names = {name for name in opened.namelist() if not name.endswith("/")}
            assert opened.read("global_test_metrics.csv") == (results / "global_test_metrics.csv").read_bytes()
        assert names == {file.relative_to(results).as_posix() for file in results.rglob("*") if file.is_file()}
        assert {"fold_0/logs.json", "fold_0/test_metrics.csv", "fold_0/validation_log.csv"} <= names
        for which in ("best", "latest"):
            weights = undisturbed / "output" / site / "simulatorRun" / "tumours" / "fold_0" / f"{which}.tumours-0.pt"
            assert torch.load(weights, weights_only=True)["source"] == "coinstac"


ENTRY = """
import coinstac_dinunet
from coinstac_dinunet import COINNLocal, COINNRemote
from coinstac_dinunet.io import COINPyService
from classes import MyDataset, MyTrainer


class Server(COINPyService):
    def get_local(self, msg):
        local = COINNLocal(cache=self.cache, input=msg['data']['input'], state=msg['data']['state'], epochs=1,
                           task_id='tumours')
        return local, MyTrainer, MyDataset

    def get_remote(self, msg):
        remote = COINNRemote(cache=self.cache, input=msg['data']['input'], state=msg['data']['state'])
        return remote, MyTrainer


server = Server(verbose=False)
server.start()
"""


def test_folds_follow_one_another_and_are_scored_together(tmp_path: Path) -> None:
    """By a service of release 2.0. The scores over folds are counts over counts: each item is tested once."""
    write(tmp_path, {"num_folds": 3, "batch_size": 32}, entry=ENTRY)
    simulate(tmp_path, tmp_path / "entry.py", tmp_path / "entry.py", alias=True, persistent=True)
    results = tmp_path / "output" / "remote" / "simulatorRun" / "tumours"
    assert sorted(path.name for path in results.glob("fold_*")) == ["fold_0", "fold_1", "fold_2"]
    right = total = 0.0
    for fold in range(3):
        splits = [
            json.loads(file.read_text()) for file in tmp_path.glob(f"output/local*/*/tumours/splits/*_{fold}.json")
        ]
        tested = sum(len(split["test"]) for split in splits)
        accuracy = float((results / f"fold_{fold}" / "test_metrics.csv").read_text().splitlines()[1].split(",")[1])
        right, total = right + round(accuracy * tested), total + tested
    assert total == sum(SIZES.values())
    told = float((results / "global_test_metrics.csv").read_text().splitlines()[1].split(",")[1])
    assert told == pytest.approx(right / total, abs=1e-5)


HOSTILE = """
import os, pathlib, pickle


class Hostile:
    def __reduce__(self):
        return os.mkdir, (str(pathlib.Path(__file__).parent / 'executed'),)
"""
SENDING = """
    if RECV['state']['clientId'] == 'local1' and local.out.get('weft'):
        transfer = pathlib.Path(RECV['state']['transferDirectory'])
        (transfer / 'weft-message.bin').write_bytes(pickle.dumps(Hostile()))
    local.send()
"""


def test_a_hostile_message_of_a_site_is_refused_by_its_name_and_not_executed(tmp_path: Path) -> None:
    write(tmp_path, local=HOSTILE + LOCAL.replace("\n    local.send()\n", SENDING))
    with pytest.raises(ScriptError, match=r"remote: local1: a message of \d+ bytes is refused"):
        simulate(tmp_path, tmp_path / "local.py", tmp_path / "remote.py", alias=True)
    assert not (tmp_path / "executed").exists()


def test_an_error_of_a_script_names_the_site_the_file_and_the_line(tmp_path: Path) -> None:
    broken = CLASSES.replace("loss = F.nll_loss(out, labels)", "loss = F.nll_loss(out, labels) / self.cache['missing']")
    line = 1 + broken[: broken.index("self.cache['missing']")].count("\n")
    write(tmp_path, classes=broken)
    with pytest.raises(ScriptError) as raised:
        simulate(tmp_path, tmp_path / "local.py", tmp_path / "remote.py", alias=True)
    assert raised.value.message.startswith("local")
    assert f"classes.py:{line}" in raised.value.message
    assert "'missing'" in raised.value.message
    assert "Traceback" not in str(raised.value)


EXTENDED = """
from coinstac_dinunet import COINNDataHandle, COINNLearner, COINNLocal, COINNReducer, COINNRemote
from coinstac_dinunet.metrics import COINNMetrics
from classes import MyDataset, MyTrainer

CACHE = {}


class Errors(COINNMetrics):
    def __init__(self, **kw):
        super().__init__(**kw)
        self.wrong, self.count = 0, 0

    def add(self, pred, true):
        self.wrong += int((pred != true).sum())
        self.count += len(true)

    def accumulate(self, other):
        self.wrong, self.count = self.wrong + other.wrong, self.count + other.count

    def errors(self):
        return self.wrong / max(self.count, 1)

    def get(self):
        return [self.errors(), float(self.count)]


class Trainer(MyTrainer):
    def new_metrics(self):
        return Errors()


class Reducer(COINNReducer):
    def reduce(self):
        self.cache['reduced'] = self.cache.get('reduced', 0) + 1
        return super().reduce()


class Learner(COINNLearner):
    def to_reduce(self):
        it, out = super().to_reduce()
        assert len(out['grads_file']) > 3
        return it, out


def run(data):
    if data['state']['clientId'] == 'remote':
        remote = COINNRemote(cache=CACHE, input=data['input'], state=data['state'])
        return remote(None, Trainer, Reducer)
    local = COINNLocal(cache=CACHE, input=data['input'], state=data['state'], task_id='tumours', epochs=2,
                       batch_size=16, agg_engine='mine', monitor_metric='errors', metric_direction='minimize',
                       log_header='Loss|Errors,Items')
    return local(None, Trainer, MyDataset, COINNDataHandle, Learner)
"""


def test_metrics_learners_and_reducers_of_users_work(tmp_path: Path) -> None:
    write(tmp_path, both=EXTENDED)
    simulate(tmp_path, tmp_path / "both.py", tmp_path / "both.py", alias=True, persistent=True)
    results = tmp_path / "output" / "remote" / "simulatorRun" / "tumours"
    header, line = (results / "global_test_metrics.csv").read_text().splitlines()
    assert header == "Loss,Errors,Items"
    splits = [json.loads(file.read_text()) for file in tmp_path.glob("output/local*/*/tumours/splits/*.json")]
    assert float(line.split(",")[2]) == sum(len(split["test"]) for split in splits)
    kept = json.loads((tmp_path / "cache" / "remote" / "simulatorRun" / "weft" / "last.json").read_text())["cache"]
    assert kept["reduced"] == 2 * 4  # epochs of as many steps as the largest site has batches
    weights = [file.read_bytes() for file in sorted(tmp_path.glob("output/local*/*/tumours/fold_0/best*.pt"))]
    assert len(weights) == len(SIZES)


def test_a_computation_that_only_tests_scores_given_weights_at_all_sites(undisturbed: Path, tmp_path: Path) -> None:
    """The weights come from one site; nobody trains."""
    given = undisturbed / "output" / "local1" / "simulatorRun" / "tumours" / "fold_0" / "best.tumours-0.pt"
    write(tmp_path, {"mode": "test"}, local=LASTING_LOCAL, remote=LASTING_REMOTE)
    specs = json.loads((tmp_path / "inputspec.json").read_text())
    specs[2]["pretrained_path"] = {"value": "weights.pt"}
    (tmp_path / "inputspec.json").write_text(json.dumps(specs))
    (tmp_path / "input" / "local2" / "simulatorRun" / "weights.pt").write_bytes(given.read_bytes())
    simulate(tmp_path, tmp_path / "local.py", tmp_path / "remote.py", alias=True, persistent=True)
    results = tmp_path / "output" / "remote" / "simulatorRun" / "tumours"
    report = json.loads((results / "fold_0" / "logs.json").read_text())
    assert report["train_log"] == []
    right = float((results / "global_test_metrics.csv").read_text().splitlines()[1].split(",")[1]) * sum(SIZES.values())
    assert right == pytest.approx(round(right), abs=1e-2)  # every file of every site was tested


MINDFUL = """
import numpy as np
import torch
from coinstac_dinunet import COINNDataHandle, COINNLearner, COINNLocal, COINNReducer, COINNRemote
from coinstac_dinunet.utils.tensorutils import save_arrays
from classes import MyDataset, MyTrainer


class Reducer(COINNReducer):
    def reduce(self):
        means = [torch.from_numpy(mean) for mean in self._average('grads_file')]
        before = self.cache.get('momentum') or [torch.zeros_like(mean) for mean in means]
        self.cache['momentum'] = [0.9 * old + new for old, new in zip(before, means)]
        save_arrays(self.state['transferDirectory'] + '/avg_grads.npz', [one.numpy() for one in self.cache['momentum']])
        return {'avg_grads_file': 'avg_grads.npz', 'update': True}


class Learner(COINNLearner):
    def backward(self):
        it, out = super().backward()
        self.left = getattr(self, 'left', None) or [np.zeros(tuple(one.shape), np.float32) for one in self.trained()]
        for place, one in enumerate(self.trained()):
            wanted = one.grad + torch.from_numpy(self.left[place])
            one.grad = wanted.sign() * 0.01
            self.left[place] = (wanted - one.grad).numpy()
        return it, out


def node(data, cache):
    if data['state']['clientId'] == 'remote':
        return COINNRemote(cache=cache, input=data['input'], state=data['state']), (MyTrainer, Reducer)
    local = COINNLocal(cache=cache, input=data['input'], state=data['state'], task_id='tumours', epochs=2, batch_size=8,
                       agg_engine='mine')
    return local, (MyTrainer, MyDataset, COINNDataHandle, Learner)
"""
CALLED_AGAIN = """
CACHE = {}


def run(data):
    one, classes = node(data, CACHE)
    return one(None, *classes)
"""
CALLED_ONCE = """
from coinstac_dinunet.io import RECV

if __name__ == "__main__":
    one, classes = node(RECV, RECV['cache'])
    one.compute(None, *classes)
    one.send()
"""


def test_both_forms_give_the_same_bits_where_learners_and_reducers_remember(tmp_path: Path) -> None:
    ends = []
    for form in ("once", "again"):
        folder = write(tmp_path / form, both=MINDFUL + (CALLED_AGAIN if form == "again" else CALLED_ONCE))
        simulate(folder, folder / "both.py", folder / "both.py", alias=True, persistent=form == "again")
        files = sorted(folder.glob("output/local*/*/tumours/fold_0/latest*.pt"))
        ends.append([torch.load(file, weights_only=True)["models"]["model"] for file in files])
    assert len(ends[0]) == len(SIZES)
    for once, again in zip(*ends, strict=True):
        assert all(torch.equal(value, again[name]) for name, value in once.items())
    kept = torch.load(
        tmp_path / "once" / "cache" / "remote" / "simulatorRun" / "weft" / "reducer-8.pt", weights_only=True
    )
    assert "momentum" in kept
