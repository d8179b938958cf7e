"""Reinforcement learning: how episodes are sampled, what their rewards become, and the loss."""

# ruff: noqa: N806 - names carry their axes (house rule 5)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import numpy as np

from tinker_officer._fields import one_of, real, whole
from tinker_officer.errors import RunError
from tinker_officer.train.objective import Batch, Floats, array, logprobs


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.rl.types import Trajectory, TrajectoryGroup

_FIX = 'Run(plan, name="mine").rl(groups, max_tokens=256)'
LOSSES: dict[str, tuple[str, ...]] = {
    "importance_sampling": (),
    "ppo": ("clip_low_threshold", "clip_high_threshold"),
    "cispo": ("clip_low_threshold", "clip_high_threshold"),
    "gspo": ("clip_low_threshold", "clip_high_threshold"),
    "dro": ("beta",),
}
_CUT = frozenset({"max_tokens", "max_sampled_tokens", "context_overflow"})


def _pairs(settings: Mapping[str, float] | Sequence[Sequence[Any]]) -> tuple[tuple[str, float], ...]:
    items = settings.items() if isinstance(settings, Mapping) else settings
    return tuple(sorted((str(name), float(value)) for name, value in items))


@attrs.frozen
class Rl:
    """Policy gradients on groups of episodes: an episode's advantage is its reward less its group's mean.

    The losses are the server's, by its names and with its settings; each is a sum over tokens of a function
    of the ratio between the policy that is trained and the one that sampled.

    Args:
        loss_fn: `importance_sampling`, `ppo`, `cispo`, `gspo` or `dro`.
        settings: of the loss, such as `{"clip_low_threshold": 0.8}`; the server's own where none is given.
        max_tokens: of one answer.
        temperature: of the sampling; other than 1 the log-probabilities are not those of the samples.
        kl_penalty_coef: how much a nat a token away from the reference costs; 0 asks no reference.
        kl_discount_factor: spreads that cost to the tokens before it; 0 does not.
        kl_reference: a base model or a `tinker://` sampler path; None is the base model of the run.
        remove_constant_reward_groups: leave out groups whose episodes all earned the same; they teach
            nothing. Where all are so, one stays.
        max_steps_off_policy: how many optimizer steps the samples lag behind; 0 waits for each.
        retries: how often an episode that fails is begun again.
    """

    loss_fn: str = attrs.field(
        default="importance_sampling",
        validator=one_of(tuple(LOSSES), error=RunError, fix=_FIX.replace(")", ', loss_fn="ppo")')),
    )
    settings: tuple[tuple[str, float], ...] = attrs.field(default=(), converter=_pairs)
    max_tokens: int = attrs.field(default=256, validator=whole(1, error=RunError, fix=_FIX))
    temperature: float = attrs.field(
        default=1.0, validator=real(0.0, error=RunError, fix=_FIX, open_low=True)
    )
    kl_penalty_coef: float = attrs.field(default=0.0, validator=real(0.0, error=RunError, fix=_FIX))
    kl_discount_factor: float = attrs.field(default=0.0, validator=real(0.0, 1.0, error=RunError, fix=_FIX))
    kl_reference: str | None = None
    remove_constant_reward_groups: bool = True
    max_steps_off_policy: int = attrs.field(default=0, validator=whole(0, 64, error=RunError, fix=_FIX))
    retries: int = attrs.field(default=0, validator=whole(0, 100, error=RunError, fix=_FIX))

    method: ClassVar[str] = "rl"
    headline: ClassVar[str] = "rl/reward_mean"

    @settings.validator
    def _known(self, _attribute: Any, settings: tuple[tuple[str, float], ...]) -> None:
        known = LOSSES[self.loss_fn]
        if unknown := [name for name, _ in settings if name not in known]:
            raise RunError(
                f"the loss {self.loss_fn!r} has no such setting",
                got=", ".join(unknown),
                need=", ".join(known) or "no settings",
                fix=f"Run(plan, name='mine').rl(groups, max_tokens=256, loss_fn={self.loss_fn!r})",
            )

    @property
    def loss_fn_config(self) -> dict[str, float | str] | None:
        """The loss function's settings."""
        return dict(self.settings) or None

    def anchor(self, service: tinker.ServiceClient, base_model: str) -> tinker.SamplingClient | None:
        """Return what the policy is held to, None where nothing holds it."""
        if self.kl_penalty_coef == 0:
            return None
        return sampler(service, self.kl_reference or base_model)

    async def learned(
        self, groups: Sequence[TrajectoryGroup], anchor: tinker.SamplingClient | None
    ) -> tuple[list[tinker.Datum], dict[str, float]]:
        """Return what is trained on, advantages and all, and what the episodes measured.

        Args:
            groups: the episodes.
            anchor: what the policy is held to, if anything.
        """
        from tinker_cookbook.rl.data_processing import (
            assemble_training_data,
            compute_advantages,
            remove_constant_reward_groups,
        )

        kept = list(groups)
        if self.remove_constant_reward_groups:
            kept = remove_constant_reward_groups(kept)
        datums, _ = assemble_training_data(kept, compute_advantages(kept))
        measured = episode_metrics(groups)
        if anchor is not None:
            measured["rl/kl_reference"] = await self.held(datums, anchor)
        return datums, measured

    async def held(self, datums: list[tinker.Datum], anchor: tinker.SamplingClient) -> float:
        """Take the cost of leaving the reference off the advantages; return the mean, nats a token."""
        from tinker_cookbook.rl.metrics import incorporate_kl_penalty

        told = await incorporate_kl_penalty(datums, anchor, self.kl_penalty_coef, self.kl_discount_factor)
        return float(told["kl_policy_base"])

    def submit(self, client: tinker.TrainingClient, batch: Batch) -> Any:
        """Send `batch` forward and backward."""
        return client.forward_backward(list(batch.datums), self.loss_fn, self.loss_fn_config)  # type: ignore[arg-type]  # one of LOSSES

    def measure(self, batch: Batch, output: tinker.ForwardBackwardOutput) -> dict[str, float]:
        """Return how far the policy is from the one that sampled, and the entropy of the samples.

        `rl/kl_sample_train_v1` is the mean of `log p_sampled - log p_trained`, `v2` half its mean square;
        both are over sampled tokens, before the step. With samples of the same weights they are what
        rounding makes.
        """
        sampled = [array(datum, "logprobs") for datum in batch.datums]
        return policy_metrics(sampled, logprobs(output), batch.weights)

    def describe(self) -> str:
        """Return the loss in words."""
        lag = self.max_steps_off_policy
        when = f", samples {lag} steps behind" if lag else ""
        told = "".join(f", {name} {value:g}" for name, value in self.settings)
        return f"{self.loss_fn}{told}, advantages centred by group{when}"


