"""Trains the two examples as a user would (`weft train FILE`), then prints their scores and where the reports lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

NAMES = ("breast_cancer", "digits")


def main() -> int:
    """Train each example into a folder of its own under `runs/`; return the exit code of the first that fails."""
    os.chdir(Path(__file__).resolve().parent.parent)
    folder = Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    lines = []
    for name in NAMES:
        run = folder / name
        command = [sys.executable, "-m", "weft", "train", f"examples/{name}.yaml", "--out", str(run)]
        print(f"$ weft {' '.join(command[3:])}", flush=True)
        code = subprocess.run(command).returncode
        if code:
            return code
        scores = json.loads((run / "result.json").read_text())["scores"]["test"]
        shown = ", ".join(f"{score} {value:.4f}" for score, value in scores.items() if isinstance(value, float))
        lines.append(f"{name}: test {shown}\n  report: {(run / 'report.html').resolve()}")
    print("\nHeld-out scores (no network saw these cases in training):")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
