"""What is written about a checkpoint and a training run, and the address of the former."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, Self

import attrs
import cattrs

from tinker_officer._digest import digest
from tinker_officer.engine.refusal import Refused


KINDS = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}

RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}:train:[0-9]{1,9}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@attrs.frozen
class TinkerPath:
    """A checkpoint's address, `tinker://<run>/<kind>/<name>`; every part is checked by pattern."""

    run: str
    kind: str
    name: str

    def __attrs_post_init__(self) -> None:
        if not (RUN.fullmatch(self.run) and self.kind in KINDS and NAME.fullmatch(self.name)):
            raise Refused(
                "not the name of a checkpoint",
                got=f"tinker://{self.run}/{self.kind}/{self.name}"[:200],
                need="letters, digits, '.', '_' and '-', at most 128, beginning with a letter or digit",
                fix="training_client.save_state('step-000100')",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address that `text` spells.

        Raises:
            Refused: `text` is not `tinker://<run>/<kind>/<name>`.
        """
        parts = text.removeprefix("tinker://").split("/")
        if not text.startswith("tinker://") or len(parts) != 3:  # noqa: PLR2004 - run, kind, name
            raise Refused(
                "not the path of a checkpoint",
                got=text[:200],
                need="tinker://<training run>/weights/<name>, or .../sampler_weights/<name>",
                fix="path = training_client.save_state('step-000100').result().path",
            )
        return cls(*parts)

    def __str__(self) -> str:
        return f"tinker://{self.run}/{self.kind}/{self.name}"


@attrs.frozen
class Run:
    """What is known of a training run: enough to list it, and to name what it was trained from."""

    id: str
    base_model: str
    lora: dict[str, Any]
    created: str
    session: str
    user_metadata: dict[str, Any] | None = None


@attrs.frozen
class Meta:
    """What is known of a checkpoint beside its files."""

    path: str
    base_model: str
    lora: dict[str, Any]
    created: str
    steps: int
    files: dict[str, dict[str, Any]]
    user_metadata: dict[str, str] | None = None
    expires: str | None = None
    public: bool = False

    @property
    def size_bytes(self) -> int:
        """The sum of the files' sizes."""
        return sum(int(file["size_bytes"]) for file in self.files.values())

    @property
    def expired(self) -> bool:
        """Whether its time to live is over."""
        return self.expires is not None and datetime.fromisoformat(self.expires) <= datetime.now(UTC)

    def sealed(self) -> bytes:
        """Return this record as JSON, with its own digest."""
        record = attrs.asdict(self)
        return json.dumps({**record, "digest": digest(record)}, indent=1).encode()

    @classmethod
    def unsealed(cls, text: bytes) -> Self:
        """Return the record that `text` holds.

        Raises:
            ValueError: it is no such record, or was changed since it was written.
        """
        try:
            record = json.loads(text)
            seal = record.pop("digest")
            if seal != digest(record):
                raise ValueError("it does not match its own digest")
            return cattrs.structure(record, cls)
        except (KeyError, TypeError, AttributeError, cattrs.BaseValidationError) as error:
            raise ValueError(str(error)) from error


def now() -> str:
    """Return this moment as ISO 8601, UTC."""
    return datetime.now(UTC).isoformat()
