"""Weights saved for sampling are those of their step, also where the SDK's loop is busy."""

from __future__ import annotations

import time
from pathlib import Path

import tinker

from tinker_officer import LocalEngine
from tinker_officer.train.checkpoints import save_for_sampler


def test_a_step_that_is_asked_for_behind_a_save_is_not_in_it(engine: LocalEngine, tiny_model: Path) -> None:
    """Saved while the SDK's loop stands still, the weights are those before the step that follows."""
    service = engine.service_client()
    client = service.create_lora_training_client(str(tiny_model), rank=4, seed=0).result()
    prompt = tinker.ModelInput.from_ints([1, 2, 3, 4])
    datum = tinker.Datum(
        model_input=prompt,
        loss_fn_inputs={
            "target_tokens": tinker.TensorData(data=[2, 3, 4, 5], dtype="int64", shape=[4]),
            "weights": tinker.TensorData(data=[1.0] * 4, dtype="float32", shape=[4]),
        },
    )

    async def stand_still() -> None:
        time.sleep(0.3)  # noqa: ASYNC251 - it is to block

    before = client.forward([datum], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].data[:3]
    still = client.holder.run_coroutine_threadsafe(stand_still())
    saved = save_for_sampler(client, "before")
    passed = client.forward_backward([datum], "cross_entropy")
    stepped = client.optim_step(tinker.AdamParams(learning_rate=0.1))
    for future in (still, passed, stepped):
        _ = future.result()
    sampler = service.create_sampling_client(saved.result().path).result()
    after = client.forward([datum], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].data[:3]
    told = sampler.compute_logprobs(prompt).result()[1:]
    assert max(abs(one - other) for one, other in zip(told, before, strict=True)) < 1e-4
    assert max(abs(one - other) for one, other in zip(told, after, strict=True)) > 1e-2
