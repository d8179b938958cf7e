"""Where batches come from: what `Batches` asks of the data of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs


if TYPE_CHECKING:
    import tinker

    from tinker_officer.train.folder import RunFolder
    from tinker_officer.train.objective import Batch
    from tinker_officer.train.session import Session


@attrs.frozen
class Scene:
    """What a source can use once the run is open.

    Args:
        service: the client of the service.
        session: the training client, and where it stands.
        folder: the run's folder.
    """

    service: tinker.ServiceClient
    session: Session
    folder: RunFolder


class Source(Protocol):
    """Makes the batch of a step."""

    @property
    def steps(self) -> int:
        """Steps in the whole run."""

    @property
    def ahead(self) -> int | None:
        """Steps that a batch may be made before its own; None: as far as anybody likes.

        A batch that was sampled from the weights cannot be made before they are there.
        """

    def opened(self, scene: Scene) -> None:
        """Take note that the run is open, before a batch is asked for; again after a guard went back."""

    def make(self, step: int) -> Batch:
        """Return the batch of `step`, on a thread of its own."""

    def submitted(self, step: int) -> None:
        """Take note that `step` and its optimizer step are with the server."""

    def applied(self, record: Mapping[str, Any]) -> bool:
        """Return whether a ledger's record says what its step's batch is."""

    def text(self, batch: Batch) -> list[dict[str, Any]]:
        """Return what a batch holds, as JSON that a person can read."""

    def close(self) -> None:
        """Give up what is being made; a batch that is asked for now may never come."""


def identity_of(data: Any) -> dict[str, Any]:
    """Return what identifies data in a run's folder, as JSON.

    Rows are known by content and order. A cookbook dataset, or a sequence of environments, shows no content:
    it is known by its class and its size, and that it is the same again is for the user to see to.
    """
    if hasattr(data, "content_digests"):
        order = hashlib.sha256(data.content_digests.tobytes()).hexdigest()
        return {**data.summary(), "source": Path(data.source).name, "order": order}
    kind = type(data if hasattr(data, "get_batch") else data[0] if len(data) else data)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return {"source": kind.__qualname__, "rows": len(data), "kind": name, "order": f"{name} x {len(data)}"}


def content(parts: Iterable[bytes]) -> str:
    """Return a digest of `parts`, in this order, 16 hexadecimal digits."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
