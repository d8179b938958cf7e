"""LoRAPlan as a value: fluent, frozen, checked, and the same after JSON."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_officer import Conversations, LoRAPlan, TokenCounts
from tinker_officer.errors import OfficerError, PlanError


MODELS = (
    "Qwen/Qwen3-8B",
    "meta-llama/Llama-3.2-1B",
    "Qwen/Qwen3.5-397B-A17B",
    "openai/gpt-oss-20b",
    "zai-org/GLM-5.3",
)
BASE = {name: LoRAPlan.for_(name) for name in MODELS}
COUNTS = TokenCounts(examples=1_000, trained=100_000, total=200_000)

models = st.sampled_from(MODELS)
tokens = st.integers(1, 10**11)


@st.composite
def counts(draw: st.DrawFn) -> TokenCounts:
    """Return counts that data could have."""
    trained = draw(tokens)
    return TokenCounts(
        examples=draw(st.integers(1, 10**7)),
        trained=trained,
        total=trained + draw(st.integers(0, 10**9)),
        unique_trained=draw(st.none() | st.integers(1, trained)),
        train_on=draw(st.sampled_from(["last", "all"])),
        too_long=draw(st.sampled_from(["truncate", "drop"])),
        quantiles=draw(st.sampled_from([(), ((0.0, 3), (0.5, 9), (1.0, 99))])),
    )


@st.composite
def plans(draw: st.DrawFn) -> LoRAPlan:
    """Return any plan that the fluent methods can make."""
    plan = BASE[draw(models)].sft(
        draw(counts()),
        epochs=draw(st.integers(1, 9)),
        max_length=draw(st.none() | st.integers(2, 10**6)),
    )
    plan = plan.pin(
        rank=draw(st.none() | st.integers(1, 512)),
        learning_rate=draw(st.none() | st.floats(1e-9, 1.0)),
        batch_size=draw(st.none() | st.integers(1, 1024)),
    )
    plan = plan.layers(attn=draw(st.booleans()), unembed=draw(st.booleans()))
    price = draw(st.none() | st.floats(0, 1e4))
    return plan if price is None else plan.price(per_million=price)


@given(models, tokens, tokens, st.integers(1, 1024))
def test_the_rank_never_falls_as_tokens_grow(name: str, a: int, b: int, cap: int) -> None:
    """More unique trained tokens never lead to a lower rank, under any cap."""
    fewer, more = sorted((a, b))
    base = LoRAPlan.for_(name, max_rank=cap)
    low = base.sft(TokenCounts(examples=10, trained=fewer, total=fewer))
    high = base.sft(TokenCounts(examples=10, trained=more, total=more))
    assert low.rank <= high.rank <= cap
    assert low.decision.needed <= high.decision.needed


@given(models, counts(), st.integers(1, 5))
def test_the_rate_lies_in_its_interval_and_below_1e_3(name: str, counted: TokenCounts, epochs: int) -> None:
    """Whatever the data, the computed rate is inside the interval that is shown."""
    chosen = BASE[name].sft(counted, epochs=epochs).decision.learning_rate
    assert chosen.interval is not None
    assert chosen.interval[0] <= chosen.value <= chosen.interval[1]
    assert 0 < chosen.value <= 1e-3


@given(models, counts(), st.integers(1, 9))
def test_the_steps_see_every_example_every_epoch(name: str, counted: TokenCounts, epochs: int) -> None:
    """Steps x batch covers the data, and one step an epoch fewer would not."""
    plan = BASE[name].sft(counted, epochs=epochs)
    per_epoch = plan.steps // epochs
    assert per_epoch * epochs == plan.steps
    assert (per_epoch - 1) * plan.batch_size < counted.examples <= per_epoch * plan.batch_size


@given(plans())
@settings(deadline=None)
def test_json_round_trips(plan: LoRAPlan) -> None:
    """A plan read back is equal, has the same digest, the same numbers and the same explanation."""
    again = LoRAPlan.from_json(plan.to_json())
    assert again == plan
    assert again.digest == plan.digest
    assert again.decision == plan.decision
    assert again.explain() == plan.explain()


@given(plans())
@settings(deadline=None)
def test_a_chain_never_mutates(plan: LoRAPlan) -> None:
    """Every fluent method leaves the plan that it was called on as it was."""
    before, shown = plan.to_json(), plan.explain()
    plan.pin(rank=8, learning_rate=1e-5, batch_size=3)
    plan.layers(attn=False, unembed=False)
    plan.price(per_million=7.0)
    plan.sft(COUNTS, epochs=2)
    assert (plan.to_json(), plan.explain()) == (before, shown)


def test_the_order_of_the_methods_does_not_matter() -> None:
    """Pins, price and layers may be said before or after the data."""
    base = BASE["Qwen/Qwen3-8B"]
    first = base.pin(rank=64).layers(unembed=False).price(per_million=1).sft(COUNTS)
    last = base.sft(COUNTS).price(per_million=1).layers(unembed=False).pin(rank=64)
    assert first == last
    assert first.digest == last.digest


def test_pins_replace_are_shown_and_are_checked_like_computed_numbers() -> None:
    """A pinned rank moves the parameters, the verdict and the rule's rate; all three pins are shown."""
    plan = LoRAPlan.for_("Qwen/Qwen3.5-9B-Base").sft(COUNTS)
    pinned = plan.pin(rank=64)
    assert (pinned.rank, pinned.decision.rank.computed, pinned.decision.rank.pinned) == (64, 16, True)
    assert pinned.parameters == 4 * plan.parameters
    assert pinned.learning_rate > plan.learning_rate
    both = pinned.pin(learning_rate=5e-3, batch_size=200)
    assert (both.rank, both.learning_rate, both.batch_size, both.steps) == (64, 5e-3, 200, 5)
    assert both.explain().count("(pinned)") == 3
    assert sum("5.0e-03" in text for text in both.warnings) == 2
    assert any("batch 200 is above 128" in text for text in both.warnings)


