"""Whether tests/contract asks for everything that the installed SDK can ask for."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import tinker


CONTRACT = Path(__file__).parent / "contract"
# What asks no server; `create` is what `create_sampling_client` calls.
OTHER = {"create", "get_console_url", "get_telemetry", "on_queue_state_change"}


@pytest.mark.parametrize(
    "client", [tinker.ServiceClient, tinker.TrainingClient, tinker.SamplingClient, tinker.RestClient]
)
def test_everything_is_asked_for(client: type) -> None:
    """Every public method of the SDK's clients, or its twin for asyncio, is called in tests/contract."""
    methods = {name for name, _ in inspect.getmembers(client, callable) if not name.startswith("_")}
    source = "".join(path.read_text(encoding="utf-8") for path in CONTRACT.glob("test_*.py"))
    called = set(re.findall(r"\.(\w+)\(", source)) | OTHER

    assert methods
    assert not {name.removesuffix("_async") for name in methods} - called
