"""Finding, checking and building components: patches first, then Weft, MONAI (if installed), torch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic_core import PydanticCustomError

from weft.config.annotations import wants_tensor
from weft.config.catalog import KINDS, MISSING, SOURCES, look_up, module_if_there, names_in
from weft.config.component import Component
from weft.config.hints import did_you_mean
from weft.config.patches import MAIN, load_patch
from weft.config.rooms import check_score_arguments
from weft.config.signatures import CALLED_LATER, annotations_of, check_arguments, is_reference
from weft.config.supplied import MEANINGS, supplied
from weft.errors import ConfigError, Problem, UsageError


@dataclass(frozen=True, slots=True)
class Namespace:
    """Where names of components are looked up.

    Args:
        patches: Python files of the user, whose names come before all others.
    """

    patches: tuple[Path, ...] = ()

    def modules(self) -> list[ModuleType]:
        """The patches as modules; raises ConfigError when one cannot be loaded."""
        return [load_patch(patch) for patch in self.patches]

    def find(self, component: Component, kind: str) -> Callable[..., Any]:
        """The class, function or finished object that a component names; for Weft's own metrics the name itself.

        Args:
            component: what to find.
            kind: model, optimizer, scheduler, loss, metric, transform, sampler, dataset, arrays, task, observer or
                strategy.

        Raises:
            ConfigError: there is no such thing; the hint has the nearest name.
        """
        if kind not in SOURCES:
            raise ValueError(f"unknown kind of component {kind!r}; kinds are {', '.join(KINDS)}")
        try:
            found: Callable[..., Any] = self._find(component, kind)
        except ConfigError as error:
            raise ConfigError([_placed(problem, component) for problem in error.problems]) from error
        return found

    def _find(self, component: Component, kind: str) -> Any:
        if component.target is not None:
            return component.target
        try:
            return self.object(component.name, kind)
        except ConfigError as error:
            own = [p if p.file is not None else replace(p, path=(component.name, *p.path)) for p in error.problems]
            raise ConfigError(own) from error

    def _find_name(self, name: str, kind: str) -> Any:
        for module in self.modules():
            value = _member(module, name)
            if callable(value):
                return value
        if "." in name:
            return import_object(name)
        for source in SOURCES[kind]:
            value = look_up(source, name)
            if value is not MISSING:
                return value
        return MISSING

    def names(self, kind: str) -> list[str]:
        """The names that a kind has, patches first; MONAI's without importing it."""
        own = [name for module in self.modules() for name in defined_names(module)]
        return list(dict.fromkeys([*own, *(name for source in SOURCES[kind] for name in names_in(source))]))

    def _hint(self, name: str, kind: str) -> str:
        hint = did_you_mean(name, self.names(kind))
        if name.endswith("d") and kind == "transform" and module_if_there("monai") is None:
            return hint + "; transforms of MONAI need: pip install 'weft[imaging]'"
        return hint or f"write the import path of the {kind}, or list the file that has it under patches:"

    def build(self, component: Component, kind: str, *args: Any, **extra: Any) -> Any:
        """Build the object that a component stands for.

        Functions of kind loss, metric and transform are the object themselves (with the arguments bound); everything
        else is called. Arguments `{component: {...}}` are built first, `{object: path}` are looked up, and lists of
        numbers become tensors where the signature asks for a tensor.

        Args:
            component: what to build.
            kind: see `find`.
            args: positional arguments that Weft supplies, e.g. an optimizer's parameters.
            extra: keyword arguments that Weft supplies; those of the component come first.

        Raises:
            ConfigError: the name is unknown, arguments do not fit, or the object refused them.
        """
        target = self.find(component, kind)
        if component.is_finished or isinstance(target, str):
            if component.arguments and component.is_finished:
                raise _error(
                    component, f"{component.name} is a finished object and takes no arguments", "give its class"
                )
            return target
        problems = self.check(component, kind, (), given=frozenset(extra))
        if problems:
            raise ConfigError([_placed(problem, component) for problem in problems])
        annotations = annotations_of(target)
        own = {key: self._argument(key, value, kind, annotations) for key, value in component.arguments.items()}
        arguments = {**extra, **own}
        if inspect.isroutine(target) and kind in CALLED_LATER:
            return functools.partial(target, **arguments) if arguments else target
        try:
            return target(*args, **arguments)
        except ConfigError:
            raise
        except (
            TypeError,
            ValueError,
            RuntimeError,
            KeyError,
            AssertionError,
            OSError,
            ImportError,
            AttributeError,
        ) as error:
            message = f"{component.name} could not be built: {type(error).__name__}: {error}"
            raise _error(component, message, "check its arguments") from error

    def _argument(self, name: str, value: Any, kind: str, annotations: Mapping[str, Any]) -> Any:
        if isinstance(value, Component):
            value = {"component": value}
        if is_reference(value):
            ((form, inner),) = value.items()
            if form == "object":
                return inner if not isinstance(inner, str) else self.object(inner, kind)
            nested = parse_nested(inner)
            return self.build(nested, self.kind_of(nested, kind))
        if isinstance(value, list) and any(is_reference(entry) or isinstance(entry, Component) for entry in value):
            return [self._argument(name, entry, kind, {}) for entry in value]
        if isinstance(value, list | tuple) and wants_tensor(annotations.get(name)):
            import torch

            return torch.tensor(
                value, dtype=torch.float32 if any(isinstance(entry, float) for entry in value) else None
            )
        return value

    def kind_of(self, component: Component, kind: str) -> str:
        """The kind of a nested component: the first that knows its name, beginning with that of the outer one."""
        for candidate in (kind, *KINDS):
            if component.target is not None or self._find_name(component.name, candidate) is not MISSING:
                return candidate
        return kind

    def object(self, name: str, kind: str) -> Any:
        """What a bare name (of a patch or of the kind) or an import path stands for, not called."""
        found = self._find_name(name, kind)
        if found is MISSING:
            raise ConfigError(f"there is no {kind} named {name!r}", self._hint(name, kind))
        return found

    def check(
        self,
        component: Component,
        kind: str,
        known: Collection[str] = tuple(MEANINGS),
        given: frozenset[str] = frozenset(),
    ) -> list[Problem]:
        """What is wrong with a component's name and arguments, told without building anything.

        Args:
            component: what to check.
            kind: see `find`.
            known: names of the values that Weft has to supply arguments with (see `weft.config.supplied`).
            given: names of further arguments that `build` is given.
        """
        try:
            target = self._find(component, kind)
        except ConfigError as error:
            return error.problems
        if isinstance(target, str):
            return _check_metric(component)
        if component.is_finished:
            return []
        own = supplied(kind, target, component.arguments, dict.fromkeys(known))
        problems = check_arguments(component, target, kind, given | set(own))
        for argument, value in component.arguments.items():
            problems += self._check_nested(value, kind, (component.name, argument))
        return problems

    def _check_nested(self, value: Any, kind: str, path: tuple[str | int, ...]) -> list[Problem]:
        if isinstance(value, list):
            return [p for index, entry in enumerate(value) for p in self._check_nested(entry, kind, (*path, index))]
        if isinstance(value, Component):
            value = {"component": value}
        if not is_reference(value):
            return []
        ((form, inner),) = value.items()
        try:
            if form == "object":
                if isinstance(inner, str):
                    self.object(inner, kind)
                return []
            nested = parse_nested(inner)
            problems = self.check(nested, self.kind_of(nested, kind), known=())  # only outer ones are supplied
        except ConfigError as error:
            problems = error.problems
        return [replace(problem, path=(*path, form, *problem.path)) for problem in problems]


