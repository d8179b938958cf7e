"""A server's largest rank is read from its refusal, remembered, and planned with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tinker_officer import LoRAPlan, TokenCounts
from tinker_officer.errors import PlanError
from tinker_officer.plan.refusal import noted


if TYPE_CHECKING:
    from tinker_officer import LocalEngine

HUGE = TokenCounts(examples=100_000, trained=10**9, total=10**9)


def test_the_embedded_engines_own_refusal_is_understood(engine: LocalEngine, tiny_model: Path) -> None:
    """A real server turns rank 1024 down; the plan keeps to what it names."""
    import tinker

    service = engine.service_client()
    with pytest.raises(tinker.TinkerError) as caught, noted():
        service.create_lora_training_client(str(tiny_model), rank=1024).result()
    assert "largest rank is 512; to plan below it: plan.within(error)" in caught.value.__notes__[-1]
    plan = LoRAPlan.for_(str(tiny_model), max_rank=1024).sft(HUGE).within(caught.value)
    assert plan.max_rank == 512
    assert plan.rank <= 512
    assert LoRAPlan.from_json(plan.to_json()) == plan


def test_a_plan_is_made_again_below_the_named_rank() -> None:
    """Rank, parameters, verdict and warnings follow."""
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(HUGE)
    held = plan.within("Error code: 400 - {'detail': 'rank 512 exceeds max LoRA rank 100'}")
    assert (plan.rank, held.rank, held.max_rank) == (512, 64, 100)
    assert held.verdict != plan.verdict
    assert any("capped at 64" in text for text in held.warnings)
    assert held.within("exceeds max LoRA rank 128").max_rank == 100
    assert plan.max_rank is None


def test_an_http_400_is_read_by_its_body() -> None:
    """The SDK's own error holds what the service said in its body."""
    import httpx
    import tinker

    response = httpx.Response(400, request=httpx.Request("POST", "https://service/api/v1/create_model"))
    body = {"detail": "LoRA rank 512 exceeds max LoRA rank 64"}
    error = tinker.BadRequestError("Error code: 400", response=response, body=body)
    assert LoRAPlan.for_("Qwen/Qwen3-8B").sft(HUGE).within(error).rank == 64


def test_a_note_on_the_error_counts_too() -> None:
    """The SDK's errors are annotated, not wrapped; what was annotated is read."""
    error = ValueError("bad request")
    error.add_note("server: Rank 64 exceeds max LoRA rank: 32.")
    assert LoRAPlan.for_("Qwen/Qwen3-8B").within(error).max_rank == 32


def test_a_pinned_rank_above_it_is_a_contradiction() -> None:
    """The pin is the user's: it is not dropped in silence."""
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(HUGE).pin(rank=64)
    with pytest.raises(PlanError, match=r"plan\.pin\(rank=32\)"):
        plan.within("rank 64 exceeds max LoRA rank 32")


@pytest.mark.parametrize("text", ["", "exceeds max LoRA rank", "exceeds max LoRA rank 0", "quota exceeded"])
def test_another_refusal_is_not_taken_for_it(text: str) -> None:
    """Only an answer that names a rank is one."""
    with pytest.raises(PlanError, match="names no largest rank"):
        LoRAPlan.for_("Qwen/Qwen3-8B").within(RuntimeError(text))
