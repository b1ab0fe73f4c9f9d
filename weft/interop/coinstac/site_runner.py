"""One site alone, without a remote: to try out a computation before it goes to others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft.engine import drive_alone
from weft.engine.seeding import outer_randomness_kept, set_random_state
from weft.errors import UsageError
from weft.interop.coinstac import records
from weft.interop.coinstac.arguments import cached_arguments
from weft.interop.coinstac.dataset import COINNDataset
from weft.interop.coinstac.handle import COINNDataHandle
from weft.interop.coinstac.running import SiteRun, UserCode, names_of_states
from weft.interop.coinstac.trainer import COINNTrainer
from weft.runs.files import write_atomically

_ELSEWHERE = ("pretrain_args", "dataloader_args")  # arguments of the constructor that are no entries of the cache


class SiteRunner:
    """Trains one site of COINSTAC's simulator folder on its own data, all folds, and tests.

    Args:
        taks_id: name of the task (the original spells it so).
        data_path: folder with `inputspec.json` and `input/localN/simulatorRun`.
        site_index: number of the site.
        kw: as `COINNLocal` takes them.
    """

    def __init__(self, taks_id: str, data_path: str | Path = "test", site_index: int = 0, **kw: Any) -> None:
        self.root, self.name = Path(data_path), f"local{site_index}"
        self.own = {"task_id": taks_id, **kw}
        self.spec = read_spec(self.root / "inputspec.json", site_index)

    def run(
        self,
        trainer_cls: type[COINNTrainer],
        dataset_cls: type[COINNDataset] | None = None,
        datahandle_cls: type[COINNDataHandle] = COINNDataHandle,
        **kw: Any,
    ) -> list[dict[str, Any]]:
        """Train each fold.

        Args:
            trainer_cls, dataset_cls, datahandle_cls: the user's classes.
            kw: further arguments; they come before those of the inputspec.

        Returns:
            logs and scores of each fold, which also lie in `output/localN/simulatorRun/TASK/fold_N/logs.json`, beside
            the best weights.
        """
        own = {key: value for key, value in self.own.items() if key not in _ELSEWHERE}
        cache = cached_arguments(own, {**self.spec, **kw})
        folder = self.root / "output" / self.name / "simulatorRun"
        state = {
            "clientId": self.name,
            "baseDirectory": str(self.root / "input" / self.name / "simulatorRun"),
            "outputDirectory": str(folder),
            "transferDirectory": str(folder / "transfer"),
        }
        code = UserCode(trainer_cls, dataset_cls, datahandle_cls)
        further: dict[str, Any] = {key: self.own.get(key) for key in _ELSEWHERE}
        datahandle_cls(cache=cache, input={}, state=state, dataloader_args=further["dataloader_args"]).prepare_data()
        reports = []
        for fold, file in cache["splits"].items():
            told = {**cache, "split_ix": fold, "split_file": file}
            place = folder / str(cache["task_id"]) / f"fold_{fold}"
            reports.append(train_fold(code, told, state, place, self.name, further))
        return reports


def train_fold(
    code: UserCode, cache: Mapping[str, Any], state: Mapping[str, Any], place: Path, name: str, further: dict[str, Any]
) -> dict[str, Any]:
    """Train one fold in this process, alone, and write weights, logs and scores.

    Args:
        code: the user's classes.
        cache: arguments, with "split_ix" of the fold.
        state: the folders.
        place: where everything is written.
        name: of who trains.
        further: `dataloader_args` and `pretrain_args`.

    Returns:
        logs and scores.
    """
    place.mkdir(parents=True, exist_ok=True)
    told = {**cache, "log_dir": str(place), **names_of_states(cache, cache["split_ix"])}
    site = SiteRun(code, cache=told, input={}, state=state, site=name, sites=[name], alone=True, **further)
    try:
        with outer_randomness_kept():
            set_random_state(site.first_randomness())
            drive_alone(site.steps())
        report = site.report()
        site.trainer.save_checkpoint(place / told["best_nn_state"])
        with site.latest_weights():
            site.trainer.save_checkpoint(place / told["latest_nn_state"])
        records.write_logs(place, report["log_header"], report)
        write_atomically(place / "logs.json", json.dumps(report, indent=1).encode())
    finally:
        site.close()
    return report


def read_spec(file: Path, site: int) -> dict[str, Any]:
    """The arguments of a site.

    Raises:
        UsageError: there is no such file or site, or it is damaged.
    """
    try:
        every = json.loads(file.read_text(encoding="utf-8"))
        entries: Mapping[str, Any] = every[site] if isinstance(every, list) else every
        return {key: entry["value"] for key, entry in entries.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{file} does not tell the arguments of site {site}: {type(error).__name__}: {error}",
            'write a list with {"NAME": {"value": VALUE, …}, …} for each site',
        ) from error
