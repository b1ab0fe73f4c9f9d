"""`weft check` of a study: the data of each site, the sites beside one another, the model once, and what is sent."""

from __future__ import annotations

from weft.actions.checking.checks import Patience, prevents_training, with_first_fold
from weft.actions.checking.findings import CheckReport, Findings, count, listed
from weft.actions.checking.place import Place, check_labels_of, check_written_labels
from weft.actions.checking.settings import check_batches, check_monitor
from weft.actions.checking.trial import build_trial
from weft.actions.opening import DIGEST_CACHE, threads_of
from weft.config import Experiment
from weft.data.digest import known_digests
from weft.engine import Membership, Strategy, pick_device
from weft.engine.determinism import reproducible
from weft.engine.loaders import batches_of_epoch
from weft.errors import WeftError
from weft.federated.agreeing import epoch_of, told_by_all
from weft.federated.checking.asked import check_demands
from weft.federated.checking.between import check_same_files, check_same_items, check_same_people
from weft.federated.checking.classes import check_label_sets
from weft.federated.checking.folds import OtherFolds
from weft.federated.checking.model import StudyModelCheck, try_forward
from weft.federated.checking.settings import check_cells, check_settings, check_with_sites
from weft.federated.checking.sites import SitesData, joined_findings
from weft.federated.checking.traffic import Traffic, measure_traffic, opening_of
from weft.federated.checking.unlike import check_epochs, check_forms, check_scales, check_sizes
from weft.federated.choosing import build_strategy
from weft.federated.snapshots import has_rounds
from weft.federated.wrapping import innermost

_TRYING = 5.0  # seconds for the steps of a warm-up


def examine_study(study: Experiment, report: CheckReport, patience: Patience) -> None:
    """Look at a study; what is found goes into the report.

    Args:
        study: resolved, with its section `federation`.
        report: filled in here.
        patience: how long looking may take; the sites share it.
    """
    _StudyCheck(with_first_fold(study, report), report, patience).run()


