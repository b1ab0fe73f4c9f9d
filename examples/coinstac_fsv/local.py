"""What COINSTAC runs at each site."""

from fsv import FreeSurferDataset, FreeSurferTrainer

from weft.interop.coinstac import COINNLocal
from weft.interop.coinstac.io import RECV

if __name__ == "__main__":
    local = COINNLocal(cache=RECV["cache"], input=RECV["input"], state=RECV["state"], task_name="fsv", batch_size=16)
    local.compute(FreeSurferDataset, FreeSurferTrainer)
    local.send()
