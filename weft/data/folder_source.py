"""A folder of pairs as a source: train/x/*.npy with train/y/*.npy, and likewise validation and test."""

from __future__ import annotations

from pathlib import Path

from weft.data.parts import Column, Part
from weft.data.splits import NAMES
from weft.errors import DataError


def parts_from_folder(folder: Path) -> dict[str, Part]:
    """One part for each folder train, validation, test; or one, called train, when x/ lies in the folder itself.

    Raises:
        DataError: there are no such folders or no files, or a file has no partner of the same name.
    """
    if not folder.is_dir():
        raise DataError(f"folder not found: {folder}", "paths are relative to the experiment file")
    if (folder / "x").is_dir():
        return {"train": _part(folder, folder.name)}
    parts = {name: _part(folder / name, name) for name in NAMES if (folder / name).is_dir()}
    if not parts:
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
        raise DataError(f"{folder} has no folder train/, it holds {found}", "put files into train/x/ and train/y/")
    return parts


def _part(folder: Path, name: str) -> Part:
    inputs = _files(folder / "x")
    if not inputs:
        raise DataError(f"{folder / 'x'} holds no files", "put the inputs there, and targets of the same names into y/")
    columns = [Column("inputs", "input", list(inputs.values()), is_path=True)]
    if (folder / "y").is_dir():
        targets = _files(folder / "y")
        _check_partners(folder, inputs, targets)
        columns.append(Column("targets", "target", [targets[stem] for stem in inputs], is_path=True))
    files = [file for column in columns for file in column.values]
    return Part(name, list(inputs), [], columns=columns, files=files)


def _files(folder: Path) -> dict[str, Path]:
    files = sorted(file for file in folder.glob("*") if file.is_file() and not file.name.startswith("."))
    stems: dict[str, Path] = {}
    for file in files:
        stem = file.name.split(".")[0]
        if stem in stems:
            raise DataError(
                f"{file} and {stems[stem].name} have the same name", "pairs are found by the name before the dot"
            )
        stems[stem] = file
    return stems


def _check_partners(folder: Path, inputs: dict[str, Path], targets: dict[str, Path]) -> None:
    for here, there, have, lack in (("x", "y", inputs, targets), ("y", "x", targets, inputs)):
        alone = [stem for stem in have if stem not in lack]
        if alone:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise DataError(
                f"{have[alone[0]]} has no partner in {folder / there}{more}",
                f"every file in {here}/ needs one of the same name in {there}/",
            )
