"""The data of all sites in one place: what training together is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.errors import ConfigError, UsageError
from weft.interop.coinstac import records
from weft.interop.coinstac.arguments import cached_arguments
from weft.interop.coinstac.config.keys import Key
from weft.interop.coinstac.dataset import COINNDataset
from weft.interop.coinstac.experiment import SHARED, require_alike, told
from weft.interop.coinstac.handle import COINNDataHandle
from weft.interop.coinstac.items import SPLITS
from weft.interop.coinstac.remotes import NoData
from weft.interop.coinstac.running import UserCode
from weft.interop.coinstac.scores import pooled_line
from weft.interop.coinstac.simulator import read_inputspec
from weft.interop.coinstac.site_runner import train_fold
from weft.interop.coinstac.trainer import COINNTrainer


class PooledTrainer:
    """Trains on the data of all sites of COINSTAC's simulator folder together, in this process, all folds, and tests.

    Each site's data is divided as in a computation, by its own arguments; parts of the same fold are put together.

    Args:
        base: the user's trainer.
        dataset_dir: folder with `inputspec.json` and `input/localN/simulatorRun`.
        log_dir: where everything is written: `fold_N/`, and `global_test_metrics.csv`.
        datahandle_cls: the user's data handle.
        dataloader_args: arguments of loaders by split.
        kw: as `COINNLocal` takes them; the inputspec counts before them.

    Raises:
        UsageError: the folder is none of a computation.
    """

    def __init__(
        self,
        base: type[COINNTrainer] = COINNTrainer,
        dataset_dir: str | Path = "test",
        log_dir: str | Path = "net_logs",
        datahandle_cls: type[COINNDataHandle] = COINNDataHandle,
        dataloader_args: Mapping[str, Any] | None = None,
        **kw: Any,
    ) -> None:
        self.base, self.datahandle_cls, self.dataloader_args = base, datahandle_cls, dict(dataloader_args or {})
        self.dataset_dir, self.log_dir, self.own = Path(dataset_dir), Path(log_dir), {"task_id": "pooled", **kw}
        self.inputspecs = read_inputspec(self.dataset_dir)

    def enable_sites(self, sites: Iterable[str] | None = None) -> None:
        """Use the data of some sites only.

        Raises:
            UsageError: there is no such site.
        """
        names = list(self.inputspecs if sites is None else sites)
        unknown = [name for name in names if name not in self.inputspecs]
        if unknown or not names:
            raise UsageError(
                f"there is no site {', '.join(unknown) or '[]'}", f"known are: {', '.join(self.inputspecs)}"
            )
        self.inputspecs = {name: self.inputspecs[name] for name in names}

    def run(
        self,
        dataset_cls: type[COINNDataset],
        only_sites: Sequence[str] | None = None,
        only_folds: Sequence[int] | None = None,
    ) -> list[dict[str, Any]]:
        """Train each fold.

        Args:
            dataset_cls: the user's.
            only_sites: names of the sites whose data are used; all by default.
            only_folds: numbers of the folds that are trained, from 0; all by default.

        Returns:
            logs and scores of each fold.

        Raises:
            ConfigError: sites are told different things, or have different numbers of folds.
        """
        self.enable_sites(only_sites)
        handles = {name: self._handle(name) for name in self.inputspecs}
        names = list(handles)
        require_alike(names, [{key: told(handle.cache.get(key)) for key in SHARED} for handle in handles.values()])
        counts = {name: len(handle.cache["splits"]) for name, handle in handles.items()}
        if len(set(counts.values())) != 1:
            raise ConfigError(f"the sites have unlike numbers of folds: {counts}", "divide the data alike at all sites")
        first = handles[names[0]].cache
        folds = [*first["splits"]] if only_folds is None else [str(number) for number in only_folds]
        unknown = [fold for fold in folds if fold not in first["splits"]]
        if unknown:
            raise UsageError(f"there is no fold {unknown[0]}", f"known are: {', '.join(first['splits'])}")
        records.clear(self.log_dir)
        reports = [self._fold(fold, handles, dataset_cls) for fold in folds]
        self._write_scores(first, reports)
        return reports

    def _state(self, name: str) -> dict[str, str]:
        folder = self.log_dir / "sites" / name
        return {
            "clientId": name,
            "baseDirectory": str(self.dataset_dir / "input" / name / "simulatorRun"),
            "outputDirectory": str(folder),
            "transferDirectory": str(folder / "transfer"),
        }

    def _handle(self, name: str) -> COINNDataHandle:
        cache = cached_arguments(self.own, self.inputspecs[name])
        handle = self.datahandle_cls(cache=cache, input={}, state=self._state(name))
        handle.prepare_data()
        return handle

    def _fold(
        self, fold: str, handles: Mapping[str, COINNDataHandle], dataset_cls: type[COINNDataset]
    ) -> dict[str, Any]:
        together: dict[str, list[Any]] = {name: [] for name in SPLITS}
        for handle in handles.values():
            handle.cache.update(split_ix=fold, split_file=handle.cache["splits"][fold])
            for name in SPLITS:
                found = getattr(handle, f"get_{name}_dataset")(dataset_cls)
                parts = found if isinstance(found, list | tuple) else [found]
                together[name] += [one for one in parts if one is not None]
        given = {name: dict(self.dataloader_args.get(name) or {}) for name in SPLITS}
        name, first = next(iter(handles.items()))
        state = {**self._state(name), "clientId": "pooled", "outputDirectory": str(self.log_dir)}
        code = UserCode(self.base, None, _of_all_sites(self.datahandle_cls, together))
        cache = {key: value for key, value in first.cache.items() if key != "dataloader_args"}
        place = self.log_dir / f"fold_{fold}"
        report = train_fold(code, cache, state, place, "pooled", {"dataloader_args": given})
        if "test_metrics" in report:
            records.write_table(place / f"{Key.TEST_METRICS}.csv", report["log_header"], [report["test_metrics"]])
        return report

    def _write_scores(self, cache: dict[str, Any], reports: Sequence[Mapping[str, Any]]) -> None:
        sums = [report["test_sums"] for report in reports if "test_sums" in report]
        if not sums:
            return
        trainer = self.base(data_handle=NoData(cache, {}, {"clientId": "pooled"}))
        line = pooled_line(trainer, sums)
        records.write_table(self.log_dir / f"{Key.GLOBAL_TEST_METRICS}.csv", reports[0]["log_header"], [line])


def _of_all_sites(handle: type[COINNDataHandle], together: Mapping[str, list[Any]]) -> type[COINNDataHandle]:
    """The user's data handle, but what it opens is what it has opened at all sites."""

    def opened(name: str) -> Callable[[COINNDataHandle, Any], list[Any]]:
        return lambda self, dataset_cls: together[name]

    return type(handle.__name__, (handle,), {f"get_{name}_dataset": opened(name) for name in SPLITS})
