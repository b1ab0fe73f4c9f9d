"""Files and flags that break scorch's contract: each is a clear error that names the file and the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.lab import weft
from tests.interop.scorch.files import more, train, write
from weft.errors import ConfigError, DataError, UsageError, WeftError
from weft.interop.scorch.literals import parse_arguments

RETURN = "return [self.last(torch.tanh(self.first(input[0])))]"
ITEM = "return [img], [target]"
METRICS = 'return {"main": accuracy, "accuracy": accuracy, "errors": 1.0 - accuracy}'
BROKEN_MODELS = {
    "no Network": ({"class Network": "class Net"}, "defines no class Network; it has Net, Socket"),
    "no Socket": ({"class Socket": "class Plug"}, "defines no class Socket; it has Network, Plug"),
    "a syntax error": ({"def forward": "def forward!"}, "is not valid Python"),
    "forward gives a tensor": ({RETURN: RETURN.replace("[self.last", "(self.last").replace(")))]", "))))")},
                               "Network.forward returned a Tensor, not a list"),
    "forward gives numbers": ({RETURN: "return [1.0]"}, "Network.forward returned a list with a float"),
    "forward gives nothing": ({RETURN: "return []"}, "Network.forward returned an empty list"),
    "forward fails": ({RETURN: "return [input[1]]"}, "Network.forward failed: IndexError"),
    "Network is no module": ({"(torch.nn.Module)": "", "super(Network, self).__init__()": "pass"},
                             "Network is a Network, not a torch.nn.Module"),
    "metrics without main": ({METRICS: 'return {"accuracy": accuracy}'}, "returned accuracy, without 'main'"),
    "metrics of nothing": ({METRICS: "return []"}, "returned nothing, without 'main'"),
    "metrics that are none": ({METRICS: "return accuracy"}, "Socket.metrics returned a float64"),
    "metrics that are no numbers": ({METRICS: 'return {"main": pred[0]}'}, "which is not one number"),
    "metrics that fail": ({METRICS: "return missing"}, "Socket.metrics failed: NameError"),
    "no criterion": ({"def criterion": "def loss"}, "Socket has no method criterion"),
    "a criterion without a value": ({"return torch.nn.functional": "torch.nn.functional"},
                                    "Socket.criterion returned a NoneType"),
    "a criterion per item": ({"target[0])\n": 'target[0], reduction="none")\n'}, "Socket.criterion returned shape [8]"),
    "modules that are none": (more("self.trainable_modules = 3"), "Socket.trainable_modules is a int"),
    "an optimizer that is none": (more("self.optimizer = 3"), "Socket.optimizer is a int"),
    "an optimizer of something else": (
        more("self.optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)"),
        "Socket.optimizer trains parameters that belong neither",
    ),
    "a scheduler that is none": (
        more("self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)",
             "self.scheduler = type('Rate', (), {'optimizer': self.optimizer})()"),
        "Socket.scheduler is a Rate",
    ),
}  # fmt: skip
BROKEN_DATASETS = {
    "no DataSet": ({"class DataSet()": "class Data()"}, "defines no class DataSet; it has DataSetIndex, Data"),
    "an index that fails": ({"draw = numpy": "draw = nompy"}, "DataSetIndex failed: NameError"),
    "lists of different lengths": ({ITEM: "return [img], [target] * (1 + index % 2)"},
                                   "returned 1 input and 2 targets, other items have 1 input and 1 target"),
    "all items None": ({ITEM: "return None"}, "all 24 items of DataSet in mode 'train' are None"),
    "no inputs": ({ITEM: "return [None], [target]"}, "has no inputs"),
    "a tensor for a list": ({ITEM: "return img, target"}, "returned (Tensor, int)"),
    "an item of one list": ({ITEM: "return [img]"}, "returned (Tensor)"),
    "no length": ({"return len(self.ds_index.rows[self.mode])": "pass"}, "DataSet.__len__ returned None"),
    "no items": ({"return len(self.ds_index.rows[self.mode])": "return 0"}, "has no items in mode 'train'"),
    "items that fail": ({ITEM: "return [img], missing"}, "failed: NameError"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_a_model_file_that_breaks_the_contract_is_named(case: str, tmp_path: Path) -> None:
    changes, message = BROKEN_MODELS[case]
    with pytest.raises(WeftError) as caught:
        train(tmp_path, model=changes)
    assert message in str(caught.value)
    assert "model.py" in str(caught.value) or "Socket.scheduler" in message
    assert not (tmp_path / "run").exists() or "fail" in case  # told before anything is trained


@pytest.mark.parametrize("case", BROKEN_DATASETS)
def test_a_dataset_file_that_breaks_the_contract_is_named(case: str, tmp_path: Path) -> None:
    changes, message = BROKEN_DATASETS[case]
    with pytest.raises(WeftError) as caught:
        train(tmp_path, dataset=changes)
    assert message in str(caught.value)
    assert "dataset.py" in str(caught.value)


def test_fewer_items_than_a_batch_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="5 items are fewer than a batch of 8"):
        train(tmp_path, dataset={"items=24": "items=5"})


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    model, dataset = write(tmp_path)
    for one, other, missing in ((tmp_path / "no.py", dataset, "--model"), (model, tmp_path / "no.py", "--dataset")):
        with pytest.raises(ConfigError, match=f"{missing} .*no.py: there is no such file"):
            train_files(one, other, tmp_path)


def train_files(model: Path, dataset: Path, folder: Path) -> None:
    from weft.interop import scorch

    scorch.train(scorch.Flags(model, dataset, str(folder), epochs=1), out=folder / "run")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch owned')", "'a': __import__('os').system('touch owned')", "'a': open('x')",
        "**{'a': 1}", "}, {", "1, 2", "'a': 1} or {'b': 2", "a=1", "'a': [i for i in (1,)]", "'a' + 'b': 1", "1: 2",
        "'a b': 2", "'a': " + "(" * 5000 + ")" * 5000, "'a': 1" + " " * 200_000, "'a': lambda: 1", "\x00",
    ],
)  # fmt: skip
def test_hostile_arguments_are_refused_and_never_evaluated(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for flag in ("model_args", "dataset_args"):
        with pytest.raises(UsageError, match=f"--{flag.replace('_', '-')}"):
            train(tmp_path, **{flag: text})
    assert not (tmp_path / "owned").exists()


def test_arguments_that_look_like_references_stay_what_they_are(tmp_path: Path) -> None:
    """In an experiment file `{object: ...}` would be looked up, and `{component: ...}` built."""
    for text in ("'hidden': {'object': 'os.getcwd'}", "'hidden': {'component': {'os.getcwd': {}}}"):
        with pytest.raises(DataError, match=r"model\.py.*TypeError"):
            train(tmp_path, model_args=text)


def test_literals_of_every_kind_are_read() -> None:
    text = "'a': 1, 'b': -2.5, 'c': [1, (2, 'x')], 'd': {'e': None}, 'f': True, 'g': {1, 2},"
    assert parse_arguments(text, "--model-args") == {
        "a": 1, "b": -2.5, "c": [1, (2, "x")], "d": {"e": None}, "f": True, "g": {1, 2},
    }  # fmt: skip
    assert parse_arguments("", "--model-args") == {}


def test_the_command_prints_errors_without_a_traceback(tmp_path: Path) -> None:
    model, dataset = write(tmp_path, {"class Network": "class Net"})
    ended = weft("scorch", "train", "--model", model, "--dataset", dataset, "-dp", tmp_path)
    assert ended.code == 2
    assert f"{model}: defines no class Network" in ended.err
    assert "forward takes a list of tensors and returns a list of tensors" in ended.err


@pytest.mark.slow
def test_a_model_file_may_import_the_dataset_file(tmp_path: Path) -> None:
    """And what it imports does not stand in for the dataset file's own."""
    write(tmp_path)
    model = {"import torch\n": "import torch\nfrom dataset import DataSet, DataSetIndex\n"}
    assert train(tmp_path, model=model, epochs=1).result["status"] == "finished"
    both = DATASET_WITH_A_NETWORK
    with pytest.raises(ConfigError, match=r"model\.py has a DataSet of its own, and .*dataset\.py a Network"):
        train(tmp_path, model=model, dataset=both, out="both")
    assert train(tmp_path, dataset=both, epochs=1, out="one").result["status"] == "finished"


DATASET_WITH_A_NETWORK = {"import torch\n": "import torch\n\nclass Network:\n    pass\n"}


@pytest.mark.slow
def test_one_file_may_be_both(tmp_path: Path) -> None:
    from weft.interop import scorch

    model, dataset = write(tmp_path)
    model.write_text(model.read_text(encoding="utf-8") + dataset.read_text(encoding="utf-8"), encoding="utf-8")
    flags = scorch.Flags(model, model, str(tmp_path), epochs=1, progress=False, checkpoint_prefix=f"{tmp_path}/x_")
    assert scorch.train(flags, out=tmp_path / "run").result["status"] == "finished"
