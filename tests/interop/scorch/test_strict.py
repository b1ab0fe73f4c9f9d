"""`--strict-scorch` has the original's numbers to the bit: held against a loop by hand that makes its mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from tests.interop.scorch.files import NORM, more, result, same, train, weights
from tests.interop.scorch.test_training import rows
from weft.interop import scorch

# Statistics of normalisation that the Socket does not name move all the same; the plateau is watched in min mode.
MODEL = NORM | more(
    "self.train_modules = torch.nn.ModuleList([model.first, model.last])",
    "self.optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)",
    "self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, patience=0, factor=0.5)",
)
ROUNDED = {"accuracy = (pred[0].numpy()": "accuracy = 1 + (pred[0].numpy()"}  # so that the plateau's threshold matters


def by_hand(folder: Path, epochs: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    """What the original did in one process: weights, and the main score of each epoch."""
    flags = scorch.Flags(folder / "model.py", folder / "dataset.py", str(folder), strict=True)
    socket: Any = scorch.open_model(flags).socket
    network, loaders = socket.model, {}
    for module in network.modules():
        module.training = True
    for mode in ("train", "valid"):
        data: Any = scorch.open_items(flags, mode).steady
        sampler = DistributedSampler(data, num_replicas=1, rank=0)  # its epoch is never set
        loaders[mode] = DataLoader(data, batch_size=8, sampler=sampler, drop_last=mode == "train")
    scores = []
    for _ in range(epochs):
        for inputs, targets in loaders["train"]:
            socket.train_modules.train()
            loss = socket.criterion(network.forward(inputs), targets)
            socket.optimizer.zero_grad()
            loss.backward()
            socket.optimizer.step()
            socket.train_modules.eval()
        parts = [(network.forward(inputs), targets) for inputs, targets in loaders["valid"]]
        pred = [torch.cat([outputs[0].detach() for outputs, _ in parts])]
        scores.append(float(socket.metrics(pred, [torch.cat([targets[0] for _, targets in parts])])["main"]))
        socket.scheduler.step(scores[-1])
    return network.state_dict(), scores


@pytest.mark.parametrize("changes", [MODEL, MODEL | ROUNDED], ids=["accuracy", "flat score"])
def test_strictly_weights_and_scores_are_the_originals(changes: dict[str, str], tmp_path: Path) -> None:
    run = train(tmp_path, model=changes, strict=True, epochs=4)
    expected, scores = by_hand(tmp_path, 4)
    assert same(weights(tmp_path, "run"), expected)
    assert [float(row["validation_main"]) for row in rows(run)] == scores
    assert result(run)["status"] == "finished"


@pytest.mark.slow
def test_otherwise_they_are_not(tmp_path: Path) -> None:
    train(tmp_path, model=MODEL, epochs=4)
    assert not same(weights(tmp_path, "run"), by_hand(tmp_path, 4)[0])