class _StudyCheck:
    def __init__(self, study: Experiment, report: CheckReport, patience: Patience) -> None:
        assert study.federation is not None
        self.study, self.report, self.patience = study, report, patience
        self.federation = study.federation
        self.names = sorted(study.federation.sites)
        self.sites = SitesData(study, report.findings)
        self.batches: dict[str, int] = {}
        self.odd: list[str] = []  # sites whose items have other shapes

    @property
    def findings(self) -> Findings:
        return self.report.findings

    def run(self) -> None:
        """All checks, as far as one does not need what another found broken."""
        strategy = self._strategy()
        check_settings(self.study, strategy, self.findings)
        self.sites.read(self.patience.looking)
        raw = {
            f"{name}: {split}": part for name, place in self.sites.places.items() for split, part in place.raw.items()
        }
        if raw:
            check_written_labels(self.study, raw, self.findings)
        opened = self.sites.open() and bool(self.sites.places)
        if opened:
            self.sites.look()
        self.findings.extend(joined_findings(self.sites.own_findings))
        self._tell_broken()
        check_monitor(self.study, self._splits() if opened else [], self.findings)
        if not opened:
            self.report.left_out["data and model"] = "the data of no site can be read" if not self.sites.places else (
                "the sites do not agree on what their targets are")  # fmt: skip
            return
        self.report.looked_at = {name: seen.describe() for name, seen in self.sites.looked.items()}
        self._check_between(strategy)
        self._check_batches(strategy)
        if "other folds" in self.report.left_out and not self.sites.broken:
            OtherFolds(self.study, self.sites.places, strategy, self.report, self.patience.looking).look()
        self._describe()
        if not prevents_training(self.report) and self.batches:
            self._try_model(strategy)

    def _strategy(self) -> Strategy | None:
        try:
            return build_strategy(self.study)
        except Exception as error:  # a strategy may be the user's
            self.findings.raised("strategy", "federation.strategy", error)
            return None

    def _tell_broken(self) -> None:
        if broken := [name for name in self.names if name in self.sites.broken]:
            self.report.left_out[f"data of {listed(broken)}"] = "they cannot be read"

    def _splits(self) -> list[str]:
        return sorted({split for place in self.sites.places.values() for split in place.opened.splits})

    # --- data ---------------------------------------------------------------------------------------------------------

    def _check_between(self, strategy: Strategy | None) -> None:
        places, findings = self.sites.places, self.findings
        if any(place.wants_classes for place in places.values()):
            check_labels_of(list(places.values()), self.sites.looked, findings)
            check_label_sets(places, findings)
        check_same_items(places, findings)
        cache = self.study.path(self.study.run.output) / DIGEST_CACHE
        unread = check_same_files(places, findings, self.patience.looking, known_digests(cache))
        if unread:
            self.report.left_out["contents of files"] = (
                f"{count(unread, 'file')} as large as one of another site could not be read in the time: add --thorough"
            )
        check_same_people(places, findings)
        check_cells(self.study, {name: _classes_in(place) for name, place in places.items()}, findings)
        equal_votes = getattr(innermost(strategy), "aggregate", "sum") != "sum" if strategy is not None else False
        check_sizes(self.sites.training_items, findings, equal_votes=equal_votes)
        self.odd = check_forms(places, self.sites.shapes, findings)
        check_scales(places, findings)

    def _check_batches(self, strategy: Strategy | None) -> None:
        if not self.sites.training_items:
            self.findings.error(
                "no training split", "all sites", "there is nothing to train on",
                "give a site a training split; weights are tested without training by weft federate evaluate",
            )  # fmt: skip
            return
        own: dict[str, Findings] = {}
        for name in self.sites.training_items:
            place, own[name] = self.sites.places[name], Findings()
            check_batches(place.experiment, place.opened, own[name])
            if own[name].has("error"):
                continue
            try:
                self.batches[name] = batches_of_epoch(place.experiment, place.opened)
            except Exception as error:  # a sampler may be the user's
                own[name].raised("batches", "dataset.samplers", error)
        self.findings.extend(joined_findings(own))
        check_epochs(self.study, self.batches, self.findings)
        if strategy is not None and self.batches and not self.sites.broken:
            epoch, _ = epoch_of(self.federation.uneven, list(self.batches.values()))
            steps = -(-epoch // self.study.training.accumulate)
            check_with_sites(self.study, strategy, self.batches, steps, self.findings)

    def _describe(self) -> None:
        """What the study is made of, for people and programs."""
        items = self.sites.training_items
        self.report.study = {
            "strategy": self.federation.strategy.name,
            "uneven": self.federation.uneven,
            "sites": {
                name: {
                    "items": {split: len(data) for split, data in place.opened.splits.items()},
                    "batches": self.batches.get(name, 0),
                }
                for name, place in self.sites.places.items()
            },
            "normalised": {name: items[name] for name in self.sites.scaled if name in items} or None,
        }
        if self.federation.pretraining is not None and items:
            largest = max(items, key=items.__getitem__)
            self.report.study["pretraining"] = {"site": largest, "items": items[largest]}

    # --- model --------------------------------------------------------------------------------------------------------

    def _try_model(self, strategy: Strategy | None) -> None:
        name = max(self.batches, key=lambda site: len(self.sites.places[site].opened.splits))
        place = self.sites.places[name]
        epoch, batches = epoch_of(self.federation.uneven, list(self.batches.values()))
        steps = -(-epoch // self.study.training.accumulate)
        try:
            device = pick_device(self.study.run.device)
        except WeftError as error:
            self.findings.raised("device", "run.device", error)
            return
        threads, deterministic = threads_of(place.experiment, place.opened), self.study.training.deterministic
        with reproducible(threads=threads, deterministic=deterministic, device=device):
            model = StudyModelCheck(
                place.experiment, place.opened, self.sites.looked, place.names, self.findings, self.report.measured,
                self.report.left_out, self.patience.fitting, sites=self.sites, batches=self._visited(batches),
                steps_per_epoch=steps, apart=strategy is not None and has_rounds(strategy),
            )  # fmt: skip
            self.report.estimates = model.run()
            self.report.measured["tried at"] = name
            if self.report.estimates:
                try_forward(self.sites, self.odd, self.findings)
                self._try_exchange(name, place, steps, batches)

    def _visited(self, batches: int | None) -> dict[str, int]:
        """Batches of an epoch of each site, as they are visited."""
        return self.batches if batches is None else dict.fromkeys(self.batches, batches)

    def _try_exchange(self, name: str, place: Place, steps: int, batches: int | None) -> None:
        """A few steps with the study's strategy: what it refuses, and what it sends."""
        try:
            membership = Membership(
                len(self.names), self.names.index(name), gather=False, minimum_cells=self.federation.minimum_cells,
                steps_per_epoch=steps, batches=batches, splits=tuple(self._splits()),
            )  # fmt: skip
            run = build_trial(
                place.experiment, place.opened, strategy=build_strategy(self.study), membership=membership
            )
        except Exception as error:  # a strategy may be the user's
            if not self.findings.has("error", "strategy"):
                self.findings.raised("strategy", "federation.strategy", error)
            return
        try:
            check_demands(run, self.study, self.findings)
            traffic = measure_traffic(run, self.study, steps, _TRYING)
        except Exception as error:  # likewise
            self.findings.raised("strategy", "federation.strategy", error)
        else:
            if traffic is None:
                self.report.left_out["bytes"] = "the strategy's warm-up is too long to be tried"
            else:
                self._tell_traffic(traffic)
        finally:
            run.close()

    def _tell_traffic(self, traffic: Traffic) -> None:
        told = self.sites.together({
            name: told_by_all(
                "splits", {"splits": list(place.opened.splits), "batches": self.batches.get(name, 0),
                           "items": self.sites.training_items.get(name, 0)},
            )
            for name, place in self.sites.places.items()
        })  # fmt: skip
        assert told
        self.report.study["bytes"] = traffic.as_dict()
        if traffic.warmup_steps >= traffic.steps:
            self.findings.warning(
                "warm-up", "federation.strategy",
                f"the strategy's warm-up is as long as the study, or longer: in all {traffic.steps} steps everything "
                "travels whole", "lower warmup_steps, or train longer", steps=traffic.steps,
            )  # fmt: skip
        for name, opening in opening_of(self.sites.counts).items():
            if name in self.report.study["sites"]:
                self.report.study["sites"][name]["bytes"] = (traffic.study + opening).as_dict()


def _classes_in(place: Place) -> dict[str, list[int]]:
    """By split how often each class occurs; none where targets are no classes, or not all were looked at."""
    return {
        split: list(seen.targets.holders.values()) if seen.complete and seen.targets is not None else []
        for split, seen in place.looked.items()
    }
