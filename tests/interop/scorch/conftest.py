"""One process that has imported Weft serves all tests of this folder in a test process."""

from __future__ import annotations

from tests.faults.conftest import nursery  # noqa: F401  # a fixture
