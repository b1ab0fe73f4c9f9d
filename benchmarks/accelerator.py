"""Throughput of training on a GPU: Weft beside an AMP loop by hand and MONAI's SupervisedTrainer.

    python benchmarks/accelerator.py                        on the first CUDA device, some minutes
    python benchmarks/accelerator.py --device cpu --quick   tiny sizes: shows that all runs, its ratios mean nothing

All train the same model from the same seed in bfloat16 autocast with Adam, on data that lie in the machine's memory, in
turns in one process. What is timed are the epochs after the first one, without validation and checkpoints, until the
device is done. Ratios of times are medians over pairs with 90 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the repository, in place of this folder

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import weft
from benchmarks.cases import CASES, SEED, Case, prepare, slices
from benchmarks.pairs import Spread, spread
from weft.config import Component
from weft.engine import Observer
from weft.engine.events import Epoch
from weft.nets import UNet

AMP = torch.bfloat16
_WEFT = {"Weft": {}, "Weft, fused, channels_last": {"fused": True, "channels_last": True}}
_GOALS = {"loop by hand, AMP": 1.0, "MONAI SupervisedTrainer": 0.8}


def unet_3d() -> nn.Module:
    """Four levels of 16 to 128 channels over volumes."""
    return UNet(1, 2, spatial_dims=3, channels=[16, 32, 64, 128], normalization="instance")


def volumes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Volumes of 96³ with a bright cylinder to be found."""
    _, targets = slices(count, generator)
    deep = targets[:, None, 16:112, 16:112].expand(count, 96, 96, 96).contiguous()
    return deep[:, None] + torch.randn(count, 1, 96, 96, 96, generator=generator), deep


# The problems of the CPU benchmark, with batches for a GPU, and volumes.
GPU_CASES = {
    "b": replace(CASES["b"], batch_size=256, train_items=16_384, epochs=5),
    "c": replace(CASES["c"], batch_size=32, train_items=512, epochs=5),
    "3d": Case("3d", "U-Net on 96³, batch 2", unet_3d, volumes, 2, 32, 2, 5, task=CASES["c"].task),
}


@dataclass(frozen=True)
class Setting:
    """One problem on one device, its data in memory and as files."""

    case: Case
    device: torch.device
    tensors: tuple[Tensor, Tensor]
    files: dict[str, str]

    def finished(self) -> float:
        """The clock, when the device has done all it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class _Watch(Observer):
    """Notes when epochs end."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.ends: list[float] = []

    def on_epoch(self, epoch: Epoch) -> None:
        self.ends.append(self.setting.finished())


def by_weft(setting: Setting, **options: Any) -> float:
    """Seconds of the epochs after the first one, with Weft."""
    case, watch = setting.case, _Watch(setting)
    with tempfile.TemporaryDirectory(prefix="weft-benchmark-") as folder:
        weft.train(
            {
                "seed": SEED,
                "dataset": {"arrays": {"train": setting.files}},
                "model": Component.of(case.model),
                "training": {
                    "task": case.task, "loss": "CrossEntropyLoss", "epochs": case.epochs,
                    "batch_size": case.batch_size, "optimizer": {"Adam": {"lr": case.learning_rate}},
                    "metrics": [], "precision": "bf16", "deterministic": False, **options,
                },
                "run": {
                    "device": str(setting.device), "num_workers": 0, "progress": False, "tensorboard": False,
                    "checkpoint_every": {"minutes": 60}, "score_train": "never",
                },
            },
            out=Path(folder) / "run",
            observers=[watch],
        )  # fmt: skip
    return watch.ends[-1] - watch.ends[0]


def _parts(setting: Setting) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    torch.manual_seed(SEED)
    model = setting.case.model().to(setting.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.case.learning_rate)
    generator, pinned = torch.Generator().manual_seed(SEED), setting.device.type == "cuda"
    size = setting.case.batch_size
    loader = DataLoader(TensorDataset(*setting.tensors), size, shuffle=True, generator=generator, pin_memory=pinned)
    return model, optimizer, loader


