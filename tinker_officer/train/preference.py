"""Learning from preferences: DPO, and a reward model that gives one answer a number."""

# ruff: noqa: N803, N806 - names carry their axes (house rule 5)

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import numpy as np

from tinker_officer._fields import real
from tinker_officer.errors import RunError
from tinker_officer.train.objective import Batch, Floats, logprobs


if TYPE_CHECKING:
    import tinker


@attrs.frozen
class Dpo:
    """Direct preference optimisation: prefer the chosen answer, more than the initial weights do.

    The loss of a pair is `-log sigmoid(beta * (r(chosen) - r(rejected)))`, where `r` is the log-probability
    of an answer minus what the initial weights gave it; a batch takes the mean over its pairs. It runs as
    `forward_backward_custom`: the server's forward pass, this loss here, and the server's forward and
    backward passes, so a step costs about four thirds of one with a loss that the server knows.

    Source:
        Rafailov et al. 2023, "Direct Preference Optimization", arXiv:2305.18290.
    """

    beta: float = attrs.field(
        default=0.1, validator=real(0.0, error=RunError, fix="plan.dpo(pairs, dpo_beta=0.1)", open_low=True)
    )

    method: ClassVar[str] = "dpo"
    headline: ClassVar[str] = "train/dpo_loss"
    loss_fn: ClassVar[tinker.types.LossFnType] = "cross_entropy"
    loss_fn_config: ClassVar[dict[str, float | str] | None] = None

    def submit(self, client: tinker.TrainingClient, batch: Batch) -> Any:
        """Send `batch` forward, and backward with the gradient of the loss."""
        reference_D: Floats = batch.context

        def loss(_: Any, logprobs_D_T: Sequence[Any]) -> tuple[Any, dict[str, float]]:
            rewards = [
                self.beta * (_weighted(one, weights) - float(known))
                for one, weights, known in zip(logprobs_D_T, batch.weights, reference_D, strict=True)
            ]
            return _bradley_terry(rewards), {}

        return client.forward_backward_custom(list(batch.datums), loss)

    def measure(self, batch: Batch, output: tinker.ForwardBackwardOutput) -> dict[str, float]:
        """Return the loss, and what the policy thinks of the pairs, before the step.

        `train/accuracy` is the share of pairs whose chosen answer gained more than the rejected one;
        rewards and their margin are in units of the loss, `beta` times nats.
        """
        sums = [float(one @ weights) for one, weights in zip(logprobs(output), batch.weights, strict=True)]
        return {
            f"train/{name}": value for name, value in dpo_metrics(sums, batch.context, beta=self.beta).items()
        }

    def describe(self) -> str:
        """Return the loss in words."""
        return f"DPO with beta {self.beta:g}, mean over each batch's pairs"


@attrs.frozen
class RewardModel:
    """A reward model: one number for one answer, learned from which of two is better (Bradley-Terry).

    The loss of a pair is `-log sigmoid(s(chosen) - s(rejected))`. Tinker serves no scalar head, so the
    number `s` is read off the language model: after the answer it is asked whether it was good, and `s`
    is the log-probability of one word less that of another (`rewards.py`). As a difference of two logits
    it is linear in the last hidden state, as a scalar head would be; its two rows of the unembedding are
    where that head begins.
    """

    method: ClassVar[str] = "reward_model"
    headline: ClassVar[str] = "train/reward_loss"
    loss_fn: ClassVar[tinker.types.LossFnType] = "cross_entropy"
    loss_fn_config: ClassVar[dict[str, float | str] | None] = None

    def submit(self, client: tinker.TrainingClient, batch: Batch) -> Any:
        """Send `batch` forward, and backward with the gradient of the loss."""

        def loss(_: Any, logprobs_D_T: Sequence[Any]) -> tuple[Any, dict[str, float]]:
            return _bradley_terry([one[-1, 0] - one[-1, 1] for one in logprobs_D_T]), {}

        return client.forward_backward_custom(list(batch.datums), loss)

    def measure(self, batch: Batch, output: tinker.ForwardBackwardOutput) -> dict[str, float]:
        """Return the loss, the share of pairs that are scored the right way round, and the scores."""
        del batch
        scores_D = np.array(
            [np.subtract(*one["logprobs"].to_numpy().reshape(-1, 2)[-1]) for one in output.loss_fn_outputs],
            dtype=np.float64,
        )
        margins_P = scores_D[0::2] - scores_D[1::2]
        return {
            "train/reward_loss": float(np.logaddexp(0.0, -margins_P).mean()),
            "train/accuracy": float((margins_P > 0).mean()),
            "train/margin": float(margins_P.mean()),
            "train/chosen_reward": float(scores_D[0::2].mean()),
            "train/rejected_reward": float(scores_D[1::2].mean()),
        }

    def describe(self) -> str:
        """Return the loss in words."""
        return "Bradley-Terry on the scores of both answers, mean over each batch's pairs"


def dpo_metrics(sums_D: Sequence[float] | Floats, reference_D: Floats, *, beta: float) -> dict[str, float]:
    """Return DPO's loss and its parts, from the summed log-probabilities of answers.

    Args:
        sums_D: under the policy, chosen and rejected in turn, nats, shape `(D,)`.
        reference_D: under the initial weights, shape `(D,)`.
        beta: the strength of the tie to them.
    """
    rewards_D = beta * (np.asarray(sums_D) - reference_D)
    chosen_P, rejected_P = rewards_D[0::2], rewards_D[1::2]
    return {
        "dpo_loss": float(np.logaddexp(0.0, rejected_P - chosen_P).mean()),
        "accuracy": float((chosen_P > rejected_P).mean()),
        "margin": float((chosen_P - rejected_P).mean()),
        "chosen_reward": float(chosen_P.mean()),
        "rejected_reward": float(rejected_P.mean()),
    }


def _weighted(logprobs_T: Any, weights: Floats) -> Any:
    """Return the weighted sum of a torch tensor, in float64."""
    wide = logprobs_T.double()
    return (wide * wide.new_tensor(weights)).sum()


def _bradley_terry(scores: Sequence[Any]) -> Any:
    """Return the mean of `-log sigmoid(chosen - rejected)` over pairs, as a torch tensor."""
    margins = [chosen - rejected for chosen, rejected in zip(scores[0::2], scores[1::2], strict=True)]
    losses = [margin.new_zeros(()).logaddexp(-margin) for margin in margins]
    return sum(losses[1:], losses[0]) / len(losses)
