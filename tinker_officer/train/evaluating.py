"""Inline evaluation: a suite asked of a saved checkpoint, once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING

import attrs

from tinker_officer.errors import EvalError, RunError
from tinker_officer.train import guards
from tinker_officer.train.checkpoints import Checkpoint
from tinker_officer.train.folder import RunFolder


if TYPE_CHECKING:
    import tinker

    from tinker_officer.evals.scorecard import Scorecard
    from tinker_officer.train.declared import Declared
    from tinker_officer.train.run import Run

logger = logging.getLogger(__name__)
_RECENT = 20  # training steps that a held-out NLL is held against


@attrs.define
class Inline:
    """The inline evaluations of a run: what is due, what was found, and what follows from it."""

    run: Run
    folder: RunFolder
    service: tinker.ServiceClient
    values: dict[int, dict[str, float]] = attrs.field(factory=dict)
    higher_is_better: dict[str, bool] = attrs.field(factory=dict)
    asking: dict[int, Future[Scorecard]] = attrs.field(factory=dict)

    def recall(self, steps: Iterable[int]) -> None:
        """Take up what was found after `steps` before the run was interrupted."""
        for step in steps:
            path = self.folder.card_path(step)
            if path.exists():
                card = self._card(step)
                if card is not None:
                    self._note(step, card)

    def due(self, step: int, steps: int) -> bool:
        """Return whether the suite is asked after `step`."""
        return self.run.evaluation is not None and self.run.evaluation.due(step, steps)

    def ask(self, checkpoint: Checkpoint) -> dict[str, float]:
        """Return the metrics of `checkpoint`, asked now unless its card is already there."""
        card = self._card(checkpoint.step)
        if card is None or card.target != checkpoint.sampler_path:
            card = self.asking[checkpoint.step].result() if checkpoint.step in self.asking else None
            card = card or self._answer(checkpoint)
            card.save(self.folder.card_path(checkpoint.step))
        self.asking.pop(checkpoint.step, None)
        self._note(checkpoint.step, card)
        found = self.values[checkpoint.step]
        if self.run.best_metric is not None and self.run.best_metric not in found:
            raise unknown_metric("stop_early(on=...)", self.run.best_metric, found)
        return dict(found)

    @property
    def beside(self) -> bool:
        """Whether training goes on while a checkpoint is evaluated."""
        return self.run.evaluation is not None and self.run.evaluation.beside

    def begin(self, checkpoint: Checkpoint) -> None:
        """Begin to ask the suite of `checkpoint`, on a thread that no exit waits for."""
        if checkpoint.step in self.values or checkpoint.step in self.asking:
            return
        answer: Future[Scorecard] = Future()
        self.asking[checkpoint.step] = answer

        def work() -> None:
            try:
                answer.set_result(self._answer(checkpoint))
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
                answer.set_exception(error)

        threading.Thread(target=work, name=f"evaluate-{checkpoint.step}", daemon=True).start()

    def behind(self, step: int) -> list[int]:
        """Return the steps before `step` at which the suite was due, and of which nothing is known yet."""
        last = max(step, 1)  # no earlier step is the last of the run
        return [early for early in range(step) if self.due(early, last) and early not in self.values]

    def _answer(self, checkpoint: Checkpoint) -> Scorecard:
        evaluation = self.run.evaluation
        if evaluation is None:
            raise AssertionError("asked without a suite")
        logger.info("run.evaluates", extra={"officer.step": checkpoint.step})
        card: Scorecard = evaluation.suite.evaluate(
            checkpoint, on=self.service, layers=evaluation.layers, progress=False
        )
        return card

    def series(self, metric: str) -> list[tuple[int, float]]:
        """Return `(step, value)` of `metric`, by step."""
        return [
            (step, self.values[step][metric]) for step in sorted(self.values) if metric in self.values[step]
        ]

    def best_step(self, steps: Iterable[int]) -> int | None:
        """Return which of `steps` is best by the run's metric; None when none was evaluated."""
        metric = self.metric
        if metric is None:
            return None
        among = set(steps)
        candidates = [(step, value) for step, value in self.series(metric) if step in among]
        return guards.best(candidates, higher_is_better=self.higher_is_better.get(metric, False))

    @property
    def metric(self) -> str | None:
        """The metric that chooses the best checkpoint."""
        if self.run.best_metric:
            return self.run.best_metric
        return next(iter(self.higher_is_better), None)

    def stop_reason(self) -> str | None:
        """Return why the run should stop early, or None."""
        rule = self.run.early_stop
        if rule is None:
            return None
        values = self.series(rule.on)
        since = guards.stale(values, higher_is_better=self.higher_is_better.get(rule.on, False))
        if len(values) > 1 and since >= rule.patience:
            return f"stopped early: {rule.on} has not improved in {since} evaluations"
        return None

    def _card(self, step: int) -> Scorecard | None:
        from tinker_officer.evals.scorecard import Scorecard

        path = self.folder.card_path(step)
        if not path.exists():
            return None
        try:
            return Scorecard.load(path)
        except EvalError as error:
            logger.warning("card.damaged", extra={"officer.step": step, "officer.error": str(error)})
            return None

    def _note(self, step: int, card: Scorecard) -> None:
        self.values[step] = card.metrics()
        for result in card.evals:
            self.higher_is_better[f"{result.name}/{result.metric}"] = result.higher_is_better


def gaps(found: Mapping[str, float], folder: RunFolder, step: int) -> dict[str, float]:
    """Return `gap/<eval>` for each held-out NLL found: its excess over 20 training steps."""
    records = (record for record in folder.metrics if record["step"] <= step)
    trained = [record["train/mean_nll"] for record in records if "train/mean_nll" in record][-_RECENT:]
    if not trained:
        return {}
    nll = sum(trained) / len(trained)
    held_out = {name.removesuffix("/nll"): value for name, value in found.items() if name.endswith("/nll")}
    return {f"gap/{name}": value - nll for name, value in held_out.items()}


def check_metrics(run: Declared) -> None:
    """Check that the metrics which the run names are ones that its suite measures while it trains.

    Raises:
        RunError: one is not, or the suite has nothing to ask.
    """
    specs = run.evaluation.suite.evals if run.evaluation else ()
    asked = [spec for spec in specs if run.evaluation and spec.layer in run.evaluation.layers]
    if run.evaluation and not asked:
        raise RunError(
            "the suite has nothing to ask while training",
            got=f"{run.evaluation.suite!r} with layers {run.evaluation.layers}",
            need="at least one eval in those layers",
            fix="run.evaluate(EvalSuite().nll(held_out), every=50)",
        )
    metrics = [f"{spec.name}/{metric}" for spec in asked for metric in spec.metrics]
    if run.early_stop is not None and run.early_stop.on not in metrics:
        raise unknown_metric("stop_early(on=...)", run.early_stop.on, metrics)
    if run.saving.best is not None and run.saving.best not in metrics:
        raise unknown_metric("checkpoint(best=...)", run.saving.best, metrics)


def unknown_metric(where: str, metric: str, metrics: Iterable[str]) -> RunError:
    """Return the error that a metric is named which is not measured."""
    known = list(metrics)
    example = known[0] if known else "held_out/nll"
    return RunError(
        f"{where} names a metric that is not measured while training",
        got=repr(metric),
        need=f"one of {', '.join(map(repr, known))}" if known else "run.evaluate(suite, every=50) as well",
        fix=f"run.{where.replace('...', repr(example))}",
    )
