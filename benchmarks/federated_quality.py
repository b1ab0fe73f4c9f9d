"""How good the strategies are, on real data over five sites, beside training in one place and at each site alone.

    OMP_NUM_THREADS=1 python benchmarks/federated_quality.py --json quality.json --page docs/strategies.md
    OMP_NUM_THREADS=1 python benchmarks/federated_quality.py --problems tumours --strategies dSGD FedAvg --seeds 1

scikit-learn's breast cancer table and digits, each over five unequal sites and five whose classes are skewed. Everybody
trains the same perceptron with SGD (momentum 0.9, batches of 16 at each site) on the same splits, and is tuned alike:
three settings are tried with the first seed, and the one with the lowest pooled validation loss is kept. The setting is
the learning rate; of FedAdam and FedYogi, whose sites take 0.03, it is that of their own step. FedBN's network has
batch normalisation, which it is for, and batches of 15. Results are kept in the JSON file as they come; what is there
is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.quality import PARTITIONS, PROBLEMS, study_of
from weft.config import Component
from weft.errors import NotFiniteError
from weft.federated.study import simulate

SETTINGS = (0.01, 0.03, 0.1)
SERVER = ("FedAdam", "FedYogi")
STRATEGIES: dict[str, dict[str, Any]] = {
    "dSGD": {}, "PowerSGD": {"rank": 2}, "rankDAD": {}, "FedAvg": {}, "FedProx": {}, "FedAvgM": {}, "FedAdam": {},
    "FedYogi": {}, "SCAFFOLD": {}, "FedBN": {},
}  # fmt: skip
ONE_PLACE = ("pooled", "alone")
EXCHANGED = ("gradients", "left", "right", "factors", "round")  # what strategies ask, by the first word
MARKS = "<!-- quality: begin -->", "<!-- quality: end -->"


def main() -> None:
    """Run what is not there yet, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--json", type=Path, metavar="FILE", help="where results are kept")
    parser.add_argument("--page", type=Path, metavar="FILE", help="a page with marks, between which the tables go")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known: dict[str, Any] = {}
    if arguments.json is not None and arguments.json.exists():
        known = json.loads(arguments.json.read_text())
    results = Results(known, arguments.json)
    for problem in arguments.problems:
        for partition in PARTITIONS:
            for name in arguments.strategies:
                compared(results, problem, partition, name, arguments.seeds)
    text = "\n".join(tables(results, arguments.problems, arguments.strategies, arguments.seeds))
    print(text)
    if arguments.page is not None:
        write_between_marks(arguments.page, text)


class Results:
    """Outcomes by what was run.

    Args:
        known: of earlier runs.
        file: where they are kept; None for nowhere.
    """

    def __init__(self, known: dict[str, Any], file: Path | None) -> None:
        self.known, self.file = known, file

    def of(self, problem: str, partition: str, name: str, setting: float, seed: int) -> dict[str, Any]:
        """The outcome of a study, run where it is not known; with dSGD also those in one place and alone."""
        key = f"{problem} {partition} {name} {setting} {seed}"
        if key not in self.known:
            print(key, file=sys.stderr, flush=True)
            self.known[key] = run(problem, partition, name, setting, seed)
            if self.file is not None:
                self.file.write_text(json.dumps(self.known, indent=1))
        found: dict[str, Any] = self.known[key]
        return found


def run(problem: str, partition: str, name: str, setting: float, seed: int) -> dict[str, Any]:
    """Scores, bytes and the way there of one study."""
    about = PROBLEMS[problem]
    rate, arguments = (0.03, {"learning_rate": setting}) if name in SERVER else (setting, {})
    strategy = Component(name, STRATEGIES[name] | arguments)
    study = study_of(problem, partition, strategy, rate, seed, normalised=name == "FedBN")
    with tempfile.TemporaryDirectory(prefix="weft-quality-") as folder:
        try:
            done = simulate(study, out=Path(folder) / "study", compare=name == "dSGD")
        except NotFiniteError as error:
            return {"failed": error.message}
        with (done.path / "history.csv").open(newline="") as file:
            scores = [float(row[f"validation_{about.score}"]) for row in csv.DictReader(file)]
    kinds = [site["bytes"]["by_kind"] for site in done.result["sites"].values()]
    moved = sum(each["sent"] + each["received"] for kind in kinds for word, each in kind.items() if word in EXCHANGED)
    reached = next((number for number, score in enumerate(scores, 1) if score >= about.target), None)
    outcome = {
        "scores": done.result["scores"], "epochs": done.result["epochs"], "steps": done.result["steps"],
        "bytes": moved / len(kinds), "reached": reached,
    }  # fmt: skip
    if "comparison" in done.result:
        outcome["one place"] = {way: done.result["comparison"][way] for way in ONE_PLACE}
    return outcome