@pytest.mark.parametrize(
    "bad",
    [
        {"rank": 0}, {"rank": 513}, {"rank": -1}, {"rank": 16.0}, {"rank": True}, {"learning_rate": 0.0},
        {"learning_rate": float("nan")}, {"learning_rate": float("inf")}, {"learning_rate": -1e-4},
        {"batch_size": 0}, {"batch_size": 2.5},
    ],
)  # fmt: skip
def test_a_bad_pin_is_refused_in_four_parts(bad: dict[str, Any]) -> None:
    """The message says what is wrong, what was got, what is needed and a call that works."""
    with pytest.raises(PlanError) as caught:
        BASE["Qwen/Qwen3-8B"].sft(COUNTS).pin(**bad)
    [(name, value)] = bad.items()
    text = str(caught.value)
    assert text.startswith(f"{name} is out of range")
    assert repr(value) in text
    assert "need:" in text
    assert f"plan.pin({name}=" in text


def test_a_pinned_rank_above_the_servers_is_a_contradiction() -> None:
    """The error comes from whichever call completes the contradiction."""
    with pytest.raises(PlanError, match="above the server's largest"):
        LoRAPlan.for_("Qwen/Qwen3-8B", max_rank=32).sft(COUNTS).pin(rank=64)
    early = LoRAPlan.for_("Qwen/Qwen3-8B", max_rank=32).pin(rank=64)
    with pytest.raises(PlanError, match=r"plan\.pin\(rank=32\)"):
        early.sft(COUNTS)


@pytest.mark.parametrize("price", [-0.1, float("nan"), float("inf"), "0.44", True])
def test_a_bad_price_is_refused(price: Any) -> None:
    """Negative and NaN prices are errors, not NaN totals."""
    with pytest.raises(PlanError, match="the price of train is out of range"):
        BASE["Qwen/Qwen3-8B"].sft(COUNTS).price(per_million=price)


@pytest.mark.parametrize("bad", [{"max_rank": 0}, {"max_rank": 1.5}, {"seed": -1}])
def test_a_bad_start_is_refused(bad: dict[str, Any]) -> None:
    """`for_` checks what it is given."""
    with pytest.raises(PlanError, match=next(iter(bad))):
        LoRAPlan.for_("Qwen/Qwen3-8B", **bad)


def test_an_unknown_price_has_no_total() -> None:
    """Nothing is shown for a cost that nobody can know; a price of zero is known."""
    plan = BASE["Qwen/Qwen3-8B"].sft(COUNTS)
    assert plan.cost.total is None
    assert any("price is unknown" in text for text in plan.warnings)
    assert plan.price(per_million=0).cost.total == 0


