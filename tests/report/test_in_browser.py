"""The report in headless Chromium: it fits the window, shows its figures, and asks the network for nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from tests.report.samples import sample_folds, sample_run
from weft.report import write_report

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
  document.title = JSON.stringify({
    overflow: page.scrollWidth - page.clientWidth, wide: wide.map(element => element.outerHTML.slice(0, 80)),
    small: small.length, figures: document.querySelectorAll("figure svg").length,
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


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window_and_nothing_is_fetched(tmp_path: Path, width: int) -> None:
    run = sample_run(tmp_path / "run", labels=["benign", "a-malignant-kind-with-a-very-long-name-" * 3])
    page = write_report(run.path)
    # the page forbids scripts; the copy that is measured allows the one that measures
    html = page.read_text(encoding="utf-8").replace("default-src 'none'", "script-src 'unsafe-inline'")
    measured = tmp_path / "measured.html"
    measured.write_text(html.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    shown = chromium(tmp_path, f"--window-size={width},900", "--dump-dom", measured.as_uri())
    title = re.search(r"<title>(\{.*?\})</title>", shown, re.DOTALL)
    assert title is not None
    found = json.loads(unescape(title[1]))
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
