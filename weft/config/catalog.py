"""Where names of components come from: for each kind the modules to look in, in order, and what they hold.

Names of MONAI are read from its source first, and its modules (seconds to import) are imported only for a name that
they have. The order patches, Weft, MONAI, torch is kept all the same.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from weft.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Source:
    """A module in which names of a kind are looked up.

    Args:
        module: import path.
        registry: name of a mapping in the module from further names to objects.
        base: base class (`module.Class`) of what is listed; anything callable can be looked up.
        ending: ending of the names that are listed.
        only_registry: whether only the registry is listed.
    """

    module: str
    registry: str | None = None
    base: str | None = None
    ending: str = ""
    only_registry: bool = False


SOURCES: Mapping[str, tuple[Source, ...]] = {
    "model": (
        Source("weft.nets", base="torch.nn.Module"),
        Source("monai.networks.nets", base="torch.nn.Module"),
        Source("torch.nn", base="torch.nn.Module"),
    ),
    "optimizer": (Source("torch.optim", base="torch.optim.Optimizer"),),
    "scheduler": (Source("torch.optim.lr_scheduler", base="torch.optim.lr_scheduler.LRScheduler"),),
    "loss": (
        Source("weft.tasks", ending="Loss"),
        Source("monai.losses", base="torch.nn.Module", ending="Loss"),
        Source("torch.nn", base="torch.nn.Module", ending="Loss"),
    ),
    "metric": (Source("weft.metrics", registry="KNOWN", only_registry=True),),
    "transform": (Source("weft.data.transforms"), Source("monai.transforms", base="monai.transforms.Transform")),
    "sampler": (Source("weft.data.samplers"), Source("torch.utils.data", base="torch.utils.data.Sampler")),
    "dataset": (
        Source("weft.data.datasets", base="torch.utils.data.Dataset"),
        Source("monai.data", base="torch.utils.data.Dataset"),
        Source("monai.apps", base="torch.utils.data.Dataset"),
        Source("torch.utils.data", base="torch.utils.data.Dataset"),
    ),
    "arrays": (Source("weft.data.arrays"),),
    "task": (Source("weft.tasks", registry="TASKS", base="weft.tasks.Task"),),
    "observer": (Source("weft.monitor", base="weft.engine.Observer"),),
    "strategy": (Source("weft.federated", base="weft.engine.Strategy"),),
}
KINDS = tuple(SOURCES)

MISSING = object()


def module_if_there(name: str) -> ModuleType | None:
    """Import a module; None when it or a package around it is not installed. Errors inside it are not hidden."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            return None
        raise ConfigError(
            f"{name} cannot be imported: {error}",
            f"install {error.name!r}, or repair the installation of {name.partition('.')[0]!r}",
        ) from error


def look_up(source: Source, name: str) -> Any:
    """What a source holds under a name; MISSING when nothing that could be a component."""
    declared = declared_names(source.module)
    if declared is not None and name not in declared:
        return MISSING
    module = module_if_there(source.module)
    if module is None:
        return MISSING
    if source.registry is not None:
        registry = getattr(module, source.registry, {})
        if name in registry:
            entry = registry[name]
            return entry if callable(entry) else name
    found = getattr(module, name, MISSING)
    return found if callable(found) and not name.startswith("_") else MISSING


def names_in(source: Source) -> list[str]:
    """The names that a source offers, as far as they can be told without importing MONAI."""
    declared = declared_names(source.module)
    if declared is not None:
        return sorted(name for name in declared if name.endswith(source.ending) and name[:1].isupper())
    module = module_if_there(source.module)
    if module is None:
        return []
    return sorted({*getattr(module, source.registry or "", {}), *(name for name, _ in members(source, module))})


def members(source: Source, module: ModuleType) -> list[tuple[str, Any]]:
    """The public classes and functions of a module that are of the source's kind."""
    if source.only_registry:
        return []
    base = base_class(source.base)
    exported = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    found = []
    for name in exported:
        value = getattr(module, name, None)
        fits = (
            issubclass(value, base)
            if isinstance(value, type) and base is not None
            else callable(value) and base is None
        )
        own_name = getattr(value, "__name__", name)
        alias = own_name != name and getattr(module, own_name, None) is value
        if fits and not alias and value is not base and name.endswith(source.ending) and _is_own(value, source.module):
            found.append((name, value))
    return found


def may_be(value: Any, kind: str) -> bool:
    """Whether a class or function of the user's may be of a kind: told by its base class, where the kind has one."""
    if not isinstance(value, type):
        return kind in ("loss", "metric", "transform", "arrays", "model")
    bases = tuple(base for source in SOURCES[kind] if (base := base_class(source.base)) is not None)
    others = tuple(base for other in SOURCES for source in SOURCES[other] if (base := base_class(source.base)))
    return issubclass(value, bases) if bases else callable(value) and not issubclass(value, others)


def _is_own(value: Any, module: str) -> bool:
    """Whether a value was made in the package of the module, rather than imported into it (typing's names, say)."""
    return str(getattr(value, "__module__", "")).partition(".")[0] == module.partition(".")[0] and (
        isinstance(value, type) or inspect.isroutine(value)
    )


def base_class(path: str | None) -> type | None:
    """The class of a dotted name; None when it or its package is not there."""
    if path is None:
        return None
    module, _, name = path.rpartition(".")
    found = module_if_there(module)
    base = getattr(found, name, None) if found is not None else None
    return base if isinstance(base, type) else None


@cache
def declared_names(module: str) -> frozenset[str] | None:
    """The names that a package of MONAI exports, read from its source; None when only importing it can tell."""
    package, *rest = module.split(".")
    if package != "monai" or module in sys.modules:
        return None
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    file = Path(spec.submodule_search_locations[0], *rest, "__init__.py")
    if not file.is_file():
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return None if "*" in names else frozenset(names)
