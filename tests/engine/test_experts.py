"""Mixtures of experts: gradients against transformers with the LoRA written out, counts, and exports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tinker_officer.engine.decoder import hidden_states, packed_attention
from tinker_officer.engine.lora import Adapter, LoraSpec
from tinker_officer.engine.models import BaseModel, load
from tinker_officer.engine.projections import merged
from tinker_officer.engine.sampler import Sampler, SampleSpec
from tinker_officer.engine.trainer import Example, LossOutput, Trainer
from tinker_officer.errors import EngineError
from tinker_officer.plan import capacity


FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 20,
        "head_dim": 12,
        "norm_topk_prob": True,
    },
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


@pytest.fixture(params=FAMILIES)
def base(oracle: Callable[..., Path], request: pytest.FixtureRequest) -> BaseModel:
    return load("tiny", oracle(request.param, tied=False, **FAMILIES[request.param]))


def _with_lora(base: BaseModel, lora: dict[str, Tensor], scaling: float) -> Callable[[Tensor], Tensor]:
    """Return transformers' own forward pass with every product of two LoRA matrices added to its weight."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    weights: dict[str, Tensor] = {name: weight.detach() for name, weight in model.named_parameters()}

    def delta(name: str) -> Tensor:
        a, b = (lora[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        return scaling * (b @ a)  # a stack of one is broadcast

    changed = {}
    for name, weight in weights.items():
        if name.endswith("experts.gate_up_proj"):
            block = name.removesuffix(".gate_up_proj")
            changed[name] = weight + torch.cat((delta(f"{block}.w1"), delta(f"{block}.w3")), dim=1)
        elif name.endswith("experts.down_proj"):
            changed[name] = weight + delta(f"{name.removesuffix('.down_proj')}.w2")
        elif f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight" in lora:
            changed[name] = weight + delta(name.removesuffix(".weight"))

    def logits(tokens: Tensor) -> Tensor:
        given = {"input_ids": tokens[None]}
        out: Tensor = torch.func.functional_call(model, {**weights, **changed}, (), given).logits[0]
        return out

    return logits


def test_loss_and_every_gradient_are_those_of_transformers(
    base: BaseModel,
    stirred: Callable[..., Adapter],
    data: list[Example],
    fit: Callable[..., LossOutput],
) -> None:
    """Loss and every LoRA gradient, of shared and of single matrices, equal autograd's to 1e-5."""
    adapter = stirred(base, LoraSpec(rank=3, seed=1))
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in adapter.tensors().items()}
    logits = _with_lora(base, leaves, adapter.scaling)
    loss = torch.zeros(())
    for example in data:
        targets = torch.tensor(example.inputs["target_tokens"])[:, None]
        chosen = logits(torch.tensor(example.tokens)).log_softmax(-1).gather(1, targets)[:, 0]
        loss = loss - (chosen * torch.tensor(example.inputs["weights"])).sum()
    loss.backward()

    trainer = Trainer(base, adapter)
    output = fit(trainer, data)

    assert output.metrics["loss:sum"] == pytest.approx(loss.item(), rel=1e-5)
    assert trainer.gradient.keys() == leaves.keys()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert float((trainer.gradient[name] - leaf.grad).norm() / leaf.grad.norm()) < 2e-5, name


def test_the_plan_counts_what_the_engine_trains(base: BaseModel) -> None:
    """LoRAPlan's count, by Tinker's rule for experts, is the number of weights that there are."""
    shape = capacity.model_shape(str(base.folder))
    for off in ((), ("mlp",), ("attn", "unembed")):
        kept = {name: name not in off for name in ("mlp", "attn", "unembed")}
        adapter = Adapter.create(
            base, LoraSpec(rank=5, seed=0, **{f"train_{name}": on for name, on in kept.items()})
        )
        assert adapter.parameters == 5 * shape.per_rank(**kept)


def test_answers_are_those_of_a_full_forward(
    base: BaseModel, stirred: Callable[..., Adapter], answers: Callable[[Sampler], dict[str, Any]]
) -> None:
    """Sampled with merged experts, each token's log-probability is that of transformers with the LoRA."""
    adapter = stirred(base, LoraSpec(rank=3, seed=1))
    prompt = np.arange(9)
    sampler = Sampler(base)
    sampler.add("one", SampleSpec(prompt, num_samples=2, max_tokens=12, seed=3), adapter.snapshot())
    output = answers(sampler)["one"]
    logits = _with_lora(base, adapter.tensors(), adapter.scaling)

    for sequence in output.sequences:
        chain = torch.tensor(np.concatenate([prompt, sequence.tokens]), dtype=torch.int64)
        with torch.no_grad():
            expected = logits(chain[:-1]).log_softmax(-1).gather(1, chain[1:, None])[8:, 0]
        np.testing.assert_allclose(sequence.logprobs, expected.numpy(), atol=1e-4)


def test_the_cookbook_merges_the_experts(
    oracle: Callable[..., Path], stirred: Callable[..., Adapter], tmp_path: Path
) -> None:
    """`build_hf_model` takes the exported experts, and the merged model gives the same logits."""
    import transformers
    from tinker_cookbook import weights

    base = load("tiny", oracle("qwen3_moe", tied=False, **FAMILIES["qwen3_moe"]))
    adapter = stirred(base, LoraSpec(rank=3, seed=1))
    exported = tmp_path / "adapter"
    exported.mkdir()
    save_file(adapter.tensors(), exported / "adapter_model.safetensors")
    (exported / "adapter_config.json").write_text(json.dumps(adapter.peft_config("tiny")))
    weights.build_hf_model(
        base_model=str(base.folder),
        adapter_path=str(exported),
        output_path=str(tmp_path / "merged"),
        dtype="float32",
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    tokens = torch.arange(30)

    with torch.no_grad():
        expected = model(input_ids=tokens[None]).logits[0]
        ops = merged(base, adapter)
        got = ops.head(hidden_states(base, ops, tokens, torch.arange(30), packed_attention((30,))))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_experts_among_dense_layers_are_refused(oracle: Callable[..., Path]) -> None:
    """A model in which only some layers have experts is refused, and told why."""
    folder = oracle("qwen3_moe", tied=False, **FAMILIES["qwen3_moe"], mlp_only_layers=[0])
    with pytest.raises(EngineError, match="layers without experts"):
        load("tiny", folder)
