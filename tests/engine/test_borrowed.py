"""Decoders that run in transformers' own modules: logits, gradients, samples and exports against PEFT."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tinker_officer.engine.borrowed import BORROWED, Borrowed
from tinker_officer.engine.lora import Adapter, LoraSpec
from tinker_officer.engine.models import BaseModel, load
from tinker_officer.engine.sampler import SampleOutput, Sampler, SampleSpec
from tinker_officer.engine.trainer import LossOutput, Trainer
from tinker_officer.errors import EngineError
from tinker_officer.plan import capacity


# One a kind of construction; the others are tried by `nox -s soak`.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("gemma2", {"head_dim": 12, "sliding_window": 8, "query_pre_attn_scalar": 12}),  # caps, windows
    "gemma3_text": ("gemma3_text", {"head_dim": 12, "sliding_window": 8, "sliding_window_pattern": 2}),
    "phi": ("phi", {}),  # a part of each head turns; a bias on the head
    "phi3": ("phi3", {}),  # q, k, v and gate, up are one layer each
    "gpt2": ("gpt2", {}),  # learned positions, weights stored inputs first
    "gpt_neox": ("gpt_neox", {"tied": False}),  # attention beside the MLP
    "bloom": ("bloom", {}),  # ALiBi
    "cohere": ("cohere", {}),  # logits times a factor
    "granite": ("granite", {"logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0}),
    "mistral-window": ("mistral", {"sliding_window": 8}),
    "llama-gelu": ("llama", {"hidden_act": "gelu", "mlp_bias": True, "attention_bias": True}),
}
OTHERS: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 4, "tied": False},
    "cohere2": {"sliding_window": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8, "num_layers": 2},
    "gptj": {"rotary_dim": 4, "tied": False},
    "gemma": {"head_dim": 12},
    "helium": {"head_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "olmo2": {"tied": False},
}
REST = sorted(set(BORROWED) - {family for family, _ in KINDS.values()})
CASES = [
    *(pytest.param(*given, id=name) for name, given in KINDS.items()),
    *(pytest.param(name, OTHERS.get(name, {}), id=name, marks=pytest.mark.soak) for name in REST),
]
LENGTHS = (23, 9, 9)

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT and old families have much to say


@pytest.mark.parametrize(("family", "config"), CASES)
def test_a_family_is_that_of_transformers_and_peft(
    oracle: Callable[..., Path],
    stirred: Callable[[BaseModel, LoraSpec], Adapter],
    fit: Callable[..., LossOutput],
    answers: Callable[[Sampler], dict[str, SampleOutput | Exception]],
    example: Callable[..., Any],
    tmp_path: Path,
    family: str,
    config: dict[str, Any],
) -> None:
    """Log-probabilities, every gradient and what is sampled are those of the export in plain PEFT."""
    import peft
    import transformers

    base = load("tiny", oracle(family, **config))
    assert isinstance(base, Borrowed)
    adapter = stirred(base, LoraSpec(rank=3, seed=1))
    save_file(adapter.tensors(), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter.peft_config("tiny")))
    model = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    oracle_model = peft.PeftModel.from_pretrained(model, tmp_path, is_trainable=True).eval()
    leaves = {
        name.replace(".default", ""): leaf
        for name, leaf in oracle_model.named_parameters()
        if leaf.requires_grad
    }
    assert leaves.keys() == adapter.tensors().keys()

    def expected(tokens: np.ndarray, targets: np.ndarray) -> torch.Tensor:
        logits = oracle_model(input_ids=torch.tensor(tokens)[None]).logits[0].float()
        return logits.log_softmax(-1).gather(1, torch.tensor(targets)[:, None])[:, 0]

    data = [example(length) for length in LENGTHS]
    wanted = [expected(datum.tokens, datum.inputs["target_tokens"]) for datum in data]
    weighted = [
        (row * torch.tensor(datum.inputs["weights"])).sum() for row, datum in zip(wanted, data, strict=True)
    ]
    (-torch.stack(weighted).sum()).backward()
    trainer = Trainer(base, adapter)
    output = fit(trainer, data)

    for row, found in zip(wanted, output.outputs, strict=True):
        np.testing.assert_allclose(found["logprobs"], row.detach().numpy(), rtol=1e-5, atol=2e-5)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert float((trainer.gradient[name] - leaf.grad).norm()) <= 1e-4 * float(leaf.grad.norm()), name

    sampler = Sampler(base)
    prompts = data[0].tokens[:14], data[1].tokens
    for name, prompt in zip("ab", prompts, strict=True):
        spec = SampleSpec(prompt, num_samples=2, max_tokens=6, seed=5, stop_tokens=(), prompt_logprobs=True)
        sampler.add(name, spec, adapter)
    found_answers = answers(sampler)
    for name, prompt in zip("ab", prompts, strict=True):
        answer = found_answers[name]
        assert isinstance(answer, SampleOutput)
        assert answer.prompt_logprobs is not None
        for sequence in answer.sequences:
            text = np.concatenate([prompt, sequence.tokens])
            row = expected(text[:-1], text[1:]).detach().numpy()
            got = np.concatenate([answer.prompt_logprobs[1:], sequence.logprobs])
            np.testing.assert_allclose(got, row, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("family", ["gpt2", "phi3"])
def test_exactly_the_layers_asked_for_and_as_many_as_planned(
    oracle: Callable[..., Path], stirred: Callable[[BaseModel, LoraSpec], Adapter], family: str
) -> None:
    """Each part alone trains its own layers, as many weights as the plan counts, by PEFT's names."""
    import peft
    import transformers

    base = load("tiny", oracle(family))
    none = {"train_mlp": False, "train_attn": False, "train_unembed": False}
    shape = capacity.config_shape(base.config)
    for part in none:
        adapter = stirred(base, attrs.evolve(LoraSpec(rank=2, seed=0), **(none | {part: True})))
        model = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
        given = {key: value for key, value in adapter.peft_config("x").items() if key != "inference_mode"}
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**given))
        result = peft.set_peft_model_state_dict(wrapped, adapter.tensors())
        assert not result.unexpected_keys
        assert sum(p.numel() for p in wrapped.parameters() if p.requires_grad) == adapter.parameters
        planned = {name.removeprefix("train_"): name == part for name in none}
        assert adapter.parameters == 2 * shape.per_rank(**planned)


def test_bfloat16_trains_and_samples_near_float32(
    oracle: Callable[..., Path], fit: Callable[..., LossOutput], example: Callable[..., Any]
) -> None:
    """In bfloat16 a borrowed model's log-probabilities differ by rounding only."""
    rows = []
    for dtype in ("float32", "bfloat16"):
        base = load("tiny", oracle("gemma", head_dim=12), dtype=dtype)
        output = fit(Trainer(base, Adapter.create(base, LoraSpec(rank=2, seed=0))), [example(9)])
        rows.append(output.outputs[0]["logprobs"])
    assert 0 < np.abs(rows[0] - rows[1]).mean() < 0.2


def test_a_model_that_does_more_behind_its_head_is_refused(
    oracle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial at loading finds a model whose logits are not what the engine takes them for."""
    folder = oracle("cohere")
    monkeypatch.setattr(
        "transformers.models.cohere.modeling_cohere.CohereLayerNorm.forward",
        lambda self, x: x.cumsum(-1).flip(1),
    )
    with pytest.raises(EngineError, match="cannot run"):
        load("tiny", folder)
