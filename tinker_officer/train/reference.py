"""Log-probabilities under the weights that training began with: computed once, kept in the run's folder.

They are those of the base model: a fresh adapter changes nothing. So they are the same however often a run is
resumed, and never those of the weights that a checkpoint holds.
"""

# ruff: noqa: N806 - names carry their axes (house rule 5)

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from tinker_officer._journal import Journal
from tinker_officer.train.objective import Floats, array


if TYPE_CHECKING:
    import tinker

REFERENCE = "reference.jsonl"


@attrs.define
class Reference:
    """The summed log-probability of each datum's answer, by what the datum holds.

    Args:
        client: samples from the reference.
        path: the file that they are kept in.
    """

    client: tinker.SamplingClient
    path: Path
    _known: dict[str, float] = attrs.field(init=False, factory=dict)
    _journal: Journal = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._journal = Journal(self.path)
        self._known = {record["datum"]: record["logprob"] for record in self._journal}

    @classmethod
    def base(cls, service: tinker.ServiceClient, base_model: str, folder: Path) -> Reference:
        """Return the reference of a run that began with a fresh adapter on `base_model`."""
        client = service.create_sampling_client(base_model=base_model).result()
        return cls(client, folder / REFERENCE)

    def __call__(self, datums: Sequence[tinker.Datum]) -> Floats:
        """Return the weighted sum of each datum's log-probabilities, nats, shape `(D,)`.

        What is not known yet is asked for all at once, and kept.
        """
        keys = [_key(datum) for datum in datums]
        asked = {
            key: (datum, self.client.compute_logprobs(full_sequence(datum)))
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
