"""What COINSTAC runs at the remote."""

from weft.interop.coinstac import COINNRemote
from weft.interop.coinstac.io import RECV
from weft.interop.coinstac.metrics import COINNAverages, Prf1a


class FreeSurferRemote(COINNRemote):
    """Says which scores are kept, and which one decides."""

    def _new_metrics(self):
        return Prf1a()

    def _new_averages(self):
        return COINNAverages()

    def _monitor_metric(self):
        return "f1", "maximize"


if __name__ == "__main__":
    remote = FreeSurferRemote(cache=RECV["cache"], input=RECV["input"], state=RECV["state"])
    remote.compute()
    remote.send()
