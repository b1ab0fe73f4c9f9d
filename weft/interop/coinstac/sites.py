"""The calls of a site, phase by phase."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft import __version__
from weft.engine.drivers import Participant
from weft.engine.seeding import outer_randomness_kept
from weft.errors import MessageRefused
from weft.interop.coinstac import io, records
from weft.interop.coinstac.config.keys import Phase
from weft.interop.coinstac.experiment import SHARED
from weft.interop.coinstac.hub import MESSAGE, checked_name, read_file
from weft.interop.coinstac.running import SiteRun, UserCode, names_of_states
from weft.interop.coinstac.scores import forms_of
from weft.interop.coinstac.splitting import prepare_splits, read_split
from weft.interop.coinstac.storing import LIVE, without_live
from weft.interop.coinstac.turns import Turns
from weft.runs import write_atomically

if TYPE_CHECKING:
    from weft.interop.coinstac.nodes import COINNLocal

_STUDY = re.compile(r"[0-9a-f]{64}")


class LiveFold:
    """A fold of a site that goes on from call to call while its process lives.

    Args:
        site: its run.
        turns: drives it.
    """

    def __init__(self, site: SiteRun, turns: Turns) -> None:
        self.site, self.turns = site, turns

    def close(self) -> None:
        """Release what the run holds."""
        self.site.close()


class SiteCalls:
    """What a site does in each phase.

    Args:
        node: the call.
        code: the user's classes.
        pretrain_args, dataloader_args: as `COINNLocal` has them.
        own: names of the arguments that its constructor was told.
    """

    def __init__(
        self,
        node: COINNLocal,
        code: UserCode,
        pretrain_args: Mapping[str, Any],
        dataloader_args: Mapping[str, Any],
        own: Mapping[str, Any],
    ) -> None:
        self.node, self.code, self.store, self.cache, self.out = node, code, node.store, node.cache, node.out
        self.pretrain_args, self.dataloader_args, self.own = pretrain_args, dataloader_args, own

    def init_runs(self) -> None:
        """Divide the data, and tell the arguments and how many items there are."""
        self.store.reset()
        handle = self.code.data_handle(
            cache=self.cache, input=self.node.input, state=self.node.state, dataloader_args=dict(self.dataloader_args)
        )
        records.clear(self.store.output / str(self.cache["task_id"]))
        handle.prepare_data()
        if "splits" not in self.cache:  # a handle of the user's own may have prepared something else besides
            prepare_splits(handle)
        folder = Path(self.cache["split_dir"])
        splits = {number: read_split(folder / name) for number, name in self.cache["splits"].items()}
        self.out["data_size"] = {
            number: {name: len(files) for name, files in split.items()} for number, split in splits.items()
        }
        self.cache["num_folds"] = len(splits)
        self.out["shared_args"] = shared_arguments(self.cache, self.own)
        self.out["weft"] = {"version": __version__}
        self.out["phase"] = Phase.INIT_RUNS

    def next_run(self) -> None:
        """Begin a fold."""
        told = self._told_of_fold()
        self.cache.update(told["cache"], weft=told["weft"])
        self.cache["split_file"] = self.cache["splits"][self.cache["split_ix"]]
        self.cache |= names_of_states(self.cache, self.cache["split_ix"])
        folder = self.store.fold(self.cache["split_ix"])
        if folder.exists():  # begun by a process that died before it had asked anything
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        self._log_dir().mkdir(parents=True, exist_ok=True)
        live = self._built()
        self.out["weft"] = {"forms": forms_of(live.site.trainer)}
        self._go_on(live, None)

    def exchange(self) -> None:
        """Take the answer to what was asked, and ask what comes next."""
        told = self.node.input.get("weft")
        if not isinstance(told, Mapping) or not isinstance(told.get("number"), int):
            raise MessageRefused("the remote's answer names no exchange", "it is no remote of Weft's")
        data = read_file(self.store.base, told.get("file"), "the remote")
        live = self.cache.get(LIVE)
        self._go_on(live if isinstance(live, LiveFold) else self._built(), (data, told["number"]))

    def keep_results(self) -> None:
        """Keep the archive of the results."""
        name = checked_name(self.node.input.get("results_zip"), "the remote") + ".zip"
        data = read_file(self.store.base, name, "the remote")
        self.store.output.mkdir(parents=True, exist_ok=True)
        write_atomically(self.store.output / name, data)
        self.out["phase"] = Phase.SUCCESS

    # --- a fold -------------------------------------------------------------------------------------------------------

    def _told_of_fold(self) -> dict[str, Any]:
        """What the remote says of the fold that begins, checked."""
        runs = self.node.input.get("global_runs")
        told = runs.get(self.store.name) if isinstance(runs, Mapping) else None
        if not isinstance(told, Mapping) or not isinstance(told.get("weft"), Mapping):
            raise MessageRefused(
                f"the remote says nothing of the fold of {self.store.name}", "it is no remote of Weft's"
            )
        study, sites, fold = told["weft"].get("study"), told["weft"].get("sites"), told.get("split_ix")
        good = isinstance(study, str) and _STUDY.fullmatch(study) and isinstance(fold, str)
        named = isinstance(sites, list) and all(isinstance(name, str) for name in sites) and self.store.name in sites
        if not good or not named or fold not in self.cache["splits"] or not isinstance(told.get("seed"), int):
            raise MessageRefused(f"what the remote says of the fold cannot be used: {dict(told)}", "")
        names = ("split_ix", "seed", "pretrain", "monitor_metric", "metric_direction", "log_header")
        return {
            "cache": {name: told[name] for name in names if name in told},
            "weft": {"study": study, "sites": sites, "reduced": bool(told["weft"].get("reduced"))},
        }

    def _built(self) -> LiveFold:
        """The fold's run, in this process: from its newest state, where there is one."""
        about = self.cache["weft"]
        folder = self.store.fold(self.cache["split_ix"])
        site = SiteRun(
            self.code, cache=self.cache, input=self.node.input, state=self.node.state, site=self.store.name,
            sites=about["sites"], folder=folder, every_step=not self.node.lasting, reduced=about["reduced"],
            dataloader_args=dict(self.dataloader_args), pretrain_args=dict(self.pretrain_args),
        )  # fmt: skip
        participant = Participant(site.site, site.steps, site.position, site.first_randomness())
        turns = Turns(participant, folder, study=about["study"], site=site.site)
        site.on_saved = turns.saved
        site.screen.repeating = lambda: turns.repeating
        return LiveFold(site, turns)

    def _go_on(self, live: LiveFold, answer: tuple[bytes, int] | None) -> None:
        try:
            with outer_randomness_kept():
                asked = live.turns.begin() if answer is None else live.turns.answer(*answer)
            if asked is None:
                self._end_fold(live.site)
        except BaseException:
            self.cache.pop(LIVE, None)
            live.close()
            raise
        if asked is None or not self.node.lasting:
            self.cache.pop(LIVE, None)
            live.close()
        else:
            self.cache[LIVE] = live
        if asked is not None:
            self.node.send_file(MESSAGE, asked)
            self.out["phase"] = Phase.COMPUTATION
            self.out["weft"] = {**self.out.get("weft", {}), "number": live.turns.waiting, "file": MESSAGE}

    def _end_fold(self, site: SiteRun) -> None:
        """Keep the weights of the best epoch and of the last one, and tell what came out."""
        report = site.report()
        folder = self._log_dir()
        site.trainer.save_checkpoint(str(folder / self.cache["best_nn_state"]))
        with site.latest_weights():
            site.trainer.save_checkpoint(str(folder / self.cache["latest_nn_state"]))
        content = {**io.plain(without_live(site.cache)), **{key: report[key] for key in report if key != "test_sums"}}
        write_atomically(folder / "logs.json", json.dumps(content, indent=1).encode())
        self.out["phase"] = Phase.NEXT_RUN_WAITING
        self.out["report"] = report

    def _log_dir(self) -> Path:
        folder = self.store.output / str(self.cache["task_id"]) / f"fold_{self.cache['split_ix']}"
        self.cache["log_dir"] = str(folder)
        return folder


def shared_arguments(cache: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a computation, without what is a site's own affair, for the remote."""
    from weft.interop.coinstac.arguments import DEFAULTS

    names = {*DEFAULTS, *SHARED, *own} - {"data_dir", "split_dir", "pretrained_path"}
    values = {name: cache[name] for name in sorted(names) if name in cache}
    found: dict[str, Any] = io.plain(
        {name: value.__name__ if isinstance(value, type) else value for name, value in values.items()}
    )
    return found
