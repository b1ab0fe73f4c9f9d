"""FreeSurfer volumes of five sites, as COINSTAC's simulator has them: a table of labels, a file per person."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "fsv_sites" / "input"


def volumes(site: int) -> tuple[np.ndarray, np.ndarray]:
    """Volumes in ml / 1000 [people, 66] of a site, from 0, and who is a control."""
    folder = FOLDER / f"local{site}" / "simulatorRun"
    (table,) = folder.glob("*_Covariate.csv")
    with table.open(newline="") as file:
        people = list(csv.DictReader(file))
    inputs = [_volumes_of(folder / person["freesurferfile"]) for person in people]
    return np.array(inputs, dtype=np.float32), np.array([person["isControl"] == "True" for person in people], dtype=int)


def _volumes_of(file: Path) -> list[float]:
    lines = file.read_text().splitlines()[1:]
    return [float(line.split("\t")[1]) for line in lines]