def test_attention_alone_needs_force() -> None:
    """Leaving out the feed-forward layers is possible, but only on purpose."""
    plan = BASE["Qwen/Qwen3-8B"].sft(COUNTS)
    with pytest.raises(PlanError, match="force=True"):
        plan.layers(mlp=False)
    forced = plan.layers(mlp=False, force=True, unembed=False)
    assert (forced.train_mlp, forced.train_attn, forced.train_unembed) == (False, True, False)
    assert forced.decision.per_rank == plan.shape.attn
    with pytest.raises(PlanError, match="no layer is adapted"):
        plan.layers(mlp=False, attn=False, unembed=False, force=True)


def test_the_repr_is_one_line_with_the_numbers() -> None:
    """A plan prints what matters."""
    plan = BASE["Qwen/Qwen3-8B"].sft(COUNTS)
    assert repr(plan) == (
        f"LoRAPlan('Qwen/Qwen3-8B', 100k trained tokens, rank=16, learning_rate={plan.learning_rate:g}, "
        "batch_size=8, steps=125, ample)"
    )


def test_a_plan_without_data_has_no_numbers() -> None:
    """Asking early says which call is missing."""
    plan = BASE["Qwen/Qwen3-8B"]
    for name in ("rank", "learning_rate", "steps", "verdict", "counts", "epochs", "cost"):
        with pytest.raises(PlanError, match=r"\.sft\(train\)"):
            getattr(plan, name)
    assert repr(plan) == "LoRAPlan('Qwen/Qwen3-8B', no data yet)"
    assert LoRAPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '"x"', '{"kind": "tinker_officer.LoRAPlan", "format": 99}'],
)
def test_what_is_not_a_plan_is_refused(text: str) -> None:
    """Damaged or foreign JSON is a PlanError that names what is wrong."""
    with pytest.raises(PlanError, match="not a plan's JSON"):
        LoRAPlan.from_json(text)


def test_a_plan_that_was_tampered_with_is_refused() -> None:
    """A rank of 0 in the JSON meets the same check as in `.pin`."""
    body = BASE["Qwen/Qwen3-8B"].sft(COUNTS).to_dict()
    for spoilt in (
        body | {"pins": {"rank": 0, "learning_rate": None, "batch_size": None}},
        body | {"objective": body["objective"] | {"epochs": 0}},
        body | {"objective": body["objective"] | {"method": "guess"}},
        body | {"objective": body["objective"] | {"extra": 1}},
        body | {"shape": {}},
    ):
        with pytest.raises(OfficerError):
            LoRAPlan.from_dict(spoilt)


def test_numbers_of_an_older_arithmetic_are_kept_as_pins() -> None:
    """A plan recorded with rank 32 is read back with rank 32, whatever today's rule says."""
    plan = BASE["Qwen/Qwen3-8B"].sft(COUNTS)
    body = plan.to_dict()
    body["computed"] |= {"rank": 32}
    again = LoRAPlan.from_dict(body)
    assert (again.rank, again.decision.rank.pinned) == (32, True)
    assert (again.learning_rate, again.decision.learning_rate.pinned) == (plan.learning_rate, True)
    assert again.decision.learning_rate.computed == plan.pin(rank=32).learning_rate


def test_a_plan_measures_conversations_and_knows_them_again(tiny_model: Path) -> None:
    """Planned from data, a plan holds its fingerprint; read back, it takes that data and no other."""
    rows = [
        {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i}"}]}
        for i in range(20)
    ]
    data, other = Conversations.from_list(rows), Conversations.from_list(rows[:10])
    plan = LoRAPlan.for_(str(tiny_model)).sft(data, max_length=64)
    assert plan.data is data
    assert plan.counts == data.measure(str(tiny_model), max_length=64)
    assert plan.counts.examples == 20
    assert plan.max_length == 64
    again = LoRAPlan.from_json(plan.to_json(), data)
    assert again == plan
    assert again.data is data
    assert LoRAPlan.from_json(plan.to_json()).data is None
    with pytest.raises(PlanError, match="not the data that the plan was made for"):
        LoRAPlan.from_json(plan.to_json(), other)
    with pytest.raises(PlanError, match="made from counts"):
        LoRAPlan.from_json(plan.sft(COUNTS).to_json(), data)


def test_planning_from_counts_is_fast() -> None:
    """A plan with all its numbers takes well under a millisecond."""
    base = BASE["Qwen/Qwen3-8B"]
    times = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(20):
            base.sft(COUNTS)
        times.append((time.perf_counter() - started) / 20)
    assert min(times) < 1e-3
