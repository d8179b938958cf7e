"""IFEval's 25 instructions, each with an answer that follows it and one that does not."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tinker_officer.evals import ifeval
from tinker_officer.evals.ifeval import InputExample, check_instructions


pytest.importorskip("lm_eval")

# Written from the published definitions (Zhou et al. 2023, table 1), not from what the checkers say.
KNOWN: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["tide", "moon"]}, "The moon pulls the tide.", "The moon is far."),
    ("keywords:forbidden_words", {"forbidden_words": ["rain"]}, "It was dry.", "The rain fell."),
    (
        "keywords:frequency",
        {"keyword": "cat", "frequency": 2, "relation": "at least"},
        "A cat met a cat.",
        "A cat slept.",
    ),
    (
        "keywords:letter_frequency",
        {"letter": "z", "let_frequency": 3, "let_relation": "at least"},
        "Zigzag buzz.",
        "A zoo.",
    ),
    ("language:response_language", {"language": "de"}, "Das Wetter ist heute schön und warm.", "It is warm."),
    (
        "length_constraints:number_words",
        {"num_words": 5, "relation": "less than"},
        "Only four words here.",
        "This has more words than that.",
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        "Dr. Smith came. He left.",
        "Dr. Smith came at 5 p.m. today.",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", "One.\n\nTwo."),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First this.\n\nThen that.",
        "First this.\n\nNow that.",
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        "Dear [name], at [time].",
        "Dear [name].",
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\n\nP.S. Call me.", "Bye."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* two", "* one"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "It is *red*.", "It is red."),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section 1\na",
    ),
    ("detectable_format:json_format", {}, '{"a": 1}', "{a: 1}"),
    ("detectable_format:title", {}, "<<A title>>\nText.", "A title\nText."),
    ("detectable_format:constrained_response", {}, "My answer is yes.", "Yes."),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Say hello."},
        "Say hello. Hello!",
        "Hello! Say hello.",
    ),
    ("combination:two_responses", {}, "One.\n******\nTwo.", "One. Two."),
    (
        "startend:end_checker",
        {"end_phrase": "That is all."},
        "It rained. That is all.",
        "That is all. Or not",
    ),
    ("startend:quotation", {}, '"Quoted."', "Not quoted."),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "This is VERY BAD.",
        "This is VERY bad.",
    ),
    ("change_case:english_capital", {}, "THIS IS WRITTEN IN CAPITAL LETTERS.", "This is not."),
    ("change_case:english_lowercase", {}, "this is written in small letters.", "This is not."),
    ("punctuation:no_comma", {}, "No comma here.", "Here, one."),
]


def follows(name: str, arguments: dict[str, Any], answer: str, *, strict: bool = True) -> list[bool]:
    example = InputExample("x", [name], "Say hello.", {0: arguments})
    return check_instructions(example, answer, strict=strict).follow_instruction_list


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), KNOWN, ids=[row[0] for row in KNOWN])
def test_each_instruction_is_seen_followed_and_broken(
    name: str, arguments: dict[str, Any], good: str, bad: str
) -> None:
    """Known answers, twice: a verdict never changes."""
    for _ in range(2):
        assert follows(name, arguments, good) == [True]
        assert follows(name, arguments, bad) == [False]


def test_the_table_above_is_complete() -> None:
    """Every instruction that has a checker has a known answer."""
    assert {row[0] for row in KNOWN} == set(ifeval._checkers())


def test_loose_reading_forgives_a_first_line_and_asterisks() -> None:
    """`Sure, here it is:` before the answer, or bold letters, break it strictly and not loosely."""
    polite = "Sure, here it is:\nno comma here at all."
    assert follows("punctuation:no_comma", {}, polite) == [False]
    assert follows("punctuation:no_comma", {}, polite, strict=False) == [True]
    assert follows("startend:quotation", {}, '**"Quoted."**', strict=False) == [True]
    assert follows("punctuation:no_comma", {}, "", strict=False) == [False]


def test_all_instructions_of_a_prompt_count_together() -> None:
    """One that is broken breaks the prompt, and the list says which."""
    example = InputExample("x", ["punctuation:no_comma", "detectable_format:title"], "", {0: {}, 1: {}})
    half = check_instructions(example, "No title here")
    assert half.follow_instruction_list == [True, False]
    assert not half.follow_all_instructions
    assert check_instructions(example, "<<Title>>").follow_all_instructions


def test_the_name_that_inspect_evals_imports_is_there_once_it_is_provided() -> None:
    """And says which packages judge."""
    assert "lm-eval" in ifeval.provide()
    module = sys.modules["instruction_following_eval.evaluation"]
    assert module.test_instruction_following is check_instructions
    assert ifeval.provide() == ifeval.provide()
