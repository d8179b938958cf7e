"""One group of episodes, each sample with a seed of its own."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import attrs


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.rl.types import EnvGroupBuilder, TrajectoryGroup

    from tinker_officer.train.rl import Rl

Place = tuple[int, ...]


def seed_of(place: Place) -> int:
    """Return the seed of one sample: 63 bits of a hash of its place."""
    return int.from_bytes(hashlib.sha256(repr(place).encode()).digest()[:8], "big") >> 1


@attrs.define
class Seeded:
    """A cookbook `TokenCompleter`: the samples of one episode, turn by turn.

    Args:
        client: samples.
        max_tokens: tokens of one answer.
        temperature: of the sampling.
        place: what the seeds follow from, beside the turn.
    """

    client: tinker.SamplingClient
    max_tokens: int
    temperature: float
    place: Place
    _turn: int = attrs.field(init=False, default=0)

    async def __call__(self, model_input: Any, stop: Any, *, max_tokens: int | None = None) -> Any:
        """Return one answer, its log-probabilities and why it ended."""
        import tinker
        from tinker_cookbook.completers import TokensWithLogprobs

        self._turn += 1
        params = tinker.SamplingParams(
            max_tokens=self.max_tokens if max_tokens is None else min(max_tokens, self.max_tokens),
            temperature=self.temperature,
            stop=stop,
            seed=seed_of((*self.place, self._turn)),
        )
        answer = await self.client.sample(model_input, 1, params)
        sequence = answer.sequences[0]
        return TokensWithLogprobs(
            tokens=sequence.tokens, maybe_logprobs=sequence.logprobs, stop_reason=sequence.stop_reason
        )


async def group_of(
    builder: EnvGroupBuilder, client: tinker.SamplingClient, objective: Rl, *, place: Place
) -> TrajectoryGroup:
    """Return the episodes of one group and their rewards.

    Args:
        builder: makes the environments, and grades the group.
        client: the policy.
        objective: how it is sampled.
        place: what the seeds follow from: the run's seed, the step, the group.
    """
    from tinker_cookbook.rl.rollout_runner import run_rollout
    from tinker_cookbook.rl.rollout_strategy import RolloutResult, RolloutStrategy
    from tinker_cookbook.rl.rollouts import do_group_rollout

    class EachSeeded(RolloutStrategy):  # type: ignore[misc]  # the cookbook is untyped here
        """Runs all episodes at once, as `FailFast` does, each with a policy of its own."""

        async def execute(self, env_group_builder: EnvGroupBuilder, policy: Any) -> RolloutResult:
            import asyncio

            envs = await env_group_builder.make_envs()
            episodes = [run_rollout(policy(index), env) for index, env in enumerate(envs)]
            return RolloutResult(list(await asyncio.gather(*episodes)), envs, [])

    def policy(index: int) -> Seeded:
        return Seeded(client, objective.max_tokens, objective.temperature, (*place, index))

    group: TrajectoryGroup = await do_group_rollout(builder, policy, strategy=EachSeeded())
    return group
