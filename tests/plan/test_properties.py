"""What holds for every method of planning, whatever the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_officer import EpisodeCounts, LoRAPlan, PairCounts, TokenCounts
from tinker_officer.errors import PlanError
from tinker_officer.plan.html import capacity_chart


BASE = {
    name: LoRAPlan.for_(name)
    for name in ("Qwen/Qwen3-8B", "meta-llama/Llama-3.2-1B", "openai/gpt-oss-20b", "zai-org/GLM-5.3")
}
# Each method as a function of a plan and of how much data there is.
METHODS: dict[str, Callable[[LoRAPlan, int], LoRAPlan]] = {
    "sft": lambda plan, n: plan.sft(TokenCounts(examples=n, trained=n * 9, total=n * 11), base_nll=1.2),
    "prompt_distillation": lambda plan, n: plan.prompt_distillation(
        TokenCounts(examples=n, trained=n * 9, total=n * 11)
    ),
    "dpo": lambda plan, n: plan.dpo(PairCounts(pairs=n, total=n * 700), epochs=2),
    "reward_model": lambda plan, n: plan.reward_model(PairCounts(pairs=n, total=n * 700)),
    "rl": lambda plan, n: plan.rl(
        EpisodeCounts(episodes=n, group_size=8, prompt_tokens=50, sampled_tokens=90), reward_rate=0.3
    ),
    "distill": lambda plan, n: plan.distill(
        EpisodeCounts(episodes=n, group_size=4, prompt_tokens=50, sampled_tokens=90.5), teacher_kl=0.2
    ),
}

names, methods, sizes = (
    st.sampled_from(sorted(BASE)),
    st.sampled_from(sorted(METHODS)),
    st.integers(1, 10**10),
)


@st.composite
def plans(draw: st.DrawFn) -> LoRAPlan:
    """Return a plan of any method, with or without pins, prices, layers and a server's largest rank."""
    plan = BASE[draw(names)].layers(attn=draw(st.booleans()), unembed=draw(st.booleans()))
    cap = draw(st.none() | st.integers(1, 512))
    if cap is not None:
        plan = plan.within(f"exceeds max LoRA rank {cap}")
    plan = METHODS[draw(methods)](plan, draw(sizes))
    plan = plan.pin(
        rank=draw(st.none() | st.integers(1, cap or 512)),
        learning_rate=draw(st.none() | st.floats(1e-9, 1.0)),
        batch_size=draw(st.none() | st.integers(1, 1024)),
    )
    price = st.none() | st.floats(0, 1e4)
    return plan.price(train=draw(price), prefill=draw(price), sample=draw(price), storage=draw(price))


@given(names, methods, sizes, sizes, st.integers(1, 1024))
def test_the_rank_never_falls_as_data_grows(name: str, method: str, a: int, b: int, cap: int) -> None:
    """More data of any kind never leads to a lower rank, under any cap."""
    fewer, more = sorted((a, b))
    base = BASE[name].within(f"exceeds max LoRA rank {cap}")
    low, high = METHODS[method](base, fewer), METHODS[method](base, more)
    assert low.rank <= high.rank <= cap
    assert low.decision.ratio >= high.decision.ratio or high.rank > low.rank


@given(names, methods, sizes)
def test_the_rate_lies_in_its_interval_and_below_1e_3(name: str, method: str, n: int) -> None:
    """Every method's computed rate is inside the interval that is shown with it."""
    chosen = METHODS[method](BASE[name], n).decision.learning_rate
    assert chosen.interval is not None
    assert 0 < chosen.interval[0] <= chosen.value <= chosen.interval[1]
    assert chosen.value <= 1e-3


@given(plans())
@settings(deadline=None)
def test_json_round_trips(plan: LoRAPlan) -> None:
    """A plan of any method read back is equal, with the same digest, numbers and explanation."""
    again = LoRAPlan.from_json(plan.to_json())
    assert again == plan
    assert again.digest == plan.digest
    assert again.decision == plan.decision
    assert again.explain() == plan.explain()
    assert type(again.objective) is type(plan.objective)


@given(plans(), methods)
@settings(deadline=None)
def test_a_chain_never_mutates(plan: LoRAPlan, other: str) -> None:
    """Every fluent method leaves the plan that it was called on as it was."""
    before, shown = plan.to_json(), plan.explain()
    plan.pin(learning_rate=1e-5, batch_size=3)
    plan.layers(attn=False, unembed=False)
    plan.price(train=7.0, cached=1.0)
    METHODS[other](plan, 99)
    assert (plan.to_json(), plan.explain()) == (before, shown)


@given(plans())
@settings(deadline=None)
def test_the_total_is_the_sum_or_unknown(plan: LoRAPlan) -> None:
    """A total is there exactly when every phase has a price and a length; it is then their sum."""
    parts = [phase.total for phase in plan.cost.phases]
    if None in parts:
        assert plan.cost.total is None
        assert any("the cost is" in text for text in plan.warnings)
    else:
        assert plan.cost.total == pytest.approx(sum(part for part in parts if part is not None))


@given(plans())
@settings(deadline=None)
def test_every_explanation_fits_a_terminal(plan: LoRAPlan) -> None:
    """No line is longer than 100 columns, none ends in a space, and the drawing has its dot."""
    lines = plan.explain(tokens_per_second=1_000).splitlines()
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if line != line.rstrip()]
    assert "<circle" in capacity_chart(plan)


