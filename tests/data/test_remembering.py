"""A tokenizer that several threads share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tinker_officer._models import load_tokenizer
from tinker_officer.data.remembering import Remembering


def test_threads_with_other_settings_get_their_own_tokens(tiny_model: Path) -> None:
    """One thread splits special tokens, another does not: each gets what it would get alone."""
    tokenizer = load_tokenizer(str(tiny_model))
    shared = Remembering(tokenizer), Remembering(tokenizer)  # of two renderers
    texts = [f"<|im_start|>{number} " + "and so on " * 20 for number in range(300)]

    def encode(split: bool, one: Remembering) -> list[list[int]]:
        return [
            one.encode(text, add_special_tokens=False, split_special_tokens=split)
            for text in texts
            if one.decode([5]) is not None
        ]

    alone = [encode(split, Remembering(tokenizer)) for split in (False, True)]
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(encode, split, one) for split in (False, True) for one in shared]
        found = [future.result() for future in asked]
    assert found == [alone[0], alone[0], alone[1], alone[1]]
