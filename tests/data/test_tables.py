"""Tables: numbers, class names and files; what is wrong is named with file, line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_breast_cancer

from tests.data.helpers import opened
from weft.data import Data, check_targets, make_loader
from weft.errors import DataError

GOOD = "case,age,score,sex,label\na,30,1.5,0,cat\nb,40,2.5,1,dog\nc,50,-1,0,cat\n"


def table(folder: Path, text: str = GOOD, name: str = "train.csv", **fields: Any) -> Data:
    (folder / name).write_text(text)
    more = fields.pop("more", None)
    settings = {"table": {"train": name}, "inputs": ["age", "score"], "targets": ["label"], "case": "case", **fields}
    return opened(folder, more=more, **settings)


def test_numbers_become_one_vector_and_names_become_labels(tmp_path: Path) -> None:
    data = table(tmp_path)
    inputs, targets = data.splits["train"].arrays or ()
    assert inputs.dtype == torch.float32
    assert inputs.tolist() == [[30, 1.5], [40, 2.5], [50, -1]]
    assert targets.tolist() == [0, 1, 0]
    assert targets.dtype == torch.int64
    assert data.classes == ["cat", "dog"]
    assert data.splits["train"].cases == ["a", "b", "c"]
    assert data.summary()["splits"]["train"]["class_counts"] == {"cat": 2, "dog": 1}


@pytest.mark.parametrize("separator", ["\t", ";"])
def test_other_separators(tmp_path: Path, separator: str) -> None:
    name = "train.tsv" if separator == "\t" else "train.csv"
    told = {} if separator == "\t" else {"separator": ";"}
    data = table(tmp_path, GOOD.replace(",", separator), name, table={"train": name, **told})
    assert len(data.splits["train"]) == 3


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"case": ["a", "b", "c"], "age": [30, 40, 50], "score": [1.5, 2.5, -1.0], "label": ["cat", "dog", "cat"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "train.parquet")
    fields = {"inputs": ["age", "score"], "targets": ["label"], "case": "case"}
    ours = opened(tmp_path, table={"train": "train.parquet"}, **fields)
    csv = table(tmp_path)
    assert ours.classes == csv.classes
    for left, right in zip(ours.splits["train"].arrays or (), csv.splits["train"].arrays or (), strict=True):
        assert torch.equal(left, right)


def test_whole_numbers_are_labels_for_classes_and_numbers_for_regression(tmp_path: Path) -> None:
    def targets(kind: str) -> torch.Tensor:
        return table(tmp_path, targets=["sex"], more={"target_kind": kind}).splits["train"].arrays[1]  # type: ignore[index]

    assert targets("class").dtype == targets("auto").dtype == torch.int64
    assert targets("class").tolist() == [0, 1, 0]
    assert targets("number").dtype == torch.float32


def test_several_targets_are_labels_that_may_hold_together(tmp_path: Path) -> None:
    text = "x,ill,old\n1,0,1\n2,1,1\n"
    data = table(tmp_path, text, inputs=["x"], targets=["ill", "old"], case=None)
    assert (data.splits["train"].arrays or ())[1].tolist() == [[0, 1], [1, 1]]
    assert data.classes == ["ill", "old"]
    numbers = table(tmp_path, text, inputs=["x"], targets=["ill", "old"], case=None, more={"target_kind": "number"})
    assert numbers.classes is None


def test_negative_labels_become_classes_in_order(tmp_path: Path) -> None:
    data = table(tmp_path, "x,y\n1,-1\n2,1\n", inputs=["x"], targets=["y"], case=None)
    assert data.classes == ["-1", "1"]
    assert (data.splits["train"].arrays or ())[1].tolist() == [0, 1]


def test_classes_of_an_earlier_run_keep_their_labels(tmp_path: Path) -> None:
    known = {"classes": ["bird", "cat", "dog"]}
    data = table(tmp_path, more={"statistics": known})
    assert (data.splits["train"].arrays or ())[1].tolist() == [1, 2, 1]
    with pytest.raises(DataError, match=r"line 3: class 'dog' in 'label'"):
        table(tmp_path, more={"statistics": {"classes": ["bird", "cat"]}})


def test_files_are_found_relative_to_root_and_pictures_become_tensors(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 255, (5, 4, 3), dtype=np.uint8)).save(tmp_path / "data" / f"{name}.png")
        Image.fromarray(rng.integers(0, 3, (5, 4), dtype=np.uint8)).save(tmp_path / "data" / f"{name}_mask.png")
        np.save(tmp_path / "data" / f"{name}.npy", rng.normal(size=(2, 2)))
    text = "image,array,age,mask\n" + "".join(f"{n}.png,{n}.npy,{i},{n}_mask.png\n" for i, n in enumerate("abc"))
    data = table(
        tmp_path,
        text,
        table={"train": "train.csv", "root": "data"},
        inputs=["image", "age", "array"],
        targets=["mask"],
        case=None,
    )
    split = data.splits["train"]
    assert split.arrays is None
    assert split.cases == ["a", "b", "c"]
    batch = next(make_loader(split, batch_size=3, seed=0, shuffle=False).epoch(0))
    image, age, array = batch.inputs
    assert image.shape == (3, 3, 5, 4)
    assert image.dtype == torch.float32
    assert 0 <= image.min() <= image.max() <= 1
    assert age.tolist() == [[0], [1], [2]]
    assert array.dtype == torch.float32
    assert batch.targets.shape == (3, 5, 4)
    assert batch.targets.dtype == torch.int64
    with pytest.raises(DataError, match=r"train.csv line 2 \(case a\): label 2 is out of range for 2 classes"):
        check_targets(data, 2)


def test_the_groups_of_a_column_stay_together(tmp_path: Path) -> None:
    text = "x,y,patient\n" + "".join(f"{row},{row % 2},p{row // 3}\n" for row in range(30))
    fields: dict[str, Any] = {"inputs": ["x"], "targets": ["y"], "case": None, "group": "patient"}
    data = table(
        tmp_path, text, **fields, table={"file": "train.csv"}, split={"ratio": [0.6, 0.2, 0.2], "grouped": True}
    )
    owners = [set(split.groups or []) for split in data.splits.values()]
    assert sum(map(len, owners)) == 10
    assert data.summary()["splits"]["train"]["groups"] == 6


def test_breast_cancer_from_a_file_is_breast_cancer_from_memory(tmp_path: Path) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    names = [f"f{column}" for column in range(x.shape[1])]
    rows = "".join(",".join(map(repr, row.tolist())) + f",{label}\n" for row, label in zip(x, y, strict=True))
    (tmp_path / "all.csv").write_text(",".join([*names, "y"]) + "\n" + rows)
    common: dict[str, Any] = {"split": {"ratio": [0.7, 0.3], "stratified": True}, "standardize": True}
    from_file = opened(tmp_path, table={"file": "all.csv"}, inputs=names, targets=["y"], **common)
    arrays = {"sklearn.datasets.load_breast_cancer": {"return_X_y": True}}
    from_memory = opened(tmp_path, arrays=arrays, **common)
    for name in ("train", "validation"):
        pairs = zip(from_file.splits[name].arrays or (), from_memory.splits[name].arrays or (), strict=True)
        assert all(torch.equal(left, right) for left, right in pairs)


BROKEN: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "missing column": (GOOD, {"inputs": ["aeg"]}, "no column 'aeg'", "did you mean 'age'"),
    "missing case column": (GOOD, {"case": "subject"}, "'subject'", "its columns are case, age"),
    "wrong separator": (GOOD.replace(",", ";"), {}, "no column 'age'", "separator: ';'"),
    "empty file": ("", {}, "is empty", "column names"),
    "no rows": ("case,age,score,sex,label\n", {}, "no rows", "at least one row"),
    "short row": (GOOD + "d,1\n", {}, "line 5 has 2 cells for 5", "separated by ','"),
    "column twice": ("age,age\n1,2\n", {}, "'age' twice", "rename"),
    "text among numbers": (
        GOOD.replace("40", "forty"),
        {},
        "line 3: column 'age' is 'forty'",
        "either numbers or text",
    ),
    "number among text": (GOOD.replace("dog", "7"), {}, "line 3: column 'label' is '7'", "either numbers or text"),
    "empty cell": (GOOD.replace("40", ""), {}, "line 3: column 'age' is empty", "fill it in"),
    "NaN in inputs": (GOOD.replace("40", "nan"), {}, "line 3: column 'age' is nan", "fill such values in"),
    "NaN in targets": (GOOD, {"targets": ["gap"]}, "no column 'gap'", "columns are"),
    "NaN target": ("case,age,score,y\na,1,2,nan\nb,1,2,1\n", {"targets": ["y"]}, "line 2: column 'y' is nan", "remove"),
    "text as input": (GOOD, {"inputs": ["label"], "targets": ["sex"]}, "'label' holds text", "write it as numbers"),
    "missing file": (
        GOOD.replace("30", "a.npy").replace("40", "b.npy").replace("50", "c.npy"),
        {},
        r"line 2.*a\.npy",
        "root",
    ),
    "missing table": (GOOD, {"table": {"train": "trian.csv"}}, "not found.*trian.csv", "did you mean 'train.csv'"),
    "class with a fraction": (
        GOOD,
        {"targets": ["score"], "inputs": ["age"], "more": {"target_kind": "class"}},
        "line 2.*1.5",
        "regression",
    ),
    "name as number": (GOOD, {"more": {"target_kind": "number"}}, "line 2.*'cat'", "classification"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_table_is_named_with_its_place_and_remedy(tmp_path: Path, name: str) -> None:
    text, fields, message, hint = BROKEN[name]
    with pytest.raises(DataError, match=message) as caught:
        table(tmp_path, text, **fields)
    assert hint in caught.value.hint


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"age,label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        opened(tmp_path, table={"train": "train.csv"}, inputs=["age"], targets=["label"])


def test_a_label_out_of_range_is_named_with_case_and_line(tmp_path: Path) -> None:
    data = table(tmp_path, GOOD.replace("b,40,2.5,1", "b,40,2.5,9"), targets=["sex"])
    with pytest.raises(DataError, match=r"train.csv line 3 \(case b\): label 9 is out of range for 2 classes"):
        check_targets(data, 2)
    check_targets(data, 10)


def test_missing_files_are_bad_items_where_those_are_skipped(tmp_path: Path) -> None:
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", np.ones(2))
    text = "x,y\n" + "".join(f"{name}.npy,1\n" for name in "abgc")
    data = table(tmp_path, text, inputs=["x"], targets=["y"], case=None, on_bad_item="skip")
    loader = make_loader(data.splits["train"], batch_size=4, seed=0, shuffle=False)
    assert [batch.index.tolist() for batch in loader.epoch(0)] == [[0, 1, 3]]
    assert list(loader.skipped_items) == ["g"]
    assert "g.npy" in loader.skipped_items["g"]
