"""What a run minimises, as values: rows become a batch, and the server's answer becomes metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_officer._fields import one_of
from tinker_officer.errors import RunError


if TYPE_CHECKING:
    import tinker

    from tinker_officer.data.conversations import Conversation, Conversations
    from tinker_officer.data.render import TooLong, TrainOn

Floats = NDArray[np.float64]
REDUCTIONS = ("token", "example", "sum")


@attrs.frozen
class Source:
    """Where batches come from: the data, and how a conversation is written in tokens."""

    data: Conversations
    renderer: Any
    max_length: int | None
    train_on: TrainOn
    too_long: TooLong


@attrs.frozen(eq=False)
class Batch:
    """What one step trains on.

    Args:
        step: the step, from 1.
        epoch: the epoch, from 0.
        rows: indices into the data.
        content: digest of the rows' content, in this order.
        where: each row's place, such as `tickets.jsonl:17`.
        datums: what is sent; their weights are scaled by the reduction.
        weights: the unscaled weights of each datum, 0 for prompt tokens.
    """

    step: int
    epoch: int
    rows: tuple[int, ...]
    content: str
    where: tuple[str, ...]
    datums: tuple[tinker.Datum, ...] = attrs.field(repr=False)
    weights: tuple[Floats, ...] = attrs.field(repr=False)

    @property
    def tokens(self) -> int:
        """Tokens that the model reads."""
        return sum(len(weights) for weights in self.weights)

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss counts."""
        return sum(int(np.count_nonzero(weights)) for weights in self.weights)


class Objective(Protocol):
    """What the loop asks of a method. `Sft` is the first; preference, RL and distillation follow."""

    @property
    def loss_fn(self) -> tinker.types.LossFnType:
        """The server's loss function."""

    @property
    def loss_fn_config(self) -> dict[str, float | str] | None:
        """The loss function's settings."""

    def batch(self, step: int, epoch: int, rows: tuple[int, ...], source: Source) -> Batch:
        """Return the batch of `step`."""

    def measure(self, batch: Batch, output: tinker.ForwardBackwardOutput) -> dict[str, float]:
        """Return the metrics of `batch`, from the server's answer."""


@attrs.frozen
class Sft:
    """Supervised fine-tuning: the cross-entropy of the trained tokens.

    Tinker sums the loss over a batch, so what is averaged is settled by the weights that are sent:

    - `token` (the default): the mean over the batch's trained tokens, which is what `train/mean_nll` and
      the held-out NLL report. Long answers count for more than short ones.
    - `example`: the mean over examples of each one's own mean, as the cookbook's `reduction="mean"` up to
      the number of examples.
    - `sum`: Tinker's plain sum, as the cookbook's `reduction="none"`.

    Adam hardly notices the scale, so a learning rate serves all three; `grad_clip_norm`, `eps` and the
    reported `train/grad_norm` do, and with a mean they do not depend on batch size or length.
    """

    reduction: str = attrs.field(
        default="token",
        validator=one_of(REDUCTIONS, error=RunError, fix='Run(plan, name="mine").sft(reduction="token")'),
    )

    @property
    def loss_fn(self) -> tinker.types.LossFnType:
        """The server's loss function."""
        return "cross_entropy"

    @property
    def loss_fn_config(self) -> dict[str, float | str] | None:
        """The loss function has no settings."""
        return None

    def batch(self, step: int, epoch: int, rows: tuple[int, ...], source: Source) -> Batch:
        """Return the batch of `step`, its weights scaled by the reduction."""
        conversations = [source.data[row] for row in rows]
        datums = [_datum(conversation, source) for conversation in conversations]
        weights = [_array(datum, "weights") for datum in datums]
        scaled = [_with_weights(*pair) for pair in zip(datums, scale(weights, self.reduction), strict=True)]
        return Batch(
            step=step,
            epoch=epoch,
            rows=rows,
            content=content_digest(source.data, rows),
            where=tuple(conversation.where for conversation in conversations),
            datums=tuple(scaled),
            weights=tuple(weights),
        )

    def measure(self, batch: Batch, output: tinker.ForwardBackwardOutput) -> dict[str, float]:
        """Return the NLL before the step, in nats, over tokens and over examples."""
        logprobs = [
            one["logprobs"].to_numpy().astype(np.float64).reshape(-1) for one in output.loss_fn_outputs
        ]
        return mean_nlls(logprobs, batch.weights)


def content_digest(data: Conversations, rows: Sequence[int]) -> str:
    """Return a digest of the content of `rows`, in this order, 16 hexadecimal digits."""
    return hashlib.sha256(data.content_digests[list(rows)].tobytes()).hexdigest()[:16]


def scale(weights: Sequence[Floats], reduction: str) -> list[Floats]:
    """Return the weights whose weighted sum of losses is the mean that `reduction` names."""
    if reduction == "sum":
        return list(weights)
    if reduction == "example":
        return [weights_T / (weights_T.sum() * len(weights)) for weights_T in weights]
    total = sum(float(weights_T.sum()) for weights_T in weights)
    return [weights_T / total for weights_T in weights]


def mean_nlls(logprobs: Sequence[Floats], weights: Sequence[Floats]) -> dict[str, float]:
    """Return the mean NLL in nats a trained token, and the mean over examples of each one's own mean."""
    sums = np.array([-(one @ of) for one, of in zip(logprobs, weights, strict=True)])
    totals = np.array([weights_T.sum() for weights_T in weights])
    return {
        "train/mean_nll": float(sums.sum() / totals.sum()),
        "train/mean_nll_by_example": float((sums / totals).mean()),
    }


def from_dict(spec: Mapping[str, Any]) -> Sft:
    """Return the objective that `to_dict` wrote."""
    return Sft(reduction=spec["reduction"])


def to_dict(objective: Sft) -> dict[str, Any]:
    """Return an objective as JSON."""
    return {"method": "sft", **attrs.asdict(objective)}


def _datum(conversation: Conversation, source: Source) -> Any:
    from tinker_officer.data.render import to_datum

    datum = to_datum(
        conversation,
        source.renderer,
        max_length=source.max_length,
        train_on=source.train_on,
        too_long=source.too_long,
    )
    if datum is None:
        raise RunError(
            "a row has nothing to train on, though it was measured to have",
            got=conversation.where,
            need="rows, tokenizer and renderer as they were when the plan was made",
            fix="make the plan again: LoRAPlan.for_(base_model).sft(train)",
        )
    return datum


def _array(datum: Any, key: str) -> Floats:
    values: Floats = datum.loss_fn_inputs[key].to_numpy().astype(np.float64)
    return values


def _with_weights(datum: Any, weights: Floats) -> Any:
    import tinker

    tensor = tinker.TensorData.from_numpy(weights.astype(np.float32))
    return tinker.Datum(
        model_input=datum.model_input, loss_fn_inputs={**datum.loss_fn_inputs, "weights": tensor}
    )
