"""What the loop asks of a method: a batch is made, sent, and its answer measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray


if TYPE_CHECKING:
    import tinker

Floats = NDArray[np.float64]


@attrs.frozen(eq=False)
class Batch:
    """What one step trains on.

    Args:
        step: the step, from 1.
        epoch: the epoch, from 0.
        rows: indices into the data.
        content: digest of what the rows hold, in this order.
        where: each row's place, such as `tickets.jsonl:17`.
        datums: what is sent.
        weights: of each datum, what its tokens count in the loss: 0 for prompt tokens.
        measured: metrics that were known before the step, such as rewards.
        noted: what else the ledger keeps of the batch.
        context: what the objective needs beside the datums.
    """

    step: int
    epoch: int
    rows: tuple[int, ...]
    content: str
    where: tuple[str, ...]
    datums: tuple[tinker.Datum, ...] = attrs.field(repr=False)
    weights: tuple[Floats, ...] = attrs.field(repr=False)
    measured: Mapping[str, float] = attrs.field(factory=dict, repr=False)
    noted: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    context: Any = attrs.field(default=None, repr=False)

    @property
    def tokens(self) -> int:
        """Tokens that the model reads."""
        return sum(len(weights) for weights in self.weights)

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss counts."""
        return sum(int(np.count_nonzero(weights)) for weights in self.weights)


class Objective(Protocol):
    """What the loop asks of a method, once its batches are made."""

    method: ClassVar[str]
    """The plan's name of the method."""

    headline: ClassVar[str]
    """The metric that progress shows."""

    @property
    def loss_fn(self) -> tinker.types.LossFnType:
        """The server's loss function, which also takes the datums in a forward pass."""

    @property
    def loss_fn_config(self) -> dict[str, float | str] | None:
        """The loss function's settings."""

    def submit(self, client: tinker.TrainingClient, batch: Batch) -> Any:
        """Send `batch` forward and backward; return the future of the answer."""

    def measure(self, batch: Batch, output: tinker.ForwardBackwardOutput) -> dict[str, float]:
        """Return the metrics of `batch`, from the server's answer."""

    def describe(self) -> str:
        """Return the loss in words, for `Run.explain`."""


def array(datum: Any, key: str) -> Floats:
    """Return an input of a datum's loss, one number a token."""
    values: Floats = datum.loss_fn_inputs[key].to_numpy().astype(np.float64)
    return values


def logprobs(output: tinker.ForwardBackwardOutput) -> list[Floats]:
    """Return the log-probabilities that the server answered with, one array a datum, nats."""
    return [one["logprobs"].to_numpy().astype(np.float64).reshape(-1) for one in output.loss_fn_outputs]
