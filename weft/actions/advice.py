"""What to do about where the time goes, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from weft.actions.checking.estimates import size
from weft.config import Experiment
from weft.report.words import duration

if TYPE_CHECKING:
    from weft.actions.profiling import Profile

# Shares of a step, or of an epoch, from which a phase is worth a sentence.
_LOADING, _TRANSFER, _OPTIMIZER, _EXCHANGE = 0.2, 0.15, 0.3, 0.25
_VALIDATION, _CHECKPOINTS = 0.4, 0.1
_SMALL_STEP = 0.005  # seconds: fixed costs of operations rule steps shorter than this
_SMALL_BATCH = 16


def advise(experiment: Experiment, profile: Profile) -> list[str]:
    """Sentences about what stands out; one that says so where nothing does."""
    found = [*_about_steps(experiment, profile), *_about_epochs(experiment, profile)]
    if found:
        return found
    computing = _share(profile, "forward") + _share(profile, "backward")
    return [f"nothing stands out: forward and backward pass are {computing:.0%} of a step"]


def _about_steps(experiment: Experiment, profile: Profile) -> Iterator[str]:
    loading = _share(profile, "loading")
    if loading >= _LOADING:
        yield f"loading takes {loading:.0%} of a step: {_faster_loading(experiment, profile)}"
    if (share := _share(profile, "transfer")) >= _TRANSFER:
        yield (
            f"moving batches to {profile.device} takes {share:.0%} of a step: keep inputs small until they are there "
            "(fewer channels, uint8 images), and use a larger training.batch_size"
        )
    if (share := _share(profile, "exchange")) >= _EXCHANGE:
        yield (
            f"the exchange among {profile.processes} processes takes {share:.0%} of a step, waiting for the slowest "
            "one included: use a larger training.batch_size, training.accumulate, or fewer processes"
        )
    if (share := _share(profile, "optimizer")) >= _OPTIMIZER:
        fused = "" if experiment.training.fused else "training.fused: true (other rounding), "
        yield f"the optimizer takes {share:.0%} of a step: try {fused}a larger training.batch_size, or fewer parameters"
    items = profile.batch_size // profile.processes
    if loading < _LOADING and profile.seconds_per_step < _SMALL_STEP and items <= _SMALL_BATCH:
        yield (
            f"a step of {items} items takes {1000 * profile.seconds_per_step:.2g} ms, which is mostly the fixed cost "
            "of its operations: a larger training.batch_size trains more items in nearly the same time"
        )


def _about_epochs(experiment: Experiment, profile: Profile) -> Iterator[str]:
    if (share := profile.shares.get("validation", 0.0)) >= _VALIDATION:
        yield (
            f"validation takes {share:.0%} of an epoch: validate every few epochs (training.evaluate_every), or in "
            "larger batches (training.evaluation_batch_size)"
        )
    if (share := profile.shares.get("checkpoints", 0.0)) >= _CHECKPOINTS:
        yield (
            f"training stands still for checkpoints {share:.0%} of the time ({profile.checkpoint:.2g} s each): save "
            "less often, e.g. run.checkpoint_every: {minutes: 10}"
        )


def _faster_loading(experiment: Experiment, profile: Profile) -> str:
    if profile.in_memory:
        return "the data lie in memory already, so the network is small for them: use a larger training.batch_size"
    ways = []
    if profile.num_workers == 0:
        ways.append("load in processes beside training (run.num_workers: 4)")
    else:
        ways.append(f"use more than {profile.num_workers} loader processes, if there are cores (run.num_workers)")
    if experiment.run.cache == "none" and experiment.dataset.class_ is None:
        ways.append("keep items after the base transforms (run.cache: memory, or disk)")
    if experiment.dataset.transforms.train:
        ways.append("look for slow transforms under dataset.transforms.train")
    return ", ".join(ways)


def _share(profile: Profile, phase: str) -> float:
    return profile.phases[phase].share if phase in profile.phases else 0.0


def circumstances(profile: Profile) -> str:
    """What was measured, in one line."""
    batch = f"batches of {profile.batch_size}"
    if profile.accumulate > 1:
        batch = f"{profile.accumulate} {batch} to a step"
    among = f", {profile.processes} processes" if profile.processes > 1 else ""
    workers = f", {profile.num_workers} loader processes" if profile.num_workers else ""
    threads = f"{profile.threads} thread{'' if profile.threads == 1 else 's'}"
    return f"{profile.name}: {profile.steps} steps on {profile.device}, {batch}, {threads}{among}{workers}"


def epoch_words(profile: Profile) -> list[str]:
    """Steps as they are without measuring, an epoch, and memory, in sentences."""
    pace = f"left alone: {1000 * profile.seconds_per_step:.3f} ms per step, {profile.items_per_second:,.0f} items"
    epoch = f"an epoch: {duration(profile.epoch)} for {profile.steps_per_epoch} steps"
    if profile.validation is not None:
        epoch += f", validation ({duration(profile.validation)}, {profile.shares['validation']:.0%})"
    epoch += f", checkpoints ({duration(profile.checkpoint)} each, {profile.shares['checkpoints']:.0%})"
    return [f"{pace} per second", epoch, f"memory: {size(profile.memory)} at most"]
