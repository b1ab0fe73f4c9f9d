"""The fingerprint of an experiment: equal fingerprint, equal experiment."""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weft.config.canonical import encode, to_text
from weft.config.checkfiles import named_files
from weft.config.component import Component, import_path
from weft.config.experiment import Experiment, KeyPath
from weft.config.fields import Section
from weft.config.namespace import Namespace, parse_nested
from weft.config.resolve import resolve
from weft.config.rooms import known_scores
from weft.config.signatures import CALLED_LATER, is_reference, signature_of
from weft.config.source import definition_digest, effects_digest, is_library, user_file_of
from weft.errors import ConfigError

_VERSION = 1  # of what goes into the fingerprint and how it is written
_LEFT_OUT = ("name", "run", "patches")
_DERIVED = (("training", "effective_batch_size"),)  # is batch_size times accumulate, which are in


def fingerprint(experiment: Experiment, data_digest: str | None = None) -> str:
    """The sha256 (hexadecimal) of everything that decides what an experiment computes.

    Defaults are filled in, those of components' signatures too; user code counts by its source and pretrained weights
    by their content. `name` and `run` are left out.

    Args:
        experiment: what to take the fingerprint of; `auto` values of `training` are resolved first.
        data_digest: digest of the data's content, which then stands for the paths; without it the paths count as
            written.

    Raises:
        ConfigError: a value is NaN or an object whose state cannot be told, or a component or file is missing.
    """
    return hashlib.sha256(to_text(_Writer(resolve(experiment), data_digest).write()).encode()).hexdigest()


def components_digest(components: Sequence[Component], kind: str, namespace: Namespace) -> str:
    """The sha256 (hexadecimal) of what some components are, as `fingerprint` takes it of all those of an experiment.

    Args:
        components: in their order.
        kind: of all of them.
        namespace: looks up names.

    Raises:
        ConfigError: there is no such component, or the state of an object cannot be told.
    """
    writer = _ComponentWriter(namespace)
    written = [writer.component(component, kind) for component in components]
    return hashlib.sha256(to_text(["components", _VERSION, written, writer.effects()]).encode()).hexdigest()


class _ComponentWriter:
    """Encodes components, and notes which files of the user's code they depend on.

    Args:
        namespace: looks up names.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.files: set[Path] = {patch.resolve() for patch in namespace.patches}
        self.open: list[int] = []

    def effects(self) -> list[str]:
        """Digests of what the files noted so far do besides defining things."""
        return sorted({digest for file in self.files if file.suffix == ".py" and (digest := effects_digest(file))})

    def component(self, component: Component, kind: str) -> Any:
        """A component by what it names, with all its arguments."""
        target = self.namespace.find(component, kind)
        if component.is_finished:
            return self.other(target)
        if isinstance(target, str):
            arguments = {**known_scores()[target].arguments, **component.arguments}
            return ["metric", target, encode(arguments, self.other)]
        arguments = {name: self.argument(value, kind) for name, value in component.arguments.items()}
        return ["component", self.code(target), sorted({**self._defaults(target, kind), **arguments}.items())]

    def _defaults(self, target: Any, kind: str) -> dict[str, Any]:
        signature = signature_of(target)
        parameters = list(signature.parameters.values()) if signature is not None else []
        if inspect.isroutine(target):
            parameters = parameters[CALLED_LATER.get(kind, 0) :]
        given = [parameter for parameter in parameters if parameter.default is not parameter.empty]
        return {parameter.name: self.argument(parameter.default, kind) for parameter in given}

    def argument(self, value: Any, kind: str) -> Any:
        """An argument of a component; references in it are followed."""
        if isinstance(value, Component):
            value = {"component": value}
        if is_reference(value):
            ((form, inner),) = value.items()
            if form == "component":
                nested = parse_nested(inner)
                return self.component(nested, self.namespace.kind_of(nested, kind))
            return self.other(self.namespace.object(inner, kind) if isinstance(inner, str) else inner)
        if isinstance(value, list | tuple):
            return ["l", [self.argument(entry, kind) for entry in value]]
        return encode(value, self.other)

    def other(self, value: Any) -> Any:
        """Whatever is not plain data: code by its source, objects by their class and state."""
        if isinstance(value, type) or (inspect.isroutine(value) and hasattr(value, "__qualname__")):
            return self.code(value)
        if isinstance(value, enum.Enum):
            return ["enum", self.code(type(value)), value.name]
        if isinstance(value, functools.partial):
            return ["partial", self.code(value.func), self.state(list(value.args)), self.state(value.keywords)]
        if type(value).__module__.partition(".")[0] in ("torch", "numpy"):
            array = self._array(value)
            if array is not None:
                return array
        return self._instance(value)

    def code(self, target: Any) -> Any:
        """A class or function: a library's by its import path, the user's by its source."""
        if is_library(target):
            return ["import", import_path(target)]
        if (file := user_file_of(target)) is not None:
            self.files.add(file.resolve())
        return [
            "code",
            target.__qualname__.rpartition("<locals>.")[2],
            definition_digest(target),
            self._captured(target),
        ]

    def _captured(self, target: Any) -> Any:
        """Values that a function, or the methods of a class, took from a function around it."""
        functions = (
            [target] if not isinstance(target, type) else [f for f in vars(target).values() if inspect.isfunction(f)]
        )
        captured = []
        for function in functions:
            names, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
            for name, cell in zip(names.co_freevars if names else (), cells or ()):
                if name != "__class__":
                    captured.append([function.__name__, name, self.state(cell.cell_contents)])
        return captured

    def _array(self, value: Any) -> Any:
        """A tensor, array, data type or device of torch or NumPy; None for other objects of theirs."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if kind in ("torch.dtype", "torch.device"):
            return ["import", str(value)]
        if hasattr(value, "detach"):
            value = value.detach().cpu().contiguous()
            raw = value.reshape(-1).view(importlib.import_module("torch").uint8).numpy()
        elif kind == "numpy.ndarray" and value.dtype != object:
            raw = value
        else:
            return None
        return [
            "array",
            str(value.dtype),
            [str(size) for size in value.shape],
            hashlib.sha256(raw.tobytes()).hexdigest(),
        ]

    def _instance(self, value: Any) -> Any:
        if not hasattr(value, "__dict__") or id(value) in self.open:
            name = import_path(value)
            raise ConfigError(
                f"the state of a {name} object cannot be told, so it cannot be part of a fingerprint",
                f"give the class and its arguments instead: Component.of({name.rpartition('.')[2]}, ...)",
            )
        self.open.append(id(value))
        encoded = ["instance", self.code(type(value)), self.state(vars(value))]
        self.open.pop()
        return encoded

    def state(self, value: Any) -> Any:
        """What an object holds; mappings keep their order here, since the layers of a network have one."""
        if isinstance(value, dict):
            return ["state", [[encode(key, self.other), self.state(child)] for key, child in value.items()]]
        if isinstance(value, list | tuple):
            return ["l", [self.state(entry) for entry in value]]
        return encode(value, self.other)


