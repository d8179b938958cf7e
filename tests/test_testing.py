"""Tiny models: real folders, made in a moment."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinker_officer.errors import ModelError
from tinker_officer.testing import tiny_model


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_every_kind_whole(tmp_path, family, tied):
    """Loading with transformers finds every weight that the architecture has, and no other."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tiny_model(tmp_path / "tiny", family=family, tied=tied)
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)

    assert not any(info.values())
    assert model.config.model_type == family
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    logits = model(torch.arange(20)[None]).logits
    assert logits.shape == (1, 20, 384)
    assert torch.isfinite(logits).all()
    assert logits.std() > 0.1


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    """Two models of one seed are equal byte for byte; another seed changes the weights alone."""
    one, two = tiny_model(tmp_path / "one"), tiny_model(tmp_path / "two")
    other = tiny_model(tmp_path / "other", seed=1)

    assert digests(one) == digests(two)
    differing = {name for name, each in digests(one).items() if digests(other)[name] != each}
    assert differing == {"model.safetensors"}


def test_it_takes_less_than_a_second_and_no_torch(tmp_path):
    """In a fresh process, a tiny model is made without torch or transformers, in well under a second."""
    script = (
        "import sys; from tinker_officer.testing import tiny_model; import time; t = time.perf_counter(); "
        f"tiny_model({str(tmp_path / 'tiny')!r}); print(time.perf_counter() - t); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.0


@pytest.mark.parametrize(
    "text", ["Hello, Wörld 12345", "  spaces\n\n\tand tabs", "🎉 你好 \u200b", "\x00\x7f", ""]
)
def test_every_text_comes_back_from_its_tokens(tmp_path, text):
    """The byte-level tokenizer has tokens for every text, and decodes them to the same text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model(tmp_path / "tiny"))
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert all(0 <= token < 384 for token in tokens)


def test_turn_marks_are_single_tokens(tmp_path):
    """The ChatML marks are one token each, and the chat template writes them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model(tmp_path / "tiny"))
    assert tokenizer.encode("<|im_start|><|im_end|><|endoftext|>") == [1, 2, 0]
    assert tokenizer.eos_token_id == 2
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n"


def test_sizes_are_as_asked(tmp_path):
    """Vocabulary, width, depth, heads and context are those that were asked for."""
    from transformers import AutoConfig

    folder = tiny_model(
        tmp_path / "tiny", vocab=300, hidden=48, layers=3, heads=6, kv_heads=3, context=128, family="qwen3"
    )
    config = AutoConfig.from_pretrained(folder)
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (300, 48, 3)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (6, 3, 8)
    assert config.max_position_embeddings == 128


@pytest.mark.parametrize(
    "wrong",
    [
        {"family": "gpt5"},
        {"vocab": 100},
        {"layers": 0},
        {"hidden": 63},
        {"heads": 4, "kv_heads": 3},
        {"context": 1},
    ],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path, wrong):
    """A family that is not known or a size that does not fit is refused, and nothing is written."""
    with pytest.raises(ModelError, match="need:"):
        tiny_model(tmp_path / "tiny", **wrong)
    assert not (tmp_path / "tiny").exists()


def test_making_ten_is_quick(tmp_path):
    """Making many is cheap enough for a test that needs its own."""
    start = time.perf_counter()
    for seed in range(10):
        tiny_model(tmp_path / str(seed), seed=seed)
    assert time.perf_counter() - start < 10.0
