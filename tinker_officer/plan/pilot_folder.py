"""A pilot's folder: plain files, so that an interrupted pilot goes on where it stood.

::

    pilot.json          what was asked for; a start that asks for something else is refused
    start.jsonl         the held-out loss before training
    arms/NAME.jsonl     a record a step, a record a saved state, and the held-out losses at the end
    result.json         the fit, there once the pilot is over
    pilot.svg           its plot
    .lock               held by the process that runs the pilot
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tinker_officer._files import lock, write_atomic
from tinker_officer._journal import Journal
from tinker_officer.errors import PlanError
from tinker_officer.plan.pilot_fit import PilotFit


@attrs.frozen
class PilotFolder:
    """The files of one pilot under `path`."""

    path: Path

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the folder against other processes and threads.

        Raises:
            PlanError: somebody else holds it, or it is a file.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise PlanError(
                "the pilot's folder is a file",
                got=str(self.path),
                need="a folder, or a path where one can be made",
                fix='plan.pilot(train, held_out, on=engine, at="pilots/mine")',
            ) from error
        handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not lock(handle):
                raise PlanError(
                    "the pilot is already running",
                    got=f"{self.path}, which another process or thread holds",
                    need="one at a time",
                    fix='wait for it, or plan.pilot(train, held_out, on=engine, at="pilots/other")',
                )
            yield
        finally:
            os.close(handle)

    def claim(self, asked: Mapping[str, Any]) -> None:
        """Write down what is asked for, or check that it is what was asked for before.

        Raises:
            PlanError: the folder is another pilot's.
        """
        file = self.path / "pilot.json"
        if not file.exists():
            write_atomic(file, json.dumps(asked, indent=2, ensure_ascii=False) + "\n")
            return
        before = _read(file)
        differs = [name for name in sorted({*before, *asked}) if before.get(name) != asked.get(name)]
        if differs:
            raise PlanError(
                "the folder holds another pilot",
                got=f"{self.path}, which differs in {', '.join(differs)}",
                need="the same plan, data and steps, or another folder",
                fix='plan.pilot(train, held_out, on=engine, at="pilots/other")',
            )

    @property
    def start(self) -> Journal:
        """The held-out loss before training."""
        return Journal(self.path / "start.jsonl")

    def arm(self, name: str) -> Journal:
        """Return the journal of the arm `name`."""
        return Journal(self.path / "arms" / f"{name}.jsonl")

    def read_result(self) -> PilotFit | None:
        """Return the fit, or None while the pilot is not over."""
        file = self.path / "result.json"
        return PilotFit.from_dict(_read(file)) if file.exists() else None

    def write_result(self, fit: PilotFit) -> None:
        """Keep the fit and its plot."""
        fit.plot(self.path / "pilot.svg")
        write_atomic(self.path / "result.json", json.dumps(fit.to_dict(), indent=2) + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        body = json.loads(file.read_text("utf-8"))
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise PlanError(
            "a file of the pilot is damaged",
            got=str(file),
            need="the JSON object that the pilot wrote",
            fix="remove the pilot's folder, and run it again",
        )
    return body
