"""Hugging Face Accelerate: the loop by hand with its wrappers, tracker and state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from benchmarks.cases import LOG_EVERY, SEED, Prepared
from benchmarks.common import Outcome, Stopwatch, make_loaders, make_model
from weft import seed_for


def train(prepared: Prepared, folder: Path) -> Outcome:
    """Train with Accelerate."""
    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=str(folder))
    accelerator.init_trackers("tensorboard")
    loaders = make_loaders(prepared)
    model, optimizer = make_model(prepared.case)
    model, optimizer, training, validation = accelerator.prepare(model, optimizer, loaders.train, loaders.validation)
    best, step = float("inf"), 0
    watch = Stopwatch()
    for epoch in range(prepared.case.epochs):
        loaders.generator.manual_seed(seed_for(SEED, epoch))
        model.train()
        total, count = 0.0, 0
        bar = tqdm(training, desc=f"epoch {epoch + 1}", leave=False, disable=not accelerator.is_local_main_process)
        for inputs, targets in bar:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
            value = loss.item()
            total += value * len(inputs)
            count += len(inputs)
            step += 1
            if step % LOG_EVERY == 0:
                bar.set_postfix(loss=value, refresh=False)
                accelerator.log({"train/loss": value}, step=step)
        validation_loss, accuracy = evaluate(accelerator, model, validation)
        accelerator.log({"train/epoch_loss": total / count}, step=step)
        accelerator.log({"validation/loss": validation_loss, "validation/accuracy": accuracy}, step=step)
        accelerator.save_state(str(folder / "last"))
        if validation_loss < best:
            best = validation_loss
            accelerator.save(accelerator.unwrap_model(model).state_dict(), folder / "best.pt")
    watch.stop()
    accelerator.end_training()
    accelerator.free_memory()
    return watch.outcome(accelerator.unwrap_model(model))


@torch.no_grad()
def evaluate(accelerator: Accelerator, model: nn.Module, loader: DataLoader[Any]) -> tuple[float, float]:
    """Loss and accuracy, over all processes where there are several."""
    model.eval()
    total, right, labels, count = 0.0, 0, 0, 0
    for inputs, targets in loader:
        outputs, targets = accelerator.gather_for_metrics((model(inputs), targets))
        total += functional.cross_entropy(outputs, targets).item() * len(targets)
        right += (outputs.argmax(1) == targets).sum().item()
        labels += targets.numel()
        count += len(targets)
    return total / count, right / labels
