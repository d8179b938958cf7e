"""What a pilot found: its arms, and the learning rate that they point to, or why they point to none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from tinker_officer._text import significant, table
from tinker_officer.errors import PlanError
from tinker_officer.plan.sourced import Sourced


@attrs.frozen
class Arm:
    """One short run of a pilot.

    Attributes:
        learning_rate: its peak learning rate.
        replicate: 0, or 1 for the second run at the centre.
        steps: optimizer steps done.
        nll: held-out loss at its end, nats per trained token; None when it was stopped.
        stopped: why it was stopped, or None.
    """

    learning_rate: float
    replicate: int
    steps: int
    nll: float | None
    stopped: str | None = None

    @property
    def name(self) -> str:
        """The arm's name, the same in every start of a pilot: `lr-4.700e-04` or `lr-4.700e-04-again`."""
        written = f"{self.learning_rate:.3e}".replace("+", "")  # a name may not hold a plus
        return f"lr-{written}" + ("-again" if self.replicate else "")


@attrs.frozen
class PilotFit:
    """The result of a pilot, a value that a plan carries.

    Attributes:
        base_model: the model.
        rank: the rank that the arms had.
        batch_size: examples a step.
        steps: steps of a whole arm.
        start_nll: held-out loss before training.
        held_out: conversations that the loss is over.
        arms: every arm, by learning rate.
        learning_rate: the fitted rate; None when the fit is refused.
        interval: where the best rate is expected; None when the fit is refused.
        curvature: second derivative of the loss in ln(learning rate) at the fit, in nats; None likewise.
        noise: standard deviation that a run's loss was taken to have, in nats.
        lowest: the loss at the fitted rate, by the parabola, nats a token; None when the fit is refused.
        refused: why the arms settle nothing, or None.
        doubts: what to know of a fit that is not refused.
    """

    base_model: str
    rank: int
    batch_size: int
    steps: int
    start_nll: float
    held_out: int
    arms: tuple[Arm, ...]
    learning_rate: float | None
    interval: tuple[float, float] | None
    curvature: float | None
    noise: float
    lowest: float | None = None
    refused: str | None = None
    doubts: tuple[str, ...] = ()

    def sourced(self, rank: int, *, exponent: float) -> Sourced[float]:
        """Return the fitted rate for a plan of `rank`, moved by (rank / the pilot's)^`exponent`.

        Raises:
            PlanError: the fit was refused, so there is no rate.
        """
        if self.learning_rate is None or self.interval is None:
            raise PlanError(
                "the pilot settled no learning rate",
                got=self.refused or "no fit",
                need="a pilot whose fit was not refused",
                fix="print(plan.pilot_fit.explain())",
            )
        moved = (rank / self.rank) ** exponent
        doubts = self.doubts
        if rank != self.rank:
            doubts = (*doubts, f"the pilot ran at rank {self.rank}; moved by (r/{self.rank})^{exponent:.2f}")
        low, high = self.interval
        return Sourced(
            significant(self.learning_rate * moved),
            f"pilot: {len(self.arms)} runs of {self.steps} steps on this data, parabola through the best",
            interval=(significant(low * moved), significant(high * moved)),
            doubts=doubts,
        )

    def explain(self) -> str:
        """Return the pilot as text: every arm, the fitted rate, and how sure it is."""
        rows = [
            (
                f"{arm.learning_rate:.2e}" + (" again" if arm.replicate else ""),
                arm.steps,
                "" if arm.nll is None else f"{arm.nll:.4f}",
                arm.stopped or "",
            )
            for arm in self.arms
        ]
        shown = table(rows, header=("learning rate", "steps", "held-out NLL", ""))
        head = (
            f"Pilot of {self.base_model}: rank {self.rank}, batch {self.batch_size}, {self.steps} steps an "
            f"arm; held-out NLL over {self.held_out:,} conversations, {self.start_nll:.4f} before training"
        )
        if self.learning_rate is None or self.interval is None:
            end = [f"No rate is taken from it: {self.refused}."]
        else:
            low, high = self.interval
            end = [
                f"Best rate {significant(self.learning_rate):.1e}, expected within {low:.1e} to {high:.1e}.",
                f"Two runs that differ by chance alone would differ by about {self.noise:.1e} nats.",
            ]
        return "\n".join([head, shown, *end, *(f"? {doubt}" for doubt in self.doubts)])

    def plot(self, path: str | Path) -> Path:
        """Draw the arms and the fit; the ending of `path` says how (`.svg`, `.png`, `.pdf`)."""
        from tinker_officer.plan.pilot_plot import draw

        return draw(self, Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            **attrs.asdict(self),
            "arms": [attrs.asdict(arm) for arm in self.arms],
            "interval": list(self.interval) if self.interval else None,
            "doubts": list(self.doubts),
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Return the result that `to_dict` wrote.

        Raises:
            PlanError: it is no pilot's result.
        """
        try:
            interval = body["interval"]
            return cls(
                **{
                    **body,
                    "arms": tuple(Arm(**arm) for arm in body["arms"]),
                    "interval": (interval[0], interval[1]) if interval else None,
                    "doubts": tuple(body["doubts"]),
                }
            )
        except (KeyError, TypeError, IndexError) as error:
            raise PlanError(
                "this is not a pilot's result",
                got=f"{type(error).__name__}: {error}",
                need="what PilotFit.to_dict() writes",
                fix="plan.pilot(train, held_out, on=engine)",
            ) from error
