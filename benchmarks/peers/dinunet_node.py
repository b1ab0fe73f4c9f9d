"""A site or the remote of coinstac-dinunet, run by a Python of its own: a line of JSON in, a line of JSON out.

What a user of coinstac-dinunet writes is here (data set, data handle, trainer); the rest is the package's. Rows are
kept in memory, or each is a text file that is read whenever the row is asked for, as in its FreeSurfer example.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

vars(np).update(float=float, int=int)  # coinstac-dinunet 2.5.3 asks for names that NumPy has dropped

from coinstac_dinunet import COINNDataHandle, COINNDataset, COINNLocal, COINNRemote, COINNTrainer  # noqa: E402


class Rows(COINNDataset):  # type: ignore[misc]
    """Rows of a site's table."""

    def load_index(self, file: str) -> None:
        """A "file" is the number of a row."""
        self.indices.append(int(file))

    def __getitem__(self, index: int) -> dict[str, Any]:
        table, row = self.cache["table"], self.indices[index]
        inputs = table[0][row]
        if self.cache["text_files"]:
            file = pd.read_csv(f"{self.state['baseDirectory']}/{row}.txt", sep="\t", index_col=0)
            inputs = file.iloc[:, 0].to_numpy(dtype=np.float32)
        return {"inputs": inputs, "labels": table[1][row]}


class Handle(COINNDataHandle):  # type: ignore[misc]
    """Reads the table once."""

    def list_files(self) -> list[str]:
        """The numbers of all rows."""
        base = self.state["baseDirectory"]
        self.cache["table"] = np.load(f"{base}/inputs.npy"), np.load(f"{base}/targets.npy")
        return [str(row) for row in range(len(self.cache["table"][1]))]


class Trainer(COINNTrainer):  # type: ignore[misc]
    """A perceptron."""

    def _init_nn_model(self) -> None:
        sizes = self.cache["sizes"]
        layers: list[torch.nn.Module] = []
        for before, after in pairwise(sizes[:-1]):
            layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
        self.nn["model"] = torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-2], sizes[-1]))

    def iteration(self, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Loss, and what is counted."""
        inputs = batch["inputs"].to(self.device["gpu"]).float()
        labels = batch["labels"].to(self.device["gpu"]).long()
        out = F.log_softmax(self.nn["model"](inputs), 1)
        loss = F.nll_loss(out, labels)
        _, predicted = torch.max(out, 1)
        score = self.new_metrics()
        score.add(predicted, labels)
        average = self.new_averages()
        average.add(loss.item(), len(inputs))
        return {"out": out, "loss": loss, "averages": average, "metrics": score, "prediction": predicted}


def main() -> None:
    """Answer calls until standard input ends."""
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # the package prints
    pool, cache = ThreadPool(2), {}
    for line in sys.stdin:
        call = json.loads(line)
        if call["node"] == "remote":
            done = COINNRemote(cache=cache, **call["given"])(pool, Trainer)
        else:
            node = COINNLocal(cache=cache, **call["given"], **call["arguments"])
            done = node(pool, Trainer, Rows, Handle)
        print(json.dumps(done), file=answers, flush=True)


if __name__ == "__main__":
    main()
