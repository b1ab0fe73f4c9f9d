"""A computation in the original's style over shares of the breast cancer table: the folder of COINSTAC's simulator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIZES = {"local0": 20, "local1": 44, "local2": 31}

CLASSES = """
import torch
import torch.nn.functional as F
from coinstac_dinunet import COINNDataHandle, COINNDataset, COINNTrainer


class MyDataset(COINNDataset):
    def __init__(self, **kw):
        super().__init__(**kw)
        self.labels = None

    def load_index(self, id, file):
        self.indices.append([id, file])

    def __getitem__(self, ix):
        id, file = self.indices[ix]
        numbers = [float(cell) for cell in open(self.path(id, 'data_dir') + '/' + file).read().split()]
        return {'inputs': torch.tensor(numbers[:-1]), 'labels': torch.tensor(int(numbers[-1]))}


class Net(torch.nn.Module):
    def __init__(self, in_size, out_size):
        super().__init__()
        self.hidden = torch.nn.Linear(in_size, 8)
        self.dropout = torch.nn.Dropout(0.1)
        self.out = torch.nn.Linear(8, out_size)

    def forward(self, x):
        return self.out(self.dropout(torch.relu(self.hidden(x))))


class MyTrainer(COINNTrainer):
    def __init__(self, **kw):
        super().__init__(**kw)

    def _init_nn_model(self):
        self.nn['model'] = Net(in_size=self.cache['input_size'], out_size=self.cache['num_class'])

    def iteration(self, batch):
        inputs, labels = batch['inputs'].to(self.device['gpu']).float(), batch['labels'].to(self.device['gpu']).long()

        out = F.log_softmax(self.nn['model'](inputs), 1)
        loss = F.nll_loss(out, labels)
        _, predicted = torch.max(out, 1)
        score = self.new_metrics()
        score.add(predicted, labels)
        val = self.new_averages()
        val.add(loss.item(), len(inputs))
        return {'out': out, 'loss': loss, 'averages': val,
                'metrics': score, 'prediction': predicted}
"""

LOCAL = """
print("whatever a script prints is no answer")
from coinstac_dinunet import COINNLocal
from coinstac_dinunet.io import RECV

from classes import MyDataset, MyTrainer

if __name__ == "__main__":
    local = COINNLocal(cache=RECV['cache'], input=RECV['input'], state=RECV['state'], task_id='tumours', epochs=3)
    local.compute(MyDataset, MyTrainer)
    local.send()
"""

REMOTE = """
import coinstac_dinunet
from coinstac_dinunet import COINNRemote
from coinstac_dinunet.io import RECV


class MyRemote(COINNRemote):

    def _new_metrics(self):  #
        return coinstac_dinunet.metrics.Prf1a()

    def _new_averages(self):
        return coinstac_dinunet.metrics.COINNAverages()

    def _monitor_metric(self):
        return 'f1', 'maximize'


if __name__ == "__main__":
    remote = MyRemote(cache=RECV['cache'], input=RECV['input'], state=RECV['state'])
    remote.compute()
    remote.send()
"""

LASTING_LOCAL = """
from coinstac_dinunet import COINNLocal

from classes import MyDataset, MyTrainer

CACHE = {}


def run(data):
    local = COINNLocal(cache=CACHE, input=data['input'], state=data['state'], task_id='tumours', epochs=3)
    return local(None, MyTrainer, MyDataset, COINNDataHandle)
""".replace("import COINNLocal\n", "import COINNDataHandle, COINNLocal\n")

LASTING_REMOTE = """
from coinstac_dinunet import COINNRemote

from classes import MyTrainer

CACHE = {}


def run(data):
    remote = COINNRemote(cache=CACHE, input=data['input'], state=data['state'])
    return remote(None, MyTrainer)
"""


def write(folder: Path, values: Mapping[str, Any] | None = None, **scripts: str) -> Path:
    """A computation's folder, with scripts; `values` are told to all sites besides."""
    from sklearn.datasets import load_breast_cancer

    table, start = load_breast_cancer(), 0
    scale = table.data.max(axis=0)
    specs = []
    for name, size in SIZES.items():
        data = folder / "input" / name / "simulatorRun" / "data"
        data.mkdir(parents=True)
        for row in range(start, start + size):
            cells = [*(table.data[row] / scale)[:6], table.target[row]]
            (data / f"case_{row:03d}.txt").write_text(" ".join(map(str, cells)))
        start += size
        told = {"data_dir": "data", "mode": "train", "batch_size": 8, "input_size": 6, "num_class": 2}
        specs.append({key: {"value": value} for key, value in (told | {"seed": 3} | dict(values or {})).items()})
    (folder / "inputspec.json").write_text(json.dumps(specs))
    written = {"classes": CLASSES, "local": LOCAL, "remote": REMOTE} | scripts
    for name, text in written.items():
        (folder / f"{name}.py").write_text(text)
    return folder
