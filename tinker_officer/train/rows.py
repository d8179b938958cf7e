"""Batches of rows, conversations or preference pairs, in the order that a seed gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

import attrs
import numpy as np

from tinker_officer.errors import RunError
from tinker_officer.train.objective import Batch
from tinker_officer.train.order import Order
from tinker_officer.train.preference import Dpo, RewardModel
from tinker_officer.train.reference import Reference
from tinker_officer.train.rewards import Question
from tinker_officer.train.sft import Sft
from tinker_officer.train.source import Scene, content


if TYPE_CHECKING:
    import tinker

    from tinker_officer.data.conversations import Conversations
    from tinker_officer.data.pairs import Pairs
    from tinker_officer.data.render import TooLong, TrainOn
    from tinker_officer.train.objective import Floats
    from tinker_officer.train.run import Run


class Writer(Protocol):
    """Writes rows in tokens, as a method trains on them."""

    def opened(self, scene: Scene) -> None:
        """Take note that the run is open."""

    def datums(self, row: Any) -> tuple[tinker.Datum, ...] | None:
        """Return what one row becomes; None when nothing of it is left to train on."""

    def batch(self, datums: list[tinker.Datum]) -> tuple[list[tinker.Datum], list[Floats], Any]:
        """Return the datums as they are sent, the weights of their tokens, and what the objective needs."""


@attrs.frozen
class Conversing:
    """Writes conversations, for supervised fine-tuning."""

    objective: Sft
    renderer: Any
    max_length: int | None
    train_on: TrainOn
    too_long: TooLong

    def opened(self, scene: Scene) -> None:
        """Nothing is needed of the server."""

    def datums(self, row: Any) -> tuple[tinker.Datum, ...] | None:
        """Return a conversation's datum."""
        from tinker_officer.data.render import to_datum

        datum = to_datum(
            row, self.renderer, max_length=self.max_length, train_on=self.train_on, too_long=self.too_long
        )
        return None if datum is None else (datum,)

    def batch(self, datums: list[tinker.Datum]) -> tuple[list[tinker.Datum], list[Floats], Any]:
        """Return the datums with their weights scaled."""
        return *self.objective.scaled(datums), None


@attrs.define
class Preferring:
    """Writes pairs, for DPO: the chosen answer, then the rejected one."""

    base_model: str
    origin: str | None
    renderer: Any
    max_length: int | None
    too_long: TooLong
    _reference: Reference | None = attrs.field(init=False, default=None)

    def opened(self, scene: Scene) -> None:
        """Open the reference: the weights that training began with."""
        self._reference = Reference.of(scene, self.base_model, self.origin)

    def datums(self, row: Any) -> tuple[tinker.Datum, ...] | None:
        """Return a pair's two datums."""
        written: tuple[tinker.Datum, ...] | None = row.datums(
            self.renderer, max_length=self.max_length, too_long=self.too_long
        )
        return written

    def batch(self, datums: list[tinker.Datum]) -> tuple[list[tinker.Datum], list[Floats], Any]:
        """Return the datums, and what the reference says of them."""
        from tinker_officer.train.objective import array

        weights = [array(datum, "weights") for datum in datums]
        known = np.zeros(len(datums)) if self._reference is None else self._reference(datums)
        return datums, weights, known


@attrs.frozen
class Scoring:
    """Writes pairs, for a reward model: the question after the chosen answer, then after the rejected."""

    question: Question

    def opened(self, scene: Scene) -> None:
        """Nothing is needed of the server."""

    def datums(self, row: Any) -> tuple[tinker.Datum, ...] | None:
        """Return a pair's two datums."""
        from tinker_officer.data.render import prompt_messages

        sides = [row.conversation(side) for side in ("chosen", "rejected")]
        return tuple(self.question.datum(prompt_messages(side, self.question.renderer)) for side in sides)

    def batch(self, datums: list[tinker.Datum]) -> tuple[list[tinker.Datum], list[Floats], Any]:
        """Return the datums; one place in each counts."""
        weights = []
        for datum in datums:
            one = np.zeros(datum.model_input.length)
            one[-1] = 1.0
            weights.append(one)
        return datums, weights, None


