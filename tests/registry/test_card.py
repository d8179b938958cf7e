"""The model card: complete, and safe to render whatever the names are."""

from __future__ import annotations

from tinker_officer.registry.card import code, escaped
from tinker_officer.registry.gate import Gate


EVIL = "<script>alert(1)</script> [x](javascript:1) | `a` ![i](http://e) \n# head"


def test_a_card_tells_the_whole_story(registry, result, card, binary, nll):
    """What it is, how it scored with intervals, what it learned from, where it stood, and the log's head."""
    run = result()
    evals = (binary([1, 0] * 50), nll([2.0 + i / 50 for i in range(50)]))
    version = registry.register(run, card(*evals, target=run.best.sampler_path), notes="first try")
    registry.promote(version, to="production", gate=Gate.not_worse(margin=0.02), actor="ci")
    shown = registry.card(version)
    for text in (
        "# tickets-r16, version 1", version.id, "rank 16", "tickets.jsonl", "first try", "accuracy", "0.5000",
        "0.4038 to 0.5962", "### PASS for production", "nothing to compare with",
        version.training_fingerprint, registry.verify().head, "| higher |", "| lower |", "1.7000",
    ):  # fmt: skip
        assert text in shown, text


def test_a_card_without_scores_says_so(registry):
    """A version that nobody evaluated is not made to look better."""
    shown = registry.card(registry.register("tiny"))
    assert "nothing is known of this version's quality" in shown
    assert "never moved" in shown
    assert "the base model as it came" in shown


def test_malicious_text_cannot_become_markup(registry, card, binary):
    """Names, notes, actors and reasons appear as text: no tag, no link, no heading, no extra column."""
    name = EVIL.replace("\n", " ").strip()
    version = registry.register(name, card(binary([1, 0], name=EVIL), target=name), name=name, notes=EVIL)
    registry.promote(version, to="staging", actor=EVIL, reason=EVIL, override=True, gate=Gate.not_worse())
    shown = registry.card(version)
    assert "<script" not in shown
    assert "](" not in shown.replace("\\](", "")
    assert "![" not in shown.replace("\\!\\[", "")
    assert "http://" not in shown
    assert sum(line.startswith("# ") for line in shown.splitlines()) == 1
    history = next(line for line in shown.splitlines() if "| staging |" in line)
    assert history.replace("\\|", "").count("|") == 7


def test_escaping_keeps_the_text_and_stops_the_markup():
    """Plain text stays; what could end code type is escaped as text."""
    assert escaped("plain text, 1.5 (x) - y") == "plain text, 1.5 (x) - y"
    assert escaped("a_b*c") == "a\\_b\\*c"
    assert code("tinker://a/b") == "`tinker://a/b`"
    assert code("a`b") == "a\\`b"
    assert code("<b>") == "&lt;b&gt;"
