"""Compares Weft with a loop written by hand and with Lightning, Ignite and Accelerate.

    OMP_NUM_THREADS=1 python benchmarks/loop.py                 everything but start-up, some twenty minutes
    OMP_NUM_THREADS=1 python benchmarks/loop.py --cases a       one case
    python benchmarks/loop.py --startup                         what `weft --help` and imports cost

Everybody trains the same model from the same seed on the same data in the same order, with one thread, in this process,
in turns with the loop by hand, and does the same besides: progress on a terminal, metrics, TensorBoard, checkpoints
(see `benchmarks/peers`). What is compared is the CPU time of all threads from before the first epoch to after the last;
that of building and of what comes after training is left out for everybody. Ratios are medians over pairs with 90 %
bootstrap intervals.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, which reads it then
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the repository, in place of this folder

from benchmarks.tables import main, surroundings

__all__ = ["main", "surroundings"]

if __name__ == "__main__":
    sys.exit(main(__doc__))
