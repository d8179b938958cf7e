"""Exam items that were copied into training data are found, and nothing else is."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import attrs
import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinker_cookbook.rl.problem_env import ProblemGroupBuilder
from tinker_cookbook.supervised.data import SupervisedDatasetFromHFDataset

from tinker_officer import Conversations, EvalSuite, Pairs, graders
from tinker_officer.errors import DataError, EvalError
from tinker_officer.evals import ngrams
from tinker_officer.evals.results import EvalResult, Item
from tinker_officer.evals.scorecard import Scorecard
from tinker_officer.evals.sieve import Sieve


WORDS = [f"word{i}" for i in range(400)]


def sentence(rng: random.Random, size: int) -> str:
    return " ".join(rng.choices(WORDS, k=size))


def rows(*texts: str) -> list[dict[str, str]]:
    return [{"input": text, "output": f"answer {number}"} for number, text in enumerate(texts)]


def suite(*texts: str) -> EvalSuite:
    cases = [{"input": text, "output": "x", "id": f"q{number}"} for number, text in enumerate(texts)]
    return EvalSuite().product("mine", cases, grader=graders.exact)


def plain(texts: list[str], size: int) -> list[tuple[int, tuple[str, ...]]]:
    found = []
    for number, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        found += [(number, tuple(words[i : i + size])) for i in range(len(words) - size + 1)]
    return found


@settings(deadline=None)
@given(st.lists(st.text(alphabet="abAB _-.\x00\né漢😀1", max_size=60), min_size=1, max_size=8))
def test_hashes_agree_with_plain_python(texts: list[str]) -> None:
    """Two runs of words have one hash exactly when they are the same words, whatever text they stand in."""
    hashed = ngrams.grams(texts)
    for size in (1, 3):
        runs = plain(texts, size)
        hashes, starts = hashed.of(size)
        assert [int(owner) for owner in hashed.owner[starts]] == [number for number, _ in runs]
        meanings: dict[int, tuple[str, ...]] = {}
        for value, (_, run) in zip(hashes.tolist(), runs, strict=True):
            assert meanings.setdefault(value, run) == run
        assert len(meanings) == len({run for _, run in runs})
    alone = [ngrams.grams([text]).whole()[0] for text in texts]
    assert hashed.whole().tolist() == alone


@settings(deadline=None)
@given(st.text(max_size=40))
def test_words_are_those_of_re(text: str) -> None:
    """But for the few letters that have no lower case of one letter."""
    if all(len(letter.lower()) == 1 and letter != "\u03a3" for letter in text):
        assert ngrams.words(text) == re.findall(r"\w+", text.lower())


spoken = st.lists(
    st.tuples(
        st.sampled_from(["a", "I", "K", "\u212a", "7", "_", "é", "Я", "漢", "\U0001d400", "maybe", "été"]),
        st.sampled_from(
            [" ", ", ", "\n", "\u2019", " 😀 ", "\0", " — ", "\\", '\\\\"', '"\\\n', "\t", "\x7f"]
        ),
    ).map("".join),
    max_size=40,
)


@settings(deadline=None)
@given(st.lists(spoken, min_size=1, max_size=3), spoken, spoken, st.data())
def test_the_sieve_never_holds_back_a_run(
    exam: list[list[str]], before: list[str], after: list[str], data: st.DataObject
) -> None:
    """However short its words and whatever their letters, wherever a run begins, in any row of a batch."""
    size = data.draw(st.sampled_from([8, 13, 0]))
    sieve = Sieve.of((size, "".join(words)) for words in exam if size or ngrams.words("".join(words)))
    long = [words for words in exam if len(words) >= size and ngrams.words("".join(words))]
    if long:
        words = data.draw(st.sampled_from(long))
        begins = data.draw(st.integers(0, len(words) - size)) if size else 0
        run = " ".join(words[begins : begins + size] if size else words)
        text = run.upper() if run.isascii() else run
        held = f"{''.join(before)} {text} {''.join(after)}" if size else text
        texts = ["".join(after), held, "".join(before)]
        assert 1 in sieve.passing(texts)
        for is_ascii in (False, True):
            lines = [json.dumps({"said": text}, ensure_ascii=is_ascii).encode() for text in texts]
            assert 1 in sieve.passing_lines(lines)


def test_a_sieve_holds_back_nearly_everything_else() -> None:
    """Of 2,000 other sentences of the same words fewer than one in a hundred pass, as texts and as lines."""
    rng = random.Random(9)
    sieve = Sieve.of((13, sentence(rng, 40)) for _ in range(200))
    others = [sentence(rng, 40) for _ in range(2000)]
    assert len(sieve.passing(others)) < 20
    assert len(sieve.passing_lines([json.dumps([text]).encode() for text in others])) < 20


def test_a_copied_item_is_found_with_its_rows(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In another case and punctuation, inside a longer text, in two rows; and it says where."""
    rng = random.Random(0)
    question, other = sentence(rng, 30), sentence(rng, 30)
    copied = "Here: " + question.upper().replace(" ", ", ") + "! " + sentence(rng, 20)
    train = Conversations.from_list(rows(sentence(rng, 50), copied, sentence(rng, 40), question + " again"))
    found = suite(question, other).contamination(train, progress=False)
    (item,) = found.exposed
    assert (item.eval, item.id, item.overlap, item.rows) == ("mine", "q0", 1.0, 2)
    assert item.where == ("list[1]", "list[3]")
    assert found.dirty("mine") == {"q0"}
    assert "mine/q0" in str(found)
    assert repr(found) == "<Contamination: mine: 1 of 2, in 4 rows>"


