"""A sweep whose values Optuna proposes: ask, train, tell; extra `optuna`.

The study is Optuna's, with any sampler, pruner and storage of its own. Ours is that a proposal becomes a
trial like any other: a run in a folder of its own, known by the hash of its spec. What was proposed is
written down before it is trained. So a search that was killed goes on: what had ended is told to the study
again, and what had not is proposed first, and resumes.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._files import write_atomic
from tinker_officer._journal import Journal
from tinker_officer._progress import Progress
from tinker_officer._service import connect
from tinker_officer.errors import RunError
from tinker_officer.train.folder import RunFolder
from tinker_officer.train.sweep_result import SweepResult, TrialResult
from tinker_officer.train.sweeping import Crew, shown
from tinker_officer.train.trial import Standing, SweepTrial, advance


if TYPE_CHECKING:
    from tinker_officer._service import On
    from tinker_officer.train.sweep import Sweep

_ID = "tinker_officer.trial"
_MOST = 10  # proposals for each trial that is wanted: a sampler may propose what is known


def search(
    spec: Sweep,
    on: On,
    folder: Path,
    axes: Mapping[str, Any],
    *,
    study: Any,
    trials: int,
    at_once: int,
    progress: bool | None,
) -> SweepResult:
    """Search; see `Sweep.search`."""
    optuna = _optuna()
    if study is None:
        direction = "maximize" if spec.descending else "minimize"
        sampler = optuna.samplers.TPESampler(seed=spec.base.order_seed % 2**32)
        study = optuna.create_study(direction=direction, sampler=sampler)
    if (study.direction == optuna.study.StudyDirection.MAXIMIZE) != spec.descending:
        raise RunError(
            "the study looks for the wrong end",
            got=f"a study that is to {study.direction.name.lower()} {spec.metric}",
            need="maximize" if spec.descending else "minimize",
            fix=f"optuna.create_study(direction={'maximize' if spec.descending else 'minimize'!r})",
        )
    distributions = {
        **{name: optuna.distributions.CategoricalDistribution(values) for name, values in spec.axes},
        **axes,
    }
    over = {
        name: json.loads(optuna.distributions.distribution_to_json(one))
        for name, one in distributions.items()
    }
    with RunFolder(folder).owned():
        write_atomic(folder / "sweep.json", json.dumps({**spec.to_dict(), "over": over}, indent=2) + "\n")
        hunt = Hunt(optuna, spec, folder, study, distributions)
        hunt.recall()
        with Progress(trials, f"{spec.base.name}: {trials} trials", unit="trials", show=progress) as bar:
            hunt.go(connect(on), trials, at_once, bar)
    return hunt.result()


@attrs.define
class Hunt:
    """One search: the study, what it proposed, and where each proposal stands."""

    optuna: Any
    spec: Sweep
    folder: Path
    study: Any
    axes: dict[str, Any]
    _proposed: Journal = attrs.field(init=False)
    _kept: Journal = attrs.field(init=False)
    _trials: dict[str, SweepTrial] = attrs.field(init=False, factory=dict)
    _standings: dict[str, list[Standing]] = attrs.field(init=False, factory=dict)
    _pruned: set[str] = attrs.field(init=False, factory=set)
    _locks: dict[str, threading.Lock] = attrs.field(init=False, factory=dict)
    _crew: Crew = attrs.field(init=False, factory=Crew)
    _writing: threading.Lock = attrs.field(init=False, factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        self._proposed = Journal(self.folder / "proposed.jsonl")
        self._kept = Journal(self.folder / "standings.jsonl")

    def recall(self) -> None:
        """Take up what a search before this one proposed: tell what had ended, queue what had not."""
        for record in self._kept:
            standing = Standing(**record)
            self._standings.setdefault(standing.trial, []).append(standing)
        self._pruned = {record["trial"] for record in self._proposed if record.get("pruned")}
        for record in self._proposed:
            if record.get("pruned"):
                continue
            trial = self._taken(record["settings"])
            if any(one.user_attrs.get(_ID) == trial.id for one in self.study.get_trials(deepcopy=False)):
                continue
            if self._over(trial):
                self.study.add_trial(self._told(trial))
            else:
                self.study.enqueue_trial(trial.settings)

    def go(self, service: Any, trials: int, at_once: int, bar: Progress) -> None:
        """Ask, train and tell until `trials` different ones have ended, or the same come again and again."""
        over = {trial.id for trial in self._trials.values() if self._over(trial)}
        bar.advance(len(over))
        left = _MOST * trials
        running: dict[Future[bool], tuple[Any, SweepTrial]] = {}
        with ThreadPoolExecutor(at_once, thread_name_prefix="search") as pool:
            try:
                while True:
                    begun = over | {trial.id for _, trial in running.values()}
                    if len(begun) < trials and len(running) < at_once and left:
                        left -= 1
                        asked = self.study.ask(self.axes)
                        trial = self._asked(asked)
                        running[pool.submit(self._train, trial, asked, service)] = asked, trial
                        continue
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        asked, trial = running.pop(future)
                        if future.result():
                            self._tell(asked, trial)
                            if trial.id not in over:
                                bar.advance(note=f"{trial.id} {shown(self._standings[trial.id][-1])}")
                            over.add(trial.id)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._crew.stop()
                raise

    def result(self) -> SweepResult:
        """Return every trial that was judged, in the order in which they were proposed.

        Raises:
            RunError: there is none.
        """
        judged = [trial for trial in self._trials.values() if self._standings.get(trial.id)]
        if not judged:
            raise RunError(
                "nothing was searched",
                got="0 trials",
                need="at least one",
                fix="sweep.search(on=engine, at='sweeps/mine', trials=20, learning_rate=distribution)",
            )
        return SweepResult(
            folder=self.folder,
            metric=self.spec.metric,
            higher_is_better=self.spec.descending,
            trials=tuple(
                TrialResult(one.id, one.settings, self.folder / one.id, tuple(self._standings[one.id]))
                for one in judged
            ),
            rungs=self.spec.shares,
        )

    def _taken(self, settings: dict[str, Any]) -> SweepTrial:
        trial = SweepTrial.of(self.spec.base, settings)
        return self._trials.setdefault(trial.id, trial)

    def _asked(self, asked: Any) -> SweepTrial:
        trial = self._taken(dict(asked.params))
        asked.set_user_attr(_ID, trial.id)
        if not any(record["trial"] == trial.id for record in self._proposed):
            self._write(self._proposed, {"trial": trial.id, "settings": trial.settings})
        return trial

    def _train(self, trial: SweepTrial, asked: Any, service: Any) -> bool:
        """Take a trial from rung to rung until the study's pruner has seen enough; False when cancelled."""
        with self._locks.setdefault(trial.id, threading.Lock()):  # the same settings may be proposed twice
            standings = self._standings.setdefault(trial.id, [])
            for rung, share in enumerate(self.spec.shares):
                standing = next((one for one in standings if (one.rung, one.share) == (rung, share)), None)
                if standing is None:
                    place = self.folder / trial.id
                    standing = advance(
                        trial,
                        place,
                        service,
                        rung=rung,
                        share=share,
                        metric=self.spec.metric,
                        watch=self._crew.watch,
                    )
                    if standing is None:
                        return False
                    self._write(self._kept, attrs.asdict(standing))
                    standings.append(standing)
                if standing.score is None or trial.id in self._pruned:
                    break
                asked.report(standing.score, rung)
                if share < 1 and asked.should_prune():
                    self._pruned.add(trial.id)
                    self._write(self._proposed, {"trial": trial.id, "pruned": True})
                    break
        return True

    def _write(self, journal: Journal, record: dict[str, Any]) -> None:
        with self._writing:  # trials end on threads of their own, and a journal has one writer
            journal.append(record, sync=True)

    def _over(self, trial: SweepTrial) -> bool:
        standings = self._standings.get(trial.id)
        if not standings:
            return False
        return standings[-1].share >= 1 or standings[-1].failed or trial.id in self._pruned

    def _state(self, trial: SweepTrial) -> Any:
        states = self.optuna.trial.TrialState
        if self._standings[trial.id][-1].failed:
            return states.FAIL
        return states.PRUNED if trial.id in self._pruned else states.COMPLETE

    def _tell(self, asked: Any, trial: SweepTrial) -> None:
        state = self._state(trial)
        whole = state == self.optuna.trial.TrialState.COMPLETE
        self.study.tell(asked, self._standings[trial.id][-1].score if whole else None, state=state)

    def _told(self, trial: SweepTrial) -> Any:
        standings = self._standings[trial.id]
        return self.optuna.trial.create_trial(
            state=self._state(trial),
            value=standings[-1].score,
            params=trial.settings,
            distributions=self.axes,
            intermediate_values={one.rung: one.score for one in standings if one.score is not None},
            user_attrs={_ID: trial.id},
        )


def _optuna() -> Any:
    try:
        return importlib.import_module("optuna")  # an extra: it may not be here
    except ImportError as error:
        raise RunError(
            "Optuna is not installed",
            got=str(error),
            need="the extra 'optuna'",
            fix='pip install "tinker-officer[optuna]"',
        ) from error