class _Writer(_ComponentWriter):
    """Encodes one experiment."""

    def __init__(self, experiment: Experiment, data_digest: str | None) -> None:
        super().__init__(experiment.namespace())
        self.experiment = experiment
        self.data_digest = data_digest
        self.kinds = {path: kind for path, kind, _ in experiment.components()}
        self.data_paths = {path for path, _, _ in named_files(experiment) if path[0] in ("dataset", "federation")}

    def write(self) -> Any:
        _ = self.experiment.training.items_per_batch  # refuses one that is still to be found
        fields = type(self.experiment).model_fields
        body = {name: self.value(getattr(self.experiment, name), (name,)) for name in fields if name not in _LEFT_OUT}
        if self.experiment.federation is None:  # the fingerprint of what is trained in one place is as old as Weft
            del body["federation"]
        return ["weft", _VERSION, sorted(body.items()), self.data_digest, self.effects()]

    def value(self, value: Any, path: KeyPath) -> Any:
        """A field of the experiment."""
        if isinstance(value, Section):
            fields = type(value).model_fields
            pairs = [
                (fields[name].alias or name, getattr(value, name)) for name in fields if (*path, name) not in _DERIVED
            ]
            return ["section", sorted([key, self.value(child, (*path, key))] for key, child in pairs)]
        if isinstance(value, Component):
            return self.component(value, self.kinds[path])
        if isinstance(value, dict):
            pairs = [(encode(key, self.other), self.value(child, (*path, key))) for key, child in value.items()]
            return ["d", sorted(pairs, key=lambda pair: to_text(pair[0]))]
        if isinstance(value, list):
            return ["l", [self.value(child, (*path, index)) for index, child in enumerate(value)]]
        if path == ("model", "weights") and value is not None:
            return ["file", self._digest_of_file(value)]
        if path == ("dataset", "split", "files") and value is not None:
            folder = self.experiment.path(value)
            return ["files", [[file.name, self._digest_of_file(file)] for file in sorted(folder.glob("*.json"))]]
        if path in self.data_paths and self.data_digest is not None:
            return ["data"]
        return encode(value, self.other)

    def _digest_of_file(self, written: Path) -> str:
        path = self.experiment.path(written)
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error}", "the fingerprint needs its content") from error
