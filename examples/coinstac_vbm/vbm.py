"""Volumes of patients and others, told apart by a 3D convolutional network: a data set and a trainer in
coinstac-dinunet's style.
"""

import csv

import numpy as np
import torch
import torch.nn.functional as F

from weft.interop.coinstac import COINNDataset, COINNTrainer


class VolumeDataset(COINNDataset):
    """An array file for each person, and one table with labels."""

    def __init__(self, **kw):
        super().__init__(**kw)
        self.labels = None

    def load_index(self, id, file):
        if self.labels is None:
            with open(self.path(id, "labels_file"), newline="") as table:
                self.labels = {row["file"]: int(row["patient"]) for row in csv.DictReader(table)}
        self.indices.append([id, file])

    def __getitem__(self, ix):
        id, file = self.indices[ix]
        volume = np.load(f"{self.path(id, 'data_dir')}/{file}", allow_pickle=False)
        return {"inputs": torch.from_numpy(volume), "labels": self.labels[file]}


class VolumeNet(torch.nn.Module):
    """Two convolutions, each normalised over groups of channels: sites need not agree on statistics of batches."""

    def __init__(self, out_size):
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.GroupNorm(4, 8), torch.nn.ReLU(), torch.nn.MaxPool3d(2),
            torch.nn.Conv3d(8, 16, 3, padding=1), torch.nn.GroupNorm(4, 16), torch.nn.ReLU(),
        )  # fmt: skip
        self.out = torch.nn.Linear(16, out_size)

    def forward(self, volumes):
        return self.out(self.features(volumes).amax((2, 3, 4)))


class VolumeTrainer(COINNTrainer):
    """Counts how well patients are told from others at any threshold."""

    def _init_nn_model(self):
        self.nn["model"] = VolumeNet(out_size=self.cache["num_class"])

    def iteration(self, batch):
        inputs, labels = batch["inputs"].to(self.device["gpu"]).float(), batch["labels"].to(self.device["gpu"]).long()

        out = F.log_softmax(self.nn["model"](inputs), 1)
        loss = F.nll_loss(out, labels)
        score = self.new_metrics()
        score.add(out.exp()[:, 1], labels)
        val = self.new_averages()
        val.add(loss.item(), len(inputs))
        return {"out": out, "loss": loss, "averages": val, "metrics": score}