def parse_nested(value: Any) -> Component:
    try:
        return Component.parse(value)
    except PydanticCustomError as error:
        raise ConfigError(error.message(), str((error.context or {}).get("hint", ""))) from error


def _check_metric(component: Component) -> list[Problem]:
    problems = []
    for argument in component.arguments:
        try:
            check_score_arguments(component.name, {argument: component.arguments[argument]})
        except UsageError as error:
            problems.append(Problem(error.message, error.hint, (component.name, argument)))
    return problems


def import_object(path: str) -> Any:
    """The object of an import path `package.module.name` (or `.Class.method`).

    Raises:
        ConfigError: a part of it does not exist; the hint has the nearest name there.
    """
    parts = path.split(".")
    for used in range(len(parts) - 1, 0, -1):
        try:
            module = module_if_there(".".join(parts[:used]))
        except ConfigError:
            raise
        except Exception as error:  # whatever importing the user's module raises is told with the name
            message = f"{'.'.join(parts[:used])} cannot be imported: {type(error).__name__}: {error}"
            raise ConfigError(message, "repair the module, or check the import path") from error
        if module is None:
            continue
        value: Any = module
        for index, part in enumerate(parts[used:]):
            if not hasattr(value, part):
                where = ".".join(parts[: used + index])
                if where == MAIN:
                    hint = "it was defined in a program that is not running now: move it to a file, or run that program"
                    raise ConfigError(f"the main program has no {part!r}", hint)
                raise ConfigError(
                    f"{where} has no {part!r}", did_you_mean(part, [n for n in dir(value) if n[:1] != "_"])
                )
            value = getattr(value, part)
        if isinstance(value, ModuleType):
            raise ConfigError(f"{path} is a module, not a class or function", "add the name of the class or function")
        return value
    raise ConfigError(f"there is no package {parts[0]!r} to import {path} from", "install it, or check the name")


def _member(module: ModuleType, name: str) -> Any:
    """What a module has under a name, or under `Outer.Inner`; MISSING when nothing."""
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, MISSING)
    return value


def defined_names(module: ModuleType) -> list[str]:
    """The public classes and functions that a module defines itself."""
    own = vars(module).items()
    return [n for n, v in own if n[:1] != "_" and callable(v) and getattr(v, "__module__", None) == module.__name__]


def _error(component: Component, message: str, hint: str) -> ConfigError:
    return ConfigError(_placed(Problem(message, hint, (component.name,)), component))


def _placed(problem: Problem, component: Component) -> Problem:
    place = component.place
    if place is None or problem.file is not None:
        return problem
    return replace(problem, file=place.file, line=place.line, column=place.column)
