"""`import coinstac_dinunet` in a child process: the names of Weft's classes under the original's.

Only a process that asks for it is changed, and nothing on the disk.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

OURS = "weft.interop.coinstac"
# The original's modules, in its releases 1 and 2, that lie elsewhere here.
MOVED = {
    "nodes": "", "nodes.local": "", "nodes.remote": "", "distrib": "", "distrib.nodes": "", "distrib.nodes.local": "",
    "distrib.nodes.remote": "", "distrib.local": "", "distrib.remote": "", "distrib.learner": "learner",
    "distrib.reducer": "reducer", "metrics.metrics": "metrics", "metrics.loss": "losses", "data.data": "data",
    "data.datautils": "datautils", "nn.basetrainer": "nn", "nn.pooled": "pooled", "utils.utils": "utils",
}  # fmt: skip

# What the original has and Weft does not, by a word of its name: what to write instead.
INSTEAD = {
    "powersgd": "write agg_engine: powerSGD; for one of your own derive from COINNLearner and COINNReducer",
    "PowerSGD": "write agg_engine: powerSGD; for one of your own derive from COINNLearner and COINNReducer",
    "rankdad": "write agg_engine: rankDAD; for one of your own derive from COINNLearner and COINNReducer",
    "DAD": "write agg_engine: rankDAD; for one of your own derive from COINNLearner and COINNReducer",
    "dad": "write agg_engine: rankDAD; for one of your own derive from COINNLearner and COINNReducer",
    "imageutils": "copy the functions that you use into a file beside your script",
    "EmptyDataHandle": "the remote's trainer gets a data handle without data by itself",
    "COINNDataLoader": "return a torch DataLoader from get_loader of a COINNDataHandle",
}


def advice(error: ImportError) -> str:
    """What to do where a name of the original cannot be imported; empty for any other name."""
    name = str(error.name or "")
    if name.partition(".")[0] not in ("coinstac", "coinstac_dinunet"):
        return ""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return "simulate with --alias: the name means Weft's classes then"
    said = f"{name} {str(error).partition(' (')[0]}"  # without the file's path, which may hold any word
    return next((hint for word, hint in INSTEAD.items() if word in said), "docs/coinstac.md lists what is there")


def install() -> None:
    """Make `import coinstac_dinunet` and `import coinstac` find Weft's modules in this process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    service = ModuleType("coinstac", "What COINSTAC's own package does for a computation: call it.")
    service.start = importlib.import_module(f"{OURS}.io").start  # type: ignore[attr-defined]
    sys.modules["coinstac"] = service


class _Finder:
    """Finds modules of the original's names."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        if package != "coinstac_dinunet":
            return None
        ours = f"{OURS}.{MOVED.get(rest, rest)}".rstrip(".")
        try:
            known = importlib.util.find_spec(ours) is not None
        except ModuleNotFoundError:
            known = False
        if not known:
            raise ModuleNotFoundError(
                f"{name} has no counterpart in {OURS}; docs/coinstac.md lists what is there", name=name
            )
        return ModuleSpec(name, _Loader(ours), is_package=True)


class _Loader(Loader):
    """Gives a module another name.

    Args:
        ours: its own.
    """

    def __init__(self, ours: str) -> None:
        self.ours = ours

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name, f"{self.ours} under the original's name.")
        return module

    def exec_module(self, module: ModuleType) -> None:
        ours = importlib.import_module(self.ours)
        kept = set(vars(module))
        vars(module).update({name: value for name, value in vars(ours).items() if name not in kept})
        module.__getattr__ = lambda name: getattr(ours, name)  # type: ignore[method-assign]
