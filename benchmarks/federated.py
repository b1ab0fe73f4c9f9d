"""What a study costs: time per step of dSGD beside coinstac-dinunet and gloo, bytes, growth with the number of sites.

    OMP_NUM_THREADS=1 python benchmarks/federated.py --dinunet DIR/bin/python       everything, some minutes
    OMP_NUM_THREADS=1 python benchmarks/federated.py --only time --pairs 15

Five sites train a perceptron on the same rows with Adam. Weft has them all in this process and thread, with all that
a study writes. coinstac-dinunet has five processes and one for its remote, as COINSTAC runs it; rows lie in memory, or
each in a text file that is read whenever the row is asked for, as in its FreeSurfer example. gloo has five processes
that average their gradients in a bare loop; and a loop by hand has five models in this process and thread. Its forward
and backward passes alone are the least that five models take in turns; `torch.func.vmap` computes the same gradients of
all sites at once; and one pass over the rows of all sites is the least that there is, with one model instead of five.
They take turns. A ratio is the median step of the one by that of Weft in the same turn; medians over turns with 90 %
bootstrap intervals.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.pairs import spread
from benchmarks.peers.by_dinunet import INSTALL, Dinunet
from benchmarks.peers.by_gloo import Gloo
from benchmarks.peers.sites_by_hand import SitesByHand
from benchmarks.studies import (
    BATCH_SIZE,
    SIZES,
    TINY,
    encoded_traffic,
    grow,
    make_study,
    make_tables,
    parameters_of,
    run_study,
)
from benchmarks.tables import surroundings
from weft.actions.opening import load
from weft.engine import CheckpointFolder
from weft.errors import DataError
from weft.federated.site import site_experiment
from weft.federated.study import simulate

PARTS = ("time", "bytes", "growth", "strategies")
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SITES = 5
FUSED, THREADED = "Weft, `training.fused`", "Weft, `training.fused`, a thread for each core"
BY_HAND, PASSES = "loop by hand, five models in turns", "forward and backward passes alone, in turns"
TOGETHER, POOLED = "the same passes at once, `torch.func.vmap`", "one pass alone, over the rows of all sites"
# Whether a row is a text file that is read whenever the row is asked for, as in its example.
DINUNET = {"coinstac-dinunet, rows in memory": False, "coinstac-dinunet, a file for each row": True}
EXCHANGED = ("gradients", "left", "right", "factors")  # what is asked for steps, by the first word


def main() -> None:
    """Measure and print, or be the process in which a study grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="which parts (default: all)")
    parser.add_argument("--pairs", type=int, default=9, help="turns for each ratio (default: 9)")
    parser.add_argument("--sites", nargs="+", type=int, default=[5, 50, 500], help="sizes of growing studies")
    parser.add_argument("--dinunet", metavar="PYTHON", help="of an environment that has coinstac-dinunet")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that all runs; figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--member", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.member is not None:
        print(json.dumps(grow(arguments.member, rows=34)))
        return
    torch.set_num_threads(1)
    print(surroundings(), flush=True)
    measures = {"time": step_times, "bytes": step_bytes, "growth": growth, "strategies": strategy_bytes}
    figures = {}
    with tempfile.TemporaryDirectory(prefix="weft-benchmark-") as folder:
        for part in arguments.only:
            figures[part] = measures[part](arguments, Path(folder) / part)
            print(flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1))


# --- time -------------------------------------------------------------------------------------------------------------


