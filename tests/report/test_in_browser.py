"""The report in headless Chromium: it fits the window, shows its figures, and asks the network for nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from tests.federated.lab import study
from tests.report.samples import case_run, sample_folds, sample_run
from weft.federated.study import simulate
from weft.report import write_report
from weft.report.comparepage import write_comparison
from weft.report.comparison import compare_runs

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome on the PATH"),
]

MEASURE = """<script>
addEventListener("load", () => {
  const page = document.documentElement;
  const wide = [...document.querySelectorAll("main *, header *")].filter(element =>
    element.getBoundingClientRect().right > page.clientWidth + 1 && !element.closest(".scroll, pre, svg"));
  const small = [...document.querySelectorAll("figure svg")].filter(svg =>
    svg.checkVisibility() && svg.getBoundingClientRect().width < 150);
  const cut = [...document.querySelectorAll(".score-side .scroll")].filter(table =>
    table.checkVisibility() && table.scrollWidth > table.clientWidth + 1);
  document.title = JSON.stringify({
    overflow: page.scrollWidth - page.clientWidth, wide: wide.map(element => element.outerHTML.slice(0, 80)),
    small: small.length, cut: cut.length, figures: document.querySelectorAll("figure svg").length,
    requests: performance.getEntriesByType("resource").length,
  });
});
</script>"""


def chromium(tmp_path: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def long_names(tmp_path: Path) -> Path:
    return write_report(sample_run(tmp_path / "run", labels=["benign", "a-malignant-kind-with-a-long-name-" * 3]).path)


def everything(tmp_path: Path) -> Path:
    return write_report(case_run(tmp_path / "run", groups=3).path, by=["target", "prediction"])


def comparison(tmp_path: Path) -> Path:
    runs = [case_run(tmp_path / ("a-run-with-quite-a-long-name-" * number), seed=number).path for number in (1, 2, 3)]
    return write_comparison(compare_runs(runs), tmp_path / "compared.html")


@pytest.fixture(scope="module")
def of_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with faults, and sites with long names."""
    pytest.importorskip("sklearn")
    shares = study()["federation"]["sites"]
    names = {"north": "the-university-hospital-of-the-very-far-north", "south": "south", "west": "w"}
    written = study({names[name]: source for name, source in shares.items()})
    path = simulate(written, out=tmp_path_factory.mktemp("study") / "study", compare=True).path
    faults = [
        ("left", 3, "it was killed"),
        ("returned", 9, ""),
        ("refused", 12, "'gradients' is " + "very " * 30 + "large"),
    ]
    rows = [
        {"event": event, "site": name, "epoch": 1, "step": step, "seconds": 1.5, "reason": reason}
        for name in names.values()
        for event, step, reason in faults
    ]
    (path / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("width", [390, 1120, 1280])
def test_the_report_of_a_study_fits_the_window(tmp_path: Path, of_study: Path, width: int) -> None:
    assert_it_fits(write_report(of_study), tmp_path, width)


@pytest.mark.parametrize("width", [390, 1120, 1280])
@pytest.mark.parametrize("make", [long_names, everything, comparison])
def test_nothing_is_wider_than_the_window_and_nothing_is_fetched(
    tmp_path: Path, make: Callable[[Path], Path], width: int
) -> None:
    assert_it_fits(make(tmp_path), tmp_path, width)


def assert_it_fits(page: Path, folder: Path, width: int) -> None:
    """Nothing of a page is wider than the window, too small to read, or fetched."""
    # the page forbids scripts; the copy that is measured allows the one that measures
    html = page.read_text(encoding="utf-8").replace("default-src 'none'", "script-src 'unsafe-inline'")
    measured = folder / "measured.html"
    measured.write_text(html.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    shown = chromium(folder, f"--window-size={width},900", "--dump-dom", measured.as_uri())
    title = re.search(r"<title>(\{.*?\})</title>", shown, re.DOTALL)
    assert title is not None
    found = json.loads(unescape(title[1]))
    assert found.pop("cut") == 0 or width < 1000  # on a phone a table is scrolled, beside a figure it must not be
    assert found == {"overflow": 0, "wide": [], "small": 0, "figures": found["figures"], "requests": 0}
    assert found["figures"] > 6


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_follow_the_readers_preference(tmp_path: Path, dark: bool) -> None:
    page = write_report(sample_folds(tmp_path / "run").path)
    picture = tmp_path / "picture.png"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    chromium(tmp_path, scheme, "--window-size=1280,900", f"--screenshot={picture}", page.as_uri())
    with Image.open(picture) as image:
        corner = image.convert("L").getpixel((5, 5))
    assert isinstance(corner, int | float)
    assert corner < 60 if dark else corner > 200


def test_it_prints(tmp_path: Path) -> None:
    page = write_report(sample_run(tmp_path / "run").path)
    printed = tmp_path / "report.pdf"
    chromium(tmp_path, f"--print-to-pdf={printed}", page.as_uri())
    assert printed.read_bytes()[:5] == b"%PDF-"


NODE = shutil.which("node")
# Install them with `npm install --no-save axe-core playwright-core` in the repository, or say where they are.
PACKAGES = Path(os.environ.get("WEFT_NODE_MODULES") or Path(__file__).parents[2] / "node_modules")


@pytest.mark.skipif(
    NODE is None or not all((PACKAGES / name).is_dir() for name in ("axe-core", "playwright-core")),
    reason="needs node and `npm install --no-save axe-core playwright-core` (or WEFT_NODE_MODULES=…/node_modules)",
)
def test_axe_finds_no_fault(tmp_path: Path, of_study: Path) -> None:
    assert NODE is not None
    assert CHROMIUM is not None
    runs = [case_run(tmp_path / name, groups=4, seed=seed, noise=seed + 1.0) for seed, name in enumerate("ab")]
    pages = [
        write_report(runs[0].path, by=["target"]),
        write_report(sample_folds(tmp_path / "folds").path),
        write_comparison(compare_runs([run.path for run in runs]), tmp_path / "compared.html"),
        write_report(of_study),
    ]
    script = Path(__file__).with_name("axe.mjs")
    command = [NODE, str(script), str(PACKAGES), CHROMIUM, *map(str, pages)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 3 * len(pages)
    assert all(one["passes"] > 30 for one in found)
    assert [one for one in found if one["violations"]] == []
