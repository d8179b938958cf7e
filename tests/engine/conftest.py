"""Tiny models made by transformers itself, the oracle; and ways to drive the engine's generators."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tinker_officer.engine.lora import Adapter, LoraSpec
from tinker_officer.engine.models import BaseModel, load
from tinker_officer.engine.sampler import SampleOutput, Sampler
from tinker_officer.engine.trainer import Example, LossOutput, Trainer


VOCAB = 97
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a folder with a tiny random model of a family, saved by transformers; made once a session."""
    made: dict[str, Path] = {}

    def make(family: str = "llama", *, tied: bool = True, **config: Any) -> Path:
        import transformers

        key = f"{family}-{tied}-{sorted(config.items())}"
        if key not in made:
            torch.manual_seed(0)
            settings = {**SIZES, "tie_word_embeddings": tied, **config}
            if family == "qwen3":
                settings.setdefault("head_dim", 12)  # not hidden / heads, as in the real ones
            model = transformers.AutoModelForCausalLM.from_config(
                transformers.AutoConfig.for_model(family, **settings), dtype=torch.float32
            )
            for name, weight in model.named_parameters():
                weight.data.normal_(1.0 if "norm" in name else 0.0, 0.2 if "norm" in name else 0.15)
            model.tie_weights()
            made[key] = tmp_path_factory.mktemp("oracle")
            model.save_pretrained(made[key])
        return made[key]

    return make


@pytest.fixture(scope="session")
def base(oracle: Callable[..., Path]) -> BaseModel:
    """A tiny tied Llama."""
    return load("tiny", oracle())


@pytest.fixture(scope="session")
def peft_model() -> Callable[[BaseModel, Adapter], Any]:
    """Return plain transformers + PEFT with an adapter's weights: the independent derivation."""

    def make(base: BaseModel, adapter: Adapter) -> Any:
        import peft
        import transformers

        model = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
        config = adapter.peft_config("tiny")
        config.pop("inference_mode")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**config))
        result = peft.set_peft_model_state_dict(wrapped, adapter.tensors())
        assert not result.unexpected_keys
        return wrapped.eval()

    return make


@pytest.fixture
def trained(base: BaseModel) -> Adapter:
    """An adapter whose B matrices are no longer zero."""
    return stirred(base, LoraSpec(rank=4, seed=1))


def stirred(base: BaseModel, spec: LoraSpec) -> Adapter:
    """Return an adapter with noise on every weight."""
    adapter = Adapter.create(base, spec)
    adapter.flat += torch.randn(adapter.flat.shape, generator=torch.Generator().manual_seed(3)) * 0.05
    return adapter


@pytest.fixture(name="stirred")
def _stirred() -> Callable[[BaseModel, LoraSpec], Adapter]:
    return stirred


@pytest.fixture
def data() -> list[Example]:
    """Examples of several lengths, prompts masked, one with nothing to train on."""
    rng = np.random.default_rng(0)
    return [
        Example(
            rng.integers(0, VOCAB, length),
            {
                "target_tokens": rng.integers(0, VOCAB, length),
                "weights": np.where(np.arange(length) >= length - kept, rng.random(length), 0).astype(
                    np.float32
                ),
            },
        )
        for length, kept in ((5, 3), (17, 17), (40, 6), (1, 1), (9, 0))
    ]


@pytest.fixture
def example() -> Callable[[int], Example]:
    """Return a random example of a length, weighted."""

    def make(length: int) -> Example:
        rng = np.random.default_rng(length)
        tokens, targets = rng.integers(3, VOCAB, length), rng.integers(3, VOCAB, length)
        weights = rng.random(length).astype(np.float32) * (np.arange(length) >= 2)
        return Example(tokens, {"target_tokens": targets, "weights": weights})

    return make


def finish(work: Generator[None, None, LossOutput]) -> LossOutput:
    """Run a forward_backward to its end."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            output: LossOutput = stop.value
            return output


@pytest.fixture
def fit() -> Callable[..., LossOutput]:
    """Return forward_backward, run to its end."""

    def run(
        trainer: Trainer,
        data: Iterable[Example],
        loss_fn: str = "cross_entropy",
        *,
        backward: bool = True,
        **config: Any,
    ) -> LossOutput:
        return finish(trainer.forward_backward(list(data), loss_fn, config, backward=backward))

    return run


@pytest.fixture
def answers() -> Callable[[Sampler], dict[str, SampleOutput | Exception]]:
    """Return a function that steps a sampler until it has nothing to do."""

    def run(sampler: Sampler) -> dict[str, SampleOutput | Exception]:
        out: dict[str, SampleOutput | Exception] = {}
        while sampler.busy:
            out |= dict(sampler.step())
        return out

    return run
