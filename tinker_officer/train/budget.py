"""Budgets: a run stops cleanly when its tokens, its money or its hours are used up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer._fields import real, whole
from tinker_officer._text import count, duration
from tinker_officer.errors import RunError
from tinker_officer.train.folder import RunFolder


if TYPE_CHECKING:
    from tinker_officer.train.declared import Declared
    from tinker_officer.train.run import Run

USED_UP = "budget used up"  # how the reason of such an end begins
_HOUR_S = 3600.0
_FIX = 'Run(plan, name="mine").budget(tokens=2_000_000, money=5, hours=8)'


@attrs.frozen
class Budget:
    """What a run may use; None is no limit.

    Args:
        tokens: read by the steps that count, prompts included. A repeated step counts once, so the run stops
            at the same step whether or not it was interrupted.
        money: for training tokens at the plan's price, those of repeated steps included; evaluations are not.
        hours: of training, over all attempts; a step under way is finished.
    """

    tokens: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(whole(1, error=RunError, fix=_FIX))
    )
    money: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(real(0.0, error=RunError, fix=_FIX, open_low=True))
    )
    hours: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(real(0.0, error=RunError, fix=_FIX, open_low=True))
    )

    def __str__(self) -> str:
        named = (
            ("tokens", None if self.tokens is None else count(self.tokens)),
            ("in money", self.money),
            ("hours", self.hours),
        )
        return ", ".join(f"{value} {name}" for name, value in named if value is not None) or "none"


@attrs.define
class Spending:
    """What a run has used so far, over all attempts.

    Args:
        budget: its limits.
        price: of a million training tokens; None is unknown.
        tokens: of the steps that count.
        lost_tokens: of steps that had to be repeated.
        elapsed_s: seconds of training before this session.
    """

    budget: Budget
    price: float | None
    tokens: int
    lost_tokens: int
    elapsed_s: float
    _under_way: int = attrs.field(init=False, default=0)
    _began: float = attrs.field(init=False, factory=time.monotonic)

    @classmethod
    def of(cls, run: Run, folder: RunFolder) -> Self:
        """Return what the run in `folder` has used; it is rolled back to where it goes on."""
        return cls(
            run.limits,
            run.plan.prices.train,
            tokens=sum(record.get("train/total_tokens", 0) for record in folder.metrics),
            lost_tokens=sum(record.get("lost_tokens", 0) for record in folder.ledger),
            elapsed_s=_elapsed_s(folder),
        )

    def seconds(self) -> float:
        """Return the seconds of training so far, over all attempts."""
        return self.elapsed_s + time.monotonic() - self._began

    def submit(self, tokens: int) -> None:
        """Count a step that is on its way."""
        self._under_way += tokens

    def take(self, tokens: int) -> dict[str, float]:
        """Count a step that was on its way; return what those so far have cost, where that is known."""
        self._under_way -= tokens
        self.tokens += tokens
        cost = self._cost(self.tokens)
        return {} if cost is None else {"cost/train": cost}

    def _cost(self, tokens: int) -> float | None:
        return None if self.price is None else tokens * self.price / 1e6

    def over(self) -> str | None:
        """Return which limit is reached, in words, or None."""
        limit, counted = self.budget, self.tokens + self._under_way
        if limit.tokens is not None and counted >= limit.tokens:
            return f"{USED_UP}: {counted:,} of {limit.tokens:,} tokens"
        cost = self._cost(counted + self.lost_tokens)
        if limit.money is not None and cost is not None and cost >= limit.money:
            return f"{USED_UP}: {cost:.4g} of {limit.money:g} in money"
        if limit.hours is not None and self.seconds() >= limit.hours * _HOUR_S:
            return f"{USED_UP}: {duration(self.seconds())} of {limit.hours:g} hours"
        return None


def carried_over(folder: RunFolder, done: int) -> dict[str, Any]:
    """Return what an attempt's record says of those before it, before their metrics are rolled back.

    Args:
        folder: the run's folder.
        done: the step that the run goes on from; what was trained after it is lost.
    """
    lost = sum(record.get("train/total_tokens", 0) for record in folder.metrics if record["step"] > done)
    return {"lost_tokens": lost, "elapsed_s": round(_elapsed_s(folder), 3)}


def _elapsed_s(folder: RunFolder) -> float:
    metrics = (record.get("time/elapsed_s", 0.0) for record in folder.metrics)
    attempts = (record.get("elapsed_s", 0.0) for record in folder.ledger)
    return max((*metrics, *attempts), default=0.0)


def check_price(run: Declared) -> None:
    """Check that a budget in money can be counted.

    Raises:
        RunError: the plan has no price for training tokens.
    """
    if run.limits.money is not None and run.plan.prices.train is None:
        raise RunError(
            "a budget in money needs a price",
            got=f"money={run.limits.money:g}, and a plan without a price for training tokens",
            need="the price of a million training tokens, in the same currency",
            fix='Run(plan.price(train=0.44), name="mine").budget(money=5)',
        )
