"""Both ways between a suite and the cookbook's evaluators.

Any `SamplingClientEvaluator` or `TrainingClientEvaluator` joins a suite (`EvalSuite.evaluator`), and a suite
becomes the `evaluator_builders` of any of the cookbook's training recipes (`EvalSuite.builders`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer._fields import one_of
from tinker_officer.errors import EvalError
from tinker_officer.evals.importing import imported
from tinker_officer.evals.prepared import Context, Prepared
from tinker_officer.evals.results import LAYERS, EvalResult, Item


if TYPE_CHECKING:
    from tinker_officer.evals.suite import EvalSuite
    from tinker_officer.evals.target import Target

_FIX = 'suite.evaluator("mine", MyEvaluator)  # a class, or a function that returns an evaluator'


@attrs.frozen
class Evaluator:
    """An evaluator of the cookbook's; see `EvalSuite.evaluator`.

    It returns figures and no items: its figures have no interval, and cards are compared by them alone.
    """

    name: str
    build: Callable[[], Any] = attrs.field(validator=attrs.validators.is_callable())
    metric: str | None = None
    higher_is_better: bool = True
    layer: str = attrs.field(default="benchmark", validator=one_of(LAYERS, error=EvalError, fix=_FIX))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The figures that it is known to report."""
        return (self.metric,) if self.metric else ()

    @property
    def size(self) -> int | None:
        """Items: one, the figure itself."""
        return 1

    @property
    def measures(self) -> str:
        """What the figure says."""
        return f"what the cookbook's evaluator {self._class()} reports"

    @property
    def needs(self) -> str:
        """What must be there."""
        return "nothing else"

    def _class(self) -> str:
        return str(getattr(self.build, "__qualname__", type(self.build).__name__))

    def to_dict(self) -> dict[str, Any]:
        """Return the eval as JSON: the builder by the name under which it can be imported.

        Raises:
            EvalError: it cannot be imported.
        """
        path = f"{getattr(self.build, '__module__', '')}:{self._class()}"
        if imported(path) is not self.build:
            raise EvalError(
                f"{self.name!r} cannot be written as JSON",
                got=f"an evaluator built by {path}, which cannot be imported",
                need="a class or a function at the top of a module",
                fix=_FIX,
            )
        return {
            "kind": "evaluator",
            "name": self.name,
            "build": path,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "layer": self.layer,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Return the eval that `to_dict` wrote.

        Raises:
            EvalError: its builder cannot be imported.
        """
        build = imported(str(record["build"]))
        if build is None:
            raise EvalError(
                "an evaluator cannot be rebuilt",
                got=str(record["build"]),
                need="a module that can be imported, with that builder in it",
                fix=_FIX,
            )
        return cls(**{**record, "build": build})

    def cut(self, _n: int) -> Self:
        """Return the same: what it asks is its own affair."""
        return self

    def made(self) -> Any:
        """Return the evaluator.

        Raises:
            EvalError: what was built is none of the cookbook's.
        """
        from tinker_cookbook.eval.evaluators import SamplingClientEvaluator, TrainingClientEvaluator

        evaluator = self.build()
        if not isinstance(evaluator, SamplingClientEvaluator | TrainingClientEvaluator):
            raise EvalError(
                f"{self.name!r} builds no evaluator",
                got=type(evaluator).__name__,
                need="a SamplingClientEvaluator or a TrainingClientEvaluator of tinker_cookbook",
                fix=_FIX,
            )
        return evaluator

    def prepare(self) -> Prepared:
        """Return the eval, ready to run.

        Raises:
            EvalError: what was built is no evaluator.
        """
        evaluator = self.made()

        async def run(target: Target, context: Context) -> EvalResult:
            figures = await evaluator(self._client(evaluator, target))
            context.done()
            return self._result(figures)

        return Prepared(1, run)

    def _client(self, evaluator: Any, target: Target) -> Any:
        from tinker_cookbook.eval.evaluators import SamplingClientEvaluator

        if isinstance(evaluator, SamplingClientEvaluator):
            return target.client
        if target.training is None:
            raise EvalError(
                f"{self.name!r} measures a training client",
                got=f"{target.name!r}, which can only be sampled",
                need="a tinker.TrainingClient",
                fix="suite.evaluate(training_client, on=engine)",
            )
        return target.training

    def _result(self, figures: Any) -> EvalResult:
        good = isinstance(figures, Mapping) and figures
        numbers = {str(key): float(value) for key, value in figures.items()} if good else {}
        chosen = self.metric or next(iter(numbers), "")
        if not math.isfinite(numbers.get(chosen, math.nan)):
            raise EvalError(
                f"{self.name!r} did not report its figure",
                got=f"{figures!r}"[:300],
                need=f"a finite {chosen!r}" if chosen else "figures by name",
                fix='suite.evaluator("mine", MyEvaluator, metric="accuracy")',
            )
        return EvalResult.from_items(
            (Item("all", numbers[chosen]),),
            name=self.name,
            layer=self.layer,
            metric=chosen,
            settings={"kind": "evaluator", "evaluator": self._class()},
            asked=1,
            higher_is_better=self.higher_is_better,
            extra={key: value for key, value in numbers.items() if key != chosen and math.isfinite(value)},
        )


def builders(
    suite: EvalSuite, *, layers: Collection[str] | None, renderer_name: str | None, on: Any
) -> list[Callable[[], Any]]:
    """Return what the cookbook takes as `evaluator_builders`; see `EvalSuite.builders`."""
    from tinker_cookbook.eval.evaluators import SamplingClientEvaluator, TrainingClientEvaluator

    chosen = [spec for spec in suite.evals if layers is None or spec.layer in layers]
    theirs = [
        spec
        for spec in chosen
        if isinstance(spec, Evaluator) and isinstance(spec.made(), TrainingClientEvaluator)
    ]
    ours = attrs.evolve(suite, evals=tuple(spec for spec in chosen if spec not in theirs))

    class Asked(SamplingClientEvaluator):  # type: ignore[misc]  # the cookbook is untyped here
        async def __call__(self, sampling_client: Any) -> dict[str, float]:
            card = await ours.evaluate_async(
                sampling_client, on=on, renderer_name=renderer_name, progress=False
            )
            return card.metrics()

    class Named(TrainingClientEvaluator):  # type: ignore[misc]  # the cookbook is untyped here
        def __init__(self, spec: Evaluator) -> None:
            self.spec, self.evaluator = spec, spec.made()

        async def __call__(self, training_client: Any) -> dict[str, float]:
            figures = await self.evaluator(training_client)
            return {f"{self.spec.name}/{key}": value for key, value in figures.items()}

    made: list[Callable[[], Any]] = [Asked] if ours.evals else []
    return made + [lambda spec=spec: Named(spec) for spec in theirs]
