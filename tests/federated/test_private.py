"""Parts of a model that stay at the sites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.federated.lab import SIZES, outcome, simulate_and_die, state_of, study
from weft.errors import ConfigError
from weft.federated.study import simulate

pytest.importorskip("sklearn")

NORMALISED = {"tests.engine.studies.DoubleNet": {"batch_norm": True}}


def weights_of(path: Path, site: str) -> dict[str, torch.Tensor]:
    return dict(state_of(path, site)["model"])


def last_layer(path: Path) -> str:
    return [name for name in weights_of(path, "north") if name.endswith("weight")][-1].removesuffix(".weight")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the last layer."""
    done = simulate(study(training__epochs=1), out=tmp_path_factory.mktemp("names") / "study")
    return last_layer(done.path)


@pytest.mark.parametrize(
    "strategy",
    [
        "dSGD",
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ({"FedAvg": {"steps_per_round": 4}}, {"PowerSGD": {"rank": 2}}, "rankDAD", "SCAFFOLD")
        ),
    ],
    ids=str,
)
def test_what_is_private_differs_between_sites_and_the_rest_does_not(strategy: Any, head: str, tmp_path: Path) -> None:
    written = study(
        federation__private=[head], federation__strategy=strategy, federation__cohort={"compare_weights": 2}
    )
    done = simulate(written, out=tmp_path / "study")
    first, *others = (weights_of(done.path, name) for name in SIZES)
    for other in others:
        for name, tensor in first.items():
            assert torch.equal(tensor, other[name]) != name.startswith(head), name
    assert done.scores["validation"]["accuracy"] > 0.8
    assert done.result["model_sha256"] is None
    sent = done.result["sites"]["north"]["bytes"]["sent"]
    assert (
        sent
        < simulate(study(federation__strategy=strategy), out=tmp_path / "all").result["sites"]["north"]["bytes"]["sent"]
    )


@pytest.mark.slow
def test_running_statistics_stay_with_their_layer(tmp_path: Path) -> None:
    done = simulate(study(model=NORMALISED, federation__private=["layers.1"]), out=tmp_path / "study")
    shared = simulate(study(model=NORMALISED), out=tmp_path / "shared")
    key = next(name for name in weights_of(done.path, "north") if name.endswith("running_mean"))
    for path, same in ((done.path, False), (shared.path, True)):
        first, second = (weights_of(path, name)[key] for name in ("north", "west"))
        assert torch.equal(first, second) == same


def test_a_site_that_comes_back_keeps_its_own_part(head: str, tmp_path: Path) -> None:
    leaves = {"events": [{"site": "north", "event": "leaves", "step": 9, "returns": 14}]}
    done = simulate(study(federation__private=[head]), out=tmp_path / "study", scenario=leaves)
    first, second = weights_of(done.path, "north"), weights_of(done.path, "west")
    assert not torch.equal(first[f"{head}.weight"], second[f"{head}.weight"])
    assert all(torch.equal(first[name], second[name]) for name in first if not name.startswith(head))


@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_same_bits(head: str, tmp_path: Path) -> None:
    settings = {"federation__private": [head], "run__checkpoint_every": {"steps": 4, "epochs": 1}}
    undisturbed = simulate(study(**settings), out=tmp_path / "undisturbed")
    simulate_and_die(study(**settings), tmp_path / "killed", "south", 3)
    done = simulate(tmp_path / "killed", ["run.observers=[]"], resume=True)
    assert outcome(done.path) == outcome(undisturbed.path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"federation__private": ["nothing.*"]}, "no parameter of the model has a name like 'nothing"),
        ({"federation__private": ["*"]}, "nothing to share"),
        ({"federation__private": ["layers.0"], "training__clip_norm": 1.0}, "norm of all gradients would differ"),
        ({"federation__private": ["layers.0"], "federation__exact": True}, "does not give what training on all"),
    ],
)
def test_what_cannot_work_is_told(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        simulate(study(**changes), out=tmp_path / "study")