def step_times(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Time per step of five sites, of Weft and those it is compared with."""
    print("| parameters | contender | ms/step | times Weft's | 90 % interval | goal |\n|---|---|---:|---:|---|---|")
    rows = []
    for name, sizes in SIZES.items():
        found = take_turns(arguments, folder / name.replace(" ", ""), sizes)
        for contender, row in found.items():
            rows.append({"parameters": name, "contender": contender, **row})
            if "skipped" in row:
                print(f"| {name} | {contender} | {row['skipped']} | | | |")
                continue
            ratio = f"{row['ratio'][0]:.1f} | {row['ratio'][1]:.1f}–{row['ratio'][2]:.1f}" if "ratio" in row else " | "
            goal = "≥ 20" if contender in DINUNET else ""
            print(f"| {name} | {contender} | {row['milliseconds']:.2f} | {ratio} | {goal} |", flush=True)
        print(f"| {name} | largest difference of a weight to gloo's, float32 Adam | "
              f"{found['gloo']['difference']:.0e} | | | |", flush=True)  # fmt: skip
    return rows


def take_turns(arguments: argparse.Namespace, folder: Path, sizes: list[int]) -> dict[str, dict[str, Any]]:
    """Everybody's median milliseconds per step, and how many times Weft's that is."""
    validated, epochs = 32, 1 if arguments.quick else 3
    tables = make_tables(SITES, validated + 8 * BATCH_SIZE)
    written = {"Weft": {}, FUSED: {"fused": True}, THREADED: {"fused": True, "threads": os.cpu_count() or 1}}
    studies = {
        name: make_study(tables, validated, sizes, epochs, folder / "tables", **options)
        for name, options in written.items()
    }
    federation = studies["Weft"].federation
    assert federation is not None
    seeds = [site_experiment(studies["Weft"], name).seed for name in sorted(federation.sites)]
    trained = [(inputs[:-validated], targets[:-validated]) for inputs, targets in tables]
    gloo, by_hand = Gloo(trained, seeds, sizes, BATCH_SIZE), SitesByHand(trained, sizes, BATCH_SIZE)
    pipelines = {
        name: Dinunet(
            arguments.dinunet, folder / name.replace(" ", ""), tables, validated, sizes, BATCH_SIZE,
            text_files=text_files,
        )
        for name, text_files in DINUNET.items()
        if arguments.dinunet is not None
    }  # fmt: skip
    others = {name: pipeline.steps for name, pipeline in pipelines.items()} | {
        "gloo": gloo.steps, BY_HAND: by_hand.steps, PASSES: by_hand.gradients, TOGETHER: by_hand.together,
        POOLED: by_hand.pooled,
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in (*written, *DINUNET, *others)}
    difference = 0.0
    try:
        for turn in range(-1, 1 if arguments.quick else arguments.pairs):
            done = {
                name: run_study(study, folder / f"study{turn}{number}")
                for number, (name, study) in enumerate(studies.items())
            }
            took = {name: one.steps for name, one in done.items()}
            took |= {name: steps(8 * epochs) for name, steps in others.items()}
            if turn < 0:  # thrown away, but until now both trained alike
                difference = largest_difference(done["Weft"].path / "sites" / "site0000", gloo.weights())
                continue
            for name, steps in took.items():
                times[name].append(1e3 * statistics.median(steps))
    finally:
        gloo.close()
        for pipeline in pipelines.values():
            pipeline.close()
    rows = {name: row_of(found, times["Weft"]) for name, found in times.items()}
    rows["gloo"]["difference"] = difference
    return rows


def row_of(found: list[float], own: list[float]) -> dict[str, Any]:
    """A contender's median, and its ratio to Weft's; without times it was left out."""
    if not found:
        return {"skipped": INSTALL}
    if found is own:
        return {"milliseconds": statistics.median(found)}
    ratio = spread([one / other for one, other in zip(found, own, strict=True)])
    return {"milliseconds": statistics.median(found), "ratio": [ratio.median, ratio.low, ratio.high]}


def largest_difference(site: Path, weights: list[torch.Tensor]) -> float:
    """How far a site's last weights are from others."""
    saved = CheckpointFolder(site / "checkpoints").load_last()
    assert saved is not None
    own = saved["model"]
    return max(float((one - other).abs().max()) for one, other in zip(own.values(), weights, strict=True))


# --- bytes ------------------------------------------------------------------------------------------------------------


def step_bytes(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Bytes of encoded messages of a step of dSGD beside 4 for each parameter, which is the least there can be."""
    print("| parameters | least, bytes | a site sends per step | receives | over the least | goal |")
    print("|---|---:|---:|---:|---:|---|")
    rows = []
    for name, sizes in {"tiny": TINY, **SIZES}.items():
        study = make_study(make_tables(SITES, 32 * BATCH_SIZE + 2), 2, sizes, 1, folder / name.replace(" ", ""))
        traffic = encoded_traffic(study)
        asked = ("control", "gradients")
        sent, received = (
            sum(moved[word] for word in asked) / traffic.steps for moved in (traffic.sent, traffic.received)
        )
        least = 4 * parameters_of(sizes)
        large = least >= 200_000
        good = max(sent, received) <= (1.02 * least if large else least + 1000)
        over = f"{max(sent, received) / least:.4f} times" if large else f"{max(sent, received) - least:.0f} bytes"
        goal = f"≤ {'1.02 times' if large else '1,000 bytes'}: {'yes' if good else 'no'}"
        print(f"| {parameters_of(sizes):,} | {least:,} | {sent:,.0f} | {received:,.0f} | {over} | {goal} |", flush=True)
        rows.append({"parameters": parameters_of(sizes), "least": least, "sent": sent, "received": received})
    return rows


def strategy_bytes(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Bytes that strategies move on the study of FreeSurfer volumes, both ways together, beside dSGD's."""
    try:
        study = load(EXAMPLES / "fsv_study.yaml", ["run.device=cpu", "run.progress=false"])
        study.namespace().build(study.federation.sites["local0"].arrays, "arrays")
    except DataError as error:
        print(f"skipped: {error.message}; {error.hint}")
        return {"skipped": error.message}
    print("| strategy | MB of a site per step, sent and received | share of dSGD's | goal |\n|---|---:|---:|---|")
    goals = {"dSGD": None, "PowerSGD": 1 / 10, "rankDAD": 1 / 3}
    written = {"dSGD": "dSGD", "PowerSGD": "{PowerSGD: {rank: 2}}", "rankDAD": "rankDAD"}
    moved: dict[str, float] = {}
    for name, strategy in written.items():
        changes = [f"federation.strategy={strategy}", "federation.exact=false", "run.device=cpu", "run.progress=false"]
        if arguments.quick:
            changes.append("training.epochs=1")
        done = simulate(EXAMPLES / "fsv_study.yaml", changes, out=folder / name)
        sites = [site["bytes"]["by_kind"] for site in done.result["sites"].values()]
        total = sum(
            kind["sent"] + kind["received"] for kinds in sites for word, kind in kinds.items() if word in EXCHANGED
        )
        moved[name] = total / len(sites) / done.result["steps"]
        share, goal = moved[name] / moved["dSGD"], goals[name]
        told = "" if goal is None else f"≤ {goal:.3f}: {'yes' if share <= goal else 'no'}"
        print(f"| {name} | {moved[name] / 1e6:.4f} | {share:.3f} | {told} |", flush=True)
    print("\nEach warm-up step of PowerSGD, where there are any, moves what a step of dSGD does.")
    return moved


# --- growth -----------------------------------------------------------------------------------------------------------


def growth(arguments: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """Time and memory of studies of few and many sites, each in a process of its own."""
    print("| sites | seconds in all | per site | ms per step | per site | MiB per site |")
    print("|---:|---:|---:|---:|---:|---:|")
    rows = []
    for sites in [2, 4] if arguments.quick else arguments.sites:
        command = [sys.executable, str(Path(__file__)), "--member", str(sites)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        step = 1e3 * row["step_seconds"]
        print(
            f"| {sites} | {row['seconds']:.1f} | {row['seconds'] / sites:.3f} | {step:.1f} | {step / sites:.2f} "
            f"| {row['memory'] / sites:.1f} |", flush=True,
        )  # fmt: skip
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
