"""Log-probabilities under the weights that training began with: computed once, kept in the run's folder.

They are those of the base model, or of the checkpoint that the run was told to start from. So they are the
same however often a run is resumed, and never those of the weights that its own checkpoints hold.
"""

# ruff: noqa: N806 - names carry their axes (house rule 5)

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from tinker_officer._journal import Journal
from tinker_officer.train.objective import Floats, array
from tinker_officer.train.origin import initial_sampler
from tinker_officer.train.source import Scene


if TYPE_CHECKING:
    import tinker

REFERENCE = "reference.jsonl"


@attrs.define
class Reference:
    """The summed log-probability of each datum's answer, by what the datum holds.

    Args:
        open: returns a client that samples from the reference; asked for once something is not known yet.
        path: the file that they are kept in.
    """

    open: Callable[[], tinker.SamplingClient]
    path: Path
    _known: dict[str, float] = attrs.field(init=False, factory=dict)
    _journal: Journal = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._journal = Journal(self.path)
        self._known = {record["datum"]: record["logprob"] for record in self._journal}

    @cached_property
    def _client(self) -> tinker.SamplingClient:
        return self.open()

    @classmethod
    def of(cls, scene: Scene, base_model: str, origin: str | None) -> Reference:
        """Return the reference of a run that started from `origin`; None is a fresh adapter."""
        return cls(partial(initial_sampler, scene.service, base_model, origin), scene.folder.path / REFERENCE)

    def __call__(self, datums: Sequence[tinker.Datum]) -> Floats:
        """Return the weighted sum of each datum's log-probabilities, nats, shape `(D,)`.

        What is not known yet is asked for all at once, and kept.
        """
        keys = [_key(datum) for datum in datums]
        asked = {
            key: (datum, self._client.compute_logprobs(full_sequence(datum)))
            for key, datum in zip(keys, datums, strict=True)
            if key not in self._known
        }
        for key, (datum, future) in asked.items():
            logprobs_T = np.array(future.result()[1:], dtype=np.float64)
            self._known[key] = float(logprobs_T @ array(datum, "weights"))
            self._journal.append({"datum": key, "logprob": self._known[key]})
        return np.array([self._known[key] for key in keys])


def full_sequence(datum: tinker.Datum) -> tinker.ModelInput:
    """Return what a datum reads, and the last token that it predicts."""
    return datum.model_input.append_int(int(datum.loss_fn_inputs["target_tokens"].to_numpy().reshape(-1)[-1]))


def _key(datum: Any) -> str:
    """Return a digest of a datum's tokens and weights."""
    parts = [np.array(full_sequence(datum).to_ints(), dtype=np.int64), array(datum, "weights")]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:24]
