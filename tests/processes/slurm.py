"""A cluster of Slurm on this machine alone, for as long as a test takes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.nursery import wait_until
from tests.processes.launch import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
INSTALL = "apt-get install slurmctld slurmd slurm-client munge"

_CONFIGURATION = """
ClusterName=weft
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={processors} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""


@dataclass
class Slurm:
    """A running cluster.

    Args:
        variables: of the environment in which its commands find it.
    """

    variables: dict[str, str]

    def ask(self, *command: str) -> str:
        """Run one of its commands; what it prints."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | self.variables)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def cluster(folder: Path) -> Iterator[Slurm]:
    """Start the services; at the end they are stopped."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key, configuration = folder / "key", folder / "slurm.conf"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    configuration.write_text(
        _CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0], folder=folder, controller=free_port(), node=free_port(),
            processors=os.cpu_count(),
        )
    )  # fmt: skip
    slurm = Slurm({"SLURM_CONF": str(configuration)})
    munge = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid",
             "log-file": folder / "munged.log", "seed-file": folder / "seed"}  # fmt: skip
    try:
        slurm.ask("munged", "--force", *(f"--{name}={path}" for name, path in munge.items()))
        slurm.ask("slurmctld", "-f", str(configuration))
        slurm.ask("slurmd", "-f", str(configuration))
        wait_until(lambda: "idle" in slurm.ask("sinfo", "--noheader", "--format=%T"), 60)
        yield slurm
    finally:
        for file in folder.glob("*.pid"):
            ask_to_end(int(file.read_text()))


def ask_to_end(process: int) -> None:
    """Ask a process to end that may have ended already."""
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        pass
