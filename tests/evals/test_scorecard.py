"""Scorecards keep every item; two are compared only where they pair."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import attrs
import pytest

from tinker_officer.errors import EvalError
from tinker_officer.evals.results import EvalResult, Item
from tinker_officer.evals.scorecard import Scorecard
from tinker_officer.stats import paired


def result(scores: dict[str, float], **changed: Any) -> EvalResult:
    items = tuple(Item(name, score) for name, score in scores.items())
    options: dict[str, Any] = {
        "name": "mine",
        "layer": "product",
        "metric": "score",
        "settings": {"max_tokens": 64},
        "asked": len(items),
        "bounds": (0.0, 1.0),
    }
    return EvalResult.from_items(items, **(options | changed))


def card(*results: EvalResult, **changed: Any) -> Scorecard:
    options: dict[str, Any] = {
        "target": "tinker://run/sampler_weights/1",
        "base_model": "base",
        "renderer_name": "chatml",
        "suite_digest": "0" * 64,
        "created": "2025-01-01T00:00:00+00:00",
    }
    return Scorecard(evals=results, **(options | changed))


def binary(right: int, n: int = 20, **changed: Any) -> EvalResult:
    return result({f"q{i:02d}": float(i < right) for i in range(n)}, **changed)


def test_binary_scores_get_wilsons_interval() -> None:
    """5 of 20, as scipy and the textbook have it."""
    found = binary(5)
    assert found.binary
    assert found.value == 0.25
    assert found.interval == pytest.approx((0.1119, 0.4687), abs=1e-4)


def test_a_missing_or_repeated_item_is_no_result() -> None:
    """Completed + errored = asked, or there is no card."""
    with pytest.raises(EvalError, match="do not add up"):
        binary(5, asked=21)
    items = (Item("a", 1.0), Item("a", 0.0))
    with pytest.raises(EvalError, match="do not add up"):
        EvalResult.from_items(items, name="x", layer="product", metric="score", settings={}, asked=2)
    with pytest.raises(EvalError, match="no items"):
        result({})


def test_errored_items_stay_in_the_denominator() -> None:
    """Trap 3: three right and two errors of five are 0.6, not 1.0; all errors are an error."""
    items = tuple(Item(str(i), float(i < 3), error="" if i < 3 else "boom") for i in range(5))
    settings: dict[str, Any] = {"name": "x", "layer": "benchmark", "metric": "accuracy", "settings": {}}
    found = EvalResult.from_items(items, **settings, asked=5, bounds=(0.0, 1.0))
    assert (found.value, found.errors, found.n) == (0.6, 2, 5)
    with pytest.raises(EvalError, match=r"every sample of 'x' failed[\s\S]*boom"):
        EvalResult.from_items(items[3:], **settings, asked=2, bounds=(0.0, 1.0))


@pytest.mark.parametrize("score", [1.5, -0.1, math.nan, math.inf])
def test_a_score_out_of_range_is_an_error(score: float) -> None:
    """It would poison the mean."""
    with pytest.raises(EvalError, match="out of range"):
        result({"a": score, "b": 0.0})


def test_json_round_trip_is_exact(tmp_path: Path) -> None:
    """Everything comes back, infinite ends too, from text and from a file."""
    first = card(
        binary(5),
        result(
            {"only": 2.5}, name="nll", bounds=None, metric="nll", higher_is_better=False, extra={"p": 12.2}
        ),
    )
    assert first["nll"].interval == (-math.inf, math.inf)
    assert Scorecard.from_json(first.to_json()) == first
    assert Scorecard.load(first.save(tmp_path / "deep" / "card.json")) == first
    assert Scorecard.from_json(first.to_json()).digest == first.digest


def test_a_card_of_5000_items_is_read_in_under_a_fifth_of_a_second(tmp_path: Path) -> None:
    """Columns, not objects: the file stays small and quick."""
    items = {f"item-{i:05d}": float(i % 3 == 0) for i in range(5000)}
    path = card(result(items)).save(tmp_path / "card.json")
    times = []
    for _ in range(3):
        started = time.process_time()
        Scorecard.load(path)
        times.append(time.process_time() - started)
    assert min(times) < 0.2


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 99, "evals": []}', '{"format": 1, "evals": [{}]}']
)
def test_what_is_no_card_is_refused(text: str, tmp_path: Path) -> None:
    """Also as a file, and a missing file too."""
    with pytest.raises(EvalError, match="not a scorecard"):
        Scorecard.from_json(text)
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(EvalError, match="not a scorecard") as caught:
        Scorecard.load(path)
    assert str(path) in caught.value.__notes__[0]
    with pytest.raises(EvalError, match="cannot be read"):
        Scorecard.load(tmp_path / "none.json")


def test_metrics_and_lookup_by_name() -> None:
    """Figures are `<eval>/<metric>`; a wrong name offers the nearest."""
    found = card(binary(5, extra={"other": 3.0}))
    assert found.metrics() == {"mine/score": 0.25, "mine/other": 3.0}
    assert "mine" in found
    with pytest.raises(EvalError, match=r"card\['mine'\]"):
        found["mime"]
    assert "0.2500" in str(found)
    assert repr(found).startswith("Scorecard('tinker://")
    assert "<pre>" in found._repr_html_()


def test_what_a_card_cost_is_its_tokens_times_their_prices() -> None:
    """2 million read at 0.5 and half a million written at 4; a card that did not count them all says so."""
    items = (Item("a", 1.0),)
    asked = {"name": "qa", "layer": "product", "metric": "score", "settings": {}, "asked": 1}
    read = EvalResult.from_items(
        items, **asked, usage={"input_tokens": 2e6, "output_tokens": 5e5, "seconds": 1}
    )
    made = Scorecard("m", "m", "chatml", "0" * 64, "2026-01-01T00:00:00+00:00", (read,))
    assert made.cost(prefill=0.5, sample=4) == pytest.approx(3)
    with pytest.raises(EvalError, match="'qa'"):
        attrs.evolve(made, evals=(attrs.evolve(read, usage={}),)).cost(prefill=1, sample=1)


def test_compare_is_paired_and_prints_both_sides() -> None:
    """5 and 12 of 20, seven improvements and no regression: Bonett-Price, and a table under 110 columns."""
    before, after = card(binary(5)), card(binary(12), target="tinker://run/sampler_weights/2")
    comparison = before.compare(after)
    row = comparison["mine"]
    assert row.estimate == paired.bonett_price(7, 0, 20)
    assert row.verdict == "better"
    text = before.table(after)
    assert text == str(comparison)
    assert "0.250 [0.112, 0.469]" in text
    assert "+0.350" in text
    assert max(map(len, text.splitlines())) < 110
    assert after.compare(before)["mine"].verdict == "worse"
    assert before.compare(before)["mine"].verdict == "no clear difference"
    assert repr(comparison) == "Comparison(mine: better)"
    assert "<pre>" in comparison._repr_html_()
    with pytest.raises(KeyError):
        comparison["other"]


def test_lower_is_better_turns_the_verdict_round() -> None:
    """A falling NLL is better."""
    options: dict[str, Any] = {"bounds": None, "metric": "nll", "higher_is_better": False}
    before = card(result({str(i): 3 + i / 50 for i in range(20)}, **options))
    after = card(result({str(i): 2 + i / 40 for i in range(20)}, **options))
    comparison = before.compare(after)
    assert comparison["mine"].verdict == "better"
    assert "lower is better: mine/nll" in str(comparison)


def test_weights_and_clusters_enter_the_difference() -> None:
    """NLL is weighted by trained tokens, and equal conversations count once."""

    def made(shift: float) -> EvalResult:
        items = tuple(
            Item(str(i), 2 + i / 10 - shift * i, weight=1.0 + i, cluster=str(i // 2)) for i in range(8)
        )
        return EvalResult.from_items(
            items, name="h", layer="nll", metric="nll", settings={}, asked=8, higher_is_better=False
        )

    estimate = card(made(0)).compare(card(made(0.05)))["h"].estimate
    wanted = paired.mean_difference(
        [0.0] * 8,
        [-0.05 * i for i in range(8)],
        weights=[1.0 + i for i in range(8)],
        clusters=[i // 2 for i in range(8)],
    )
    assert estimate.interval == pytest.approx(wanted.interval)


def test_other_settings_are_refused_with_the_difference_named() -> None:
    """64 and 128 tokens are two exams."""
    with pytest.raises(EvalError, match="max_tokens: 64 and 128"):
        card(binary(5)).compare(card(binary(5, settings={"max_tokens": 128})))


def test_other_items_are_refused() -> None:
    """A changed item set shows in the settings; a forged one in the items themselves."""
    other = result({f"other{i}": 1.0 for i in range(20)})
    with pytest.raises(EvalError, match="item_set"):
        card(binary(5)).compare(card(other))
    forged = attrs.evolve(binary(5), items=binary(5).items[1:])
    with pytest.raises(EvalError, match="q00"):
        card(binary(5)).compare(card(forged))


def test_one_base_model_rendered_in_two_ways_is_refused() -> None:
    """The difference could be the prompt's."""
    with pytest.raises(EvalError, match="two ways"):
        card(binary(5)).compare(card(binary(5), renderer_name="role_colon"))


def test_evals_of_one_card_alone_are_listed_and_none_in_common_is_an_error() -> None:
    """Nothing is dropped without a word."""
    extra = binary(3, name="extra")
    assert "only before: extra" in str(card(binary(5), extra).compare(card(binary(6))))
    with pytest.raises(EvalError, match="no eval in common"):
        card(extra).compare(card(binary(5)))


def test_notes_reach_the_tables() -> None:
    """Errors and truncated answers stand beside the figure, and the first error under the table."""
    items = (Item("a", 1.0, stop_reason="length"), Item("b", 0.0, error="boom"))
    noted = EvalResult.from_items(
        items, name="mine", layer="product", metric="score", settings={}, asked=2, bounds=(0.0, 1.0)
    )
    assert noted.notes() == "1 error, 1 cut off"
    assert "1 error, 1 cut off" in card(noted).table()
    assert str(card(noted)).endswith("\nmine, item b: boom")
    assert "mine, before: 1 error, 1 cut off" in str(card(noted).compare(card(noted)))
    assert json.loads(card(noted).to_json())["evals"][0]["items"]["error"] == ["", "boom"]