@attrs.frozen
class DataRows:
    """Conversations or pairs as a source: each is written in tokens when its step comes.

    Args:
        data: the rows.
        order: which rows make up which step.
        writer: writes them in tokens.
    """

    data: Conversations | Pairs
    order: Order
    writer: Writer

    @classmethod
    def of(cls, run: Run, renderer_name: str, *, progress: bool | None) -> Self:
        """Return the rows of `run`; those that are dropped, or have no trained token, are left out.

        Raises:
            RunError: the plan has no data, or no row is left.
        """
        from tinker_officer.data.measure import measure_rows
        from tinker_officer.data.pair_counts import measure_pairs
        from tinker_officer.data.render import renderer_for

        plan, objective, data = run.plan, run.objective, run.data
        renderer = renderer_for(plan.base_model, renderer_name)
        rules: Any = {
            "max_length": plan.max_length,
            "too_long": plan.too_long,
            "renderer_name": renderer_name,
            "progress": progress,
        }
        writer: Writer
        if isinstance(objective, Dpo | RewardModel):
            pairs = measure_pairs(data, plan.base_model, **rules)
            used, limit = pairs.used, pairs.max_length
            if isinstance(objective, Dpo):
                writer = Preferring(plan.base_model, run.origin, renderer, limit, plan.too_long)
            else:
                writer = Scoring(Question.of(renderer, max_length=limit))
        elif isinstance(objective, Sft):
            counted = measure_rows(data, plan.base_model, train_on=plan.train_on, **rules)
            used, limit = counted.used, counted.max_length
            writer = Conversing(objective, renderer, limit, plan.train_on, plan.too_long)
        else:
            raise TypeError("rows for an objective that samples its own")
        rows = np.flatnonzero(used).astype(np.int64)
        order = Order(rows, batch_size=plan.batch_size, epochs=plan.epochs, seed=run.order_seed)
        return cls(data, order, writer)

    @property
    def steps(self) -> int:
        """Steps in the whole run."""
        return self.order.steps

    @property
    def ahead(self) -> int | None:
        """Rows can be written at any time."""
        return None

    def opened(self, scene: Scene) -> None:
        """Tell the writer."""
        self.writer.opened(scene)

    def submitted(self, step: int) -> None:
        """Nothing follows from it."""

    def close(self) -> None:
        """Writing ends by itself."""

    def make(self, step: int) -> Batch:
        """Return the batch of `step`."""
        numbers = self.order.batch(step)
        rows = [self.data[number] for number in numbers]
        datums, weights, context = self.writer.batch([datum for row in rows for datum in self._datums(row)])
        return Batch(
            step=step,
            epoch=self.order.epoch(step),
            rows=numbers,
            content=self._content(numbers),
            where=tuple(row.where for row in rows),
            datums=tuple(datums),
            weights=tuple(weights),
            context=context,
        )

    def applied(self, record: Mapping[str, Any]) -> bool:
        """Return whether a record's rows are those of its step, and hold what they held."""
        rows = self.order.batch(record["step"])
        return tuple(record["rows"]) == rows and record["content"] == self._content(rows)

    def text(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the rows of a batch."""
        rows = [(number, self.data[number]) for number in batch.rows]
        parts = ("messages", "prompt", "chosen", "rejected")
        return [
            {
                "row": number,
                "where": row.where,
                **{part: getattr(row, part) for part in parts if hasattr(row, part)},
            }
            for number, row in rows
        ]

    def _content(self, rows: tuple[int, ...]) -> str:
        return content([self.data.content_digests[list(rows)].tobytes()])

    def _datums(self, row: Any) -> tuple[tinker.Datum, ...]:
        datums = self.writer.datums(row)
        if datums is None:
            raise RunError(
                "a row has nothing to train on, though it was measured to have",
                got=row.where,
                need="rows, tokenizer and renderer as they were when the plan was made",
                fix="make the plan again: LoRAPlan.for_(base_model).sft(train)",
            )
        return datums