def compared(results: Results, problem: str, partition: str, name: str, seeds: list[int]) -> dict[str, Any]:
    """The mean outcome of a way to train over all seeds, with the setting that was best for the first one.

    Args:
        results: known ones, and where others are added.
        problem, partition: the data.
        name: of a strategy, or "pooled" or "alone", which are trained beside dSGD.
        seeds: of the runs.
    """

    def outcome(setting: float, seed: int) -> dict[str, Any]:
        found = results.of(problem, partition, "dSGD" if name in ONE_PLACE else name, setting, seed)
        if "failed" in found or name not in ONE_PLACE:
            return found
        return {"scores": found["one place"][name]}

    tried = {setting: outcome(setting, seeds[0]) for setting in SETTINGS}
    losses = {key: one["scores"]["validation"]["loss"] for key, one in tried.items() if "failed" not in one}
    best = min(losses, key=losses.__getitem__)
    found = [outcome(best, seed) for seed in seeds]
    score = PROBLEMS[problem].score
    scores = [one["scores"]["test"][score] for one in found if "failed" not in one]
    reached = [one.get("reached") for one in found]
    return {
        "setting": best,
        "scores": scores,
        "score": statistics.mean(scores),
        "megabytes": statistics.mean(one["bytes"] for one in found) / 1e6 if "bytes" in found[0] else None,
        "reached": None if None in reached else statistics.median(reached),
        "epochs": found[0].get("epochs"),
    }


# --- tables -----------------------------------------------------------------------------------------------------------


def tables(results: Results, problems: list[str], strategies: list[str], seeds: list[int]) -> Iterator[str]:
    """A table for each problem; names of strategies in the first column."""
    for problem in problems:
        about = PROBLEMS[problem]
        score = "AUROC" if about.score == "auroc" else about.score
        number = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
        yield f"**{about.title.capitalize()}**: {score} of the test items of all sites, mean of {number} (range)."
        yield ""
        yield (
            "| | "
            + " | ".join(f"{partition}: {score} | MB | epochs to {about.target} | setting" for partition in PARTITIONS)
            + " |"
        )
        yield "|---|" + "---|---:|---:|---:|" * len(PARTITIONS)
        ways = [*(ONE_PLACE if "dSGD" in strategies else ()), *strategies]
        for name in ways:
            cells = [cell(compared(results, problem, partition, name, seeds)) for partition in PARTITIONS]
            yield f"| {name if name not in ONE_PLACE else TITLES[name]} | " + " | ".join(cells) + " |"
        yield ""


TITLES = {"pooled": "*all data in one place*", "alone": "*each site alone*"}


def cell(found: dict[str, Any]) -> str:
    """The columns of one partition."""
    spread = f"{found['score']:.4f} ({min(found['scores']):.3f}–{max(found['scores']):.3f})"
    if found["megabytes"] is None:
        return f"{spread} | | | {found['setting']}"
    reached = "never" if found["reached"] is None else f"{found['reached']:g}"
    return f"{spread} | {found['megabytes']:.2f} | {reached} | {found['setting']}"


def write_between_marks(page: Path, text: str) -> None:
    """Replace what stands between the marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, found, after = rest.partition(MARKS[1])
    if not found:
        raise SystemExit(f"{page} has no marks: {MARKS[0]} and {MARKS[1]}")
    page.write_text(f"{before}{MARKS[0]}\n{text.strip()}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
