"""Writes the folder of COINSTAC's simulator for this example: `python examples/coinstac_vbm/make_folder.py FOLDER`.

The volumes are those of `examples/volumes.py`, a file for each person, and a table of labels at each site.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from volumes import PEOPLE, volumes


def main(folder: Path) -> None:
    """Write data and inputspec."""
    for site in range(len(PEOPLE)):
        data = folder / "input" / f"local{site}" / "simulatorRun"
        (data / "volumes").mkdir(parents=True)
        images, patients = volumes(site)
        lines = ["file,patient"]
        for person, (image, patient) in enumerate(zip(images, patients, strict=True)):
            np.save(data / "volumes" / f"person{person:03}.npy", image)
            lines.append(f"person{person:03}.npy,{patient}")
        (data / "labels.csv").write_text("\n".join(lines) + "\n")
    spec = json.loads(Path(__file__).with_name("inputspec.json").read_text())
    (folder / "inputspec.json").write_text(json.dumps(spec, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
