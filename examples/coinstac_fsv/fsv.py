"""Who is a control, told by the volumes of brain regions: a data set and a trainer in coinstac-dinunet's style."""

import csv

import torch
import torch.nn.functional as F

from weft.interop.coinstac import COINNDataset, COINNTrainer


class FreeSurferDataset(COINNDataset):
    """A file of volumes for each person, and one table with labels."""

    def __init__(self, **kw):
        super().__init__(**kw)
        self.labels = None

    def load_index(self, id, file):
        if self.labels is None:
            with open(f"{self.path(id, 'data_dir')}/{self.cache['labels_file']}", newline="") as table:
                rows = list(csv.DictReader(table))
            self.labels = {row[self.cache["data_column"]]: row[self.cache["labels_column"]] == "True" for row in rows}
        if file in self.labels:  # the table itself lies there, too
            self.indices.append([id, file])

    def __getitem__(self, ix):
        id, file = self.indices[ix]
        with open(f"{self.path(id, 'data_dir')}/{file}") as volumes:
            lines = volumes.read().splitlines()[1:]
        inputs = torch.tensor([float(line.split("\t")[1]) for line in lines])
        return {"inputs": inputs / inputs.max(), "labels": int(self.labels[file])}


class FreeSurferTrainer(COINNTrainer):
    """A perceptron."""

    def _init_nn_model(self):
        sizes = [self.cache["input_size"], *self.cache["hidden_sizes"]]
        layers = [torch.nn.Linear(sizes[-1], self.cache["num_class"])]
        for before, after in zip(sizes[-2::-1], sizes[:0:-1], strict=True):
            layers = [torch.nn.Linear(before, after), torch.nn.ReLU(), *layers]
        self.nn["model"] = torch.nn.Sequential(*layers)

    def iteration(self, batch):
        inputs, labels = batch["inputs"].to(self.device["gpu"]).float(), batch["labels"].to(self.device["gpu"]).long()

        out = F.log_softmax(self.nn["model"](inputs), 1)
        loss = F.nll_loss(out, labels)
        _, predicted = torch.max(out, 1)
        score = self.new_metrics()
        score.add(predicted, labels)
        val = self.new_averages()
        val.add(loss.item(), len(inputs))
        return {"out": out, "loss": loss, "averages": val, "metrics": score, "prediction": predicted}
