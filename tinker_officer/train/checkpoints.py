"""What was saved where: the checkpoints of a run, and which of them stay."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._journal import Journal


if TYPE_CHECKING:
    import tinker

logger = logging.getLogger(__name__)


@attrs.frozen
class Checkpoint:
    """A saved state of the weights after `step` optimizer steps.

    Args:
        step: optimizer steps of its run that went into it; 0 is where the run began.
        state_path: `tinker://` path to resume from, with the optimizer.
        sampler_path: `tinker://` path to sample from; None where none was asked for.
        base_model: the model under the adapter.
        renderer_name: how conversations were written in tokens.
        metrics: the metrics of that step, evaluations included.
    """

    step: int
    state_path: str
    sampler_path: str | None
    base_model: str
    renderer_name: str
    metrics: dict[str, Any] = attrs.field(factory=dict, repr=False)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint that `attrs.asdict` wrote."""
        return cls(**{field.name: fields[field.name] for field in attrs.fields(cls)})


@attrs.frozen
class Saved:
    """A record of `checkpoints.jsonl`: one save that the server has confirmed."""

    step: int
    name: str
    state_path: str
    sampler_path: str | None
    attempt: int


class CheckpointLog:
    """The checkpoints of a run, as `checkpoints.jsonl` records them.

    A save is recorded, and fsynced, only after the server has confirmed it; a kill in between leaves a
    file on the server that nobody refers to, and nothing else. Later records take one away: `pruned`
    (deleted, by `keep=`) or `rejected` (lost, or its weights are not finite).
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __repr__(self) -> str:
        return f"CheckpointLog({str(self._journal.path)!r})"

    def record(self, saved: Saved) -> None:
        """Add a confirmed save."""
        self._journal.append(attrs.asdict(saved), sync=True)

    def withdraw(self, saved: Saved, reason: str) -> None:
        """Take a save away: it was `pruned`, or `rejected: ...`."""
        self._journal.append({"step": saved.step, "withdrawn": saved.state_path, "reason": reason}, sync=True)

    def all(self) -> list[Saved]:
        """Return the saves that still stand, by step; of two of one step the later."""
        standing: dict[str, Saved] = {}
        for record in self._journal:
            if "withdrawn" in record:
                standing.pop(record["withdrawn"], None)
            else:
                saved = Saved(**{field.name: record[field.name] for field in attrs.fields(Saved)})
                standing[saved.state_path] = saved
        return sorted({saved.step: saved for saved in standing.values()}.values(), key=lambda s: s.step)

    def prune(self, service: tinker.ServiceClient, *, keep: int, spare: set[int]) -> None:
        """Delete all but the `keep` newest and those of the steps in `spare` from the server.

        A deletion that fails is logged, and tried again after the next save.
        """
        for saved in self.all()[:-keep]:
            if saved.step in spare:
                continue
            try:
                _delete(service, saved)
            except Exception as error:  # noqa: BLE001 - whatever it was, training must not stop for it
                logger.warning(
                    "checkpoint.not_deleted",
                    extra={"officer.step": saved.step, "officer.error": repr(error)},
                )
            else:
                self.withdraw(saved, "pruned")
                logger.info("checkpoint.pruned", extra={"officer.step": saved.step})

    def keep_for_good(self, service: tinker.ServiceClient, saved: Saved) -> None:
        """Take the time to live from a save; a failure is logged, and harms nothing before that time."""
        client = rest_client(service)
        for path in filter(None, (saved.state_path, saved.sampler_path)):
            try:
                client.set_checkpoint_ttl_from_tinker_path(path, None).result(timeout=60)
            except Exception as error:  # noqa: BLE001 - whatever it was, the run has ended well
                logger.warning(
                    "checkpoint.expires: %s keeps its time to live: %r",
                    path,
                    error,
                    extra={"officer.step": saved.step},
                )


def save_for_sampler(client: tinker.TrainingClient, name: str, ttl_s: int | None = None) -> Any:
    """Return the SDK's future of weights saved for sampling: those after what was asked before, no later.

    SDK 0.38 gives each request its turn in the thread that asks; a save for sampling alone gets it on the
    SDK's own loop, so that a step which is asked for next could come first, and would be in what is saved.
    Hence this returns when the loop has come that far.
    """
    future = client.save_weights_for_sampler(name, ttl_s)
    client.holder.run_coroutine_threadsafe(asyncio.sleep(0)).result()
    return future


def rest_client(service: tinker.ServiceClient) -> Any:
    """Return the client of what is saved on the server."""
    return service._rest_client()  # noqa: SLF001 - the public create_rest_client() warns; RestClient() wants the key


def _delete(service: tinker.ServiceClient, saved: Saved) -> None:
    for path in filter(None, (saved.state_path, saved.sampler_path)):
        delete(service, path)


def delete(service: tinker.ServiceClient, path: str) -> None:
    """Delete what a `tinker://` path names from the server; what is gone already is fine."""
    import tinker

    client = rest_client(service)
    with contextlib.suppress(tinker.NotFoundError):  # a kill between deleting and recording it
        client.delete_checkpoint_from_tinker_path(path).result(timeout=60)