def test_overlap_is_the_share_of_runs_that_were_found() -> None:
    """The first 20 of 32 words: 8 of 20 runs of 13; below the threshold it is shown, and not dirty."""
    rng = random.Random(1)
    question = " ".join(f"w{i}" for i in range(32))
    train = Conversations.from_list(rows(sentence(rng, 9), " ".join(question.split()[:20])))
    found = suite(question).contamination(train, progress=False)
    assert found.exposed[0].overlap == pytest.approx(8 / 20)
    strict = suite(question).contamination(train, threshold=0.5, progress=False)
    assert not strict
    assert strict.exposed == found.exposed
    with pytest.raises(EvalError, match="threshold"):
        suite(question).contamination(train, threshold=0, progress=False)


def test_short_questions() -> None:
    """Ten words are known by runs of eight; three only as a whole message."""
    ten = "how many apples does anna have after she eats two"
    train = Conversations.from_list(rows(f"Well, {ten}, then?", "say blue now please", "Say: blue, now!"))
    found = suite(ten, "say blue now", "say red now").contamination(train, progress=False)
    assert {item.id: item.rows for item in found.exposed} == {"q0": 1, "q1": 1}
    assert [item.where for item in found.exposed if item.id == "q1"] == [("list[2]",)]


def test_many_rows_against_a_plain_search() -> None:
    """3,000 rows, 60 items, a third of them copied in part: the same items, rows and overlaps as by hand."""
    rng = random.Random(5)
    questions = [sentence(rng, rng.randint(13, 40)) + (" é" if i % 5 == 0 else "") for i in range(60)]
    texts = [sentence(rng, rng.randint(1, 60)) for _ in range(3000)]
    for number in range(20):
        words = questions[number].split()
        if number % 2 and len(words) > 30:
            words[15] = "misprinted"  # runs before and after it, at one distance
        cut = " ".join(words[rng.randint(0, 3) : len(words) - rng.randint(0, 3)])
        texts[rng.randrange(3000)] = f"{sentence(rng, 3)} {cut} {sentence(rng, 3)}"
    train = Conversations.from_list([{"input": text, "output": str(i)} for i, text in enumerate(texts)])
    found = suite(*questions).contamination(train, progress=False)
    runs = [{run for _, run in plain([question], 13)} for question in questions]
    seen: dict[int, set[int]] = {}
    met: dict[int, set[tuple[str, ...]]] = {}
    for row, run in plain(texts, 13):
        for number, own in enumerate(runs):
            if run in own:
                seen.setdefault(number, set()).add(row)
                met.setdefault(number, set()).add(run)
    wanted = {f"q{n}": (len(rows_), len(met[n]) / len(runs[n])) for n, rows_ in seen.items()}
    assert wanted
    assert {item.id: (item.rows, item.overlap) for item in found.exposed} == wanted


def test_a_file_is_searched_like_a_list(tmp_path: Path) -> None:
    """In whatever shape: a row that does not show its texts as they are (parts, joined fields) is parsed."""
    rng = random.Random(8)
    asked = [sentence(rng, 20) for _ in range(7)] + ['Say "é": now!\n', "не более трёх слов", "ünß 漢字"]
    halves = [" ".join(words) for words in (asked[1].split()[:10], asked[1].split()[10:])]
    shapes: list[dict[str, Any]] = [
        {"input": f"so:\n{asked[0]}\t\u2019", "output": "yes"},
        {"instruction": halves[0], "input": halves[1], "output": "yes"},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": f"{half} "} for half in halves]}
            ]
        },
        {"conversations": [{"from": "human", "value": asked[2].upper()}, {"from": "gpt", "value": "\\n"}]},
        {"input": "?", "output": {"\n": asked[3], "b": "\\"}},
        {"input": asked[4].replace("k", "\u212a").replace(" ", "\n", 3), "output": "no"},
        *({"input": text, "output": "no"} for text in asked[7:]),
        *({"input": sentence(rng, 30), "output": "no"} for _ in range(20)),
    ]
    shapes[2]["messages"].append({"role": "assistant", "content": "yes"})
    wanted = suite(*asked).contamination(Conversations.from_list(shapes), progress=False)
    assert {item.id for item in wanted.exposed} == {"q0", "q1", "q2", "q3", "q4", "q7", "q8", "q9"}
    for is_ascii, end in ((True, "\n"), (False, "\r\n")):
        file = tmp_path / f"{is_ascii}.jsonl"
        file.write_text("".join(json.dumps(row, ensure_ascii=is_ascii) + end for row in shapes), newline="")
        train = Conversations.from_jsonl(file)
        found = suite(*asked).contamination(train, progress=False)
        assert [attrs.evolve(item, where=()) for item in found.exposed] == [
            attrs.evolve(item, where=()) for item in wanted.exposed
        ]
        hidden = [at for at, line in enumerate(train.written(range(len(train)))) if line is None]
        assert hidden == [1, 2, 4]


