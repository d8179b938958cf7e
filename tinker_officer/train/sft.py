"""Supervised fine-tuning: the cross-entropy of the trained tokens, and what it is averaged over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import numpy as np

from tinker_officer._fields import one_of
from tinker_officer.errors import RunError
from tinker_officer.train.objective import Batch, Floats, array, logprobs


if TYPE_CHECKING:
    import tinker

REDUCTIONS = ("token", "example", "sum")


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

    Examples are never packed into one sequence, so no answer sees another's tokens, and the loss of a
    batch does not depend on which examples happened to share a row. (The embedded engine lays them side
    by side to save padding, each with its own attention: the loss is the same.)
    """

    reduction: str = attrs.field(
        default="token",
        validator=one_of(REDUCTIONS, error=RunError, fix='Run(plan, name="mine").sft(reduction="token")'),
    )

    method: ClassVar[str] = "sft"
    headline: ClassVar[str] = "train/mean_nll"

    @property
    def loss_fn(self) -> tinker.types.LossFnType:
        """The server's loss function."""
        return "cross_entropy"

    @property
    def loss_fn_config(self) -> dict[str, float | str] | None:
        """The loss function has no settings."""
        return None

    def scaled(self, datums: Sequence[tinker.Datum]) -> tuple[list[tinker.Datum], list[Floats]]:
        """Return the datums as they are sent, and what their tokens weighed before."""
        weights = [array(datum, "weights") for datum in datums]
        pairs = zip(datums, scale(weights, self.reduction), strict=True)
        return [_with_weights(*pair) for pair in pairs], weights

    def submit(self, client: tinker.TrainingClient, batch: Batch) -> Any:
        """Send `batch` forward and backward."""
        return client.forward_backward(list(batch.datums), self.loss_fn)

    def measure(self, batch: Batch, output: tinker.ForwardBackwardOutput) -> dict[str, float]:
        """Return the NLL before the step, in nats, over tokens and over examples."""
        return mean_nlls(logprobs(output), batch.weights)

    def describe(self) -> str:
        """Return the loss in words."""
        if self.reduction == "sum":
            return "cross-entropy, summed over each batch"
        return f"cross-entropy, mean over each batch's {self.reduction}s"


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


def _with_weights(datum: Any, weights: Floats) -> Any:
    import tinker

    tensor = tinker.TensorData.from_numpy(weights.astype(np.float32))
    return tinker.Datum(
        model_input=datum.model_input, loss_fn_inputs={**datum.loss_fn_inputs, "weights": tensor}
    )
