"""The trainer of a site, as users of coinstac-dinunet write it: networks, optimizers, and what a batch means."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weft.errors import CheckpointError, ConfigError
from weft.interop.coinstac.arguments import OWN, within
from weft.interop.coinstac.collected import CollectedList, mean_of, side_by_side
from weft.interop.coinstac.config.keys import Key, Mode
from weft.interop.coinstac.dataset import base_directory
from weft.interop.coinstac.devices import within as network_within
from weft.interop.coinstac.metrics import AUCROCMetrics, COINNAverages, COINNMetrics, ConfusionMatrix, Prf1a
from weft.interop.coinstac.utils.tensorutils import initialize_weights
from weft.interop.coinstac.vision.plotter import plot_progress
from weft.runs.files import write_atomically

logger = logging.getLogger("weft")

_SOURCE = "coinstac"
# What trainers of the original have, and those of Weft do not.
_NOT_HERE = {
    "train_local": "SiteRunner trains a site alone",
    "validation_distributed": "a run validates by itself; `evaluation` scores datasets",
    "test_distributed": "a run tests by itself; `evaluation` scores datasets",
    "_save_if_better": "the run keeps the weights of the best epoch, as monitor_metric says",
    "_stop_early": "patience says when training ends",
}


class COINNTrainer:
    """Base class of trainers. Subclasses write `_init_nn_model` and `iteration`, and what else differs.

    Args:
        data_handle: the site's `COINNDataHandle`; arguments, folders and what the site was sent come from it.

    Attributes:
        nn, optimizer: networks and optimizers by name; all of them are trained together, saved and restored.
        device: `device["gpu"]` is where batches belong: the first of `gpus`, or the CPU.
        cache: the site's arguments. Numbers, texts and lists that `iteration` writes into it are kept.
    """

    def __init__(self, data_handle: Any = None, **kw: Any) -> None:
        self.data_handle = data_handle
        self.cache: dict[str, Any] = data_handle.cache
        self.input: Mapping[str, Any] = data_handle.input
        self.state: Mapping[str, Any] = data_handle.state
        self.nn: dict[str, nn.Module] = {}
        self.device: dict[str, torch.device] = {"gpu": torch.device("cpu")}
        self.optimizer: dict[str, torch.optim.Optimizer] = {}

    # --- what users write ---------------------------------------------------------------------------------------------

    def _init_nn_model(self) -> None:
        """Make the networks: `self.nn["model"] = …`."""
        raise NotImplementedError(f"{type(self).__name__} has no _init_nn_model")

    def _init_nn_weights(self, **kw: Any) -> None:
        """The first weights: those of `pretrained_path`; else drawn, linear layers and 2D convolutions after He et al.,
        2015, others as they come. Sites take the weights of one of them, so they begin alike in any case.
        """
        file = pretrained_file(self.cache, self.state)
        if file is not None:
            self.load_checkpoint(file)
            return
        for network in self.nn.values():
            initialize_weights(network)

    def _init_optimizer(self) -> None:
        """Make the optimizers; by default Adam, for the first network."""
        first = next(iter(self.nn.values()))
        self.optimizer["adam"] = torch.optim.Adam(first.parameters(), lr=self.cache["learning_rate"])

    def iteration(self, batch: Any) -> dict[str, Any]:
        """One batch forward: a dict with `loss` (the mean over its items), `metrics` and `averages`, and what else
        `save_predictions` needs. Called for training, validation and test alike.
        """
        raise NotImplementedError(f"{type(self).__name__} has no iteration")

    def new_metrics(self) -> COINNMetrics:
        """Empty scores: by `num_class` and `monitor_metric`."""
        classes = self.cache.get("num_class") or 2
        if classes > 2:
            return ConfusionMatrix(num_classes=classes)
        return AUCROCMetrics() if str(self.cache.get("monitor_metric")).lower() == "auc" else Prf1a()

    def new_averages(self) -> COINNAverages:
        """Empty averages."""
        return COINNAverages(num_averages=1)

    def save_predictions(self, dataset: Any, its: dict[str, Any]) -> dict[str, Any] | None:
        """Called with what `iteration` returned for test items: for each batch, or with `load_sparse` for each file.

        Returns:
            `averages` and `metrics` to count instead of the iteration's; None to count those.
        """
        return None

    def on_iteration_end(self, i: int, ep: int, it: dict[str, Any]) -> Any:
        """Called after each step of training: its number in the epoch, the epoch, and what `iteration` returned; with
        `local_iterations`, what `reduce_iteration` made of its batches.
        """
        return {}

    # --- where a site trains alone: pretraining, SiteRunner -----------------------------------------------------------

    def training_iteration_local(self, i: int, batch: Any) -> dict[str, Any]:
        """A batch, where a site trains alone: `iteration`, its backward pass, and after `local_iterations` batches a
        step of each optimizer. Override it to train in another way, for example two networks in turn.

        Args:
            i: number of the batch in the epoch, from 1.
            batch: as `iteration` has it.

        Returns:
            what `iteration` returns.
        """
        count = max(int(self.cache.get("local_iterations", 1)), 1)
        it = self.iteration(batch)
        (it["loss"] / count).backward()
        if i % count == 0:
            for optimizer in self.optimizer.values():
                optimizer.step()
                optimizer.zero_grad()
        return it

    def init_training_cache(self) -> None:
        """Called before a site trains alone."""
        self.cache |= {Key.TRAIN_LOG.value: [], Key.VALIDATION_LOG.value: [], "best_val_epoch": 0}

    def _on_epoch_end(self, ep: int, **kw: Any) -> Any:
        """Called where a site trains alone, after each epoch that was validated: its number from 1, and `ep_averages`,
        `ep_metrics`, `val_averages`, `val_metrics`.
        """
        return {}

    # --- what users call ----------------------------------------------------------------------------------------------

    def init_nn(
        self,
        init_model: bool = False,
        init_optim: bool = False,
        set_devices: bool = False,
        init_weights: bool = False,
    ) -> None:
        """Make networks, optimizers and weights; a run does so by itself."""
        if init_model:
            self._init_nn_model()
        if init_optim:
            self._init_optimizer()
        if init_weights:
            self._init_nn_weights(init_weights=init_weights)
        if set_devices:
            self._set_gpus()

    def _set_gpus(self) -> None:
        """Put the networks where batches belong."""
        for network in self.nn.values():
            network.to(self.device["gpu"])

    def evaluation(
        self,
        mode: str = "eval",
        dataset_list: Sequence[Any] | None = None,
        save_pred: bool = False,
        use_padded_sampler: bool = False,
    ) -> tuple[COINNAverages, COINNMetrics]:
        """Averages and scores of datasets at this site, for code of a user's own; runs score by themselves.

        Args:
            mode: the split whose arguments of loaders count.
            dataset_list: scored one after the other; None and empty ones are passed over.
            save_pred: `save_predictions` is told, and may say what counts.
            use_padded_sampler: nothing is padded: no item counts twice.
        """
        trained = {name: network.training for name, network in self.nn.items()}
        averages, metrics = self.new_averages(), self.new_metrics()
        for network in self.nn.values():
            network.eval()
        try:
            with torch.no_grad():
                for dataset in [one for one in dataset_list or () if one is not None and len(one)]:
                    loader = self.data_handle.get_loader(handle_key=mode, dataset=dataset, shuffle=False)
                    its = [self.iteration(batch) for batch in loader]
                    if save_pred and self.cache.get("load_sparse"):
                        its = [self.reduce_iteration(its)]
                    for it in its:
                        said = (self.save_predictions(dataset, it) if save_pred else None) or {}
                        averages.accumulate(said.get("averages", it["averages"]))
                        metrics.accumulate(said.get("metrics", it["metrics"]))
        finally:
            for name, network in self.nn.items():
                network.train(trained[name])
        return averages, metrics

    def _save_progress(self, cache: Mapping[str, Any], epoch: int) -> None:
        """Draw the logs so far into the fold's folder."""
        plot_progress(cache, self.cache["log_dir"], [Key.TRAIN_LOG, Key.VALIDATION_LOG])

    def set_monitor_metric(self) -> None:
        """Overrides may set `monitor_metric` and `metric_direction` of the cache here."""

    def set_log_headers(self) -> None:
        """Overrides may set `log_header` of the cache here."""

    def __getattr__(self, name: str) -> Any:
        hint = _NOT_HERE.get(name)
        raise AttributeError(f"{type(self).__name__} has no {name}" + (f": {hint}" if hint else ""))

    def reduce_iteration(self, its: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What several iterations returned, as one: scores added up, tensors side by side, the loss a mean. All but
        scores may also be called, as in the original: `its["prediction"]()`; the loss is then that of each iteration.
        An override is called for every step of training, and with `load_sparse` for every file of test items.
        """
        found: dict[str, Any] = {}
        for key in its[0] if its else ():
            values = [it[key] for it in its]
            first = values[0]
            if isinstance(first, COINNMetrics):
                total = self.new_averages() if isinstance(first, COINNAverages) else self.new_metrics()
                for value in values:
                    total.accumulate(value)
                found[key] = total
            elif key == "loss":
                found[key] = mean_of(values)
            else:
                found[key] = side_by_side(values) if isinstance(first, Tensor) else CollectedList(values)
        return found

    def save_checkpoint(self, file_path: str | Path, src: str = _SOURCE) -> None:
        """Write all networks and optimizers into a file, which appears whole or not at all."""
        buffer = io.BytesIO()
        content = {
            "source": src,
            "models": {name: network_within(network).state_dict() for name, network in self.nn.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizer.items()},
        }
        torch.save(content, buffer)
        write_atomically(Path(file_path), buffer.getvalue())

    def load_checkpoint(self, file_path: str | Path) -> None:
        """Read a file of `save_checkpoint`, or the weights of the first network alone. Nothing in it is executed.

        Raises:
            CheckpointError: it cannot be read, or does not fit.
        """
        try:
            content = torch.load(file_path, map_location=self.device["gpu"], weights_only=True)
            if isinstance(content, Mapping) and str(content.get("source", "")).lower() == _SOURCE:
                weights, states = content["models"], content["optimizers"]
            else:
                weights, states = {next(iter(self.nn)): content}, {}
            for name, network in self.nn.items():
                if name in weights:
                    network_within(network).load_state_dict(weights[name])
            for name, optimizer in self.optimizer.items():
                if name in states:
                    optimizer.load_state_dict(states[name])
        except Exception as error:  # torch.load raises many kinds
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            words = "it is damaged, or holds more than tensors, numbers and texts" if "Weights only" in first else first
            raise CheckpointError(
                f"{file_path} cannot be loaded into {', '.join(self.nn)}: {words}",
                "give a file that save_checkpoint wrote, or the state_dict of the first network",
            ) from error
        missing = [name for name in self.nn if name not in weights]
        if missing and self.cache.get("mode") == Mode.TEST:
            raise CheckpointError(
                f"{file_path} has no weights of {', '.join(missing)}, which would be tested as they were drawn",
                "give a file with all networks; coinstac-dinunet itself saves the last one only",
            )
        if missing:
            logger.warning("%s has no weights of %s, which keep theirs", file_path, ", ".join(missing))


def pretrained_file(cache: Mapping[str, Any], state: Mapping[str, Any]) -> Path | None:
    """The file that `pretrained_path` names: below the site's data, or, where the constructor says it, anywhere.

    Raises:
        ConfigError: there is none, or the inputspec's leaves the site's folder.
    """
    named = cache.get("pretrained_path")
    if not named:
        return None
    if "pretrained_path" in cache.get(OWN, ()) and Path(named).is_file():
        return Path(named)
    file = within(base_directory(state), named, "pretrained_path")
    if not file.is_file():
        raise ConfigError(f"pretrained_path is {named!r}, but there is no file {file}", "check the inputspec")
    return file
