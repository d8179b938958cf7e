"""Tokens to money, phase by phase.

A price that nobody gave is unknown, and so is the total: never a partial sum. Prices come from the user:
tinker-cookbook 0.5.8 carries no table of them.
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from tinker_officer.errors import PlanError


_GIGABYTE = 1e9
_BYTES_A_STATE = 12  # float32 weights and AdamW's two moments: what a resumable checkpoint holds


def _price(_instance: Any, attribute: Any, value: Any) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < 0:
        raise PlanError(
            f"the price of {attribute.name} is out of range",
            got=repr(value),
            need="a finite number of at least 0; leave it out where it is not known",
            fix=f"plan.price({attribute.name}=0.44)",
        )


def _field() -> Any:
    return attrs.field(default=None, validator=attrs.validators.optional(_price))


@attrs.frozen
class Prices:
    """What a million tokens cost, by phase, in one currency; None is unknown.

    Attributes:
        train: read by training (forward and backward).
        prefill: read while sampling or scoring, for the first time.
        cached: read again, from the prompt cache.
        sample: written.
        teacher: read by the teacher of a distillation.
        storage: a gigabyte kept for a month.
    """

    train: float | None = _field()
    prefill: float | None = _field()
    cached: float | None = _field()
    sample: float | None = _field()
    teacher: float | None = _field()
    storage: float | None = _field()


@attrs.frozen
class Phase:
    """One line of the bill.

    Attributes:
        name: which of the prices it is billed at.
        tokens: how many tokens; None where that is not known.
        per_million: the price, or None.
        what: which tokens these are, in words.
    """

    name: str
    tokens: float | None
    per_million: float | None
    what: str

    @property
    def total(self) -> float | None:
        """The price of the phase; None when it is not known. Nothing costs nothing, whatever its price."""
        if self.tokens == 0:
            return 0.0
        if self.tokens is None or self.per_million is None:
            return None
        return self.tokens * self.per_million / 1e6


@attrs.frozen
class Cost:
    """What a run costs.

    Attributes:
        phases: the lines of the bill; training comes first.
        parameters: LoRA parameters, which checkpoints hold.
        storage_price: a gigabyte kept for a month, or None.
        source: who gave the prices.
    """

    phases: tuple[Phase, ...]
    parameters: int = 0
    storage_price: float | None = None
    source: str = "given by .price()"

    @property
    def total(self) -> float | None:
        """The whole price; None when any part of it is not known. Storage is a rent, and not part of it."""
        parts = [phase.total for phase in self.phases]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The phases whose price is missing."""
        return tuple(phase.name for phase in self.phases if phase.per_million is None and phase.total is None)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """The phases whose tokens are not known."""
        return tuple(phase.name for phase in self.phases if phase.tokens is None)

    @property
    def train_tokens(self) -> float | None:
        """Tokens that are billed for training: prompts too, once an epoch."""
        return self.phases[0].tokens

    @property
    def per_million(self) -> float | None:
        """The price of a million training tokens, or None."""
        return self.phases[0].per_million

    @property
    def checkpoint_gigabytes(self) -> float:
        """The size of a resumable checkpoint in float32: weights and AdamW's moments."""
        return self.parameters * _BYTES_A_STATE / _GIGABYTE

    @property
    def storage_per_month(self) -> float | None:
        """What keeping one resumable checkpoint for a month costs; None while the price is unknown."""
        return None if self.storage_price is None else self.storage_price * self.checkpoint_gigabytes
