"""A request that the engine turns down, with the HTTP status that says so."""

from __future__ import annotations

from tinker_officer.errors import EngineError


class Refused(EngineError):  # noqa: N818 - it says what happened
    """A request that is turned down before any work is done.

    The Tinker SDK tries 5xx, 408, 409 and 429 again for up to five minutes; so a refusal is a 4xx of
    another kind, and always has a body.

    Args:
        problem: what is wrong.
        got: what was received.
        need: what would have been accepted.
        fix: what to do, as code or a command to paste.
        status: the HTTP status of the answer.
    """

    def __init__(self, problem: str, *, got: object, need: str, fix: str, status: int = 400) -> None:
        super().__init__(problem, got=got, need=need, fix=fix)
        self.status = status
