"""What several processes cost and bring: time, memory, overhead against a bare DistributedDataParallel loop, restarts;
how long training waits for a large checkpoint; and how much memory it saves to shard a model.

    python benchmarks/scale.py                 everything, some minutes on a quiet machine
    python benchmarks/scale.py --pairs 5 --skip-restart

Every process has one thread. The ratio to the bare loop is taken inside the same processes, in turns: both train the
same CNN from the same seed on the same global batches and average their gradients once per step over gloo; the bare
loop keeps its losses, accuracy and nothing else. Medians with 90 % intervals over pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.cases import CASES, SEED, Case, prepare
from benchmarks.pairs import spread
from benchmarks.saving import measure as measure_saving
from benchmarks.sharding import measure as measure_sharding
from benchmarks.sharding import member as sharding_member
from weft.config import Component, load_experiment, resolve
from weft.data import open_data
from weft.data.order import permutation
from weft.engine import Epoch, Membership, Observer, build_run, drive_alone, training
from weft.engine.determinism import reproducible
from weft.engine.processes import drive_among_processes, find_place, joined

KINDS = ("weft", "bare")


def main() -> None:
    """Measure and print, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9, help="interleaved pairs for each ratio (default: 9)")
    parser.add_argument("--case", choices=[key for key in CASES if key != "null"], default="b")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that all runs, its ratios mean nothing")
    parser.add_argument("--skip-restart", action="store_true")
    parser.add_argument("--skip-saving", action="store_true")
    parser.add_argument("--only-saving", action="store_true")
    parser.add_argument("--only-sharding", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--member", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.member is not None:
        member(arguments)
        return
    torch.set_num_threads(1)
    print(surroundings(), flush=True)
    only = arguments.only_saving or arguments.only_sharding
    figures = {} if only else measure(arguments)
    if not arguments.only_saving:
        figures["sharding"] = measure_sharding(lambda kind: run(arguments, 2, f"sharding-{kind}"))
    if not arguments.skip_saving and not arguments.only_sharding:
        figures["saving"] = measure_saving(max(1, arguments.pairs // 2), arguments.quick)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures, printed as they come."""
    case, figures = case_of(arguments), {}
    print(f"{case.title}: {case.epochs} epochs of {case.steps // case.epochs} steps\n")
    print("| processes | wall ms/step | ratio to a bare loop: wall | CPU | peak memory of a process, MiB (bare) |")
    print("|---:|---:|---|---|---|")
    for world in (1, 2):
        outcomes = run(arguments, world, ",".join(KINDS))
        memory = {kind: peak(run(arguments, world, kind)) for kind in KINDS}
        ratios = {
            clock: spread([own / other for own, other in zip(outcomes[0]["weft"][clock], outcomes[0]["bare"][clock])])
            for clock in ("wall", "cpu")
        }
        step = statistics.median(outcomes[0]["weft"]["wall"]) / case.steps * 1e3
        texts = [f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" for ratio in ratios.values()]
        print(
            f"| {world} | {step:.2f} | {texts[0]} | {texts[1]} | {memory['weft']:.0f} ({memory['bare']:.0f}) |",
            flush=True,
        )
        figures[str(world)] = {
            "wall_ms_per_step": step,
            "memory_mib": memory,
            "ratios": {clock: [ratio.median, ratio.low, ratio.high] for clock, ratio in ratios.items()},
            "difference": max(outcome["difference"] for outcome in outcomes),
        }
    print(f"\nlargest difference of a weight to the bare loop: {figures['2']['difference']:.1e} (float32)")
    if not arguments.skip_restart:
        figures["restart_seconds"] = restart_cost(arguments.pairs)
        print(
            f"a process killed and all started again: {figures['restart_seconds']:.1f} s (median, torch imported anew)"
        )
    return figures


def surroundings() -> str:
    """Where the figures come from, in a line."""
    load = os.getloadavg()[0]
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start; "
        f"Python {platform.python_version()}, torch {torch.__version__}, gloo, 1 thread each\n"
    )


def case_of(arguments: argparse.Namespace) -> Case:
    """The case as it is measured."""
    return CASES[arguments.case].smaller() if arguments.quick else CASES[arguments.case]


def peak(outcomes: list[dict[str, Any]]) -> float:
    """The largest peak of memory of a process, MiB."""
    return max(float(outcome["memory"]) for outcome in outcomes)


def run(arguments: argparse.Namespace, world: int, kinds: str) -> list[dict[str, Any]]:
    """Start processes that train `kinds` in turns (a single one once only); what each says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    words = ["--pairs", str(arguments.pairs if "," in kinds else 0), "--case", arguments.case, "--member", kinds]
    started = []
    for rank in range(world):
        places = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **places}
        command = [sys.executable, str(Path(__file__)), *words, *(["--quick"] if arguments.quick else [])]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    texts = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a process that was measured failed")
    return [json.loads(text.splitlines()[-1]) for text in texts]


# --- one of the processes ---------------------------------------------------------------------------------------------


def member(arguments: argparse.Namespace) -> None:
    """Train each kind in turns and print the times."""
    place = find_place()
    with (
        reproducible(threads=1, deterministic=True, device=torch.device("cpu")),
        tempfile.TemporaryDirectory(prefix="weft-benchmark-") as folder,
    ):
        if place is None:
            print(json.dumps(take_turns(arguments, folder)))
            return
        with joined(place, timeout=300):
            if arguments.member.startswith("sharding-"):
                sharding_member(arguments.member.removeprefix("sharding-"), arguments.quick)
                return
            print(json.dumps(take_turns(arguments, folder)))


def take_turns(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Times of each kind, after one turn that is thrown away, and how far their weights are apart."""
    case, kinds = case_of(arguments), arguments.member.split(",")
    trainers = {"weft": by_weft, "bare": by_hand}
    times: dict[str, Any] = {kind: {"wall": [], "cpu": []} for kind in kinds}
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for turn in range(-1 if arguments.pairs else 0, max(arguments.pairs, 1)):
        for kind in kinds if turn % 2 else reversed(kinds):
            if dist.is_initialized():
                dist.barrier()
            wall, cpu, weights[kind] = trainers[kind](case, folder)
            if turn >= 0:
                times[kind]["wall"].append(wall)
                times[kind]["cpu"].append(cpu)
    pairs = zip(*(weights[kind].values() for kind in kinds), strict=True) if len(kinds) == 2 else ()
    times["difference"] = max((float((one - other).abs().max()) for one, other in pairs), default=0.0)
    unit = 1 if sys.platform == "darwin" else 1024
    times["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    return times


def by_weft(case: Case, folder: str) -> tuple[float, float, dict[str, torch.Tensor]]:
    """Weft's loop, without files; scored every epoch."""
    files = prepare(case, Path(folder)).files
    experiment = resolve(
        load_experiment(
            {
                "seed": SEED,
                "dataset": {"arrays": files},
                "model": Component.of(case.model),
                "training": {
                    "task": case.task, "epochs": case.epochs, "batch_size": case.batch_size,
                    "optimizer": {case.optimizer: {"lr": case.learning_rate}}, "metrics": ["accuracy"],
                },
                "run": {"device": "cpu", "num_workers": 0},
            }
        )
    )  # fmt: skip
    data = open_data(
        experiment.dataset, experiment.namespace(), seed=SEED, fold=None, base=experiment.base, target_kind="class"
    )
    place = find_place()
    run = build_run(experiment, data, membership=Membership.of(place))
    run.splits.pop("train", None)  # the bare loop does not score the training split at the end either
    watch = _Watch()
    run.observers.observers.append(watch)
    wall, cpu = time.perf_counter(), time.process_time()
    if place is None:
        drive_alone(training(run))
    else:
        drive_among_processes(training(run), place, lambda: run.state.position)
    return watch.wall - wall, watch.cpu - cpu, dict(run.state.model.state_dict())


class _Watch(Observer):
    """When the last epoch ended; the scores of the best weights come after it, which the bare loop does without."""

    wall = cpu = 0.0

    def on_epoch(self, epoch: Epoch) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()


def by_hand(case: Case, folder: str) -> tuple[float, float, dict[str, torch.Tensor]]:
    """A bare loop over the same global batches, each process its part of them."""
    tensors = case.tensors()
    (inputs, targets), (held_inputs, held_targets) = tensors["train"], tensors["validation"]
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.manual_seed(SEED)
    model = case.model()
    network: nn.Module = DistributedDataParallel(model) if world > 1 else model
    optimizer = getattr(torch.optim, case.optimizer)(model.parameters(), lr=case.learning_rate)
    lowest, best = float("inf"), {}
    wall, cpu = time.perf_counter(), time.process_time()
    for epoch in range(case.epochs):
        network.train()
        order = permutation(len(inputs), SEED, epoch)
        total = 0.0
        for batch in order.split(case.batch_size):
            rows = batch[rank::world]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        network.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        with torch.no_grad():
            for rows in torch.arange(rank, len(held_inputs), world).split(case.batch_size):
                outputs = model(held_inputs[rows])
                sums[0] += float(nn.functional.cross_entropy(outputs, held_targets[rows], reduction="sum"))
                sums[1] += int((outputs.argmax(1) == held_targets[rows]).sum())
        sums[2] = total
        if world > 1:
            dist.all_reduce(sums)
        if float(sums[0]) < lowest:  # as Weft's scores are those of the best epoch
            lowest, best = float(sums[0]), {name: value.clone() for name, value in model.state_dict().items()}
    return time.perf_counter() - wall, time.process_time() - cpu, best


# --- restarts ---------------------------------------------------------------------------------------------------------

_KILLER = """
import os, signal
from weft.engine import Observer
class Killer(Observer):
    def on_step(self, step):
        if step.step == 5 and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" and "KILL" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
"""
_EXPERIMENT = """
dataset: {arrays: {sklearn.datasets.load_breast_cancer: {return_X_y: true}}, split: {ratio: [0.7, 0.3]}}
model: {MLP: {in_features: 30, hidden: [16], out_features: 2}}
training: {task: classification, epochs: 1, batch_size: 16, optimizer: {SGD: {lr: 0.001}}}
patches: [killer.py]
run: {device: cpu, progress: false, tensorboard: false, observers: [Killer], checkpoint_every: {steps: 1}}
"""


def restart_cost(count: int) -> float:
    """Median seconds that a run of two processes takes longer when one of them is killed once."""
    differences = []
    with tempfile.TemporaryDirectory(prefix="weft-benchmark-") as folder:
        (Path(folder) / "killer.py").write_text(_KILLER)
        file = Path(folder) / "experiment.yaml"
        file.write_text(_EXPERIMENT)
        for number in range(max(1, count // 3)):
            times = []
            for kill in ({}, {"KILL": "1"}):
                out = Path(folder) / f"run-{number}-{len(times)}"
                command = [sys.executable, "-m", "weft", "-q", "train", str(file), "--out", str(out)]
                start = time.perf_counter()
                subprocess.run(
                    [*command, "--processes", "2", "--restarts", "1"], env=os.environ | kill, check=True,
                    capture_output=True, cwd=sys.path[0],
                )  # fmt: skip
                times.append(time.perf_counter() - start)
            differences.append(times[1] - times[0])
    return statistics.median(differences)


if __name__ == "__main__":
    main()
