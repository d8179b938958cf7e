"""Batches of conversations, in the order that a seed gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np

from tinker_officer.errors import RunError
from tinker_officer.train.objective import Batch
from tinker_officer.train.order import Order
from tinker_officer.train.sft import Sft
from tinker_officer.train.source import Scene, content


if TYPE_CHECKING:
    import tinker

    from tinker_officer.data.conversations import Conversation, Conversations
    from tinker_officer.data.render import TooLong, TrainOn
    from tinker_officer.train.run import Run


@attrs.frozen
class ConversationRows:
    """Conversations as a source: each is written in tokens when its step comes.

    Args:
        objective: scales the weights.
        data: the conversations.
        order: which rows make up which step.
        renderer: writes a conversation in tokens.
        max_length: tokens a row may have.
        train_on: the `last` assistant turn, or `all` of them.
        too_long: what happens to a longer row.
    """

    objective: Sft
    data: Conversations
    order: Order
    renderer: Any
    max_length: int | None
    train_on: TrainOn
    too_long: TooLong

    @classmethod
    def of(cls, run: Run, renderer_name: str, *, progress: bool | None) -> Self:
        """Return the rows of `run`; those that are dropped, or have no trained token, are left out.

        Raises:
            RunError: the plan has no data, or no row is left.
        """
        from tinker_officer.data.measure import measure_rows
        from tinker_officer.data.render import renderer_for

        plan = run.plan
        counted = measure_rows(
            run.data,
            plan.base_model,
            max_length=plan.max_length,
            train_on=plan.train_on,
            too_long=plan.too_long,
            renderer_name=renderer_name,
            progress=progress,
        )
        rows = np.flatnonzero(counted.used).astype(np.int64)
        order = Order(rows, batch_size=plan.batch_size, epochs=plan.epochs, seed=run.order_seed)
        renderer = renderer_for(plan.base_model, renderer_name)
        return cls(run.objective, run.data, order, renderer, counted.max_length, plan.train_on, plan.too_long)

    @property
    def steps(self) -> int:
        """Steps in the whole run."""
        return self.order.steps

    @property
    def ahead(self) -> int | None:
        """Rows can be rendered at any time."""
        return None

    def opened(self, scene: Scene) -> None:
        """Nothing is needed of the server."""

    def submitted(self, step: int) -> None:
        """Nothing follows from it."""

    def close(self) -> None:
        """Rendering ends by itself."""

    def make(self, step: int) -> Batch:
        """Return the batch of `step`, its weights scaled as the objective says."""
        rows = self.order.batch(step)
        conversations = [self.data[row] for row in rows]
        datums, weights = self.objective.scaled([self._datum(one) for one in conversations])
        return Batch(
            step=step,
            epoch=self.order.epoch(step),
            rows=rows,
            content=self._content(rows),
            where=tuple(conversation.where for conversation in conversations),
            datums=tuple(datums),
            weights=tuple(weights),
        )

    def applied(self, record: Mapping[str, Any]) -> bool:
        """Return whether a record's rows are those of its step, and hold what they held."""
        rows = self.order.batch(record["step"])
        return tuple(record["rows"]) == rows and record["content"] == self._content(rows)

    def text(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the conversations of a batch."""
        return [
            {"row": row, "where": self.data[row].where, "messages": self.data[row].messages}
            for row in batch.rows
        ]

    def _content(self, rows: tuple[int, ...]) -> str:
        return content([self.data.content_digests[list(rows)].tobytes()])

    def _datum(self, conversation: Conversation) -> tinker.Datum:
        from tinker_officer.data.render import to_datum

        datum = to_datum(
            conversation,
            self.renderer,
            max_length=self.max_length,
            train_on=self.train_on,
            too_long=self.too_long,
        )
        if datum is None:
            raise RunError(
                "a row has nothing to train on, though it was measured to have",
                got=conversation.where,
                need="rows, tokenizer and renderer as they were when the plan was made",
                fix="make the plan again: LoRAPlan.for_(base_model).sft(train)",
            )
        return datum
