"""One trial of a sweep: a run with some settings changed, trained up to a share of its tokens, and judged.

A trial goes on where it stands: its folder is that of a run, and a run's budget may be raised. So a rung of
a sweep is the same run with a larger budget, and what it ends with is what one start would have ended with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._digest import digest
from tinker_officer.errors import RunError
from tinker_officer.train.folder import RunFolder
from tinker_officer.train.result import RunResult
from tinker_officer.train.settings import NO_NUMBER


if TYPE_CHECKING:
    import tinker

    from tinker_officer.train.live import LiveRun
    from tinker_officer.train.run import Run

_ID = 12  # hexadecimal digits
_NAME = 50  # letters of the run's own name
_RECENT = 20  # training steps that a trial without a suite is judged by
_RATHER_HIGH = ("reward", "accuracy", "margin")  # words of training metrics that are better when higher


def _with_plan(run: Run, **changed: Any) -> Run:
    return attrs.evolve(run, plan=attrs.evolve(run.plan, **changed))


def _epochs(run: Run, epochs: Any) -> Run:
    objective: Any = run.plan.objective  # a run's plan has one
    return _with_plan(run, objective=attrs.evolve(objective, epochs=epochs))


# What can be swept, and how a run gets it.
SETTINGS: dict[str, Callable[[Run, Any], Run]] = {
    "learning_rate": lambda run, value: attrs.evolve(run, plan=run.plan.pin(learning_rate=value)),
    "rank": lambda run, value: attrs.evolve(run, plan=run.plan.pin(rank=value)),
    "batch_size": lambda run, value: attrs.evolve(run, plan=run.plan.pin(batch_size=value)),
    "epochs": _epochs,
    "seed": lambda run, value: _with_plan(run, seed=value),
    "weight_decay": lambda run, value: attrs.evolve(run, adam=attrs.evolve(run.adam, weight_decay=value)),
}


@attrs.frozen
class SweepTrial:
    """A run of a sweep.

    Args:
        settings: what differs between the trials, by name.
        run: the run, under a name of its own.
        id: a hash of the run's spec without its name: the same settings are the same trial, always.
    """

    settings: dict[str, Any]
    run: Run = attrs.field(repr=False)
    id: str

    @classmethod
    def of(cls, run: Run, settings: dict[str, Any]) -> SweepTrial:
        """Return the trial of `run` with these settings.

        Raises:
            PlanError, RunError: a value is out of range.
        """
        for name, value in settings.items():
            run = SETTINGS[name](run, value)
        spec = {key: value for key, value in run.to_dict().items() if key not in {*NO_NUMBER, "name"}}
        identity = digest(spec)[:_ID]
        return cls(settings, attrs.evolve(run, name=f"{run.name[:_NAME]}-{identity}"), identity)

    def up_to(self, share: float) -> Run:
        """Return the run with a budget of `share` of its tokens; as it is for all of them.

        Raises:
            RunError: how many tokens there are is not known.
        """
        if share >= 1:
            return self.run
        total = getattr(getattr(self.run.plan.objective, "counts", None), "total", None)
        if total is None:
            raise RunError(
                "this run cannot be stopped at a share of its tokens",
                got=f"a plan for {self.run.plan.method}, whose tokens are not counted",
                need="a plan that was made from data, so that its tokens are known",
                fix="Sweep(run).over(learning_rate=[1e-4, 4e-4])  # without halving",
            )
        tokens = math.ceil(share * total * self.run.plan.epochs)
        own = self.run.limits.tokens
        limits = attrs.evolve(self.run.limits, tokens=tokens if own is None else min(own, tokens))
        return attrs.evolve(self.run, limits=limits)


@attrs.frozen
class Standing:
    """Where a trial stands after a rung.

    Args:
        trial: the trial's id.
        rung: the rung, from 0.
        share: of the run's tokens, up to this rung.
        step: the steps done.
        score: the metric at that step; None where training broke down.
        stopped: how this part of the run ended, in words.
    """

    trial: str
    rung: int
    share: float
    step: int
    score: float | None
    stopped: str

    @property
    def failed(self) -> bool:
        """Whether training broke down: a loss that is not finite."""
        return self.score is None


def metric_of(run: Run) -> str:
    """Return the metric that a sweep of `run` goes by, unless it is told another.

    The run's own best metric, else the first that its suite measures, else what its method trains on.
    """
    if run.best_metric:
        return run.best_metric
    if run.evaluation is not None:
        for spec in run.evaluation.suite.evals:
            if spec.layer in run.evaluation.layers:
                return f"{spec.name}/{spec.metrics[0]}"
    return run.objective.headline


def better_when_higher(run: Run, metric: str) -> bool:
    """Return whether `metric` is better when it is higher, as the suite says, or else its name."""
    layer = _layer(run, metric)
    return layer != "nll" if layer else any(word in metric for word in _RATHER_HIGH)


def _layer(run: Run, metric: str) -> str | None:
    """Return the layer of the suite that measures `metric`; None for a metric of training."""
    specs = run.evaluation.suite.evals if run.evaluation else ()
    name = metric.partition("/")[0]
    return next((spec.layer for spec in specs if spec.name == name), None)


def advance(
    trial: SweepTrial,
    folder: Path,
    service: tinker.ServiceClient,
    *,
    rung: int,
    share: float,
    metric: str,
    watch: Callable[[LiveRun], None] = lambda _: None,
) -> Standing | None:
    """Train `trial` up to `share` of its tokens and judge it; None when it was cancelled.

    Args:
        trial: the trial.
        folder: its run's folder.
        service: where it trains.
        rung: the rung's number.
        share: how far the rung goes.
        metric: what it is judged by.
        watch: is given the run as it goes.

    Raises:
        Exception: whatever stopped training, but for numbers that are not finite.
    """
    try:
        with trial.up_to(share).start(on=service, at=folder, progress=False) as live:
            watch(live)
            result = live.result()
    except Exception as error:
        if "not finite" not in str(error):
            raise
        return Standing(trial.id, rung, share, _steps(folder), None, str(error).partition("\n")[0])
    if result.stopped in {"cancelled", "aborted"}:
        return None
    score = _score(trial.run, result, service, metric)
    return Standing(trial.id, rung, share, result.steps, score, result.stopped)


def _score(run: Run, result: RunResult, service: tinker.ServiceClient, metric: str) -> float:
    if run.evaluation is not None and _layer(run, metric):
        found = result.last.metrics
        if metric not in found:  # a rung is not a step at which the run asks its suite
            suite, layers = run.evaluation.suite, run.evaluation.layers
            found = suite.evaluate(result.last, on=service, layers=layers, progress=False).metrics()
        if metric in found:
            return float(found[metric])
    recent = [record[metric] for record in result.history() if metric in record][-_RECENT:]
    if not recent:
        raise RunError(
            "a sweep goes by a metric that its trials do not measure",
            got=repr(metric),
            need="one of " + ", ".join(sorted(name for name in result.metrics if "/" in name)),
            fix=f"Sweep(run, by={run.objective.headline!r})",
        )
    return float(sum(recent) / len(recent))


def _steps(folder: Path) -> int:
    return max((record["step"] for record in RunFolder(folder).metrics if "step" in record), default=0)
