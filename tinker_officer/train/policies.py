"""Weights to sample from: a snapshot behind each optimizer step that a later step's samples come from.

Not known here: what is sampled. A run whose samples lag by `lag` steps needs, to go on from a checkpoint,
the snapshots of the `lag` steps before it; those are saved by name, recorded in `policies.jsonl`, and deleted
once no checkpoint needs them. Without a lag the snapshot is the session's own, and nothing is kept.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._journal import Journal
from tinker_officer.train.checkpoints import CheckpointLog, delete, save_for_sampler
from tinker_officer.train.source import Scene


if TYPE_CHECKING:
    import tinker

logger = logging.getLogger(__name__)
POLICIES = "policies.jsonl"


@attrs.define
class Policies:
    """The snapshots of a run, by how many steps went into them.

    Args:
        scene: the open run.
        name: the run's name, which begins those of its snapshots.
        lag: steps between a snapshot and the step that trains on its samples, less one.
    """

    scene: Scene
    name: str
    lag: int
    _clients: dict[int, Future[tinker.SamplingClient]] = attrs.field(init=False, factory=dict)
    _journal: Journal = attrs.field(init=False)
    _guard: threading.Lock = attrs.field(init=False, factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        self._journal = Journal(self.scene.folder.path / POLICIES)
        done = self.scene.session.done
        self.snapshot(done)
        for version in range(max(0, done - self.lag), done):
            self._recall(version)

    def snapshot(self, version: int) -> None:
        """Queue a snapshot of the weights as they are after what was queued before: `version` steps."""
        client = self.scene.session.client
        if self.lag == 0:
            self._clients = {version: client.save_weights_and_get_sampling_client().future()}
            return
        saved = save_for_sampler(client, f"{self.name}-policy-{version:06d}")
        self._clients[version] = _then(saved.future(), lambda reply: self._opened(version, reply.path))

    def at_or_before(self, version: int) -> tuple[int, Any]:
        """Return the snapshot of `version` steps as a future, and its version.

        Where it is lost, after a resume, the nearest later one stands in: fresher samples, never staler.
        """
        found = version if version in self._clients else min(step for step in self._clients if step > version)
        return found, self._clients[found]

    def forget(self, version: int) -> None:
        """Delete snapshots that no coming step needs, and no resume from the last checkpoint."""
        if self.lag == 0:
            return
        saved = CheckpointLog(self.scene.folder.checkpoints).all()
        needed = min(version, (saved[-1].step if saved else 0) - self.lag)
        with self._guard:
            standing = self._standing()
            for old, path in standing.items():
                if old < needed:
                    self._clients.pop(old, None)
                    self._delete(old, path)

    def _standing(self) -> dict[int, str]:
        standing: dict[int, str] = {}
        for record in self._journal:
            if record.get("deleted"):
                standing.pop(record["version"], None)
            else:
                standing[record["version"]] = record["path"]
        return standing

    def _opened(self, version: int, path: str) -> tinker.SamplingClient:
        with self._guard:
            self._journal.append({"version": version, "path": path}, sync=True)
        client: tinker.SamplingClient = self.scene.service.create_sampling_client(path).result()
        return client

    def _recall(self, version: int) -> None:
        path = self._standing().get(version)
        try:
            client = self.scene.service.create_sampling_client(path).result() if path else None
        except Exception as error:  # noqa: BLE001 - whatever it was, fresher weights stand in
            logger.warning("policy.lost", extra={"officer.version": version, "officer.error": repr(error)})
            return
        if client is not None:
            known: Future[tinker.SamplingClient] = Future()
            known.set_result(client)
            self._clients[version] = known

    def _delete(self, version: int, path: str) -> None:
        try:
            delete(self.scene.service, path)
        except Exception as error:  # noqa: BLE001 - whatever it was, training must not stop for it
            logger.warning(
                "policy.not_deleted", extra={"officer.version": version, "officer.error": repr(error)}
            )
        else:
            self._journal.append({"version": version, "path": path, "deleted": True})


def _then(future: Future[Any], work: Any) -> Future[Any]:
    """Return a future of `work(result)`, which runs on a thread of its own."""
    after: Future[Any] = Future()

    def run() -> None:
        try:
            after.set_result(work(future.result()))
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            after.set_exception(error)

    threading.Thread(target=run, name="policy", daemon=True).start()
    return after
