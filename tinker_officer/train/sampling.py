"""One group of episodes, each sample with a seed of its own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING, Any

import attrs


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.rl.types import EnvGroupBuilder, Trajectory, TrajectoryGroup

    from tinker_officer.train.rl import Rl

logger = logging.getLogger(__name__)
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
    from tinker_cookbook.rl.types import RolloutError

    class EachSeeded(RolloutStrategy):  # type: ignore[misc]  # the cookbook is untyped here
        """Runs all episodes at once, each with a policy of its own; begins one that fails again."""

        def __init__(self) -> None:
            self.errors: list[RolloutError] = []

        async def execute(self, env_group_builder: EnvGroupBuilder, policy: Any) -> RolloutResult:
            envs = list(await env_group_builder.make_envs())

            async def episode(index: int) -> Trajectory:
                for left in reversed(range(objective.retries + 1)):
                    try:
                        return await run_rollout(policy(index), envs[index])
                    except Exception as error:
                        if not left:
                            raise
                        logger.warning("episode.failed", exc_info=True, extra={"officer.place": place})
                        self.errors.append(RolloutError(type(error).__name__, str(error)))
                        envs[index] = (await env_group_builder.make_envs())[index]
                raise AssertionError("unreachable")

            episodes = await asyncio.gather(*map(episode, range(len(envs))))
            return RolloutResult(list(episodes), envs, self.errors)

    def policy(index: int) -> Seeded:
        return Seeded(client, objective.max_tokens, objective.temperature, (*place, index))

    group: TrajectoryGroup = await do_group_rollout(builder, policy, strategy=EachSeeded())
    return group
