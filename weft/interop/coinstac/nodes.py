"""`COINNLocal` and `COINNRemote`: what COINSTAC calls at a site and at the remote, once per process or again and again.

A computation goes through phases, alike at all sites:

    init_runs           sites divide their data and tell how many folds there are, the remote says what is monitored
    next_run            a fold begins
    computation         one exchange of the training per call: a file from each site, their sum back (turns.py, hub.py)
    next_run_waiting    a fold is over; the remote writes its logs and begins the next one
    success             the remote has sent the results, and sites keep them
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from weft.errors import MessageRefused, ProtocolError, UsageError
from weft.interop.coinstac import io
from weft.interop.coinstac.arguments import cached_arguments
from weft.interop.coinstac.config.keys import Key, Phase
from weft.interop.coinstac.storing import LIVE, NodeStore, without_live


class Node:
    """What both kinds of nodes have: a call's cache, input and state, and an answer.

    Args:
        cache: what earlier calls left; changed in place.
        input: what this call is about.
        state: the node's directories and name.

    Attributes:
        out: what the others are told.
        lasting: whether this process will be called again, so that what is under way may stay in its memory.
    """

    def __init__(
        self, cache: dict[str, Any] | None, input: Mapping[str, Any] | None, state: Mapping[str, Any] | None
    ) -> None:
        self.cache: dict[str, Any] = {} if cache is None else cache
        self.input: dict[str, Any] = dict(input or {})
        self.state: dict[str, Any] = dict(state or {})
        self.store = NodeStore(self.state)
        self.out: dict[str, Any] = {}
        self.lasting = io.lasting()
        self._file: str | None = None
        self._repeated = self.store.done_before(self.input)
        if self._repeated is not None or (not self.cache.get(Key.ARGS_CACHED) and not self.first):
            self.cache.update(self.store.cache())  # a process that lived on was lost

    @property
    def first(self) -> bool:
        """Whether nothing was computed before."""
        raise NotImplementedError

    def answered(self) -> bool:
        """Whether the last process made this very call already, and only its answer is missing."""
        if self._repeated is None:
            return False
        self.out = self._repeated
        return True

    def finish(self) -> None:
        """Note what was answered, so that this call may be made again."""
        self.out = json.loads(json.dumps(io.plain(self.out)))
        self.store.finish(self.input, self.out, self.cache, self._file)

    def send_file(self, name: str, data: bytes) -> None:
        """Send a file along with the answer."""
        self.store.send_file(name, data)
        self._file = name

    def send(self) -> None:
        """Write the answer of this process to standard output."""
        io.send({**self.answer(), "cache": io.plain(without_live(self.cache))})

    def answer(self) -> dict[str, Any]:
        """The answer to this call."""
        return {"output": self.out}

    def compute(self, *classes: Any, **named: Any) -> None:
        """Do what this call is about."""
        raise NotImplementedError

    def __call__(self, *classes: Any, **named: Any) -> dict[str, Any]:
        """Compute, and return the answer: the form in which one process is called again and again."""
        self.lasting = True
        self.compute(*classes, **named)
        return self.answer()


class COINNLocal(Node):
    """A site.

    Args:
        cache: what earlier calls left; changed in place.
        input: the site's inputspec in the first call, later what the remote tells.
        state: the site's directories and its name, `clientId`.
        pretrain_args: how the site with most training items trains before all others; see docs/coinstac.md.
        dataloader_args: arguments of loaders by split, or finished datasets.
        arguments: any of `weft.interop.coinstac.arguments.DEFAULTS`, and others for the cache. The inputspec counts
            before them.

    Raises:
        ConfigError: an argument has a value that it cannot have.
    """

    def __init__(
        self,
        cache: dict[str, Any] | None = None,
        input: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        *,
        pretrain_args: Mapping[str, Any] | None = None,
        dataloader_args: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(cache, input, state)
        self._pretrain_args, self._dataloader_args = dict(pretrain_args or {}), dict(dataloader_args or {})
        self._args = arguments
        if self.first and self._repeated is None and self.cache.get(Key.ARGS_CACHED):  # of an earlier computation
            close_live(self.cache)
            self.cache.clear()
        if not self.cache.get(Key.ARGS_CACHED):
            if not self.first:
                self.store.require_own()
            self.cache.update(cached_arguments(arguments, self.input))
        for name, value in arguments.items():  # classes, for example, which no cache brings to the next process
            self.cache.setdefault(name, value)

    @property
    def first(self) -> bool:
        """Whether this is the computation's first call."""
        return "phase" not in self.input

    def compute(self, *classes: Any, **named: Any) -> None:
        """Do what this call is about.

        Args:
            classes: trainer, dataset, data handle and learner, in any order; what is None or a pool is passed over.
            named: the same, as trainer_cls, dataset_cls, datahandle_cls, learner_cls.

        Raises:
            UsageError: there is no trainer among them.
            MessageRefused: the remote's message is damaged, or not what was waited for.
            RunDirectoryError: another version of Weft began the computation.
        """
        from weft.interop.coinstac.overrides import LOCAL, require_called
        from weft.interop.coinstac.sites import SiteCalls

        if not self.first:
            self.store.require_own()
        if self.answered():
            return
        require_called(type(self), COINNLocal, LOCAL)
        phase = Phase.INIT_RUNS if self.first else _phase(self.input, "remote")
        code = user_code([*classes, *named.values()])
        code = replace(code, learner=self._get_learner_cls(code.learner))
        calls = SiteCalls(self, code, self._pretrain_args, self._dataloader_args, self._args)
        if phase is Phase.INIT_RUNS:
            calls.init_runs()
        elif phase is Phase.NEXT_RUN:
            calls.next_run()
        elif phase is Phase.COMPUTATION:
            calls.exchange()
        elif phase is Phase.SUCCESS:
            calls.keep_results()
        else:
            raise MessageRefused(f"the remote tells the phase {phase.value!r}, which sites do not know", "")
        self.finish()

    def _get_learner_cls(self, learner_cls: Any) -> Any:
        """The learner that is used, given the one that `compute` was called with. Subclasses may choose another."""
        return learner_cls


