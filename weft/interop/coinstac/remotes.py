"""The calls of the remote, phase by phase."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft import __version__
from weft.engine.collectives import Answer, Collective
from weft.errors import ConfigError, MessageRefused, ProtocolError, UsageError
from weft.interop.coinstac import io, records
from weft.interop.coinstac.config.keys import Key, Phase
from weft.interop.coinstac.experiment import SHARED
from weft.interop.coinstac.hub import ANSWER, checked_name, exchange, read_file, summed
from weft.interop.coinstac.storing import without_live

if TYPE_CHECKING:
    from weft.interop.coinstac.nodes import COINNRemote


class NoData:
    """What a trainer at the remote has in place of data.

    Args:
        cache, input, state: the remote's.
    """

    def __init__(self, cache: dict[str, Any], input: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self.cache, self.input, self.state = cache, input, state
        self.dataset: dict[str, Any] = {}
        self.dataloader_args: dict[str, Any] = {}


class RemoteCalls:
    """What the remote does in each phase.

    Args:
        node: the call.
        classes: the user's: trainer and reducer, where there are any.
    """

    def __init__(self, node: COINNRemote, classes: Sequence[type]) -> None:
        from weft.interop.coinstac import COINNReducer, COINNTrainer

        self.node, self.store, self.cache, self.out = node, node.store, node.cache, node.out
        self.told: dict[str, Mapping[str, Any]] = node.input
        self.names = sorted(self.told)
        self.trainer = next((one for one in classes if issubclass(one, COINNTrainer)), None)
        own = node._get_reducer_cls(next((one for one in classes if issubclass(one, COINNReducer)), COINNReducer))
        self.reducer = None if own is COINNReducer else own
        if self.reducer is not None and self.trainer is None:
            raise UsageError(
                f"a reducer of one's own ({self.reducer.__name__}) needs the trainer", "remote(pool, Trainer, Reducer)"
            )

    def init_runs(self) -> None:
        """Agree on arguments and folds, and begin the first one."""
        self.store.reset()
        self._require_same_version()
        self._require_same_arguments()
        for key in ("task_id", "agg_engine"):  # they become names of folders and files
            checked_name(self.cache.get(key), f"{key} of the sites")
        self._ask_hooks()
        sizes = {name: _sizes(self.told[name], name) for name in self.names}
        folds = list(sizes[self.names[0]])
        for name, own in sizes.items():
            if list(own) != folds:
                raise ConfigError(
                    f"{self.names[0]} has {len(folds)} folds, {name} has {len(own)}",
                    "divide the data alike at all sites: num_folds, or as many files in split_dir",
                )
        self.cache["data_size"], self.cache["folds"] = sizes, folds
        seed = self.cache.get("seed")
        self.cache["seed"] = seed if isinstance(seed, int) and not isinstance(seed, bool) else 0
        self.cache["sums"] = []
        records.clear(self._folder())
        self._next_fold()

    def exchange(self) -> None:
        """Answer what all sites ask."""
        number = self._number()
        self._require_same_forms()
        messages = {name: read_file(self.store.base / name, self._about(name).get("file"), name) for name in self.names}
        answer = exchange(messages, study=self.cache["study"], number=number, combined=self._combined)
        self.node.send_file(ANSWER, answer)
        self.out["phase"] = Phase.COMPUTATION
        self.out["weft"] = {"number": number, "file": ANSWER}

    def end_fold(self) -> None:
        """Write down a fold, and begin the next one or end the computation."""
        reports = {name: self.told[name].get("report") for name in self.names}
        first = reports[self.names[0]]
        others = [name for name, report in reports.items() if _common(report) != _common(first)]
        if others or not isinstance(first, dict):
            raise ProtocolError(
                f"what came out at {', '.join(others) or self.names[0]} is not what came out at {self.names[0]}",
                "all sites pool the same sums; compare their versions of Weft and their scripts",
            )
        traffic = {name: (report or {}).get("traffic") for name, report in reports.items()}
        first = {**first, "traffic": traffic}
        records.write_fold(
            self._folder() / f"fold_{self.cache['fold']}", first["log_header"], first, self._plain_cache()
        )
        if "test_sums" in first:
            self.cache["sums"].append(first["test_sums"])
        self.cache["log_header"] = first["log_header"]
        if self.cache["folds"]:
            self._next_fold()
        else:
            self._send_results()

    # --- beginning ----------------------------------------------------------------------------------------------------

    def _require_same_version(self) -> None:
        for name in self.names:
            found = self._about(name).get("version")
            if found != __version__:
                said = f"Weft {found}" if isinstance(found, str) else "no version of Weft"
                raise MessageRefused(
                    f"{name} tells {said[:60]}, the remote runs with {__version__}",
                    f"install the same everywhere: pip install weft=={__version__}",
                )

    def _require_same_arguments(self) -> None:
        shared = {name: self.told[name].get("shared_args") for name in self.names}
        wrong = [name for name, own in shared.items() if not isinstance(own, Mapping)]
        if wrong:
            raise MessageRefused(f"{', '.join(wrong)} tells no arguments", "it is no site of Weft's")
        first: Mapping[str, Any] = shared[self.names[0]] or {}
        for name, own in shared.items():
            assert isinstance(own, Mapping)
            for key in ("task_id", *SHARED):
                if own.get(key) != first.get(key):
                    raise ConfigError(
                        f"{key} is {first.get(key)!r} at {self.names[0]} and {own.get(key)!r} at {name}",
                        "write the same into all inputspecs: sites train one model",
                    )

    def _ask_hooks(self) -> None:
        """What a remote of the user's own monitors."""
        hook = getattr(self.node, "_monitor_metric", None)
        if callable(hook):
            self.cache["monitor_metric"], self.cache["metric_direction"] = hook()
        for name in ("_set_monitor_metric", "_set_log_headers"):
            setter = getattr(self.node, name, None)
            if callable(setter):
                setter()
        told = self.cache.get("monitor_metric")
        if isinstance(told, list | tuple):
            self.cache["monitor_metric"], self.cache["metric_direction"] = told

    def _next_fold(self) -> None:
        fold = self.cache["fold"] = self.cache["folds"][0]
        self.cache["folds"] = self.cache["folds"][1:]
        about = json.dumps([io.plain(without_live(self.cache)), self.names, fold], sort_keys=True)
        self.cache["study"] = hashlib.sha256(about.encode()).hexdigest()
        sizes = {name: self.cache["data_size"][name][fold].get("train", 0) for name in self.names}
        largest = max(self.names, key=lambda name: sizes[name])
        common = {"split_ix": fold, "seed": self.cache["seed"]}
        common |= {
            key: self.cache[key] for key in ("monitor_metric", "metric_direction", "log_header") if key in self.cache
        }
        weft = {"study": self.cache["study"], "sites": self.names, "reduced": self.reducer is not None}
        self.out["global_runs"] = {name: {**common, "pretrain": name == largest, "weft": weft} for name in self.names}
        self.out["phase"] = Phase.NEXT_RUN

    # --- computing ----------------------------------------------------------------------------------------------------

    def _about(self, name: str) -> Mapping[str, Any]:
        """What a site says of its exchange."""
        told = self.told[name].get("weft")
        return told if isinstance(told, Mapping) else {}

    def _number(self) -> int:
        numbers = {}
        for name in self.names:
            number = self._about(name).get("number")
            if not isinstance(number, int):
                raise MessageRefused(f"{name} names no exchange", "it is no site of Weft's")
            numbers[name] = number
        if len(set(numbers.values())) != 1:
            listed = ", ".join(f"{name} is at {number}" for name, number in numbers.items())
            raise ProtocolError(f"the sites are not at the same exchange: {listed}", "begin again, without --resume")
        return numbers[self.names[0]]

    def _require_same_forms(self) -> None:
        """What sites tell of their scores when a fold begins is what the remote adds up in the end."""
        said = {name: forms for name in self.names if (forms := self._about(name).get("forms")) is not None}
        if not said:
            return
        from weft.interop.coinstac.scores import forms_of

        own = json.loads(json.dumps(forms_of(self._trainer())))
        for name, forms in said.items():
            for what, mine in own.items():
                theirs = forms.get(what) if isinstance(forms, Mapping) else None
                if not isinstance(theirs, Mapping) or theirs.get("states") != mine["states"]:
                    kind = str(theirs.get("class"))[:60] if isinstance(theirs, Mapping) else "nothing"
                    raise ConfigError(
                        f"new_{what} makes a {kind} at {name} and a {mine['class']} at the remote, which do not add",
                        f"let the remote make the same: _new_{what} of its class, or remote.compute(Trainer)",
                    )

    def _combined(self, names: list[str], collectives: list[Collective]) -> Answer:
        first = collectives[0]
        if self.reducer is None or not (first.kind == "gather" and first.tag.startswith("reduce")):
            return summed(names, collectives)
        from weft.interop.coinstac.reducing import ReducersMemory, reduced

        memory = ReducersMemory(self.store.folder, self.cache)
        memory.recall()
        answer = reduced(self.reducer, self._trainer(), names, collectives)
        memory.keep()
        return answer

    def _trainer(self) -> Any:
        """The user's trainer, without data; what it says of scores counts at the remote too."""
        if self.trainer is not None:
            return self.trainer(data_handle=NoData(self.cache, self.told, self.node.state))
        return _Scores(self.node)

    # --- ending -------------------------------------------------------------------------------------------------------

    def _send_results(self) -> None:
        from weft.interop.coinstac.scores import pooled_line

        if self.cache["sums"]:
            line = pooled_line(self._trainer(), self.cache["sums"])
            self.cache[Key.GLOBAL_TEST_METRICS.value] = [line]
            file = self._folder() / f"{Key.GLOBAL_TEST_METRICS}.csv"
            records.write_table(file, self.cache["log_header"], [line])
        task, engine = str(self.cache["task_id"]), str(self.cache["agg_engine"])
        name = records.write_results(self.store.output, self.store.transfer, task, engine)
        self.node.send_file(f"{name}.zip", (self.store.transfer / f"{name}.zip").read_bytes())
        self.out["results_zip"] = name
        self.out["phase"] = Phase.SUCCESS

    def _folder(self) -> Path:
        folder = self.store.output / str(self.cache["task_id"])
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _plain_cache(self) -> dict[str, Any]:
        found: dict[str, Any] = io.plain(without_live(self.cache))
        return {key: value for key, value in found.items() if key != "sums"}


