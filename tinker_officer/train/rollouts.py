"""Rollouts: a step's episodes, sampled from the weights, and made into the datums that it trains on.

The environments, how an episode runs, and how advantages become datums are the cookbook's, unchanged. Ours is
when: the samples of step k come from the weights after `k - 1 - lag` steps, exactly, so that the next steps'
episodes run while this one trains, and a run that is killed repeats. Every sample has a seed of its own, from
the run's seed, step, group, place in the group and turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer.errors import RunError
from tinker_officer.train.objective import Batch, array
from tinker_officer.train.order import permutation
from tinker_officer.train.policies import Policies
from tinker_officer.train.sampling import group_of
from tinker_officer.train.source import Scene, content


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.rl.types import EnvGroupBuilder, TrajectoryGroup

    from tinker_officer.train.rl import Rl
    from tinker_officer.train.run import Run


@attrs.define
class Rollouts:
    """Episodes as a source.

    Args:
        objective: how they are sampled, and what their rewards become.
        data: a cookbook `RLDataset`, or a sequence of its `EnvGroupBuilder`s.
        batch_size: groups a step, where `data` is a sequence.
        steps: in the whole run.
        seed: what the samples follow from.
        name: the run's name.
        base_model: the model under the adapter.
    """

    objective: Rl
    data: Any
    batch_size: int
    steps: int
    seed: int
    name: str
    base_model: str
    _policies: Policies | None = attrs.field(init=False, default=None)
    _scene: Scene | None = attrs.field(init=False, default=None)
    _anchor: tinker.SamplingClient | None = attrs.field(init=False, default=None)
    _running: set[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = attrs.field(init=False, factory=set)
    _closed: bool = attrs.field(init=False, default=False)

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the rollouts of `run`: as many steps as its plan has, over its data again and again.

        Raises:
            RunError: there is no data.
        """
        data, plan = run.data, run.plan
        if len(data) == 0:
            raise RunError(
                "there is nothing to train on",
                got=f"{type(data).__name__} without a batch",
                need="at least one EnvGroupBuilder",
                fix="Run(plan, name='mine').rl([MyGroupBuilder(...), ...], max_tokens=256)",
            )
        return cls(_rl(run), data, plan.batch_size, plan.steps, run.order_seed, run.name, plan.base_model)

    @property
    def ahead(self) -> int | None:
        """Episodes may run this many steps before theirs."""
        return self.objective.max_steps_off_policy

    def opened(self, scene: Scene) -> None:
        """Take the first snapshot, and open what the policy is held to."""
        self._scene = scene
        self._policies = Policies(scene, self.name, self.objective.max_steps_off_policy)
        self._anchor = self.objective.anchor(scene.service, self.base_model)

    def submitted(self, step: int) -> None:
        """Queue a snapshot behind the optimizer step, if a later step samples from it."""
        if self._policies is not None and step + self.objective.max_steps_off_policy < self.steps:
            self._policies.snapshot(step)

    def close(self) -> None:
        """Cancel the episodes that are running."""
        self._closed = True
        for loop, task in list(self._running):
            loop.call_soon_threadsafe(task.cancel)

    def make(self, step: int) -> Batch:
        """Return the batch of `step`: its episodes, sampled now."""
        return asyncio.run(self._cancellable(step))

    def applied(self, record: Mapping[str, Any]) -> bool:
        """Return whether a record's groups are those of its step; what was sampled cannot be known again."""
        return tuple(record["rows"]) == self._rows(record["step"])[1]

    def text(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the tokens, log-probabilities and advantages of a batch, and their text."""
        from tinker_officer._models import load_tokenizer

        tokenizer = load_tokenizer(self.base_model)
        return [
            {
                "where": where,
                "text": tokenizer.decode(datum.model_input.to_ints()),
                **{key: array(datum, key).tolist() for key in ("target_tokens", "logprobs", "advantages")},
            }
            for where, datum in zip(batch.where, batch.datums, strict=False)
        ]

    async def _cancellable(self, step: int) -> Batch:
        task = asyncio.ensure_future(self._make(step))
        entry = (asyncio.get_running_loop(), task)
        self._running.add(entry)
        try:
            if self._closed:
                task.cancel()
            return await task
        finally:
            self._running.discard(entry)

    async def _make(self, step: int) -> Batch:
        if self._policies is None:
            raise AssertionError("rollouts before the run is open")
        epoch, rows = self._rows(step)
        builders: Sequence[EnvGroupBuilder] = (
            self.data.get_batch(rows[0])
            if hasattr(self.data, "get_batch")
            else [self.data[row] for row in rows]
        )
        version, snapshot = self._policies.at_or_before(
            max(0, step - 1 - self.objective.max_steps_off_policy)
        )
        client = await asyncio.wrap_future(snapshot)
        groups: list[TrajectoryGroup] = await asyncio.gather(
            *(
                group_of(builder, client, self.objective, place=(self.seed, step, index))
                for index, builder in enumerate(builders)
            )
        )
        datums, measured = await self.objective.learned(groups, self._anchor)
        await asyncio.to_thread(self._policies.forget, version)
        stripped = [_without_mask(datum) for datum in datums]
        return Batch(
            step=step,
            epoch=epoch,
            rows=rows,
            content=content(_bytes(datum) for datum in datums),
            where=tuple(f"step {step}, datum {index}" for index in range(len(datums))),
            datums=tuple(stripped),
            weights=tuple(array(datum, "mask") for datum in datums),
            measured={**measured, "rl/staleness": float(step - 1 - version)},
            noted={"policy": version},
        )

    def _rows(self, step: int) -> tuple[int, tuple[int, ...]]:
        """Return the epoch in which `step` begins, and its groups (or which batch of a dataset it is).

        A sequence is shuffled anew each time it is gone over, and every step takes as many of it as the next.
        """
        count = len(self.data)
        if hasattr(self.data, "get_batch"):
            epoch, index = divmod(step - 1, count)
            return epoch, (index,)
        first = (step - 1) * self.batch_size
        places = [divmod(place, count) for place in range(first, first + self.batch_size)]
        return first // count, tuple(
            int(permutation(count, self.seed, epoch)[index]) for epoch, index in places
        )


def _rl(run: Run) -> Rl:
    from tinker_officer.train.rl import Rl

    if not isinstance(run.objective, Rl):
        raise TypeError("rollouts for an objective without episodes")
    return run.objective


def _without_mask(datum: Any) -> Any:
    import tinker

    inputs = {key: value for key, value in datum.loss_fn_inputs.items() if key != "mask"}
    return tinker.Datum(model_input=datum.model_input, loss_fn_inputs=inputs)


def _bytes(datum: Any) -> bytes:
    keys = ("target_tokens", "logprobs", "advantages", "mask")
    return b"".join(array(datum, key).tobytes() for key in keys)
