"""Environments for the tests: a reward for even tokens, a sum, and a tool that must be called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tinker
from tinker_cookbook.rl.types import Env, EnvGroupBuilder, StepResult


NOTHING = tinker.ModelInput.from_ints([])


class Even(Env):
    """One turn; the reward is the share of even tokens."""

    def __init__(self, prompt: list[int]) -> None:
        self.prompt = prompt

    async def initial_observation(self) -> tuple[tinker.ModelInput, Any]:
        """Return the prompt; nothing but the limit stops an answer."""
        return tinker.ModelInput.from_ints(self.prompt), []

    async def step(self, action: list[int], *, extra: Any = None) -> StepResult:
        """Return the share of even tokens."""
        del extra
        share = sum(token % 2 == 0 for token in action) / len(action)
        return StepResult(share, True, NOTHING, [], metrics={"even": share})


class TwoTurns(Even):
    """A second turn goes on behind the first; only the second is rewarded."""

    def __init__(self, prompt: list[int]) -> None:
        super().__init__(prompt)
        self.turn = 0

    async def step(self, action: list[int], *, extra: Any = None) -> StepResult:
        """Return an observation that extends what was said, once."""
        self.turn += 1
        if self.turn == 2:
            return await super().step(action, extra=extra)
        following = tinker.ModelInput.from_ints([*self.prompt, *action, 7])
        return StepResult(0.0, False, following, [])


class Evens(EnvGroupBuilder):
    """A group of equal environments."""

    def __init__(self, prompt: list[int], num_envs: int, kind: type[Even] = Even) -> None:
        self.prompt, self.num_envs, self.kind = prompt, num_envs, kind

    async def make_envs(self) -> Sequence[Env]:
        """Return the environments."""
        return [self.kind(self.prompt) for _ in range(self.num_envs)]

    def logging_tags(self) -> list[str]:
        """Return what kind of environment it is."""
        return ["evens"]


def evens(count: int = 6, *, size: int = 4, kind: type[Even] = Even) -> list[Evens]:
    """Return groups whose prompts differ."""
    return [Evens([5 + index, 9, 12], size, kind) for index in range(count)]
