"""What activation checkpointing saves and costs on U-Nets: peak memory of a training step, and its time.

    OMP_NUM_THREADS=1 python benchmarks/memory.py

Each case runs in a process of its own, whose allocator gives back at once what is freed; memory is what the process
grew by in a step of Adam beyond a small step before, time the CPU time of a step, median of five.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

CASES = {
    "2D, 4 levels, 16 x 1 x 128 x 128": (2, (16, 1, 128, 128), {}),
    "2D, 4 levels, 3 convolutions each, 16 x 1 x 128 x 128": (2, (16, 1, 128, 128), {"convolutions": 3}),
    "3D, 3 levels, 2 x 1 x 48 x 48 x 48": (3, (2, 1, 48, 48, 48), {"channels": [16, 32, 64]}),
    "3D, 3 levels, batch norm, dropout, 2 x 1 x 48 x 48 x 48": (
        3, (2, 1, 48, 48, 48), {"channels": [16, 32, 64], "normalization": "batch", "dropout": 0.1},
    ),
}  # fmt: skip


def measure(case: str, again: bool) -> None:
    """Print peak bytes, seconds per step and a digest of the weights of one case."""
    import torch

    from weft.engine.memory import PeakMemory
    from weft.engine.recomputing import recompute_blocks
    from weft.engine.scoring import weights_sha256
    from weft.nets import UNet

    torch.set_num_threads(1)
    torch.manual_seed(0)
    dimensions, shape, settings = CASES[case]
    model = UNet(in_channels=1, out_channels=2, spatial_dims=dimensions, **settings)
    recompute_blocks(model, again)
    optimizer = torch.optim.Adam(model.parameters())
    images, memory, seconds = torch.randn(shape), PeakMemory(torch.device("cpu")), []

    def step(batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()

    step(images[:1, :, :16, :16])
    memory.restart()
    for _ in range(5):
        began = time.process_time()
        step(images)
        seconds.append(time.process_time() - began)
    print(memory.growth, statistics.median(seconds), weights_sha256(model.state_dict()))


def main() -> None:
    """Run all cases and print the table."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": str(Path(__file__).parents[1])}
    print(f"{'U-Net':<56}{'MiB kept':>10}{'again':>8}{'':>6}{'s kept':>8}{'again':>8}{'':>7}  same weights")
    for case in CASES:
        found = []
        for again in ("", "again"):
            done = subprocess.run(
                [sys.executable, __file__, case, again], env=environment, capture_output=True, text=True, check=True
            )
            memory, seconds, digest = done.stdout.split()
            found.append((int(memory) / 2**20, float(seconds), digest))
        (kept, kept_seconds, digest), (less, more_seconds, other) = found
        print(
            f"{case:<56}{kept:>10.0f}{less:>8.0f}{less / kept - 1:>+6.0%}{kept_seconds:>8.2f}{more_seconds:>8.2f}"
            f"{more_seconds / kept_seconds - 1:>+7.0%}  {'yes' if digest == other else 'NO'}"
        )


if __name__ == "__main__":
    measure(sys.argv[1], bool(sys.argv[2])) if len(sys.argv) > 1 else main()
