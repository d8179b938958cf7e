"""Conversations as training examples: how many there are is known before training, each is made when asked.

    examples = Examples.of(train, base_model, max_length=1024)
    datum = examples[17]

Conversations that are dropped for their length, or left without a trained token, are not among them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer.data.conversations import Conversations
from tinker_officer.data.measure import RowCounts, TokenCounts, measure_rows
from tinker_officer.data.render import TooLong, TrainOn, renderer_for, to_datum
from tinker_officer.data.rows import changed


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.renderers import Renderer


@attrs.frozen(eq=False, repr=False)
class Examples:
    """The examples of `conversations` for one model and one set of rules. Made by `Examples.of`."""

    conversations: Conversations
    base_model: str
    rows: RowCounts
    indices: npt.NDArray[np.intp]

    @classmethod
    def of(
        cls,
        conversations: Conversations,
        base_model: str | Path,
        *,
        max_length: int | None = None,
        train_on: TrainOn = "last",
        too_long: TooLong = "truncate",
        renderer_name: str | None = None,
        progress: bool | None = None,
    ) -> Self:
        """Measure `conversations` (cached) and return their examples; arguments as in `measure`.

        Raises:
            ModelError: no such model or renderer.
            DataError: a row cannot be rendered, or a setting is out of range.
        """
        rows = measure_rows(
            conversations,
            base_model,
            max_length=max_length,
            train_on=train_on,
            too_long=too_long,
            renderer_name=renderer_name,
            progress=progress,
        )
        return cls(conversations, str(base_model), rows, np.flatnonzero(rows.used))

    @property
    def renderer_name(self) -> str:
        """The cookbook's name of the renderer."""
        return self.rows.renderer_name

    @property
    def renderer(self) -> Renderer:
        """The cookbook renderer."""
        return renderer_for(self.base_model, self.renderer_name)

    @property
    def max_length(self) -> int | None:
        """The limit in tokens: what was asked, or the model's context."""
        return self.rows.max_length

    @property
    def counts(self) -> TokenCounts:
        """The token counts of all of them."""
        return self.rows.summed()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tinker.Datum:
        """Return example `index` as a datum, `target_tokens` and `weights` of length T.

        Raises:
            DataError: the row is no longer what was measured.
        """
        conversation = self.conversations[int(self.indices[index])]
        datum = to_datum(
            conversation, self.renderer, max_length=self.rows.max_length, train_on=self.rows.train_on
        )
        if datum is None:
            raise changed(self.conversations.source, conversation.where, "no trained token is left")
        return datum

    def __repr__(self) -> str:
        return f"<Examples: {len(self)} of {len(self.conversations)} conversations, {self.renderer_name}>"
