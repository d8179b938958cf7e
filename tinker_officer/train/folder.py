"""A run's folder: plain files, one owner at a time, one spec for ever.

::

    spec.json           what was asked for; a start with another spec is refused
    metrics.jsonl       one record a step, and one an evaluation
    ledger.jsonl        which rows were applied at which step
    checkpoints.jsonl   what was saved where
    evals/step-NNNNNN.json   the scorecards of inline evaluations
    result.json         there once the run is over
    .lock               held by the process that trains (the kernel lets go of it with the process)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tinker_officer._files import lock, write_atomic
from tinker_officer._journal import Journal
from tinker_officer.errors import RunError


_SHOWN = 8  # differences named before the rest is counted
_WIDTH = 60  # characters of a value that differs


@attrs.frozen
class RunFolder:
    """The files of one run under `path`."""

    path: Path = attrs.field(converter=Path)
    metrics: Journal = attrs.field(init=False, repr=False, eq=False)
    ledger: Journal = attrs.field(init=False, repr=False, eq=False)
    checkpoints: Journal = attrs.field(init=False, repr=False, eq=False)

    @metrics.default
    def _metrics(self) -> Journal:
        return Journal(self.path / "metrics.jsonl")

    @ledger.default
    def _ledger(self) -> Journal:
        return Journal(self.path / "ledger.jsonl")

    @checkpoints.default
    def _checkpoints(self) -> Journal:
        return Journal(self.path / "checkpoints.jsonl")

    @property
    def spec_path(self) -> Path:
        """What was asked for."""
        return self.path / "spec.json"

    @property
    def result_path(self) -> Path:
        """What came of it; there only once the run is over."""
        return self.path / "result.json"

    def card_path(self, step: int) -> Path:
        """Return where the scorecard of the evaluation after `step` lies."""
        return self.path / "evals" / f"step-{step:06d}.json"

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the folder against other processes and threads.

        The lock is the kernel's: it goes with the process, however that ends, and never turns stale.

        Raises:
            RunError: somebody else holds it, or the folder cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        try:
            if not lock(handle):
                raise RunError(
                    "the run folder is in use",
                    got=f"{self.path}, which another process or LiveRun is training in",
                    need="one at a time",
                    fix="wait for it, cancel it, or start with another folder: at='runs/other'",
                )
            yield
        finally:
            os.close(handle)

    def read_spec(self) -> dict[str, Any] | None:
        """Return what `spec.json` holds, or None when it is not there.

        Raises:
            RunError: it is not a run's spec.
        """
        if not self.spec_path.exists():
            return None
        return _read(self.spec_path, "spec.json is not a run's spec")

    def read_result(self) -> dict[str, Any] | None:
        """Return what `result.json` holds, or None when the run is not over.

        Raises:
            RunError: it is not a run's result.
        """
        if not self.result_path.exists():
            return None
        return _read(self.result_path, "result.json is not a run's result")

    def claim(self, spec: Mapping[str, Any], *, ignoring: tuple[str, ...]) -> None:
        """Write `spec` into a fresh folder, or check that it is the one this folder belongs to.

        Args:
            spec: what is asked for now.
            ignoring: the parts that may differ, since no weight depends on them; the file takes them up.

        Raises:
            RunError: the folder belongs to another spec, with every difference named, or cannot be written.
        """
        known = self.read_spec()
        if known is not None:
            self._check(known, spec, ignoring)
        else:
            stray = [journal.path.name for journal in (self.metrics, self.ledger, self.checkpoints)]
            stray = [name for name in stray if (self.path / name).exists()]
            if stray:
                raise RunError(
                    "the run folder has lost its spec",
                    got=f"{', '.join(stray)} in {self.path}, and no spec.json",
                    need="the spec.json that the run began with, or an empty folder",
                    fix="restore spec.json, or start with another folder: at='runs/other'",
                )
        if known is None or known != json.loads(json.dumps(spec)):
            try:
                write_atomic(self.spec_path, json.dumps(spec, indent=2, ensure_ascii=False) + "\n")
            except OSError as error:
                raise _unwritable(self.path, error) from error

    def _check(self, known: Mapping[str, Any], spec: Mapping[str, Any], ignoring: tuple[str, ...]) -> None:
        wanted = json.loads(json.dumps(spec))
        different = [line for line in differences(known, wanted) if not line.startswith(ignoring)]
        if different:
            more = len(different) - _SHOWN
            lines = different[:_SHOWN] + ([f"... and {more} more"] if more > 0 else [])
            raise RunError(
                "the run folder belongs to another run",
                got="\n".join([f"{self.path} (there -> asked for)", *lines]),
                need="the spec that the folder was begun with",
                fix="start with another folder: at='runs/other', or undo the change",
            )

    def roll_back(self, step: int) -> None:
        """Drop what metrics and ledger say of steps after `step`; each file is replaced atomically.

        A torn last line goes with it.
        """
        for journal in (self.metrics, self.ledger):
            if journal.path.exists():
                kept = [record for record in journal if record.get("step", 0) <= step]
                write_atomic(journal.path, "".join(f"{_line(record)}\n" for record in kept))


def differences(known: Any, wanted: Any, at: str = "") -> Iterator[str]:
    """Yield one line for every leaf in which two JSON values differ, such as `plan.rank: 16 -> 32`."""
    if isinstance(known, Mapping) and isinstance(wanted, Mapping):
        for key in [*known, *(key for key in wanted if key not in known)]:
            inner = f"{at}.{key}" if at else str(key)
            if key not in wanted:
                yield f"{inner}: {_short(known[key])} -> (absent)"
            elif key not in known:
                yield f"{inner}: (absent) -> {_short(wanted[key])}"
            else:
                yield from differences(known[key], wanted[key], inner)
    elif isinstance(known, list) and isinstance(wanted, list) and len(known) == len(wanted):
        for index, (one, other) in enumerate(zip(known, wanted, strict=True)):
            yield from differences(one, other, f"{at}[{index}]")
    elif known != wanted or isinstance(known, bool) != isinstance(wanted, bool):
        yield f"{at}: {_short(known)} -> {_short(wanted)}"


def merged(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one record a step, ascending: a later record of a step adds to, or replaces, an earlier."""
    steps: dict[int, dict[str, Any]] = {}
    for record in records:
        steps.setdefault(record["step"], {}).update(record)
    return [steps[step] for step in sorted(steps)]


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(
        "the run folder cannot be made or written",
        got=f"{path}: {error.strerror or error}",
        need="a folder with room that can be written, or a path where one can be made",
        fix='run.start(on=engine, at="runs/mine")',
    )


def _read(path: Path, problem: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RunError(
            problem,
            got=f"{path}, which is not a JSON object",
            need="the file as the run wrote it",
            fix="restore it from a backup, or start with another folder: at='runs/other'",
        )
    return value
