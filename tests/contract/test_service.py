"""The service: models, runs, sessions, usage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import tinker
from tinker.types import SessionSearchRequest


def test_capabilities(rest: tinker.RestClient, model: str, stirred: tinker.TrainingClient) -> None:
    """The models there are, with their context."""
    models = {one.model_name: one for one in rest.get_server_capabilities().result().supported_models}
    assert models[model].max_context_length


def test_get_info(stirred: tinker.TrainingClient, model: str) -> None:
    """get_info names base model and rank."""
    info = stirred.get_info()
    assert (info.model_name, info.is_lora, info.lora_rank) == (model, True, 4)


def test_tokenizers(stirred: tinker.TrainingClient, sampler: tinker.SamplingClient) -> None:
    """get_tokenizer, of a training client and of a sampling client."""
    for tokenizer in (stirred.get_tokenizer(), sampler.get_tokenizer()):
        assert tokenizer.decode(tokenizer.encode("the dog", add_special_tokens=False)) == "the dog"


def test_runs(new: Any, rest: tinker.RestClient) -> None:
    """Training runs are listed, newest first, with their metadata, page by page."""
    metadata = {"contract": uuid4().hex}
    ids = [new(user_metadata=metadata).model_id for _ in range(2)]
    assert rest.get_training_run(ids[0]).result().user_metadata == metadata
    pages = [rest.list_training_runs(limit=1, offset=offset).result() for offset in (0, 1)]
    assert [page.training_runs[0].training_run_id for page in pages] == ids[::-1]
    assert pages[0].cursor.total_count >= 2


def test_sessions(
    service: tinker.ServiceClient, stirred: tinker.TrainingClient, rest: tinker.RestClient
) -> None:
    """Sessions are listed, and say what they hold."""
    session_id = stirred.model_id.split(":")[0]
    assert session_id in rest.list_sessions(limit=100).result().sessions
    assert stirred.model_id in rest.get_session(session_id).result().training_run_ids


@pytest.mark.filterwarnings("ignore::tinker.lib.experimental.ExperimentalWarning")
def test_session_search(address: tuple[str, str], rest: tinker.RestClient) -> None:
    """Sessions are searched by metadata and by how they ended, page by page."""
    label = {"contract": uuid4().hex}
    for outcome in ("success", "errored", None):
        one = tinker.ServiceClient(base_url=address[0], api_key=address[1], user_metadata=label)
        one.holder.get_session_id()
        if outcome:
            one.close(outcome).result()
    found = rest.search_sessions(SessionSearchRequest(user_metadata=label)).result().sessions
    types = [(session.status.type, getattr(session.status, "reason", None)) for session in found]
    assert [kind for kind, _ in types] == ["active", "client_finished", "client_finished"]
    assert types[1][1].type == "errored"
    first = rest.search_sessions(SessionSearchRequest(user_metadata=label, limit=2)).result()
    rest_of_them = rest.search_sessions(
        SessionSearchRequest(user_metadata=label, limit=2, cursor=first.next_cursor)
    ).result()
    seen = [session.session_id for page in (first, rest_of_them) for session in page.sessions]
    assert seen == [session.session_id for session in found]
    assert rest_of_them.next_cursor is None


def test_samplers(sampler: tinker.SamplingClient, rest: tinker.RestClient, model: str) -> None:
    """A sampler says what it samples from."""
    assert rest.get_sampler(sampler._sampling_session_id).result().base_model == model


def test_usage(address: tuple[str, str], model: str, ask: Any) -> None:
    """Usage: tokens trained, read and sampled, and checkpoints, by session."""
    service = tinker.ServiceClient(base_url=address[0], api_key=address[1], user_metadata={"who": "usage"})
    client = service.create_lora_training_client(model, rank=4).result()
    client.forward_backward([ask.datum(), ask.datum(9, 5)], "cross_entropy")
    client.optim_step(tinker.AdamParams()).result()
    ask.sample(client.save_weights_and_get_sampling_client().result(), count=3)
    client.save_state("counted").result()
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    admin = tinker.AdminClient(base_url=address[0], api_key=address[1])
    usage = admin.get_billing_usage(hour - timedelta(hours=1), hour + timedelta(hours=1)).result()
    session_id = client.model_id.split(":")[0]
    mine: Counter[str] = Counter()  # the hour may have turned meanwhile
    for event in usage.data:
        if event.session_id == session_id:
            info = event.event_info
            mine[info.type] += getattr(info, "token_count", None) or info.count
    assert mine == {"training": 17, "sampling_prefill": 12, "sampling_sample": 24, "checkpoint": 1}
    assert usage.sessions[session_id].user_metadata == {"who": "usage"}


def test_storage(address: tuple[str, str], stirred: tinker.TrainingClient) -> None:
    """Storage: how many checkpoints there are, and how large."""
    stirred.save_state("stored", overwrite=True).result()
    admin = tinker.AdminClient(base_url=address[0], api_key=address[1])
    usage = admin.get_current_checkpoint_storage_usage().result().data
    assert sum(item.checkpoint_count for item in usage) >= 1
    assert sum(item.size_bytes for item in usage) > 0


def test_finished_sessions(address: tuple[str, str], model: str, ask: Any) -> None:
    """A finished session is over."""
    service = tinker.ServiceClient(base_url=address[0], api_key=address[1])
    client = service.create_lora_training_client(model, rank=4).result()
    session_id = client.model_id.split(":")[0]
    with httpx.Client(trust_env=False) as http:  # service.close() would end the client's connections too
        http.post(
            f"{address[0]}/api/v1/sessions/{session_id}/finish",
            headers={"X-API-Key": address[1]},
            json={"reason": {"type": "success"}},
        ).raise_for_status()
    with pytest.raises((tinker.APIStatusError, tinker.RequestFailedError)):
        client.forward([ask.datum()], "cross_entropy").result()


@pytest.mark.parametrize(
    "what", ["whoami", "export_session_trace", "get_audit_log", "assign_session_project"]
)
def test_hosted_only(
    address: tuple[str, str],
    rest: tinker.RestClient,
    stirred: tinker.TrainingClient,
    refused_here: Callable[[], None],
    what: str,
) -> None:
    """What an organisation's server has."""
    refused_here()
    if what == "whoami":
        rest.whoami().result()
    elif what == "assign_session_project":
        rest.assign_session_project(stirred.model_id.split(":")[0], "project").result()
    elif what == "get_audit_log":
        tinker.AdminClient(base_url=address[0], api_key=address[1]).get_audit_log(
            day=datetime.now(UTC).date()
        ).result()
    else:
        rest.export_session_trace(stirred.model_id.split(":")[0]).result()
