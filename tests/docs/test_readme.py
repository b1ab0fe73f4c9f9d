"""The README's files and commands, run in an empty folder, in their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import LINK, REPOSITORY, run_page


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_readmes_journeys_work_as_written(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    page = run_page(REPOSITORY / "README.md", tmp_path)
    project = tmp_path / "demo"
    assert (project / "runs" / "first" / "report.html").stat().st_size > 10_000
    assert (project / "comparison.html").stat().st_size > 10_000
    assert any("2 runs; all are compared with run 1" in text for text in page.printed)
    assert (tmp_path / "runs" / "wine" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "runs" / "wine" / "predictions" / "test.csv").exists()
    assert any(text.startswith("identical") or "\nidentical" in text for text in page.printed)
    assert (tmp_path / "runs" / "folds" / "summary.json").exists()
    own = next(text for text in page.printed if "/runs/own " in text)
    assert float(own.splitlines()[0].split()[-1]) > 0.9


def test_every_file_the_readme_links_to_exists() -> None:
    links = LINK.findall((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
