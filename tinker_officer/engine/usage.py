"""What was used, hour by hour: tokens trained, read and sampled, and checkpoints saved.

The numbers that a bill would be made of, so that costs and budgets can be tested without one. Counted is what
was asked for: a prompt once a request, also where requests share its computation, and never as cached;
`forward` as `forward_backward`. The numbers begin anew with each start of the engine.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs


_REMEMBERED = 20_000  # sums kept; beyond, the oldest are forgotten


@attrs.frozen
class _Key:
    hour: datetime
    session: str
    base_model: str
    kind: str


class Usage:
    """Sums since the engine was started, by hour, session, base model and kind. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: Counter[_Key] = Counter()

    def add(self, session: str, base_model: str, **counts: int) -> None:
        """Count what one request used.

        Args:
            session: whose request it was.
            base_model: of what model.
            **counts: by kind: `training`, `sampling_prefill`, `sampling_sample` (tokens), `checkpoint`.
        """
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        with self._lock:
            for kind, count in counts.items():
                if count:
                    self._sums[_Key(hour, session, base_model, kind)] += count
            while len(self._sums) > _REMEMBERED:
                del self._sums[next(iter(self._sums))]

    def events(self, start: datetime, end: datetime) -> list[dict[str, Any]]:
        """Return the sums of the hours from `start` to before `end`, as the SDK's `BillingUsageEvent`."""
        with self._lock:
            sums = [(key, count) for key, count in self._sums.items() if start <= key.hour < end]
        return [
            {
                "bucket_start": key.hour.isoformat(),
                "bucket_end": (key.hour + timedelta(hours=1)).isoformat(),
                "base_model": key.base_model,
                "session_id": key.session,
                "event_info": _info(key.kind, count),
            }
            for key, count in sorted(sums, key=lambda item: (item[0].hour, -item[1], item[0].kind))
        ]


def _info(kind: str, count: int) -> dict[str, Any]:
    if kind == "checkpoint":
        return {"type": kind, "count": count}
    return {"type": kind, "token_count": count, **({"cached": False} if kind == "sampling_prefill" else {})}
