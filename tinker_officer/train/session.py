"""Open the training client of a run: a new adapter, or the last checkpoint that the server still has."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer.errors import RunError
from tinker_officer.plan import refusal
from tinker_officer.train import spikes
from tinker_officer.train.batches import Batches
from tinker_officer.train.budget import carried_over
from tinker_officer.train.checkpoints import CheckpointLog, Saved
from tinker_officer.train.folder import RunFolder
from tinker_officer.train.origin import begin
from tinker_officer.train.waiting import Waiter, apart


if TYPE_CHECKING:
    import tinker

    from tinker_officer.train.run import Run

logger = logging.getLogger(__name__)


@attrs.frozen
class Session:
    """A training client, and where it stands.

    Args:
        client: the SDK's client.
        done: optimizer steps that went into its weights.
        attempt: which start of the run this is, from 1.
        saved: the checkpoint that it was opened from, if any.
    """

    client: tinker.TrainingClient
    done: int
    attempt: int
    saved: Saved | None


def open_session(
    run: Run,
    folder: RunFolder,
    service: tinker.ServiceClient,
    *,
    renderer_name: str,
    batches: Batches,
    wait: Waiter,
) -> Session:
    """Return a client in the state of the last checkpoint, or a new one when nothing was saved yet.

    Metrics and ledger are rolled back to that checkpoint, and the ledger is checked against the order of
    the data: each step up to it applied once, with the rows that it should have had.

    Raises:
        RunError: no checkpoint can be loaded, or the ledger does not fit the data.
    """
    log = CheckpointLog(folder.checkpoints)
    metadata = {"renderer_name": renderer_name, "run": run.name}
    decisions = spikes.decisions(folder)
    for gone in log.all():
        if spikes.void(gone, decisions):
            log.withdraw(gone, "taken back by a guard")
    client, saved = _load(log, service, metadata, wait)
    if client is None:
        with refusal.noted():
            client = wait(apart(partial(begin, run, service, metadata)), "the new adapter", step=0)
    done = saved.step if saved else 0
    carried = carried_over(folder, done)
    folder.roll_back(done)
    _check_ledger(folder, batches, done)
    attempt = 1 + sum("attempt" in record and "step" not in record for record in folder.ledger)
    folder.ledger.append(
        {
            "attempt": attempt,
            "resumed_at": done,
            "from": saved.state_path if saved else None,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            **carried,
            "versions": {name: version(name) for name in ("tinker-officer", "tinker", "numpy")},
        },
        sync=True,
    )
    logger.info("run.opened", extra={"officer.step": done, "officer.attempt": attempt})
    return Session(client, done=done, attempt=attempt, saved=saved)


def _load(
    log: CheckpointLog, service: tinker.ServiceClient, metadata: dict[str, str], wait: Waiter
) -> tuple[Any, Saved | None]:
    import tinker

    known = log.all()
    lost: list[tuple[Saved, Exception]] = []
    for saved in reversed(known):
        try:
            load = partial(
                service.create_training_client_from_state_with_optimizer,
                saved.state_path,
                user_metadata=metadata,
            )
            client = wait(apart(load), "the saved state", step=saved.step)
        except (tinker.NotFoundError, tinker.BadRequestError, tinker.RequestFailedError) as error:
            lost.append((saved, error))
            logger.warning(
                "checkpoint.lost",
                extra={
                    "officer.step": saved.step,
                    "officer.path": saved.state_path,
                    "officer.error": str(error),
                },
            )
            continue
        for gone, why in lost:  # only now: before, it might have been the wrong server
            log.withdraw(gone, f"rejected: {why}")
        return client, saved
    if lost:
        raise RunError(
            "no checkpoint of the run can be loaded",
            got="\n".join(f"step {saved.step}, {saved.state_path}: {error}" for saved, error in lost),
            need="the server (and, for LocalEngine, the home folder) that the run was saved on",
            fix="start on that server, or train again in another folder: at='runs/other'",
        )
    return None, None


def _check_ledger(folder: RunFolder, batches: Batches, done: int) -> None:
    applied = [record for record in folder.ledger if "step" in record]
    steps = [record["step"] for record in applied]
    wrong = next((record["step"] for record in applied if not batches.source.applied(record)), None)
    if wrong is not None or steps != list(range(1, done + 1)):
        raise RunError(
            "the ledger does not fit the data",
            got=f"{len(steps)} steps"
            if wrong is None
            else f"step {wrong} had other rows than the order gives it",
            need=f"steps 1 to {done}, once each, with their rows",
            fix="restore ledger.jsonl, or start with another folder: at='runs/other'",
        )
