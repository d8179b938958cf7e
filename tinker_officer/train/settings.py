"""The small values that a `Run` is made of: the optimizer, inline evals, checkpoints, early stopping."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import attrs

from tinker_officer._fields import one_of, real, whole
from tinker_officer.errors import RunError


_RUN = 'Run(plan, name="mine")'
LAYERS = ("nll", "benchmark", "product")
NO_NUMBER = frozenset({"pipeline", "budget"})  # fields of a run's spec that decide no weight: they may change


def _below_one(value: str) -> Any:
    return real(0.0, 0.999999999, error=RunError, fix=f"{_RUN}.optimizer({value})")


def _seconds(value: Any) -> Any:
    return int(value.total_seconds()) if isinstance(value, timedelta) else value


def _layers(names: Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


@attrs.frozen
class Adam:
    """The optimizer's settings, by Tinker's names.

    `eps` is Tinker's own default, 1e-12, not the 1e-8 that one writes after summed losses: our loss is a
    mean (`Sft.reduction`), whose gradient is smaller by the number of trained tokens, and with a small
    `eps` Adam takes the same step for both. `grad_clip_norm` bounds the norm of that mean's gradient; 0
    is no clipping.
    """

    beta1: float = attrs.field(default=0.9, validator=_below_one("beta1=0.9"))
    beta2: float = attrs.field(default=0.95, validator=_below_one("beta2=0.95"))
    eps: float = attrs.field(
        default=1e-12, validator=real(0.0, 1.0, error=RunError, fix=f"{_RUN}.optimizer(eps=1e-12)")
    )
    weight_decay: float = attrs.field(
        default=0.0, validator=real(0.0, 10.0, error=RunError, fix=f"{_RUN}.optimizer(weight_decay=0.0)")
    )
    grad_clip_norm: float = attrs.field(
        default=0.0, validator=real(0.0, error=RunError, fix=f"{_RUN}.optimizer(grad_clip_norm=1.0)")
    )


@attrs.frozen
class Saving:
    """When checkpoints are saved, and which are kept.

    Args:
        every: steps between checkpoints; None saves five times a run (every `steps // 5`, at least 1).
        keep: how many of the newest stay on the server, beside the best and the last; None keeps all.
        best: the metric that chooses the best checkpoint; None takes the early-stopping metric, else the
            first metric that the suite reports.
        ttl_s: seconds after which the server may delete a checkpoint, from an hour to ten years; None is
            never. The best and the last are kept for good once the run has ended.
    """

    every: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(
            whole(1, error=RunError, fix=f"{_RUN}.checkpoint(every=100)"),
        ),
    )
    keep: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(whole(1, error=RunError, fix=f"{_RUN}.checkpoint(keep=3)")),
    )
    best: str | None = None
    ttl_s: int | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(_seconds),
        validator=attrs.validators.optional(
            whole(3600, 10 * 365 * 86400, error=RunError, fix=f"{_RUN}.checkpoint(ttl=timedelta(days=7))")
        ),
    )

    def interval(self, steps: int) -> int:
        """Return the steps between checkpoints of a run of `steps` steps."""
        return self.every or max(1, steps // 5)


def _is_suite(_instance: Any, _attribute: Any, suite: Any) -> None:
    if not (hasattr(suite, "evals") and hasattr(suite, "evaluate")):
        raise RunError(
            "a run is evaluated by a suite",
            got=repr(suite),
            need="an EvalSuite",
            fix=f"{_RUN}.evaluate(EvalSuite().nll(held_out), every=50)",
        )


@attrs.frozen
class Evaluation:
    """A suite that is asked before the first step, every `every` steps and after the last.

    Args:
        suite: an `EvalSuite`, a value.
        every: steps between evaluations; None evaluates before the first step and after the last only.
        layers: which layers of the suite are asked while training.
        beside: train on meanwhile; an answer counts from the next evaluation on.
    """

    suite: Any = attrs.field(validator=_is_suite)
    every: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(
            whole(1, error=RunError, fix=f"{_RUN}.evaluate(suite, every=50)")
        ),
    )
    layers: tuple[str, ...] = attrs.field(
        default=("nll",),
        converter=_layers,
        validator=attrs.validators.deep_iterable(
            one_of(LAYERS, error=RunError, fix=f'{_RUN}.evaluate(suite, layers=("nll",))')
        ),
    )
    beside: bool = False

    def due(self, step: int, steps: int) -> bool:
        """Return whether the suite is asked after `step` of `steps` (0: before the first)."""
        return step in {0, steps} or (self.every is not None and step % self.every == 0)


@attrs.frozen
class EarlyStop:
    """Stop when `on` has not improved in `patience` evaluations in a row."""

    on: str
    patience: int = attrs.field(
        default=3, validator=whole(1, error=RunError, fix=f'{_RUN}.stop_early(on="held_out/nll", patience=3)')
    )


@attrs.frozen
class Pipeline:
    """How far the loop runs ahead of the server. It changes no number, only the time.

    Args:
        depth: steps submitted before the oldest is waited for; 0 waits for each.
        stall_warning_s: seconds without an answer after which the log says what is waited for.
    """

    depth: int = attrs.field(
        default=2, validator=whole(0, 64, error=RunError, fix=f"{_RUN}.pipeline(depth=2)")
    )
    stall_warning_s: float = attrs.field(
        default=60.0, validator=real(0.0, error=RunError, fix=f"{_RUN}.pipeline(stall_warning_s=60)")
    )
