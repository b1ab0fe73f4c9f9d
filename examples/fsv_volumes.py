"""Reads volumes of brain regions as FreeSurfer writes them, for `fsv_study.yaml`.

The data set is not part of Weft. It lies in `fsv_sites` in the folder that the environment variable WEFT_SHARED_DATA
names, or else in `../shared/data` beside the repository.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from weft.errors import DataError


def folder() -> Path:
    """Where the sites' folders are."""
    named = os.environ.get("WEFT_SHARED_DATA")
    shared = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return shared / "fsv_sites" / "input"


def volumes(site: str) -> tuple[np.ndarray, np.ndarray]:
    """Volumes of 66 regions, in mm³ [people, 66], and who is a control, of a site: local0 to local4."""
    people = folder() / site / "simulatorRun"
    if not people.is_dir():
        raise DataError(
            f"the volumes of {site} are not at {people}", "set WEFT_SHARED_DATA to the folder that has fsv_sites"
        )
    (table,) = people.glob("*_Covariate.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    inputs = [_volumes_of(people / row["freesurferfile"]) for row in rows]
    return np.array(inputs, dtype=np.float32), np.array([row["isControl"] == "True" for row in rows], dtype=int)


def _volumes_of(file: Path) -> list[float]:
    """The second column, without its heading."""
    return [float(line.split("\t")[1]) for line in file.read_text().splitlines()[1:]]
