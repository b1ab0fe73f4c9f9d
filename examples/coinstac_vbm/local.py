"""What COINSTAC runs at each site: `run`, in a process that it calls again and again, or this file for each call."""

from vbm import VolumeDataset, VolumeTrainer

from weft.interop.coinstac import COINNDataHandle, COINNLocal

ARGUMENTS = {"task_id": "vbm", "split_ratio": [0.6, 0.2, 0.2], "log_header": "Loss|AUC"}
CACHE = {}


def run(data):
    """One call in a process that lives on."""
    local = COINNLocal(cache=CACHE, input=data["input"], state=data["state"], **ARGUMENTS)
    return local(None, VolumeTrainer, VolumeDataset, COINNDataHandle)


if __name__ == "__main__":
    from weft.interop.coinstac.io import RECV

    local = COINNLocal(cache=RECV["cache"], input=RECV["input"], state=RECV["state"], **ARGUMENTS)
    local.compute(VolumeDataset, VolumeTrainer)
    local.send()