def by_hand(setting: Setting) -> float:
    """The same with a loop as tutorials on mixed precision write it."""
    model, optimizer, loader = _parts(setting)
    ends = []
    for _ in range(setting.case.epochs):
        for inputs, targets in loader:
            there = inputs.to(setting.device, non_blocking=True), targets.to(setting.device, non_blocking=True)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(setting.device.type, AMP):
                loss = functional.cross_entropy(model(there[0]), there[1])
            loss.backward()
            optimizer.step()
        ends.append(setting.finished())
    return ends[-1] - ends[0]


def by_monai(setting: Setting) -> float:
    """The same with MONAI's trainer."""
    from ignite.engine import Events
    from monai.engines import SupervisedTrainer

    model, optimizer, loader = _parts(setting)
    trainer = SupervisedTrainer(
        device=setting.device, max_epochs=setting.case.epochs, train_data_loader=loader, network=model,
        optimizer=optimizer, loss_function=nn.CrossEntropyLoss(), amp=True, amp_kwargs={"dtype": AMP},
        prepare_batch=lambda batch, device, non_blocking, **_: tuple(
            part.to(device, non_blocking=non_blocking) for part in batch
        ), non_blocking=True,
    )  # fmt: skip
    ends: list[float] = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: ends.append(setting.finished()))
    trainer.run()
    return ends[-1] - ends[0]


def measure(setting: Setting, pairs: int) -> list[dict[str, Any]]:
    """A row per contender and reference."""
    references: dict[str, Callable[[Setting], float]] = {"loop by hand, AMP": by_hand}
    if find_spec("monai") is not None:
        references["MONAI SupervisedTrainer"] = by_monai
    rows = []
    items = (setting.case.epochs - 1) * setting.case.train_items
    for name, options in _WEFT.items():
        for reference, train in references.items():
            own, other = [], []
            for number in range(-1, pairs):
                both = [(lambda: by_weft(setting, **options), own), (lambda: train(setting), other)]  # noqa: B023
                for run, times in both if number % 2 else reversed(both):
                    seconds = run()
                    if number >= 0:
                        times.append(seconds)
            ratio = spread([first / second for first, second in zip(own, other, strict=True)])
            rows.append(
                {
                    "case": setting.case.key, "contender": name, "reference": reference,
                    "items_per_second": items / sorted(own)[len(own) // 2], "ratio": ratio,
                }
            )  # fmt: skip
            print(_line(setting.case, rows[-1]), flush=True)
    return rows


def _line(case: Case, row: dict[str, Any]) -> str:
    ratio: Spread = row["ratio"]
    return (
        f"| {case.key} | {row['contender']} | {row['reference']} | {row['items_per_second']:.0f} | "
        f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] | ≤ {_GOALS[row['reference']]} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cases", nargs="+", choices=list(GPU_CASES), default=list(GPU_CASES))
    parser.add_argument("--pairs", type=int, default=9, help="interleaved pairs for each ratio (default: 9)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    print(f"{name}; torch {torch.__version__}, bfloat16 autocast\n")
    print("| case | contender | beside | items/s | time ratio [90 %] | goal |\n|---|---|---|---:|---|---|")
    rows = []
    for key in arguments.cases:
        case = GPU_CASES[key]
        if arguments.quick:
            items = 64 if key == "b" else 2  # every class must be there
            case = replace(case, batch_size=items // 2, train_items=items, epochs=2)
        with tempfile.TemporaryDirectory(prefix="weft-benchmark-") as folder:
            prepared = prepare(case, Path(folder))
            setting = Setting(case, device, prepared.tensors["train"], prepared.files["train"])
            rows += measure(setting, 1 if arguments.quick else arguments.pairs)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1, default=vars))


if __name__ == "__main__":
    main()
