"""`weft doctor`: what is installed here, what this machine offers, and what is amiss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weft.cli.shared import Json, print_verdict

if TYPE_CHECKING:
    from weft.actions.doctor import Diagnosis


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for runs that is looked at.")] = Path("runs"),
    json: Json = False,
) -> None:
    """Tell versions, devices, limits, and what is missing for which extra; exit code 1 where Weft cannot work.

    Works also where torch or other packages are missing or broken.
    """
    from weft.actions.doctor import examine

    print_verdict(examine(output), _print, json=json)


def _print(found: Diagnosis) -> None:
    from weft.actions.doctor import install_command, missing_of

    for title, text in (*_software(found), *_machine(found)):
        typer.echo(f"{title:<14} {text}")
    for extra, packages in found.extras.items():
        missing = ", ".join(package.name for package in missing_of(packages))
        told = f"missing {missing}: {install_command(extra)}" if missing else "installed"
        typer.echo(f"{'extra ' + extra:<18} {told}")
    for symptom in found.symptoms:
        typer.echo(f"\n{symptom.severity}: {symptom.where}: {symptom.message}")
        if symptom.remedy:
            typer.echo(f"  hint: {symptom.remedy}")
    if not found.symptoms:
        typer.echo("\nnothing is amiss")


def _software(found: Diagnosis) -> list[tuple[str, str]]:
    from weft.actions.doctor import size

    versions, torch = found.versions, found.torch
    lines = [
        ("weft", f"{versions['weft']}"),
        ("python", f"{versions['python']} ({versions['executable']}) on {versions['platform']}"),
    ]
    if "error" in torch:
        return [*lines, ("torch", f"broken: {torch['error']}")]
    lines.append(("torch", f"{torch['version']}, CUDA {torch['cuda'] or 'not built in'}, {torch['threads']} threads"))
    for device in torch["devices"]:
        facts = [str(device[key]) for key in ("model", "capability") if device.get(key)]
        facts += [size(device["memory"])] if "memory" in device else []
        lines.append((device["name"], ", ".join([*facts, "works" if device["works"] else "does not work"])))
    return lines


def _machine(found: Diagnosis) -> list[tuple[str, str]]:
    from weft.actions.doctor import size

    limits, output = found.limits, found.output
    cores = f"{limits['cores']}" + (f", {limits['container_cores']} given" if limits["container_cores"] else "")
    memory = "unknown" if limits["memory"] is None else size(limits["memory"])
    if limits["memory_available"] is not None:
        memory += f", {size(limits['memory_available'])} available"
    if limits["container_memory"] is not None:
        memory += f", {size(limits['container_memory'])} given to this container"
    free = "" if output["free"] is None else f", {size(output['free'])} free"
    lines = [("cores", cores), ("memory", memory)]
    if limits["shared_memory"] is not None:
        lines.append(("shared memory", f"{size(limits['shared_memory'])}, {size(limits['shared_memory_free'])} free"))
    if limits["open_files"] is not None:
        lines.append(("open files", f"{limits['open_files']} at most, {limits['open_files_at_most']} on request"))
    lines.append(("runs", f"{output['folder']}: {'can' if output['writable'] else 'cannot'} be written to{free}"))
    return lines
