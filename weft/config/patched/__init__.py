"""Home of modules made from the user's files (see `weft.config.patches`).

Importing this package teaches Python to find them: the module's name holds the file's path.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from weft.config.patches import being_loaded, file_of


class SourceLoader(SourceFileLoader):
    """Loads from source always: no stale or stray `__pycache__` beside the user's files."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        self.source = source
        code: CodeType = self.source_to_code(source, self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        with being_loaded(Path(self.path)):
            super().exec_module(module)
        module.__dict__["__weft_source__"] = self.source  # tells later whether the file has changed since


class PatchFinder(MetaPathFinder):
    """Finds modules whose name was made by `weft.config.patches.module_name`."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        file = file_of(name)
        if file is None or not file.is_file():
            return None
        return spec_from_file_location(name, file, loader=SourceLoader(name, str(file)))


if not any(isinstance(finder, PatchFinder) for finder in sys.meta_path):
    sys.meta_path.insert(0, PatchFinder())
