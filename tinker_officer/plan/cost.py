"""Tokens to money. A price that nobody gave is unknown, and so is the total: never a partial sum."""

from __future__ import annotations

import attrs


@attrs.frozen
class Cost:
    """What a run costs.

    Attributes:
        train_tokens: tokens that are billed for training: prompts too, once an epoch.
        per_million: the price of a million of them, or None.
        source: who gave the price.
    """

    train_tokens: int
    per_million: float | None
    source: str = "given by .price()"

    @property
    def total(self) -> float | None:
        """The whole price, in the currency of `per_million`; None when it is not known."""
        return None if self.per_million is None else self.train_tokens * self.per_million / 1e6
