"""coinstac-dinunet as COINSTAC runs it: a process for each site and one for the remote, JSON over pipes, files moved
from everybody's transfer directory to the others' base directories between calls.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

NODE = Path(__file__).with_name("dinunet_node.py")
INSTALL = (
    "skipped: give the Python of an environment that has it: python3.11 -m venv DIR && "
    "DIR/bin/pip install coinstac-dinunet torch; --dinunet DIR/bin/python"
)


class Dinunet:
    """A pipeline that is under way; `steps` takes it on.

    Args:
        python: of an environment that has coinstac-dinunet.
        folder: empty; for all directories of all nodes.
        tables: inputs [rows, features] and targets [rows] of each site.
        validated: so many of the rows, the last ones, are not trained on; at least 2.
        sizes: of the perceptron's layers.
        batch_size: of each site.
        text_files: whether each row is a file that is read whenever it is asked for.
    """

    def __init__(
        self,
        python: str,
        folder: Path,
        tables: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
        validated: int,
        sizes: list[int],
        batch_size: int,
        *,
        text_files: bool,
    ) -> None:
        self.sites = [f"local{number}" for number in range(len(tables))]
        self.states: dict[str, dict[str, str]] = {}
        self.processes: dict[str, subprocess.Popen[str]] = {}
        for name in [*self.sites, "remote"]:
            self.states[name] = {"clientId": name}
            for kind in ("base", "output", "transfer"):
                path = folder / name / kind
                path.mkdir(parents=True)
                self.states[name][f"{kind}Directory"] = str(path)
            self.processes[name] = subprocess.Popen(
                [python, str(NODE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        for name, (inputs, targets) in zip(self.sites, tables, strict=True):
            np.save(folder / name / "base" / "inputs.npy", inputs)
            np.save(folder / name / "base" / "targets.npy", targets)
            if text_files:
                self._write_texts(folder / name / "base", inputs)
            self._write_split(folder / name / "base" / "splits", len(targets), validated)
        self.arguments = {
            "task_id": "speed", "mode": "train", "batch_size": batch_size, "epochs": 10**6, "learning_rate": 1e-3,
            "split_ratio": [0.8, 0.1, 0.1], "agg_engine": "dSGD", "num_class": 2, "sizes": sizes, "seed": 1,
            "text_files": text_files,
        }  # fmt: skip
        self.told: dict[str, Any] = {}  # what the remote said last
        self.moved: dict[str, int] = {}  # bytes of the last call: files and JSON that a site sent and received

    def steps(self, count: int) -> list[float]:
        """Take so many steps; the seconds of each. Calls for anything else (validation) are not timed."""
        times: list[float] = []
        while len(times) < count:
            started = time.perf_counter()
            said = self._call()
            seconds = time.perf_counter() - started
            if all(one.get("reduce") for one in said.values()) and self.told.get("update"):
                times.append(seconds)
        return times

    def close(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    @staticmethod
    def _write_texts(folder: Path, inputs: np.ndarray[Any, Any]) -> None:
        for row, numbers in enumerate(inputs.tolist()):
            lines = [f"Region-{place}\t{number}" for place, number in enumerate(numbers)]
            (folder / f"{row}.txt").write_text("\n".join([f"Measure:volume\tsubject{row}", *lines]))

    @staticmethod
    def _write_split(folder: Path, rows: int, validated: int) -> None:
        names, train, half = [str(row) for row in range(rows)], rows - validated, validated // 2
        split = {"train": names[:train], "validation": names[train : train + half], "test": names[train + half :]}
        folder.mkdir()
        (folder / "SPLIT.json").write_text(json.dumps(split))

    def _call(self) -> dict[str, Any]:
        """All sites at the same time, then the remote; what the sites said."""
        sent = [self._send(name, self.told) for name in self.sites]
        said = {name: self._receive(name)["output"] for name in self.sites}
        up = sum(self._move(name, [Path(self.states["remote"]["baseDirectory"]) / name]) for name in self.sites)
        received = self._send("remote", said)
        self.told = self._receive("remote")["output"]
        down = self._move("remote", [Path(self.states[name]["baseDirectory"]) for name in self.sites])
        self.moved = {"sent": (up + received) // len(self.sites), "received": down + sent[0]}
        return said

    def _send(self, name: str, given: dict[str, Any]) -> int:
        call = {"node": name, "given": {"input": given, "state": self.states[name]}, "arguments": self.arguments}
        pipe = self.processes[name].stdin
        assert pipe is not None
        print(json.dumps(call), file=pipe, flush=True)
        return len(json.dumps(given))

    def _receive(self, name: str) -> dict[str, Any]:
        pipe = self.processes[name].stdout
        assert pipe is not None
        line = pipe.readline()
        if not line:
            raise SystemExit(f"coinstac-dinunet: {name} ended; run {NODE} by hand to see why")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _move(self, name: str, targets: list[Path]) -> int:
        """Bytes of the files that a node gives to the others."""
        moved = 0
        for file in Path(self.states[name]["transferDirectory"]).iterdir():
            moved += file.stat().st_size
            for target in targets:
                target.mkdir(exist_ok=True)
                shutil.copyfile(file, target / file.name)
            file.unlink()
        return moved
