"""Broken experiment files: each mistake is told with file, line, column and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from weft.config import load_experiment
from weft.errors import ConfigError, Problem

GOOD = """\
name: small
seed: 3
dataset:
  arrays: {sklearn.datasets.load_breast_cancer: {return_X_y: true}}
  split: {ratio: [0.7, 0.15, 0.15]}
model:
  MLP: {in_features: 30, out_features: 2, hidden: [16]}
training:
  task: classification
  epochs: 2
  batch_size: 16
  optimizer: {AdamW: {lr: 1e-3}}
  metrics: [accuracy]
  monitor: {metric: accuracy}
run: {device: cpu}
"""

ARRAYS = "  arrays: {sklearn.datasets.load_breast_cancer: {return_X_y: true}}\n  split: {ratio: [0.7, 0.15, 0.15]}\n"
OPTIMIZER = "  optimizer: {AdamW: {lr: 1e-3}}\n"
MODEL = "  MLP: {in_features: 30, out_features: 2, hidden: [16]}\n"


@dataclass(frozen=True)
class Case:
    """A change of the good file, and where and how the mistake is told."""

    name: str
    old: str
    new: str
    place: str
    message: str
    hint: str = ""


CASES = [
    # names of keys at each level
    Case("top level key", "seed: 3", "sed: 3", "2:1", "unknown key 'sed'", "did you mean 'seed'?"),
    Case("section key", "  epochs: 2\n", "  epochs: 2\n  epoch: 2\n", "11:3", "unknown key 'epoch'", "'epochs'"),
    Case("key of dataset", "  split:", "  spilt:", "5:3", "unknown key 'spilt'", "'split'"),
    Case("key of split", "ratio:", "ratios:", "5:11", "unknown key 'ratios'", "'ratio'"),
    Case(
        "key of monitor",
        "{metric: accuracy}",
        "{metric: accuracy, patiense: 3}",
        "14:31",
        "unknown key 'patiense'",
        "'patience'",
    ),
    Case(
        "key of run",
        "{device: cpu}",
        "{device: cpu, num_worker: 2}",
        "15:20",
        "unknown key 'num_worker'",
        "'num_workers'",
    ),
    Case("key of table", ARRAYS, "  table: {trian: a.csv}\n", "4:11", "unknown key 'trian'", "'train'"),
    Case(
        "key of arrays",
        ARRAYS,
        "  arrays: {inputs: a.npy, target: b.npy}\n",
        "4:27",
        "unknown key 'target'",
        "'targets'",
    ),
    Case("key of model", MODEL, "  component: MLP\n  freze: [a]\n", "8:3", "unknown key 'freze'", "'freeze'"),
    Case(
        "key of checkpoint_every",
        "{device: cpu}",
        "{checkpoint_every: {minute: 1}}",
        "15:26",
        "unknown key 'minute'",
        "'minutes'",
    ),
    Case("missing key", "  epochs: 2\n", "", "8:1", "the key 'epochs' is missing", "Number of passes"),
    Case("missing section", "model:\n" + MODEL, "", "1:1", "the key 'model' is missing"),
    # types and values
    Case("number in quotes", "epochs: 2", 'epochs: "2"', "10:11", "expected a whole number, found '2'", "no quotes: 2"),
    Case(
        "fraction for whole number",
        "epochs: 2",
        "epochs: 2.0",
        "10:11",
        "expected a whole number, found 2.0",
        "write 2",
    ),
    Case(
        "text for number",
        "batch_size: 16",
        "batch_size: many",
        "11:15",
        "expected 'auto' or a whole number from 1, found 'many'",
    ),
    Case("batch size 0", "batch_size: 16", "batch_size: 0", "11:15", "whole number from 1, found 0"),
    Case(
        "uneven steps",
        "batch_size: 16",
        "batch_size: 16\n  effective_batch_size: 40",
        "12:3",
        "effective_batch_size 40 is not a multiple of batch_size 16",
        "use a batch_size of 10 or 20, or auto",
    ),
    Case(
        "steps said twice",
        "batch_size: 16",
        "batch_size: 16\n  effective_batch_size: 64\n  accumulate: 2",
        "13:3",
        "there are both 'accumulate' 2 and 'effective_batch_size' 64",
        "remove it",
    ),
    Case("negative epochs", "epochs: 2", "epochs: -2", "10:11", "expected a number of at least 1, found -2"),
    Case("no epochs", "epochs: 2", "epochs: 0", "10:11", "at least 1, found 0"),
    Case("no value", "epochs: 2", "epochs:", "10:10", "expected a whole number, found nothing", "write a value"),
    Case("accumulate 0", "  epochs: 2", "  epochs: 2\n  accumulate: 0", "11:15", "at least 1, found 0"),
    Case("true for number", "seed: 3", "seed: true", "2:7", "expected a whole number, found true"),
    Case(
        "yes for true",
        "  epochs: 2",
        "  epochs: 2\n  compile: yes",
        "11:12",
        "expected true or false, found 'yes'",
        "write true",
    ),
    Case("number for name", "name: small", "name: 7", "1:7", "expected text, found 7", "needs quotes: '7'"),
    Case(
        "precision",
        "  epochs: 2",
        "  epochs: 2\n  precision: bf61",
        "11:14",
        "expected one of fp32, bf16, fp16",
        "'bf16'",
    ),
    Case("device", "device: cpu", "device: gpu", "15:15", "'gpu' does not fit", "cuda:N"),
    Case("workers", "device: cpu", "num_workers: -1", "15:20", "expected 'auto' or a whole number"),
    Case(
        "section as text", "dataset:\n" + ARRAYS, "dataset: train.csv\n", "3:10", "expected 'key: value' pairs", "table"
    ),
    Case("list for section", "run: {device: cpu}", "run: [device, cpu]", "15:6", "expected 'key: value' pairs"),
    Case(
        "text for list",
        ARRAYS,
        "  class: my.Set\n  inputs: image\n",
        "5:11",
        "expected a list, found 'image'",
        "write [image]",
    ),
    Case("leading zero", "seed: 3", "seed: 007", "2:7", "begins with a zero", "write 7"),
    Case("decay out of range", "  epochs: 2", "  epochs: 2\n  ema: {decay: 1.5}", "11:16", "less than 1, found 1.5"),
    Case("not finite", "  epochs: 2", "  epochs: 2\n  clip_norm: .inf", "11:14", "expected a finite number"),
    Case(
        "1e-4 as text",
        "lr: 1e-3",
        'lr: "1e-4"',
        "12:27",
        "expected a number or Tensor, found '1e-4'",
        "without quotes: 1e-4",
    ),
    # YAML itself
    Case("tab", "  epochs: 2", "\tepochs: 2", "10:1", "cannot start any token", "spaces"),
    Case(
        "open bracket",
        "{ratio: [0.7, 0.15, 0.15]}",
        "{ratio: [0.7, 0.15, 0.15}",
        "5:34",
        "not valid YAML",
        "not closed",
    ),
    Case("colon in text", "name: small", "name: small: one", "1:12", "mapping values are not allowed", "quotes"),
    Case("indentation", "  epochs: 2", "   epochs: 2", "10:10", "not valid YAML", "indentation"),
    Case("unknown alias", "name: small", "name: *small", "1:7", "undefined alias", "quotes"),
    Case("tag", "seed: 3", "seed: !!python/name:os.system 3", "2:7", "is not supported"),
    Case(
        "duplicate key",
        "seed: 3\n",
        "seed: 3\nseed: 4\n",
        "3:1",
        "'seed' is written twice, first in line 2",
        "remove one",
    ),
    Case("duplicate argument", "{lr: 1e-3}", "{lr: 1e-3, lr: 1e-4}", "12:33", "'lr' is written twice"),
    Case("list as key", "seed: 3", "? [a]\n: 3", "2:3", "a key must be text or a whole number"),
    Case("two documents", "seed: 3", "---\nseed: 3", "2:1", "found another document", "a file of its own"),
    # components
    Case("unknown network", "MLP:", "MPL:", "7:3", "there is no model named 'MPL'", "did you mean 'MLP'?"),
    Case("unknown optimizer", "AdamW", "AdamWW", "12:15", "there is no optimizer named 'AdamWW'", "'AdamW'"),
    Case("unknown task", "task: classification", "task: clasification", "9:9", "no task named", "'classification'"),
    Case(
        "unknown loss",
        "  epochs: 2",
        "  epochs: 2\n  loss: CrossEntropyLos",
        "11:9",
        "no loss named",
        "'CrossEntropyLoss'",
    ),
    Case("unknown metric", "[accuracy]", "[accuracy, auroq]", "13:23", "no metric named 'auroq'", "'auroc'"),
    Case(
        "unknown scheduler",
        "  epochs: 2",
        "  epochs: 2\n  scheduler: OneCycle",
        "11:14",
        "no scheduler named",
        "'OneCycleLR'",
    ),
    Case("unknown argument", "hidden: [16]", "hiden: [16]", "7:43", "MLP has no argument 'hiden'", "'hidden'"),
    Case(
        "unknown argument of optimizer",
        "{lr: 1e-3}",
        "{learning_rate: 1e-3}",
        "12:23",
        "AdamW has no argument 'learning_rate'",
    ),
    Case(
        "missing argument", "out_features: 2, ", "", "7:3", "MLP needs the argument out_features", "out_features: ..."
    ),
    Case(
        "type of argument", "in_features: 30", "in_features: thirty", "7:22", "expected a whole number, found 'thirty'"
    ),
    Case(
        "argument of metric", "[accuracy]", "[{calibration_error: {bin: 10}}]", "13:34", "no argument 'bin'", "'bins'"
    ),
    Case(
        "two names", OPTIMIZER, "  optimizer: {AdamW: {}, SGD: {}}\n", "12:14", "exactly one name, found 2: AdamW, SGD"
    ),
    Case(
        "arguments beside the name",
        "{AdamW: {lr: 1e-3}}",
        "{AdamW: , lr: 1e-3}",
        "12:14",
        "exactly one name",
        "under the name",
    ),
    Case("arguments as list", "{AdamW: {lr: 1e-3}}", "{AdamW: [1e-3]}", "12:14", "'argument: value' pairs"),
    Case("number as component", "task: classification", "task: 7", "9:9", "expected a component, found 7"),
    Case("unknown package", "sklearn.datasets", "sklaern.datasets", "4:12", "no package 'sklaern'", "install"),
    Case(
        "unknown name in package",
        "load_breast_cancer",
        "load_brest_cancer",
        "4:12",
        "no 'load_brest_cancer'",
        "load_breast_cancer",
    ),
    Case(
        "module as component",
        "MLP: {in_features: 30, out_features: 2, hidden: [16]}",
        "torch.nn: {}",
        "7:3",
        "is a module",
    ),
    Case(
        "missing argument of scheduler",
        "  epochs: 2",
        "  epochs: 2\n  scheduler: CosineAnnealingWarmRestarts",
        "11:14",
        "needs the argument T_0",
    ),
    # parts that contradict each other
    Case("two sources", "  split:", "  folder: .\n  split:", "5:3", "two sources, 'arrays' and 'folder'", "keep one"),
    Case("no source", ARRAYS, "  standardize: true\n", "3:1", "no data are given", "table:"),
    Case("no split", "  split: {ratio: [0.7, 0.15, 0.15]}\n", "", "3:1", "which items are for training", "add split"),
    Case("ratio", "0.15, 0.15]", "0.15, 0.25]", "5:11", "the parts sum to 1.1, not to 1"),
    Case("ratio of one", "[0.7, 0.15, 0.15]", "[1]", "5:11", "expected 2 or 3 parts, found 1"),
    Case("two ways to split", "{ratio:", "{folds: 5, ratio:", "5:11", "two ways to split"),
    Case("one fold", "ratio: [0.7, 0.15, 0.15]", "folds: 1", "5:18", "at least 2, found 1"),
    Case("fold without folds", "seed: 3", "seed: 3\nfold: 2", "3:1", "'fold' needs folds", "dataset.split.folds"),
    Case(
        "columns without table",
        "  split:",
        "  inputs: [a]\n  split:",
        "5:3",
        "'inputs' names columns of a table",
        "remove",
    ),
    Case("grouped arrays", "0.15]}", "0.15], grouped: true}", "5:37", "'arrays' has no groups"),
    Case(
        "monitor",
        "{metric: accuracy}",
        "{metric: acuracy}",
        "14:13",
        "the score 'acuracy' is not measured",
        "'accuracy'",
    ),
    Case("monitor not measured", "{metric: accuracy}", "{metric: auroc}", "14:13", "is not measured", "add auroc"),
    Case(
        "two kinds of optimizers", OPTIMIZER, OPTIMIZER + "  optimizers: {main: SGD}\n", "13:3", "both 'optimizer' and"
    ),
    Case("interval alone", "  epochs: 2", "  epochs: 2\n  scheduler_interval: step", "11:3", "needs a scheduler"),
    Case("unfreeze alone", MODEL, "  component: " + MODEL.strip() + "\n", "7:17", "mapping values"),
    Case("fused", OPTIMIZER, "  optimizer: Rprop\n  fused: true\n", "13:3", "Rprop has no fused form", "AdamW"),
    Case(
        "random base transform",
        "  split:",
        "  transforms: {base: [RandFlipd: {}]}\n  split:",
        "5:23",
        "RandFlipd is random",
    ),
    Case("shape", "  split:", "  shape: [0, 8]\n  split:", "5:11", "expected a size of at least 1"),
    # files
    Case(
        "missing table",
        ARRAYS,
        "  table: {train: no.csv}\n  inputs: [a]\n  targets: [b]\n",
        "4:11",
        "there is no file",
        "relative",
    ),
    Case(
        "near table",
        ARRAYS,
        "  table: {train: tabel.csv}\n  inputs: [a]\n  targets: [b]\n",
        "4:11",
        "there is no file",
        "'table.csv'",
    ),
    Case(
        "table is folder",
        ARRAYS,
        "  table: {train: .}\n  inputs: [a]\n  targets: [b]\n",
        "4:11",
        "expected a file, found a folder",
    ),
    Case("missing folder", ARRAYS, "  folder: nowhere/data\n", "4:3", "there is no folder", "no folder 'nowhere'"),
    Case(
        "missing weights",
        MODEL,
        "  component: {MLP: {in_features: 30, out_features: 2}}\n  weights: w.pt\n",
        "8:3",
        "no file",
    ),
    Case("missing patch", "run:", "patches: [my.py]\nrun:", "15:11", "there is no file"),
    Case("table without columns", ARRAYS, "  table: {train: table.csv}\n", "3:1", "needs the key 'inputs'", "columns"),
    Case(
        "table without targets",
        ARRAYS,
        "  table: {train: table.csv}\n  inputs: [a]\n",
        "3:1",
        "needs the key 'targets'",
    ),
    Case(
        "table in one piece",
        ARRAYS,
        "  table: {file: table.csv}\n  inputs: [a]\n  targets: [b]\n",
        "3:1",
        "which items are",
    ),
    Case(
        "split of split data",
        ARRAYS,
        "  table: {train: table.csv, validation: table.csv}\n  inputs: [a]\n  targets: [b]\n  split: {folds: 3}\n",
        "7:3",
        "nothing to split",
    ),
]


# Cases with a second mistake: a file that is not there, arguments that are missing, a score that is no longer measured.
HOW_MANY = {
    "key of arrays": 2,
    "key of model": 2,
    "text for list": 3,
    "argument of metric": 2,
    "table without columns": 2,
}


def problems_of(text: str, folder: Path) -> list[Problem]:
    (folder / "table.csv").write_text("a,b\n1,2\n")
    file = folder / "experiment.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_experiment(file)
    return caught.value.problems


def test_the_good_file_is_good(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(GOOD)
    assert load_experiment(file).name == "small"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_told_with_its_place_and_what_to_do(case: Case, tmp_path: Path) -> None:
    assert case.old in GOOD
    problems = problems_of(GOOD.replace(case.old, case.new, 1), tmp_path)
    told = [problem for problem in problems if case.message in problem.message]
    assert told, "\n".join(map(str, problems))
    assert f"{told[0].line}:{told[0].column}" == case.place, str(told[0])
    assert case.hint in told[0].hint, str(told[0])
    assert Path(str(told[0].file)).name == "experiment.yaml"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_mistake_is_told_once(case: Case, tmp_path: Path) -> None:
    problems = problems_of(GOOD.replace(case.old, case.new, 1), tmp_path)
    assert len(problems) == HOW_MANY.get(case.name, 1), "\n".join(map(str, problems))


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 45
    assert len({case.name for case in CASES}) == len(CASES)


NESTED = b"%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"- a\n- b\n", "expected 'key: value' pairs, found ['a', 'b']"),
        (b"just text", "expected 'key: value' pairs, found 'just text'"),
        (b"name: caf\xe9\n", "is not UTF-8 text"),
        (b"name: a\x00b\n", "a character that YAML does not allow"),
        (b"[" * 3000, "nested too deeply"),
        (
            b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + b"".join(NESTED % (new, new, *[old] * 8) for old, new in zip(b"abcde", b"bcdef")),
            "is too large",
        ),
        (b"a: &a {b: *a}\n", "nested too deeply"),
    ],
)
def test_a_file_that_is_no_experiment_at_all(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_experiment(file)
    assert any(message in problem.message for problem in caught.value.problems), str(caught.value)


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"does not exist\n  hint: did you mean 'experiment.yaml'"):
        load_experiment(tmp_path / "experimnet.yaml")


def test_all_mistakes_of_a_file_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        GOOD.replace("seed: 3", "sed: 3")
        .replace("hidden", "hiden")
        .replace("epochs: 2", "epochs: many")
        .replace("lr: 1e-3", "lr: fast, betas: [0.9]")
        .replace("[accuracy]", "[accuracy, auroq]")
        .replace("device: cpu", "device: gpu")
    )
    problems = problems_of(text, tmp_path)
    assert [problem.line for problem in problems] == [2, 7, 10, 12, 12, 13, 15]


def test_problems_of_the_command_line_name_it(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load_experiment(file, ["training.epoch=3", "training.optimizer.AdamW.lr=fast", "nonsense", "seed=[1"])
    files = sorted(str(problem.file) for problem in caught.value.problems)
    assert files == [
        "--set nonsense",
        "--set seed=[1",
        "--set training.epoch=3",
        "--set training.optimizer.AdamW.lr=fast",
    ]