class COINNRemote(Node):
    """The remote: a hub that sums what sites ask, and writes down what came out. Subclasses may say what is monitored.

    Args:
        cache: what earlier calls left; changed in place.
        input: what each site told, by its name.
        state: the remote's directories.
        arguments: further entries of the cache.
    """

    def __init__(
        self,
        cache: dict[str, Any] | None = None,
        input: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(cache, input, state)
        if not self.input or not all(isinstance(told, Mapping) for told in self.input.values()):
            raise UsageError("the remote's input names no sites", "pass input on as COINSTAC gives it: RECV['input']")
        if self.first and self._repeated is None and self.cache.get(Key.ARGS_CACHED):  # of an earlier computation
            self.cache.clear()
        if not self.cache.get(Key.ARGS_CACHED):
            shared = self.input[min(self.input)].get("shared_args")
            self.cache.update(
                {**(shared if isinstance(shared, Mapping) else {}), **arguments, Key.ARGS_CACHED.value: True}
            )

    @property
    def first(self) -> bool:
        """Whether this is the computation's first call."""
        return all(told.get("phase") == Phase.INIT_RUNS for told in self.input.values())

    def compute(self, *classes: Any, **named: Any) -> None:
        """Do what this call is about.

        Args:
            classes: trainer and reducer, in any order, where there are any; what is None or a pool is passed over.
            named: the same, as trainer_cls and reducer_cls.

        Raises:
            MessageRefused: the message of a site is damaged, or not what was waited for; nothing of it was used.
            ProtocolError: the sites are not in the same phase, or ask for different things.
            RunDirectoryError: another version of Weft began the computation.
        """
        from weft.interop.coinstac.overrides import REMOTE, require_called
        from weft.interop.coinstac.remotes import RemoteCalls

        phase = self._common_phase()
        if not self.first:
            self.store.require_own()
        if self.answered():
            return
        require_called(type(self), COINNRemote, REMOTE)
        calls = RemoteCalls(self, [one for one in (*classes, *named.values()) if isinstance(one, type)])
        if phase is Phase.INIT_RUNS:
            calls.init_runs()
        elif phase is Phase.COMPUTATION:
            calls.exchange()
        elif phase is Phase.NEXT_RUN_WAITING:
            calls.end_fold()
        elif phase is Phase.SUCCESS:
            self.out["phase"] = Phase.SUCCESS
        else:
            raise MessageRefused(f"the sites tell the phase {phase.value!r}, which the remote does not know", "")
        self.finish()

    def answer(self) -> dict[str, Any]:
        """The answer to this call; `success` ends the computation."""
        done = all(told.get("phase") == Phase.SUCCESS for told in self.input.values())
        return {"output": self.out, "success": done}

    def _get_reducer_cls(self, reducer_cls: Any) -> Any:
        """The reducer that is used, given the one that `compute` was called with. Subclasses may choose another."""
        return reducer_cls

    def _common_phase(self) -> Phase:
        phases = {name: _phase(told, name) for name, told in sorted(self.input.items())}
        if len(set(phases.values())) != 1:
            told = ", ".join(f"{name} is in {phase.value}" for name, phase in phases.items())
            raise ProtocolError(f"the sites are not in the same phase: {told}", "they must run the same code")
        return next(iter(phases.values()))


def user_code(classes: Sequence[Any]) -> Any:
    """The user's classes among arguments, by what they derive from.

    Raises:
        UsageError: there is no trainer.
    """
    from weft.interop.coinstac import COINNDataHandle, COINNDataset, COINNLearner, COINNTrainer
    from weft.interop.coinstac.running import UserCode

    kinds = {
        "trainer": COINNTrainer, "dataset": COINNDataset, "data_handle": COINNDataHandle, "learner": COINNLearner,
    }  # fmt: skip
    found: dict[str, Any] = {}
    for one in classes:
        if not isinstance(one, type):
            continue
        name = next((name for name, kind in kinds.items() if issubclass(one, kind)), None)
        if name is None:
            raise UsageError(
                f"{one.__name__} is no {', '.join(kind.__name__ for kind in kinds.values())}",
                "derive it from one of them, and pass it to compute",
            )
        found[name] = one
    if "trainer" not in found:
        raise UsageError("compute was given no trainer", "local.compute(MyDataset, MyTrainer)")
    return UserCode(**found)


def close_live(cache: dict[str, Any]) -> None:
    """End what a living process kept for later calls."""
    live = cache.pop(LIVE, None)
    if live is not None:
        live.close()


def _phase(told: Mapping[str, Any], name: str) -> Phase:
    try:
        return Phase(str(told.get("phase")))
    except ValueError:
        raise MessageRefused(f"{name} tells the phase {told.get('phase')!r}, which there is not", "") from None
