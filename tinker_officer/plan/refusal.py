"""What a server says when it is asked for a rank above its largest."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from tinker_officer.errors import PlanError


_SAID = re.compile(r"exceeds max(?:imum)? LoRA rank\D{0,4}(\d+)", re.IGNORECASE)


def largest_rank(refused: BaseException | str, known: int | None) -> int:
    """Return the largest rank named in a refusal, or `known` where that is smaller.

    Args:
        refused: the error that the service raised (HTTP 400), or its text.
        known: the largest rank that was known before.

    Raises:
        PlanError: the refusal names no largest rank, so it is about something else.
    """
    text = "\n".join([str(refused), *getattr(refused, "__notes__", ()), str(getattr(refused, "body", ""))])
    named = _named(text)
    if not named:
        raise PlanError(
            "this refusal names no largest rank",
            got=text.strip()[:200] or type(refused).__name__,
            need="an answer such as 'rank 64 exceeds max LoRA rank 32'",
            fix="raise it again; or, where the largest rank is known, LoRAPlan.for_(base_model, max_rank=32)",
        )
    return named if known is None else min(named, known)


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Add to a refusal that names the server's largest rank what to do about it."""
    try:
        yield
    except Exception as error:
        if named := _named(f"{error}\n{getattr(error, 'body', '')}"):
            error.add_note(f"the server's largest rank is {named}; to plan below it: plan.within(error)")
        raise


def _named(text: str) -> int:
    """Return the largest rank that `text` names, 0 for none."""
    found = _SAID.search(text)
    return int(found[1]) if found else 0
