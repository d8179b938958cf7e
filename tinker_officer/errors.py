"""The error tree.

::

    OfficerError
    ├── DataError      (ValueError)    a row, a file or a split is not what it must be
    ├── ModelError     (LookupError)   a base model, tokenizer or renderer cannot be found or used
    ├── PlanError      (ValueError)    a plan contradicts itself, its data or its model
    ├── RunError       (RuntimeError)  training cannot start, go on or resume
    ├── EvalError      (RuntimeError)  an evaluation is incomplete, unpaired or cannot be run
    ├── RegistryError  (RuntimeError)  the registry refuses, or its file is not a registry
    └── EngineError    (RuntimeError)  the embedded engine cannot start, or refuses a request

Every message has four parts: the problem, what was got, what is needed, and the fix. Errors of the
Tinker SDK are not wrapped: they get a note (`BaseException.add_note`) that says what was being done.

    >>> try:
    ...     LoRAPlan.for_("Qwen/Qwen3-8B").pin(rank=0)
    ... except errors.PlanError as error:
    ...     print(error)
    rank is out of range
      got:  0
      need: an integer from 1 to 512
      fix:  plan.pin(rank=32)
"""

from __future__ import annotations


def explain(problem: str, *, got: object, need: str, fix: str) -> str:
    """Return a four-part message.

    Args:
        problem: what is wrong, one line, no full stop.
        got: what was received; shown with `str`, lines indented under the label.
        need: what would have been accepted.
        fix: what to do, as code or a command to paste.

    Returns:
        The message, `problem` first, then one labelled line a part.
    """
    parts = [problem]
    for label, value in (("got: ", got), ("need:", need), ("fix: ", fix)):
        first, *rest = str(value).splitlines() or [""]
        parts.append(f"  {label} {first}")
        parts.extend(f"        {line}" for line in rest)
    return "\n".join(parts)


class OfficerError(Exception):
    """The root of every error that this library raises.

    Args:
        problem: what is wrong.
        got: what was received.
        need: what would have been accepted.
        fix: what to do, as code or a command to paste.
    """

    def __init__(self, problem: str, *, got: object, need: str, fix: str) -> None:
        self.problem, self.got, self.need, self.fix = problem, got, need, fix
        super().__init__(explain(problem, got=got, need=need, fix=fix))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by parts, so that an error survives the way back from a worker process."""
        return _rebuild, (type(self), self.problem, str(self.got), self.need, self.fix)


def _rebuild(kind: type[OfficerError], problem: str, got: str, need: str, fix: str) -> OfficerError:
    return kind(problem, got=got, need=need, fix=fix)


class DataError(OfficerError, ValueError):
    """A row, a file or a split is not what it must be."""


class ModelError(OfficerError, LookupError):
    """A base model, tokenizer or renderer cannot be found or used."""


class PlanError(OfficerError, ValueError):
    """A plan contradicts itself, its data or its model."""


class RunError(OfficerError, RuntimeError):
    """Training cannot start, go on or resume."""


class EvalError(OfficerError, RuntimeError):
    """An evaluation is incomplete, unpaired or cannot be run."""


class RegistryError(OfficerError, RuntimeError):
    """The registry refuses, or its file is not a registry."""


class EngineError(OfficerError, RuntimeError):
    """The embedded engine cannot start, or refuses a request."""