@given(plans())
@settings(deadline=None)
def test_the_parts_agree_with_each_other(plan: LoRAPlan) -> None:
    """Parameters, R and steps follow from rank, demand and batch."""
    decision = plan.decision
    assert decision.parameters == plan.rank * decision.per_rank
    assert decision.ratio == pytest.approx(decision.parameters / (decision.weight * decision.demand.amount))
    rows = {"rl": "groups", "distill": "groups"}.get(plan.method, "examples")
    assert plan.objective is not None
    per_epoch = math.ceil(getattr(plan.objective.counts, rows) / plan.batch_size)
    assert plan.steps == per_epoch * plan.epochs


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_order_of_the_methods_does_not_matter(method: str) -> None:
    """Pins, prices and layers may be said before or after what is learned."""
    base = BASE["Qwen/Qwen3-8B"]
    first = METHODS[method](base.pin(rank=64).layers(unembed=False).price(train=1), 10_000)
    last = METHODS[method](base, 10_000).price(train=1).layers(unembed=False).pin(rank=64)
    assert first == last
    assert first.digest == last.digest


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_explains_itself(method: str) -> None:
    """Title, verdict, R, rate with interval and get_lr, batch, steps, cost and doctrine are all there."""
    plan = METHODS[method](BASE["Qwen/Qwen3-8B"], 10_000)
    text = plan.explain()
    parts = ("LoRA plan: ", "Qwen/Qwen3-8B", plan.verdict, "  R  ", "  interval", "  get_lr", "batch size",
             "steps", "cost", "Rules of thumb", "What would change the verdict")  # fmt: skip
    for part in parts:
        assert part in text, part
    assert plan.objective is not None
    assert plan.objective.title in text
    assert repr(plan).startswith("LoRAPlan('Qwen/Qwen3-8B', ")
    assert plan.objective.title in plan._repr_html_()


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("bad", [{"rank": 0}, {"learning_rate": float("nan")}, {"batch_size": 0}])
def test_pins_are_checked_alike(method: str, bad: dict[str, float]) -> None:
    """A bad pin is refused whatever is learned."""
    with pytest.raises(PlanError, match="is out of range"):
        METHODS[method](BASE["Qwen/Qwen3-8B"], 100).pin(**bad)  # wrong on purpose


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_plan_that_was_tampered_with_is_refused(method: str) -> None:
    """Unknown methods, missing counts and impossible numbers in the JSON meet the same checks."""
    body = METHODS[method](BASE["Qwen/Qwen3-8B"], 100).to_dict()
    for objective in (
        body["objective"] | {"method": "guess"},
        body["objective"] | {"extra": 1},
        body["objective"] | {"counts": {}},
        {key: value for key, value in body["objective"].items() if key != "counts"},
    ):
        with pytest.raises(PlanError):
            LoRAPlan.from_dict(body | {"objective": objective})


def test_a_new_objective_forgets_what_a_pilot_measured() -> None:
    """A pilot's rate was measured on other data."""
    from tinker_officer.plan.pilot_fit import PilotFit

    fit = PilotFit(
        base_model="Qwen/Qwen3-8B", rank=16, batch_size=8, steps=100, start_nll=2.0, held_out=50, arms=(),
        learning_rate=3.3e-4, interval=(2.6e-4, 4.2e-4), curvature=0.01, noise=1e-4,
    )  # fmt: skip
    plan = METHODS["sft"](BASE["Qwen/Qwen3-8B"], 10_000)
    piloted = attrs.evolve(plan, pilot_fit=fit)
    assert piloted.learning_rate == 3.3e-4
    assert "pilot" in piloted.decision.learning_rate.source
    assert LoRAPlan.from_json(piloted.to_json()) == piloted
    assert METHODS["sft"](piloted, 10_000) == plan
    assert piloted.pin(learning_rate=1e-4).learning_rate == 1e-4
    huge = BASE["Qwen/Qwen3-8B"].sft(TokenCounts(examples=10**7, trained=10**11, total=10**11))
    assert (huge.verdict, huge.decision.pilot) == ("capacity-limited", True)
    assert not attrs.evolve(huge, pilot_fit=fit).decision.pilot
    refused = attrs.evolve(
        plan, pilot_fit=attrs.evolve(fit, refused="no curve", learning_rate=None, interval=None)
    )
    assert refused.learning_rate == plan.learning_rate
    assert any("no curve" in doubt for doubt in refused.decision.learning_rate.doubts)
    distilled = METHODS["prompt_distillation"](BASE["Qwen/Qwen3-8B"], 10_000)
    assert attrs.evolve(distilled, pilot_fit=fit).learning_rate == 3.3e-4


@pytest.mark.parametrize("method", ["dpo", "reward_model", "rl", "distill"])
def test_a_run_without_data_says_what_it_needs(method: str) -> None:
    """A plan made from counts has nothing to train on, and a pilot trains on conversations: in four parts."""
    from tinker_officer import Conversations, Run
    from tinker_officer.errors import RunError

    plan = METHODS[method](BASE["Qwen/Qwen3-8B"], 10_000)
    with pytest.raises(RunError, match=rf"a plan for[\s\S]*{method}[\s\S]*fix:|no data[\s\S]*fix:"):
        _ = Run(plan, name="mine").data
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    data = Conversations.from_list(rows)
    with pytest.raises(PlanError, match=r"a plan made with \.sft"):
        plan.pilot(data, data, on="https://nowhere")
    assert Run(METHODS["prompt_distillation"](BASE["Qwen/Qwen3-8B"], 10_000), name="mine").plan.epochs == 4
