"""A cookbook `SupervisedDataset` as a source: its batches as they are, epoch after epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np

from tinker_officer.errors import RunError
from tinker_officer.train.objective import Batch, array
from tinker_officer.train.preference import Dpo
from tinker_officer.train.reference import Reference, full_sequence
from tinker_officer.train.sft import Sft
from tinker_officer.train.source import Scene, content


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.supervised.types import SupervisedDataset

    from tinker_officer.train.run import Run

_FIX = "Run(plan, name='mine').sft(data=builder()[0])"


@attrs.define
class CookbookRows:
    """Batches that a dataset of the cookbook's makes.

    A batch is asked for by its number, after `set_epoch(epoch)`, as the cookbook's own loop does; so it can
    be made again after a kill, if the dataset keeps that promise.

    Args:
        objective: `Sft`, or `Dpo` with a chosen and a rejected datum in turn.
        data: the dataset.
        epochs: passes over it.
        base_model: the model under the adapter.
        origin: the checkpoint that training starts from, if any.
    """

    objective: Sft | Dpo
    data: SupervisedDataset
    epochs: int
    base_model: str
    origin: str | None
    _epoch: int | None = attrs.field(init=False, default=None)
    _reference: Reference | None = attrs.field(init=False, default=None)

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the batches of `run`.

        Raises:
            RunError: the dataset is empty, or nothing that this objective trains on.
        """
        data, objective = run.data, run.objective
        if not isinstance(objective, Sft | Dpo) or not hasattr(data, "get_batch") or len(data) == 0:
            raise RunError(
                "this data cannot be trained on",
                got=f"{type(data).__name__} for {objective.describe()}",
                need="a SupervisedDataset of the cookbook's with at least one batch",
                fix=_FIX,
            )
        return cls(objective, data, run.plan.epochs, run.plan.base_model, run.origin)

    @property
    def steps(self) -> int:
        """Steps in the whole run."""
        return len(self.data) * self.epochs

    @property
    def ahead(self) -> int | None:
        """Batches can be made at any time."""
        return None

    def opened(self, scene: Scene) -> None:
        """Open the reference that DPO needs."""
        if isinstance(self.objective, Dpo):
            self._reference = Reference.of(scene, self.base_model, self.origin)

    def submitted(self, step: int) -> None:
        """Nothing follows from it."""

    def close(self) -> None:
        """Making batches ends by itself."""

    def make(self, step: int) -> Batch:
        """Return the batch of `step`."""
        epoch, index = divmod(step - 1, len(self.data))
        made = self._made(epoch, index)
        weights, context = [array(datum, "weights") for datum in made], None
        datums = made
        if isinstance(self.objective, Sft):
            datums, weights = self.objective.scaled(made)
        elif self._reference is not None:
            context = self._reference(made)
        else:
            context = np.zeros(len(made))
        return Batch(
            step=step,
            epoch=epoch,
            rows=(index,),
            content=_content(made),
            where=(f"batch {index} of {type(self.data).__name__}, epoch {epoch}",),
            datums=tuple(datums),
            weights=tuple(weights),
            context=context,
        )

    def applied(self, record: Mapping[str, Any]) -> bool:
        """Return whether a record says what its step's batch is; its content is for `make` to repeat."""
        return tuple(record["rows"]) == ((record["step"] - 1) % len(self.data),)

    def text(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the tokens of a batch, and their text."""
        from tinker_officer._models import load_tokenizer

        tokenizer = load_tokenizer(self.base_model)
        tokens = [full_sequence(datum).to_ints() for datum in batch.datums]
        return [{"where": batch.where[0], "text": tokenizer.decode(one), "tokens": one} for one in tokens]

    def _made(self, epoch: int, index: int) -> list[tinker.Datum]:
        if epoch != self._epoch:
            self.data.set_epoch(seed=epoch)
            self._epoch = epoch
        made = list(self.data.get_batch(index))
        whole = len(made) - (len(made) % 2 if isinstance(self.objective, Dpo) else 0)
        trained = [datum for datum in made[:whole] if array(datum, "weights").any()]
        if not trained or (len(trained) != whole and isinstance(self.objective, Dpo)):
            raise RunError(
                "a batch of the dataset has nothing to train on",
                got=f"batch {index} of epoch {epoch}: {len(made)} datums, {len(trained)} that train a token",
                need="at least one datum with a weight above 0; for DPO, pairs that both have one",
                fix="leave such rows out of the dataset, or raise its max_length",
            )
        return trained


def _content(datums: list[tinker.Datum]) -> str:
    parts = ((array(datum, "target_tokens"), array(datum, "weights")) for datum in datums)
    return content(part.tobytes() for pair in parts for part in pair)
