"""What `weft doctor` finds out: packages, torch, limits, the folder for runs; and what is amiss with them."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import weft
from weft.actions.doctor.installed import Package, core_packages, extra_packages
from weft.actions.doctor.machine import folder_facts, has_nvidia_device, limits, torch_facts

MEBIBYTE, GIBIBYTE = 2**20, 2**30
_FEW_FILES = 1024
_LITTLE_SHARED = 512 * MEBIBYTE
_LITTLE_DISK = GIBIBYTE


@dataclass(frozen=True, slots=True)
class Symptom:
    """Something that is amiss.

    Args:
        severity: "error" (Weft cannot work), "warning" (it may fail or be slow), "note".
        where: what it is about.
        message: what is so, with the values.
        remedy: what to do.
    """

    severity: str
    where: str
    message: str
    remedy: str = ""


@dataclass(slots=True)
class Diagnosis:
    """Everything that `weft doctor` found out, and what is amiss."""

    versions: dict[str, str | None] = field(default_factory=dict)
    core: list[Package] = field(default_factory=list)
    extras: dict[str, list[Package]] = field(default_factory=dict)
    torch: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] = field(default_factory=dict)
    symptoms: list[Symptom] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return all(symptom.severity != "error" for symptom in self.symptoms)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "ok": self.ok,
            "versions": self.versions,
            "core": [asdict(package) for package in self.core],
            "extras": {
                extra: {
                    "installed": not missing_of(packages),
                    "missing": [package.name for package in missing_of(packages)],
                    "command": install_command(extra),
                    "packages": [asdict(package) for package in packages],
                }
                for extra, packages in self.extras.items()
            },
            "torch": self.torch,
            "limits": self.limits,
            "output": self.output,
            "symptoms": [asdict(symptom) for symptom in self.symptoms],
        }


def examine(output: Path = Path("runs")) -> Diagnosis:
    """Look at packages, torch, limits and the folder for runs; nothing is changed.

    Args:
        output: where runs shall go.
    """
    found = Diagnosis(
        versions={
            "weft": weft.__version__,
            "python": platform.python_version(),
            "executable": sys.executable,
            "platform": platform.platform(),
            "git": shutil.which("git"),
        },
        core=core_packages(),
        extras=extra_packages(),
        torch=torch_facts(),
        limits=limits(),
        output=folder_facts(output),
    )
    found.symptoms += [
        *_of_packages(found),
        *_of_torch(found.torch),
        *_of_limits(found.limits),
        *_of_output(found.output),
    ]
    if found.versions["git"] is None:
        found.symptoms.append(Symptom("note", "git", "not found: runs cannot record the commit", "install git"))
    order = ("error", "warning", "note")
    found.symptoms.sort(key=lambda symptom: order.index(symptom.severity))
    return found


def missing_of(packages: list[Package]) -> list[Package]:
    """The packages that are not there, or not in the right version."""
    return [package for package in packages if not package.fits]


def install_command(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'weft[{extra}]'"


def _of_packages(found: Diagnosis) -> list[Symptom]:
    symptoms = []
    try:
        importlib.metadata.version("weft")
    except importlib.metadata.PackageNotFoundError:
        symptoms.append(
            Symptom(
                "warning",
                "weft",
                "is not installed, only found on the path: what it needs cannot be told",
                "pip install -e . in its folder",
            )
        )
    for package in missing_of(found.core):
        what = "is missing" if package.installed is None else f"is {package.installed}, which is outside of the range"
        symptoms.append(Symptom("error", package.name, f"{what} (needed: {package.wanted or 'any'})", _pip([package])))
    for extra, packages in found.extras.items():
        missing = missing_of(packages)
        outdated = [package for package in missing if package.installed is not None]
        if outdated:
            shown = ", ".join(f"{package.name} {package.installed} (needed: {package.wanted})" for package in outdated)
            symptoms.append(
                Symptom("warning", f"extra {extra}", f"outside of the range: {shown}", install_command(extra))
            )
    return symptoms


def _pip(packages: list[Package]) -> str:
    return "pip install " + " ".join(f"'{package.name}{package.wanted}'" for package in packages)


def _of_torch(facts: dict[str, Any]) -> list[Symptom]:
    if "error" in facts:
        remedy = "install it anew: pip install --force-reinstall torch (for builds, see pytorch.org)"
        return [Symptom("error", "torch", f"cannot be imported: {facts['error']}", remedy)]
    symptoms = [
        Symptom("error", device["name"], f"does not compute: {device.get('error', 'wrong result')}", "see its driver")
        for device in facts["devices"]
        if not device["works"]
    ]
    if has_nvidia_device() and not any(device["name"].startswith("cuda") for device in facts["devices"]):
        built = f"for CUDA {facts['cuda']}, but finds none" if facts["cuda"] else "without CUDA"
        remedy = "install the build that fits the driver (nvidia-smi tells its CUDA version; see pytorch.org)"
        told = f"there is an NVIDIA device, but this torch is built {built}"
        symptoms.append(Symptom("warning", "torch", told, remedy))
    return symptoms


def _of_limits(facts: dict[str, Any]) -> list[Symptom]:
    symptoms = []
    files = facts["open_files"]
    if files is not None and files < _FEW_FILES:
        told = f"at most {files}: loader workers need many"
        symptoms.append(Symptom("warning", "open files", told, "ulimit -n 4096, before weft"))
    shared = facts["shared_memory"]
    if shared is not None and shared < _LITTLE_SHARED:
        told = f"/dev/shm holds {size(shared)}: loader workers hand their batches over there"
        remedy = "give the container more (docker run --shm-size=8g), or set run.num_workers: 0"
        symptoms.append(Symptom("warning", "shared memory", told, remedy))
    return symptoms


def _of_output(facts: dict[str, Any]) -> list[Symptom]:
    folder, symptoms = facts["folder"], []
    if not facts["writable"]:
        remedy = "change its permissions, or set run.output to another folder"
        symptoms.append(Symptom("error", folder, f"cannot be written to: {facts['error']}", remedy))
    elif not facts["locks"]:
        told = "its file system knows no locks: two processes could write into one run"
        symptoms.append(Symptom("warning", folder, told, "set run.output to a local disk"))
    if facts["free"] is not None and facts["free"] < _LITTLE_DISK:
        symptoms.append(Symptom("warning", folder, f"only {size(facts['free'])} are free", "make room"))
    return symptoms


def size(amount: float) -> str:
    """Bytes in words."""
    return f"{amount / GIBIBYTE:.1f} GiB" if amount >= GIBIBYTE else f"{amount / MEBIBYTE:.0f} MiB"
