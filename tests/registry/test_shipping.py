"""From a real training run to production: the engine trains, the gate decides, the registry records."""

from __future__ import annotations

import pytest

from tinker_officer import Conversations, EvalSuite, Gate, LoRAPlan, Registry, Run
from tinker_officer.registry.refusal import PromotionRefused


@pytest.mark.slow
def test_a_trained_model_ships_its_worse_predecessor_does_not_and_the_record_holds_both(
    engine, tiny_model, tmp_path
):
    """The tuned model replaces the base; the base, now really worse, is refused; the report is written."""
    rows = [{"input": f"Add {i} and {i}.", "output": f"{2 * i}!"} for i in range(120)]
    train, held_out = Conversations.from_list(rows).split(held_out=0.25, seed=0)
    suite, base, gate = EvalSuite().nll(held_out), str(tiny_model), Gate.not_worse(margin=0.02)
    run = Run(LoRAPlan.for_(base).sft(train, epochs=2), name="adder").evaluate(suite, every=10)
    before = suite.evaluate(base, on=engine, progress=False)
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        result = live.result()
    after = suite.evaluate(result.best, on=engine, progress=False)

    with Registry.open(tmp_path / "models.db") as registry:
        first = registry.register(base, before, name="adder")
        registry.promote(first, to="production", gate=gate, actor="ci")
        second = registry.register(result, after, parents=[first])
        move = registry.promote(second, to="production", gate=gate.better("held_out"), actor="ci")
        assert registry.register(result, after) == second
        with pytest.raises(PromotionRefused, match=r"BREACH.*") as refused:
            registry.promote(first, to="production", gate=gate, actor="ci")
        assert refused.value.verdict.lines[0].low > 0
        assert registry.current("production") == second
        assert second.training_fingerprint == result.training_fingerprint
        assert registry.verify().entries == 7
        assert "held\\_out" in registry.card(second)

    report = result.report(tmp_path / "report.html", cards=[before, after], verdict=move.verdict)
    assert "PASS" in report.read_text("utf-8")
