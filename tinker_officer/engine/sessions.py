"""Who is here: sessions, the models they train and what they sample from."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import attrs

from tinker_officer.engine.records import now
from tinker_officer.engine.refusal import Refused
from tinker_officer.engine.workshop import Weights


_REMEMBERED = 1000  # finished sessions that can still be looked up


@attrs.define(eq=False)
class Session:
    """One client's stay."""

    id: str
    created: str
    user_metadata: dict[str, Any] | None
    display_name: str | None
    models: list[str] = attrs.field(factory=list)
    samplers: list[str] = attrs.field(factory=list)
    seen: float = attrs.field(factory=time.monotonic)
    finished: bool = False
    ended: dict[str, Any] | None = None  # why, as its client said


@attrs.define(eq=False)
class Model:
    """One training client's model."""

    id: str
    session: str
    base_model: str
    folder: Path
    lora: dict[str, Any]
    last_request: str


class Sessions:
    """The sessions since the engine was started, and what belongs to them."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.models: dict[str, Model] = {}
        self.samplers: dict[str, Weights] = {}

    def open(self, user_metadata: dict[str, Any] | None, display_name: str | None) -> Session:
        """Begin a session."""
        session = Session(str(uuid.uuid4()), now(), user_metadata, display_name)
        self.sessions[session.id] = session
        return session

    def session(self, session_id: str) -> Session:
        """Return a session that is going on.

        Raises:
            Refused: there is none, or it is finished (410).
        """
        session = self.sessions.get(session_id)
        if session is None or session.finished:
            raise Refused(
                "the session is finished" if session else "no such session",
                got=session_id[:64],
                need="a session of this engine that is going on",
                fix="make a new client: tinker.ServiceClient(base_url=engine.base_url, api_key=engine.token)",
                status=410,
            )
        session.seen = time.monotonic()
        return session

    def prune(self) -> None:
        """Forget the oldest sessions that are finished, so that a long life costs no memory."""
        finished = [one.id for one in self.sessions.values() if one.finished]
        for session_id in finished[:-_REMEMBERED]:
            del self.sessions[session_id]

    def idle(self, idle_s: float) -> list[Session]:
        """Return the sessions that go on, but of which nothing was heard for `idle_s`."""
        since = time.monotonic() - idle_s
        return [one for one in self.sessions.values() if not one.finished and one.seen < since]

    def model(self, model_id: str) -> Model:
        """Return a model that is in memory.

        Raises:
            Refused: there is none (404).
        """
        model = self.models.get(model_id)
        if model is None:
            raise Refused(
                "no such model",
                got=model_id[:200],
                need="a training client of this engine, whose session is not finished; after a restart of"
                " the engine its saved states are still there",
                fix="service_client.create_training_client_from_state_with_optimizer(path)",
                status=404,
            )
        self.session(model.session)
        model.last_request = now()
        return model

    def sampler(self, sampler_id: str) -> Weights:
        """Return what a sampling session samples from.

        Raises:
            Refused: there is no such session (404).
        """
        weights = self.samplers.get(sampler_id)
        if weights is None:
            raise Refused(
                "no such sampling session",
                got=sampler_id[:200],
                need="a sampling client of this engine, whose session is not finished; after a restart of"
                " the engine its saved weights are still there",
                fix="service_client.create_sampling_client(model_path=path)",
                status=404,
            )
        return weights