def test_a_row_that_has_changed_is_no_clean_row(tmp_path: Path) -> None:
    """Not even one that would be held back: the report is about the rows that were checked."""
    rng = random.Random(10)
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(*(sentence(rng, 9) for _ in range(9)))))
    train = Conversations.from_jsonl(file)
    file.write_text(file.read_text().replace("answer 4", "answer 5"))
    with pytest.raises(DataError, match="has changed") as refused:
        suite(sentence(rng, 20)).contamination(train, progress=False)
    assert "train.jsonl:5" in refused.value.got


def test_held_out_conversations_and_benchmarks_are_looked_for_too() -> None:
    """Questions and answers of held-out data, questions of a task; never the system prompt."""
    from inspect_ai import Task
    from inspect_ai.dataset import Sample

    rng = random.Random(3)
    answer, asked, system = sentence(rng, 20), sentence(rng, 20), sentence(rng, 20)
    held_out = Conversations.from_list([{"system": system, "input": sentence(rng, 20), "output": answer}])
    task = Task(
        dataset=[Sample(input=asked, target="x", id=1), Sample(input=sentence(rng, 20), target="x", id=2)]
    )
    train = Conversations.from_list([{"system": system, "input": asked, "output": answer}])
    found = EvalSuite().nll(held_out).task(task, name="own").contamination(train, progress=False)
    assert {(item.eval, item.overlap) for item in found.exposed} == {("held_out", 0.5), ("own", 1.0)}
    assert found.items == {"held_out": 1, "own": 2}


@pytest.mark.parametrize("kept", ["list", "file"])
def test_pairs_are_searched_on_all_sides(tmp_path: Path, kept: str) -> None:
    """The prompt, the chosen and the rejected answer, each in a row of its own."""
    rng = random.Random(4)
    asked = [sentence(rng, 20) for _ in range(4)]
    rows: list[dict[str, object]] = [
        {"prompt": asked[0], "chosen": "yes", "rejected": "no"},
        {"prompt": "is it?", "chosen": f"so: {asked[1]}", "rejected": "no"},
        {"prompt": "is it?", "chosen": "yes", "rejected": [{"role": "assistant", "content": asked[2]}]},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = Pairs.from_list(rows) if kept == "list" else Pairs.from_jsonl(path)
    found = suite(*asked).contamination(pairs, progress=False)
    assert [item.id for item in found.exposed] == ["q0", "q1", "q2"]
    where = [place for item in found.exposed for place in item.where]
    assert where == [pairs.where(row) for row in range(3)]


def test_a_list_of_prompts_is_searched_and_what_shows_no_text_is_refused() -> None:
    """Prompts of an RL run are texts; datasets of tokens, environments and raw rows are none."""
    rng = random.Random(6)
    question = sentence(rng, 20)
    found = suite(question).contamination([sentence(rng, 30), f"{question}?"], progress=False)
    assert [(item.id, item.where) for item in found.exposed] == [("q0", ("texts[1]",))]
    tokens = SupervisedDatasetFromHFDataset(datasets.Dataset.from_list([{"a": 1}]), 1, flatmap_fn=list)
    group = ProblemGroupBuilder(env_thunk=lambda: None, num_envs=2)
    for train, got in (
        (tokens, "a SupervisedDatasetFromHFDataset"),
        ([group], "a list with a ProblemGroupBuilder in it"),
        (rows(question), "a list with a dict in it"),
        (question, "a str"),
    ):
        with pytest.raises(EvalError, match="cannot be searched") as refused:
            suite(question).contamination(train, progress=False)  # under test
        assert refused.value.got == got


def test_scores_on_the_clean_and_the_dirty_half() -> None:
    """A model that knows the copied items only: 1 on the dirty, 0.1 on the clean, and it is sure."""
    rng = random.Random(2)
    questions = [sentence(rng, 15) for _ in range(20)]
    train = Conversations.from_list(rows(*questions[:10]))
    found = suite(*questions).contamination(train, progress=False)
    items = tuple(Item(f"q{i}", float(i < 10 or i == 15)) for i in range(20))
    result = EvalResult.from_items(
        items, name="mine", layer="product", metric="score", settings={}, asked=20, bounds=(0.0, 1.0)
    )
    card = Scorecard("m", "m", "chatml", "0" * 64, "2026-01-01T00:00:00+00:00", (result,))
    (half,) = found.halves(card)
    assert half.dirty is not None
    assert half.clean is not None
    assert half.difference is not None
    assert (half.dirty.value, half.clean.value, half.difference.low > 0.5) == (1.0, 0.1, True)
    with pytest.raises(EvalError, match="other items"):
        suite(*questions[:5]).contamination(train, progress=False).halves(card)
    with pytest.raises(EvalError, match="none of these evals"):
        EvalSuite().nll(train).contamination(train, progress=False).halves(card)
