"""What COINSTAC runs at the remote: `run`, in a process that it calls again and again, or this file for each call."""

from vbm import VolumeTrainer

from weft.interop.coinstac import COINNRemote
from weft.interop.coinstac.metrics import AUCROCMetrics, COINNAverages

CACHE = {}


class VolumeRemote(COINNRemote):
    """Says which scores are kept, and which one decides."""

    def _new_metrics(self):
        return AUCROCMetrics()

    def _new_averages(self):
        return COINNAverages()

    def _monitor_metric(self):
        return "auc", "maximize"


def run(data):
    """One call in a process that lives on."""
    return VolumeRemote(cache=CACHE, input=data["input"], state=data["state"])(None, VolumeTrainer)


if __name__ == "__main__":
    from weft.interop.coinstac.io import RECV

    remote = VolumeRemote(cache=RECV["cache"], input=RECV["input"], state=RECV["state"])
    remote.compute()
    remote.send()
