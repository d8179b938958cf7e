"""Counts of episodes of reinforcement learning.

`data.TokenCounts` counts rows of text, `data.PairCounts` preference pairs. An episode does not exist before
it is sampled: these are plain numbers, so that a plan can be made before any data is.
"""

from __future__ import annotations

import math

import attrs

from tinker_officer._fields import real, whole
from tinker_officer.errors import DataError


_EPISODES = "EpisodeCounts(episodes=320_000, group_size=32, prompt_tokens=200, sampled_tokens=500)"
_SOME = attrs.validators.optional
_LENGTH = _SOME(real(0.0, error=DataError, fix=_EPISODES))


@attrs.frozen(kw_only=True)
class EpisodeCounts:
    """How many episodes will be sampled, and how long they are.

    Args:
        episodes: samples of the whole run, over all groups.
        group_size: episodes that answer the same prompt, and are compared with each other.
        prompt_tokens: mean tokens of an episode that the model reads, without those that it wrote; None:
            not known.
        sampled_tokens: mean tokens of an episode that the model writes; None: not known.
        cached_tokens: mean tokens of an episode that are read again, from the cache, as each turn after
            the first does; None stands for a single turn, where a group shares its prompt.

    Example:
        >>> LoRAPlan.for_("Qwen/Qwen3-8B").rl(EpisodeCounts(episodes=320_000, group_size=32)).rank
        8
    """

    episodes: int = attrs.field(validator=whole(0, error=DataError, fix=_EPISODES))
    group_size: int = attrs.field(default=16, validator=whole(1, error=DataError, fix=_EPISODES))
    prompt_tokens: float | None = attrs.field(default=None, validator=_LENGTH)
    sampled_tokens: float | None = attrs.field(default=None, validator=_LENGTH)
    cached_tokens: float | None = attrs.field(default=None, validator=_LENGTH)

    @property
    def groups(self) -> int:
        """Groups of the whole run; the last may be smaller."""
        return math.ceil(self.episodes / self.group_size)

    @property
    def read(self) -> float | None:
        """Tokens read at the full price (prefill), over the run."""
        if self.prompt_tokens is None:
            return None
        return self.prompt_tokens * (self.groups if self.cached_tokens is None else self.episodes)

    @property
    def cached(self) -> float | None:
        """Tokens read again from the cache, over the run."""
        if self.cached_tokens is not None:
            return self.cached_tokens * self.episodes
        if self.prompt_tokens is None:
            return None
        return self.prompt_tokens * (self.episodes - self.groups)

    @property
    def sampled(self) -> float | None:
        """Tokens written, over the run."""
        return None if self.sampled_tokens is None else self.sampled_tokens * self.episodes

    @property
    def trained(self) -> float | None:
        """Tokens that training reads, prompts included, over the run."""
        if self.prompt_tokens is None or self.sampled_tokens is None:
            return None
        return (self.prompt_tokens + self.sampled_tokens) * self.episodes
