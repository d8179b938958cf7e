"""What a server says when it is asked for a rank above its largest."""

from __future__ import annotations

import re

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
    found = _SAID.search(text)
    if found is None or int(found[1]) < 1:
        raise PlanError(
            "this refusal names no largest rank",
            got=text.strip()[:200] or type(refused).__name__,
            need="an answer such as 'rank 64 exceeds max LoRA rank 32'",
            fix="raise it again; or, where the largest rank is known, LoRAPlan.for_(base_model, max_rank=32)",
        )
    named = int(found[1])
    return named if known is None else min(named, known)
