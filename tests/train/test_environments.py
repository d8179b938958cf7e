"""The cookbook's environments as they are: tools, and episodes that fail and are begun again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest
from tinker_cookbook.rl.types import Env, StepResult
from tinker_cookbook.tool_use.agent_tool_message_env import build_agent_tool_env
from tinker_cookbook.tool_use.tools import simple_tool_result, tool
from tinker_cookbook.tool_use.types import ToolResult

from tests.train.groups import Even, Evens
from tests.train.records import numbers
from tinker_officer import Conversations, LocalEngine, LoRAPlan, Run
from tinker_officer.data.render import renderer_for
from tinker_officer.train.rl import Rl
from tinker_officer.train.sampling import group_of


HOUR = "Nine."


@tool
async def hour(shop: Annotated[str, "which shop"]) -> ToolResult:
    """Look up when a shop opens."""
    return simple_tool_result({"bank": HOUR}.get(shop, "?"))


class Asked(Evens):
    """Episodes about one shop: a point for having looked its hour up."""

    def __init__(self, model: str, num_envs: int) -> None:
        super().__init__([], num_envs)
        self.model = model

    async def make_envs(self) -> Sequence[Env]:
        """Return the environments."""
        renderer = renderer_for(self.model)
        told = renderer.create_conversation_prefix_with_tools([hour.to_spec()])
        asked = [*told, {"role": "user", "content": "When?"}]
        return [
            build_agent_tool_env(renderer, [hour], asked, self.reward, max_turns=2)
            for _ in range(self.num_envs)
        ]

    @staticmethod
    async def reward(messages: list[Any]) -> tuple[float, dict[str, float]]:
        """Return whether the tool was asked, and said the hour."""
        told = any(one["role"] == "tool" and HOUR in str(one["content"]) for one in messages)
        return float(told), {"told": float(told)}


def test_a_model_that_calls_a_tool_is_told_what_it_says_and_rewarded(
    tiny_model: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    """Taught to call, the model gets the tool's answer in a second turn, and the reward for it."""
    call = {"name": "hour", "arguments": '{"shop": "bank"}'}
    row = {
        "messages": [
            {"role": "user", "content": "When?"},
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
            {"role": "tool", "content": HOUR},
            {"role": "assistant", "content": HOUR},
        ],
        "tools": [hour.to_spec()],
    }
    plan = LoRAPlan.for_(str(tiny_model)).sft(Conversations.from_list([row] * 2), epochs=45, train_on="all")
    run = Run(plan.pin(batch_size=2, learning_rate=2e-2, rank=16), name="calls").checkpoint(every=45)
    taught = run.run(engine, tmp_path / "run", progress=False)
    service = engine.service_client()
    client = service.create_sampling_client(model_path=taught.final.sampler_path).result()
    builder = Asked(str(tiny_model), 4)
    group = asyncio.run(group_of(builder, client, Rl(max_tokens=64, temperature=0.1), place=(0, 1, 0)))
    assert [len(episode.transitions) for episode in group.trajectories_G] == [2] * 4
    assert group.get_total_rewards() == [1.0] * 4
    datums, measured = asyncio.run(Rl(max_tokens=64).learned([group], None))
    assert measured["env/told"] == 1.0
    assert len(datums) == 4  # one sequence an episode: the second turn goes on where the first ended


class Flaky(Even):
    """Fails at its first step, as often as its group says."""

    def __init__(self, prompt: list[int], group: Unreliable) -> None:
        super().__init__(prompt)
        self.group = group

    async def step(self, action: list[int], *, extra: Any = None) -> StepResult:
        """Fail, or return the share of even tokens."""
        if self.group.failures > 0:
            self.group.failures -= 1
            raise ConnectionError("the sandbox is gone")
        return await super().step(action, extra=extra)


class Unreliable(Evens):
    """A group some of whose episodes fail."""

    def __init__(self, failures: int) -> None:
        super().__init__([5, 9, 12], 4)
        self.failures = failures

    async def make_envs(self) -> Sequence[Env]:
        """Return the environments."""
        return [Flaky(self.prompt, self) for _ in range(self.num_envs)]


def flaky_run(model: Path, groups: Sequence[Evens], **settings: Any) -> Run:
    """A run of one step over these groups."""
    plan = LoRAPlan.for_(str(model)).rl(4 * len(groups), group_size=4)
    run = Run(plan.pin(batch_size=len(groups), learning_rate=1e-2, rank=4), name="flaky")
    return run.rl(groups, max_tokens=6, **settings)


def test_an_episode_that_fails_is_begun_again_and_counted(
    tiny_model: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    """With retries the same samples are drawn as if nothing had failed; without, the run stops."""
    sound = flaky_run(tiny_model, [Unreliable(0)]).run(engine, tmp_path / "sound", progress=False)
    again = flaky_run(tiny_model, [Unreliable(3)], retries=1)
    result = again.run(engine, tmp_path / "again", progress=False)
    assert (sound.metrics["rl/failed"], result.metrics["rl/failed"]) == (0, 3)
    same = [{**one, "rl/failed": 0} for one in numbers(tmp_path / "again")]
    assert same == [{**one, "rl/failed": 0} for one in numbers(tmp_path / "sound")]
    with pytest.raises(ConnectionError, match="sandbox") as caught:
        flaky_run(tiny_model, [Unreliable(1)]).run(engine, tmp_path / "stops", progress=False)
    assert "goes on from the last checkpoint" in "\n".join(caught.value.__notes__)
