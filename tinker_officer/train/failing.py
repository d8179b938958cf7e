"""How a run says what stopped it: which batch, which file, and how to go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinker_officer._files import write_atomic
from tinker_officer.errors import RunError
from tinker_officer.train import guards
from tinker_officer.train.checkpoints import CheckpointLog
from tinker_officer.train.folder import RunFolder
from tinker_officer.train.objective import Batch
from tinker_officer.train.source import Source


_SHOWN = 8  # rows of a batch that a message names


def keep_rows(folder: RunFolder, source: Source, batch: Batch) -> str:
    """Write the rows of a batch that stopped the run beside the log; return what they are."""
    rows = source.text(batch)
    path = folder.path / f"stopped-at-step-{batch.step:06d}.json"
    write_atomic(path, json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
    shown = ", ".join(batch.where[:_SHOWN]) + (", ..." if len(batch.where) > _SHOWN else "")
    return f"rows {shown} (text in {path.name})"


def check_finite(
    metrics: Mapping[str, Any], step: int, batch: Batch | None, folder: RunFolder, source: Source
) -> None:
    """Stop when a number is not finite; the batch is written beside the log.

    Args:
        metrics: the numbers.
        step: steps that are done.
        batch: what is being trained on, if anything is.
        folder: where it is written.
        source: knows what the batch holds.

    Raises:
        RunError: one is not.
    """
    broken = guards.not_finite(metrics)
    if not broken:
        return
    saved = CheckpointLog(folder.checkpoints).all()
    good = f"the checkpoint of step {saved[-1].step} is good" if saved else "nothing was saved before it"
    numbers = [f"{name} = {metrics[name]}" for name in broken]
    if batch is not None:
        numbers.append(keep_rows(folder, source, batch))
    raise RunError(
        f"a number is not finite at step {step if batch is None else batch.step}; {good}",
        got="\n".join(numbers),
        need="finite numbers: a smaller learning rate, clipped gradients, or other rows",
        fix="run = Run(plan.pin(learning_rate=1e-4), name='calmer').optimizer(grad_clip_norm=1.0)\n"
        "run.start(on=engine, at='runs/calmer')",
    )


def resume_line(folder: RunFolder) -> str:
    """Return how a run goes on."""
    return f"run.start(on=..., at={str(folder.path)!r}) goes on from the last checkpoint"


def explained(error: Exception, *, name: str, step: int, folder: RunFolder) -> Exception:
    """Return what to raise for `error`, which came up after `step`: itself with a note, or a RunError.

    An error of the SDK, and of a file elsewhere, gets a note. An `OSError` that names no other file is the
    run folder's, usually a full disk.
    """
    if isinstance(error, RunError):
        return error
    if isinstance(error, OSError) and _of_folder(error, folder):
        return RunError(
            "the run folder cannot be written",
            got=f"{error} (after step {step})",
            need=f"space and permission to write in {folder.path}",
            fix=f"free some space, then again: {resume_line(folder)}",
        )
    error.add_note(f"while step {step + 1} of run {name!r}; {resume_line(folder)}")
    return error


def _of_folder(error: OSError, folder: RunFolder) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return False
    return error.filename is None or Path(os.fsdecode(error.filename)).is_relative_to(folder.path)
