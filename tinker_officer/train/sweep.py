"""Sweep: many runs that differ in a few settings, as a value; `run` is the one verb that acts.

    sweep = Sweep(run).over(learning_rate=[2e-4, 5e-4, 1e-3], rank=[8, 16]).halving()
    found = sweep.run(on=engine, at="sweeps/tickets")
    print(found.explain())
    best = found.best.result

Trials run at the same time through one service. With halving, all of them train for a share of their
tokens, the better half goes on from there, and so forth: a trial is paused and resumed, never begun again.
A sweep that was killed goes on when it is run again in the same folder, and so does one with more values.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer._fields import real
from tinker_officer._text import nearest, table
from tinker_officer.errors import RunError
from tinker_officer.train import trial as trials
from tinker_officer.train.run import Run
from tinker_officer.train.trial import SETTINGS, Standing, SweepTrial


if TYPE_CHECKING:
    from tinker_officer._service import On
    from tinker_officer.train.sweep_result import SweepResult

_FIX = "Sweep(run).over(learning_rate=[2e-4, 5e-4, 1e-3], rank=[8, 16])"
_HALVING = "Sweep(run).over(rank=[8, 16]).halving(at=(0.25, 0.5), keep=0.5)"
_KIND = "tinker_officer.Sweep"
_FORMAT = 1
_EXECUTORS = ("threads", "ray")


def _based(_instance: Any, _attribute: Any, run: Any) -> None:
    if not isinstance(run, Run):
        raise RunError("a sweep varies a run", got=repr(run), need="a Run", fix=_FIX)


def _known(name: str) -> None:
    if name not in SETTINGS:
        near = nearest(name, SETTINGS)
        raise RunError(
            "this cannot be swept",
            got=repr(name),
            need="one of " + ", ".join(SETTINGS) + (f" (did you mean {near}?)" if near else ""),
            fix=_FIX,
        )


def _shares(_instance: Any, _attribute: Any, shares: tuple[float, ...]) -> None:
    if not all(0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)):
        raise RunError(
            "the rungs of a sweep are out of order",
            got=repr(shares),
            need="shares of a run's tokens, above 0 and below 1, each larger than the one before",
            fix=_HALVING,
        )


@attrs.frozen(repr=False)
class Sweep:
    """Runs that differ in a few settings: a value that holds no client, no file and no clock.

    Args:
        base: the run that is varied.
        by: the metric that decides; None takes the run's best metric, else the first that its suite
            measures, else what it trains on, over the last 20 steps.
        higher_is_better: whether more of it is better; None is known from the suite, or the metric's name.
        axes: the values of each setting.
        rungs: shares of a run's tokens after which the worse trials stop.
        keep: the share of the trials that goes on after each rung.

    Example:
        >>> Sweep(run).over(learning_rate=[1e-3, 2e-3], rank=[4, 8])
        <Sweep of 'tickets-r16': 4 trials over learning_rate, rank>
    """

    base: Run = attrs.field(validator=_based)
    by: str | None = attrs.field(default=None, kw_only=True)
    higher_is_better: bool | None = attrs.field(default=None, kw_only=True)
    axes: tuple[tuple[str, tuple[Any, ...]], ...] = attrs.field(default=(), kw_only=True)
    rungs: tuple[float, ...] = attrs.field(default=(), validator=_shares, kw_only=True)
    keep: float = attrs.field(
        default=0.5, validator=real(0.0, 1.0, error=RunError, fix=_HALVING, open_low=True), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        """Make every trial once, so that a value which is out of range is reported where it was written."""
        for each in self.trials:
            for share in self.rungs:
                each.up_to(share)

    def over(self, **axes: Iterable[Any]) -> Self:
        """Return a copy that tries these values too, replacing those of the same settings.

        Args:
            **axes: values by setting: `learning_rate`, `rank`, `batch_size`, `epochs`, `seed` or
                `weight_decay`. Every combination is a trial.

        Raises:
            RunError: no such setting, no values, or the same one twice.
            PlanError: a value is out of range.
        """
        changed = dict(self.axes)
        for name, values in axes.items():
            _known(name)
            changed[name] = tuple(values)
            if not changed[name] or len(set(changed[name])) < len(changed[name]):
                raise RunError(
                    f"the values of {name} are not what a sweep tries",
                    got=repr(list(changed[name])),
                    need="at least one value, and each of them once",
                    fix=_FIX,
                )
        return attrs.evolve(self, axes=tuple(changed.items()))

    def halving(self, *, at: Iterable[float] = (0.25, 0.5), keep: float = 0.5) -> Self:
        """Return a copy that stops the worse trials early, replacing any such rule.

        Successive halving: after each rung the best `keep` of the trials go on, at least one. A trial's
        learning-rate schedule is that of its whole run, so trials are compared half-way down the same road.

        Args:
            at: the rungs: shares of a run's tokens.
            keep: the share of the trials that goes on.

        Raises:
            RunError: shares that do not rise, or whose tokens are not known.
        """
        return attrs.evolve(self, rungs=tuple(at), keep=keep)

    @property
    def trials(self) -> tuple[SweepTrial, ...]:
        """Every combination of the values, each as a run with a name of its own."""
        names = [name for name, _ in self.axes]
        grid = itertools.product(*(values for _, values in self.axes))
        return tuple(SweepTrial.of(self.base, dict(zip(names, values, strict=True))) for values in grid)

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return self.by or trials.metric_of(self.base)

    @property
    def descending(self) -> bool:
        """Whether more of the metric is better."""
        if self.higher_is_better is not None:
            return self.higher_is_better
        return trials.better_when_higher(self.base, self.metric)

    @property
    def shares(self) -> tuple[float, ...]:
        """How far each rung goes; the last is the whole run."""
        return (*self.rungs, 1.0)

    def run(
        self,
        on: On,
        at: str | Path,
        *,
        at_once: int = 4,
        on_each: Callable[[SweepTrial, Standing], Any] | None = None,
        executor: str = "threads",
        progress: bool | None = None,
    ) -> SweepResult:
        """Train every trial as far as it deserves; in a folder that has begun, go on from there.

        Args:
            on: a `LocalEngine`, a `tinker.ServiceClient`, or a base URL.
            at: the sweep's folder; each trial is a run's folder in it, named by its id.
            at_once: trials that train at the same time.
            on_each: called with a trial and where it stands, each time that one has reached a rung.
            executor: `threads` of this process, or `ray`: each trial a Ray task; extra `ray`.
            progress: show progress (None: yes).

        Raises:
            RunError: every trial broke down, the folder is in use, or no trial measures the metric.
            EngineError: `on` is not a Tinker service.
        """
        from tinker_officer.train.sweeping import sweep

        if executor not in _EXECUTORS or at_once < 1:
            raise RunError(
                "a sweep cannot be run like this",
                got=f"executor={executor!r}, at_once={at_once!r}",
                need=f"executor one of {_EXECUTORS}, at_once an integer of at least 1",
                fix='sweep.run(on=engine, at="sweeps/mine", at_once=4)',
            )
        return sweep(
            self, on, Path(at), at_once=at_once, on_each=on_each, ray=executor == "ray", progress=progress
        )

    def search(
        self,
        on: On,
        at: str | Path,
        *,
        trials: int,
        study: Any = None,
        at_once: int = 1,
        progress: bool | None = None,
        **axes: Any,
    ) -> SweepResult:
        """Train trials that Optuna proposes; in a folder that has begun, go on from there; extra `optuna`.

        Values given to `over` are choices, and the rungs of `halving` are where the study's pruner is asked;
        `keep` plays no part. With `at_once=1` and a seeded sampler the search repeats.

        Args:
            on: a `LocalEngine`, a `tinker.ServiceClient`, or a base URL.
            at: the search's folder; each trial is a run's folder in it, named by its id.
            trials: how many different ones, those of an earlier start included; what is proposed again is
                told to the study and not trained again.
            study: an `optuna.Study` in the metric's direction; None makes one with a seeded TPE sampler.
            at_once: trials that train at the same time.
            progress: show progress (None: yes).
            **axes: Optuna distributions by setting, as in `over`.

        Raises:
            RunError: Optuna is missing, the study looks for the other end, or a setting is not known.
            PlanError: a proposed value is out of range.
            EngineError: `on` is not a Tinker service.
        """
        from tinker_officer.train.sweep_optuna import search

        for name in axes:
            _known(name)
        return search(
            self, on, Path(at), axes, study=study, trials=trials, at_once=at_once, progress=progress
        )

    async def run_async(self, on: On, at: str | Path, **settings: Any) -> SweepResult:
        """Do what `run` does, from a coroutine."""
        return await asyncio.to_thread(self.run, on, at, **settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the sweep as JSON values; the data stays outside, its fingerprint is in the run's plan."""
        return {
            "kind": _KIND,
            "format": _FORMAT,
            "run": self.base.to_dict(),
            "over": {name: list(values) for name, values in self.axes},
            "rungs": list(self.rungs),
            "keep": self.keep,
            "by": self.by,
            "higher_is_better": self.higher_is_better,
        }

    def to_json(self) -> str:
        """Return the sweep as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, *, data: Any = None, held_out: Any = None) -> Self:
        """Return the sweep that `to_json` wrote.

        Args:
            text: what `to_json` returned.
            data: what the run trains on, as `Run.from_json` takes it.
            held_out: the conversations of its suite, as `Run.from_json` takes them.

        Raises:
            RunError: it is not a sweep.
            PlanError: `data` is not what was planned for.
        """
        try:
            spec = json.loads(text)
        except ValueError:
            spec = None
        if not isinstance(spec, dict) or (spec.get("kind"), spec.get("format")) != (_KIND, _FORMAT):
            raise RunError(
                "this is not a sweep",
                got=repr(text[:80]),
                need="what Sweep.to_json() writes",
                fix="Sweep.from_json(sweep.to_json(), data=train)",
            )
        return cls(
            Run.from_dict(spec["run"], data=data, held_out=held_out),
            by=spec["by"],
            higher_is_better=spec["higher_is_better"],
            axes=tuple((name, tuple(values)) for name, values in spec["over"].items()),
            rungs=tuple(spec["rungs"]),
            keep=spec["keep"],
        )

    def explain(self) -> str:
        """Return what will be tried, and what decides."""
        rungs = ", ".join(f"{share:.0%}" for share in self.rungs)
        halving = f"after {rungs} of the tokens the best {self.keep:.0%} go on" if rungs else "none"
        rows = [
            ("run", self.base.name),
            ("trials", str(len(self.trials))),
            *((name, ", ".join(map(str, values))) for name, values in self.axes),
            ("metric", f"{self.metric}, the {'highest' if self.descending else 'lowest'} is best"),
            ("halving", halving),
        ]
        return table(rows)

    def __repr__(self) -> str:
        over = f" over {', '.join(name for name, _ in self.axes)}" if self.axes else ""
        halving = f", halved {len(self.rungs)} times" if self.rungs else ""
        count = len(self.trials)
        return f"<Sweep of {self.base.name!r}: {count} trial{'s' * (count != 1)}{over}{halving}>"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self.explain())}</pre>"
