"""Counts of preference pairs: exactly what training will see, counted before it starts.

Both sides of a pair are counted as conversations are (`measure`); a pair is trained on when both are.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer import _text
from tinker_officer._fields import one_of, whole
from tinker_officer.data.digests import distinct
from tinker_officer.data.measure import RowCounts, measure_rows
from tinker_officer.data.pairs import Answers, Pairs
from tinker_officer.errors import DataError


_FIX = "PairCounts(pairs=20_000, total=8_000_000)"
_COUNT = whole(0, error=DataError, fix=_FIX)
_MAYBE = attrs.validators.optional(_COUNT)


@attrs.frozen(kw_only=True)
class PairCounts:
    """How many preferences there are to learn, and how many tokens to pay for.

    Args:
        pairs: prompts with a chosen and a rejected answer that are trained on.
        total: tokens sent to the model over one epoch, both answers with their prompts; None: not counted.
        truncated: pairs of which an answer is cut at the limit.
        dropped: pairs left out because they are longer than the limit.
        masked: pairs left out because nothing of an answer remains.
        duplicates: pairs that repeat an earlier one.
        max_length: the limit that was applied, in tokens; None for no limit.
        too_long: `truncate` or `drop`.
        renderer_name: the cookbook's name of the renderer.

    Example:
        >>> LoRAPlan.for_("Qwen/Qwen3-8B").dpo(PairCounts(pairs=20_000, total=8_000_000)).steps
        157
    """

    pairs: int = attrs.field(validator=_COUNT)
    total: int | None = attrs.field(default=None, validator=_MAYBE)
    truncated: int = attrs.field(default=0, validator=_COUNT)
    dropped: int = attrs.field(default=0, validator=_COUNT)
    masked: int = attrs.field(default=0, validator=_COUNT)
    duplicates: int = attrs.field(default=0, validator=_COUNT)
    max_length: int | None = attrs.field(default=None, validator=_MAYBE)
    too_long: str = attrs.field(
        default="truncate", validator=one_of(("truncate", "drop"), error=DataError, fix=_FIX)
    )
    renderer_name: str | None = None

    def __attrs_post_init__(self) -> None:
        within = {"truncated": self.truncated, "duplicates": self.duplicates}
        if wrong := {name: value for name, value in within.items() if value > self.pairs}:
            raise DataError(
                "the counts of pairs contradict each other",
                got=f"pairs={self.pairs}, " + ", ".join(f"{name}={value}" for name, value in wrong.items()),
                need="no more truncated or repeated pairs than pairs",
                fix=_FIX,
            )

    @property
    def examples(self) -> int:
        """The pairs: what a batch is made of."""
        return self.pairs

    def explain(self) -> str:
        """Return the counts as text, one a line, with what each means."""
        limit = f"{self.max_length} tokens" if self.max_length else "none"
        rows = [("pairs", f"{self.pairs:,}", "trained on, each with a chosen and a rejected answer")]
        if self.total is not None:
            rows.append(("total tokens", f"{self.total:,}", "sent to the model, prompts included"))
        rows += [
            ("duplicates", f"{self.duplicates:,}", "pairs that repeat an earlier one"),
            ("truncated", f"{self.truncated:,}", f"pairs of which an answer is cut at the limit ({limit})"),
            ("dropped", f"{self.dropped:,}", "pairs left out: an answer is longer than the limit"),
            ("masked", f"{self.masked:,}", "pairs left out: nothing of an answer remains"),
        ]
        return _text.table(rows)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"


@attrs.frozen(eq=False)
class PairRows:
    """What is known of each pair, in order: of its two sides."""

    chosen: RowCounts
    rejected: RowCounts

    @property
    def renderer_name(self) -> str:
        """The cookbook's name of the renderer."""
        return self.chosen.renderer_name

    @property
    def max_length(self) -> int | None:
        """The limit that was applied, in tokens: what was asked, or the model's context."""
        return self.chosen.max_length

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """Which pairs are trained on."""
        return self.chosen.used & self.rejected.used

    def summed(self) -> PairCounts:
        """Return the counts over all pairs."""
        used = self.used
        dropped = self.chosen.dropped | self.rejected.dropped
        over = self.chosen.over | self.rejected.over
        lengths = np.concatenate([side.lengths[used] for side in (self.chosen, self.rejected)])
        kept = lengths if self.max_length is None else np.minimum(lengths, self.max_length)
        # A digest of both digests; the second is turned by a byte, so that the order of the two counts.
        both = self.chosen.digests[used] ^ np.roll(self.rejected.digests[used], 1, axis=1)
        return PairCounts(
            pairs=int(used.sum()),
            total=int((kept.astype(np.int64) - 1).sum()),  # the last token is only ever a target
            truncated=int((over & used).sum()),
            dropped=int(dropped.sum()),
            masked=int((~used & ~dropped).sum()),
            duplicates=int(used.sum()) - distinct(both),
            max_length=self.max_length,
            too_long=self.chosen.too_long,
            renderer_name=self.renderer_name,
        )


def measure_pairs(pairs: Pairs, base_model: str | Path, **rules: Any) -> PairRows:
    """Return what is known of each pair, from the cache where it was measured before.

    Args:
        pairs: the pairs.
        base_model: whose tokenizer and renderer count.
        **rules: as for `measure_rows`.

    Raises:
        ModelError: no such model or renderer.
        DataError: a row cannot be rendered, or a setting is out of range.
    """
    return PairRows(
        chosen=measure_rows(Answers(pairs, "chosen"), base_model, **rules),
        rejected=measure_rows(Answers(pairs, "rejected"), base_model, **rules),
    )
