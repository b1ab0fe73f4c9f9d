"""Checks of the user's own code: what an experiment takes from it is found again under its name, by a later process."""

from __future__ import annotations

from collections.abc import Iterator

from weft.config.document import targets_of
from weft.config.experiment import Experiment
from weft.config.namespace import Namespace
from weft.config.patches import own_file_of
from weft.errors import ConfigError, Problem


def check_own_code(experiment: Experiment, namespace: Namespace) -> Iterator[Problem]:
    """Classes and functions of patches and of the running program stand at the top level of their file, and no other
    patch hides their name."""
    for path, kind, component in experiment.components():
        for target in targets_of(component):
            file, name = own_file_of(target), getattr(target, "__qualname__", "")
            if file is None or not name or "<" in name:
                continue
            try:
                found = namespace.object(name, kind)
            except ConfigError:
                found = None
            if own_file_of(found) == file:
                continue
            if found is None:
                message = f"{file.name} has no {name!r} when it is loaded for its classes and functions"
                hint = "define it at the top level of the file, not under: if __name__ == '__main__':"
            else:
                message = f"{name!r} of {file.name} cannot be told from that of another file, which is looked up first"
                hint = "give one of the two another name"
            yield Problem(message, hint, path)
