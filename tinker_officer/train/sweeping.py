"""Running a sweep: rung by rung, trials at the same time, every judgement kept as soon as it is made."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
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
from tinker_officer.train.trial import Standing, SweepTrial, advance


if TYPE_CHECKING:
    from tinker_officer._service import On
    from tinker_officer.train.live import LiveRun
    from tinker_officer.train.sweep import Sweep

logger = logging.getLogger(__name__)
OnEach = Callable[[SweepTrial, Standing], Any]


def sweep(
    spec: Sweep,
    on: On,
    folder: Path,
    *,
    at_once: int,
    on_each: OnEach | None,
    ray: bool,
    progress: bool | None,
) -> SweepResult:
    """Run `spec` in `folder`; see `Sweep.run`."""
    trials = spec.trials
    identities = {trial.id: trial.settings for trial in trials}
    with RunFolder(folder).owned():
        write_atomic(
            folder / "sweep.json",
            json.dumps({**spec.to_dict(), "trials": identities}, indent=2) + "\n",
        )
        kept = Journal(folder / "standings.jsonl")
        known = {(one.trial, one.rung, one.share): one for one in (Standing(**record) for record in kept)}
        work = _work(spec, on, folder, at_once=at_once, ray=ray)
        standings: dict[str, list[Standing]] = {trial.id: [] for trial in trials}
        alive = list(trials)
        for rung, share in enumerate(spec.shares):
            label = f"{spec.base.name}: {len(alive)} trials up to {share:.0%}"
            with Progress(len(alive), label, unit="trials", show=progress) as bar:
                wanted = []
                for trial in alive:
                    if found := known.get((trial.id, rung, share)):
                        standings[trial.id].append(found)
                        bar.advance()
                    else:
                        wanted.append(trial)
                for trial, standing in work(wanted, rung, share):
                    kept.append(attrs.asdict(standing), sync=True)
                    standings[trial.id].append(standing)
                    bar.advance(note=f"{trial.id} {shown(standing)}")
                    if on_each is not None:
                        on_each(trial, standing)
            alive = survivors(
                alive, standings, keep=spec.keep if share < 1 else 1.0, descending=spec.descending
            )
        return SweepResult(
            folder=folder,
            metric=spec.metric,
            higher_is_better=spec.descending,
            trials=tuple(
                TrialResult(trial.id, trial.settings, folder / trial.id, tuple(standings[trial.id]))
                for trial in trials
            ),
            rungs=spec.shares,
        )


def survivors(
    alive: Sequence[SweepTrial], standings: dict[str, list[Standing]], *, keep: float, descending: bool
) -> list[SweepTrial]:
    """Return the trials that go on: the best share of them, in their own order; of equal ones the first.

    Raises:
        RunError: training broke down in all of them.
    """
    sound = [trial for trial in alive if not standings[trial.id][-1].failed]
    if not sound:
        raise RunError(
            "every trial of the sweep broke down",
            got="\n".join(f"{trial.settings}: {standings[trial.id][-1].stopped}" for trial in alive),
            need="at least one trial whose loss stays finite",
            fix="Sweep(run).over(learning_rate=[1e-5, 1e-4])  # lower rates",
        )

    def merit(trial: SweepTrial) -> float:
        score = standings[trial.id][-1].score
        if score is None:
            raise AssertionError("a sound trial without a score")
        return -score if descending else score

    going = sorted(sound, key=merit)[: max(1, math.ceil(keep * len(alive)))]
    return [trial for trial in alive if trial in going]


_Work = Callable[[Sequence[SweepTrial], int, float], Iterator[tuple[SweepTrial, Standing]]]


def _work(spec: Sweep, on: On, folder: Path, *, at_once: int, ray: bool) -> _Work:
    """Return what takes trials up to a rung and yields where each stands, as they come."""
    if ray:
        from tinker_officer.train.sweep_ray import on_ray

        return on_ray(on, folder, spec.metric, at_once=at_once)

    def work(trials: Sequence[SweepTrial], rung: int, share: float) -> Iterator[tuple[SweepTrial, Standing]]:
        if not trials:
            return
        service, crew = connect(on), Crew()

        def one(trial: SweepTrial) -> Standing | None:
            return advance(
                trial,
                folder / trial.id,
                service,
                rung=rung,
                share=share,
                metric=spec.metric,
                watch=crew.watch,
            )

        with ThreadPoolExecutor(at_once, thread_name_prefix="sweep") as pool:
            try:
                waiting: dict[Future[Standing | None], SweepTrial] = {
                    pool.submit(one, trial): trial for trial in trials
                }
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        trial, standing = waiting.pop(future), future.result()
                        if standing is not None:
                            yield trial, standing
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                crew.stop()
                raise

    return work


class Crew:
    """The runs that are under way, so that all can be stopped with a checkpoint."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._running: list[LiveRun] = []

    def watch(self, live: LiveRun) -> None:
        """Take a run that has begun; cancel it when all were stopped meanwhile."""
        with self._lock:
            self._running.append(live)
            stopped = self._stopped
        if stopped:
            live.cancel()

    def stop(self) -> None:
        """Cancel every run, and wait for its checkpoint."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for live in running:
            live.cancel()


def shown(standing: Standing) -> str:
    """Return a standing's score for the progress bar."""
    return "broke down" if standing.score is None else f"{standing.score:.4f}"