def sampler(service: tinker.ServiceClient, model: str) -> tinker.SamplingClient:
    """Return a client that samples from a base model, or from a `tinker://` path."""
    if model.startswith("tinker://"):
        return service.create_sampling_client(model_path=model).result()
    return service.create_sampling_client(base_model=model).result()


def policy_metrics(
    sampled: Sequence[Floats], trained: Sequence[Floats], weights: Sequence[Floats]
) -> dict[str, float]:
    """Return KL estimates between two policies and the entropy of the first, over tokens with a weight.

    Args:
        sampled: log-probabilities when the tokens were sampled, one array a datum, nats.
        trained: those under the policy that is trained.
        weights: 0 where a token was not sampled.
    """
    picked = np.concatenate(weights) > 0
    sampled_N, trained_N = np.concatenate(sampled)[picked], np.concatenate(trained)[picked]
    if not len(sampled_N):
        return {}
    gap_N = sampled_N - trained_N
    return {
        "rl/kl_sample_train_v1": float(gap_N.mean()),
        "rl/kl_sample_train_v2": float(0.5 * (gap_N**2).mean()),
        "rl/entropy": float(-sampled_N.mean()),
    }


def episode_metrics(groups: Sequence[TrajectoryGroup]) -> dict[str, float]:
    """Return what the episodes of a step earned, and how they ended.

    Rewards are over all episodes, those of constant groups too. `rl/truncated` is the share that ended
    because a limit of tokens was reached, `rl/failed` how many were begun again. The environments' own
    metrics are averaged over episodes.
    """
    rewards = [np.array(group.get_total_rewards(), dtype=np.float64) for group in groups]
    together = np.concatenate(rewards)
    episodes = [episode for group in groups for episode in group.trajectories_G]
    constant = sum(bool((one == one[0]).all()) for one in rewards)
    return {
        "rl/reward_mean": float(together.mean()),
        "rl/reward_std": float(together.std()),
        "rl/reward_std_in_group": float(np.mean([one.std() for one in rewards])),
        "rl/constant_groups": constant / len(groups),
        "rl/groups": len(groups),
        "rl/episodes": len(episodes),
        "rl/failed": sum(len(group.rollout_errors) for group in groups),
        "rl/turns": float(np.mean([len(episode.transitions) for episode in episodes])),
        "rl/sampled_tokens": sum(len(turn.ac.tokens) for one in episodes for turn in one.transitions),
        "rl/truncated": float(np.mean([_truncated(episode) for episode in episodes])),
        **_of_environments(groups),
    }


def _truncated(episode: Trajectory) -> bool:
    last = episode.transitions[-1] if episode.transitions else None
    return episode.stop_reason in _CUT or (last is not None and last.ac.stop_reason == "length")


def _of_environments(groups: Sequence[TrajectoryGroup]) -> dict[str, float]:
    """Return the mean of each metric that environments and graders reported, by its name."""
    told: dict[str, list[float]] = {}
    for group in groups:
        for episode, graded in zip(group.trajectories_G, group.metrics_G, strict=True):
            for metrics in (*(turn.metrics for turn in episode.transitions), graded):
                for name, value in metrics.items():
                    told.setdefault(name, []).append(float(value))
    return {f"env/{name}": float(np.mean(values)) for name, values in sorted(told.items())}
