"""An estimate of the energy that a run uses and the CO2 that it causes, by codecarbon without network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from weft.config import Experiment
from weft.engine.events import Epoch, Observer, Start
from weft.errors import RunDirectoryError, UsageError
from weft.monitor.background import Background
from weft.monitor.extras import require_extra
from weft.runs import read_json, write_json

CARBON_FILE = "carbon.json"
_PATIENCE = 20.0  # seconds that the end of a run waits for the last measurement

logger = logging.getLogger("weft")


class Carbon(Observer):
    """Estimates energy (kWh) and emissions (kg CO2-equivalents) and keeps them in the run's `carbon.json`.

    Where the system gives no power readings, codecarbon takes the processor's nominal power and its load: the numbers
    are estimates, and are called so. What a killed process used after its last epoch is not counted.

    Args:
        country: ISO 3166-1 alpha-3, e.g. DEU.
        region: region of the country, where codecarbon knows one.
        seconds: between two measurements of power.

    Raises:
        UsageError: codecarbon is not installed, or does not know the country.
    """

    def __init__(self, country: str, region: str | None = None, seconds: float = 15.0) -> None:
        require_extra("codecarbon", "carbon", "run.carbon")
        _require_country(country)
        self._country, self._region, self._seconds = country, region, seconds
        self._tracker: Any = None
        self._background: Background | None = None
        self._file: Path | None = None
        self._earlier: dict[str, float] = {}
        self._now: dict[str, float] = {}

    def on_start(self, start: Start) -> None:
        if start.run_path is not None:
            self._file = start.run_path / CARBON_FILE
            if start.resumed and self._file.exists():
                self._earlier = _numbers(self._file)
        self._background = Background("the estimate of emissions")
        self._background.do(self._begin)

    def on_epoch(self, epoch: Epoch) -> None:
        if self._background is not None:
            self._background.do(self._measure)

    def on_error(self, error: BaseException) -> None:
        self._close()

    def facts(self) -> dict[str, Any]:
        """The estimate over all sessions of the run, once it is over."""
        self._close()
        return {"carbon": self._total()} if self._now else {}

    def _begin(self) -> None:
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.output_methods.base_output import BaseOutput

        keep = self._keep

        class Kept(BaseOutput):
            """Hands each total to us, in place of a file."""

            def out(self, total: Any, delta: Any) -> None:
                keep(total)

        self._tracker = OfflineEmissionsTracker(
            country_iso_code=self._country,
            region=self._region,
            measure_power_secs=self._seconds,
            tracking_mode="process",
            save_to_file=False,
            output_handlers=[Kept()],
            allow_multiple_runs=True,  # runs may train side by side; each counts itself
            log_level="critical",
        )
        self._tracker.start()

    def _measure(self) -> None:
        if self._tracker is not None:
            self._tracker.flush()

    def _end(self) -> None:
        if self._tracker is not None:
            self._tracker.stop()

    def _keep(self, data: Any) -> None:
        self._now = {"kg_co2eq": data.emissions, "energy_kwh": data.energy_consumed, "seconds": data.duration}
        if self._file is not None:
            write_json(self._file, self._total())

    def _total(self) -> dict[str, Any]:
        sums = {name: value + self._earlier.get(name, 0.0) for name, value in self._now.items()}
        return {**sums, "country": self._country, "region": self._region, "method": "estimate by codecarbon"}

    def _close(self) -> None:
        if self._background is not None:
            self._background.do(self._end)
            self._background.close(_PATIENCE)
            self._background = None


def carbon_of(experiment: Experiment) -> Carbon | None:
    """The observer that `run.carbon` asks for."""
    settings = experiment.run.carbon
    return Carbon(settings.country, settings.region, settings.seconds) if settings is not None else None


def _numbers(file: Path) -> dict[str, float]:
    """What earlier sessions of the run used."""
    try:
        stored = read_json(file)
    except RunDirectoryError as error:
        logger.warning("%s: the estimate of emissions begins anew", error.message)
        return {}
    return {name: float(value) for name, value in stored.items() if isinstance(value, int | float)}


def _require_country(country: str) -> None:
    from codecarbon.input import DataSource

    known = DataSource().get_global_energy_mix_data()  # type: ignore[no-untyped-call]
    if country not in known:
        raise UsageError(
            f"run.carbon.country: codecarbon knows no electricity mix of {country!r}",
            "give three letters as in ISO 3166-1, e.g. DEU, FRA, USA",
        )