class _Scores:
    """Averages and metrics as a remote of the user's own makes them, or the original's where it makes none.

    Args:
        node: the user's.
    """

    def __init__(self, node: COINNRemote) -> None:
        self.node, self.cache = node, node.cache

    def new_metrics(self) -> Any:
        """Empty metrics."""
        return self._made("_new_metrics", "new_metrics")

    def new_averages(self) -> Any:
        """Empty averages."""
        return self._made("_new_averages", "new_averages")

    def _made(self, hook: str, default: str) -> Any:
        own = getattr(self.node, hook, None)
        if callable(own):
            return own()
        from weft.interop.coinstac import COINNTrainer

        plain = COINNTrainer(data_handle=NoData(self.cache, {}, self.node.state))
        return getattr(plain, default)()


def _common(report: Any) -> str:
    """What of a report is the same at all sites, as text: a score that is not a number equals itself there."""
    parts = {key: value for key, value in report.items() if key != "traffic"} if isinstance(report, Mapping) else None
    return json.dumps(parts, sort_keys=True)


def _sizes(told: Mapping[str, Any], name: str) -> dict[str, dict[str, int]]:
    """How many items a site has, by fold and split.

    Raises:
        MessageRefused: it tells something else.
    """
    sizes = told.get("data_size")
    good = (
        isinstance(sizes, Mapping)
        and sizes
        and all(
            isinstance(own, Mapping) and all(isinstance(count, int) for count in own.values()) for own in sizes.values()
        )
    )
    if not good:
        raise MessageRefused(f"{name} does not tell how many items it has", "it is no site of Weft's")
    assert isinstance(sizes, Mapping)
    return {checked_name(fold, name): dict(own) for fold, own in sizes.items()}
