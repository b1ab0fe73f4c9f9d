"""A loop written by hand, as tutorials teach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tensorboardX import SummaryWriter
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from benchmarks.cases import LOG_EVERY, SEED, Prepared
from benchmarks.common import Outcome, Stopwatch, make_loaders, make_model
from weft import seed_for


def train(
    prepared: Prepared, folder: Path, *, row_by_row: bool = False, fused: bool = False, channels_last: bool = False
) -> Outcome:
    """Train by hand."""
    loaders = make_loaders(prepared, row_by_row=row_by_row)
    memory_format = torch.channels_last if channels_last else torch.preserve_format
    model, optimizer = make_model(prepared.case, fused=fused, memory_format=memory_format)
    writer = SummaryWriter(str(folder / "tensorboard"))
    best, step = float("inf"), 0
    watch = Stopwatch()
    for epoch in range(prepared.case.epochs):
        loaders.generator.manual_seed(seed_for(SEED, epoch))
        model.train()
        total, count = 0.0, 0
        bar = tqdm(loaders.train, desc=f"epoch {epoch + 1}", leave=False)
        for inputs, targets in bar:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs.to(memory_format=memory_format)), targets)
            loss.backward()
            optimizer.step()
            value = loss.item()
            total += value * len(inputs)
            count += len(inputs)
            step += 1
            if step % LOG_EVERY == 0:
                bar.set_postfix(loss=value, refresh=False)
                writer.add_scalar("train/loss", value, step)
        validation_loss, accuracy = evaluate(model, loaders.validation, memory_format)
        writer.add_scalar("train/epoch_loss", total / count, step)
        writer.add_scalar("validation/loss", validation_loss, step)
        writer.add_scalar("validation/accuracy", accuracy, step)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(state, folder / "last.pt")
        if validation_loss < best:
            best = validation_loss
            torch.save(model.state_dict(), folder / "best.pt")
    watch.stop()
    writer.close()
    return watch.outcome(model)


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader[Any], memory_format: torch.memory_format) -> tuple[float, float]:
    """Loss and accuracy."""
    model.eval()
    total, right, labels, count = 0.0, 0, 0, 0
    for inputs, targets in loader:
        outputs = model(inputs.to(memory_format=memory_format))
        total += functional.cross_entropy(outputs, targets).item() * len(inputs)
        right += (outputs.argmax(1) == targets).sum().item()
        labels += targets.numel()
        count += len(inputs)
    return total / count, right / labels
