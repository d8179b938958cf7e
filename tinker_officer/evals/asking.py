"""Asks the evals of a suite, one after the other, and makes the scorecard."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

from tinker_officer._digest import digest
from tinker_officer._progress import Progress
from tinker_officer._service import On
from tinker_officer.errors import EvalError, OfficerError
from tinker_officer.evals.prepared import Context, Prepared
from tinker_officer.evals.race import Against
from tinker_officer.evals.results import EvalResult
from tinker_officer.evals.scorecard import Scorecard
from tinker_officer.evals.specs import Spec
from tinker_officer.evals.target import Target, open_target


_PACKAGES = ("inspect-ai", "inspect-evals", "tinker", "tinker-cookbook", "tinker-officer")


async def ask(
    specs: tuple[Spec, ...],
    target: Any,
    *,
    on: On,
    at: Path | None,
    renderer_name: str | None,
    suite_digest: str,
    progress: bool | None,
    against: Against | None = None,
) -> Scorecard:
    """Return the scorecard of `target`; see `EvalSuite.evaluate`.

    Everything is read and loaded before the first token is sampled.

    Args:
        specs: the evals to ask.
        target: what is evaluated.
        on: the service.
        at: folder for the scorecard and Inspect's logs; nothing is written when None.
        renderer_name: another renderer than the target's own.
        suite_digest: of the whole suite.
        progress: False for none.
        against: a card to compare with while asking, and to stop once that is decided.

    Raises:
        EvalError: something is missing, a sample is not accounted for, or every sample of an eval failed.
    """
    ready = await asyncio.to_thread(prepare, specs)
    opened = await open_target(target, on, renderer_name)
    started = time.monotonic()
    results = await _ask(ready, opened, Context(at=at, against=against, on=on), progress)
    card = Scorecard(
        target=opened.name,
        base_model=opened.base_model,
        renderer_name=opened.renderer_name,
        suite_digest=suite_digest,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        evals=results,
        versions=_versions(),
        checkpoint_digest=opened.identity,
        seconds=time.monotonic() - started,
    )
    if at is not None:
        card.save(at / f"scorecard-{re.sub('[^0-9]', '', card.created)}-{digest(opened.name)[:8]}.json")
    return card


def prepare(specs: tuple[Spec, ...]) -> list[tuple[Spec, Prepared]]:
    """Return every eval ready to run, or say all that is missing before anything is spent."""
    ready: list[tuple[Spec, Prepared]] = []
    missing: list[OfficerError] = []
    for spec in specs:
        try:
            ready.append((spec, spec.prepare()))
        except OfficerError as error:
            error.add_note(f"while preparing the eval {spec.name!r}")
            missing.append(error)
    if len(missing) == 1:
        raise missing[0]
    if missing:
        raise EvalError(
            f"{len(missing)} evals of the suite cannot run on this machine",
            got="\n".join(f"{error.problem}: {error.got}" for error in missing),
            need="\n".join(error.need for error in missing),
            fix="\n".join(error.fix for error in missing),
        )
    return ready


async def _ask(
    ready: list[tuple[Spec, Prepared]],
    target: Target,
    context: Context,
    progress: bool | None,
) -> tuple[EvalResult, ...]:
    results: list[EvalResult] = []
    total = sum(prepared.n for _, prepared in ready)
    with Progress(total, "evaluating", unit="items", show=progress) as bar:
        for spec, prepared in ready:

            def done(name: str = spec.name) -> None:
                bar.advance(note=name)

            try:
                results.append(await prepared.run(target, attrs.evolve(context, done=done)))
            except ExceptionGroup as group:
                raise _first(group) from group
    return tuple(results)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """Return the first error of a group: when requests fail together, they fail for one reason."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
