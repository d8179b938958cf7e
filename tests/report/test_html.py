"""The report: complete, self-contained, and safe whatever the names are."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import attrs
import pytest

from tinker_officer.data.measure import TokenCounts
from tinker_officer.plan.plan import LoRAPlan
from tinker_officer.registry.gate import Gate
from tinker_officer.report.html import page, write


EVIL = "</td><script>alert('1')</script><img src=x onerror=alert(1)>\"'&$x^2$"
VOID = {"meta", "path", "use", "br", "img", "link", "input", "hr", "rect"}


class Page(HTMLParser):
    """Reads a page: its tags and attributes, its text, and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def cards(card, scores):
    """The base model's scores and the tuned model's, on the same items."""
    before = card(
        scores([2.0 + i / 50 for i in range(50)], name="held_out", nll=True), scores([0] * 45 + [1] * 5)
    )
    after = card(
        scores([1.0 + i / 60 for i in range(50)], name="held_out", nll=True),
        scores([1] * 30 + [0] * 20),
        target="tinker://a/s/1",
    )
    return before, after


def test_a_full_report_holds_every_part(result, cards, tmp_path):
    """Headline, decision with evidence, both plots, plan, data, metrics and run facts are in the file."""
    verdict = Gate.not_worse(margin=0.02).better("tickets").decide(cards[1], cards[0])
    path = write(tmp_path / "out" / "report.html", result(), cards=cards, verdict=verdict)
    shown = Page(path.read_text("utf-8"))
    assert shown.open == []
    assert shown.tags.count("svg") == 2
    for text in (
        "tickets-r16", "PASS. The gate lets it pass.", "tickets accuracy: 0.1000 before, 0.6000 after",
        "held_out/nll, 95 % interval", "learning rate", "paired difference", "not worse", "ample",
        "tickets.jsonl", "trained tokens 4.00k", "training 20 s", "tinker://a/s/1", "f" * 64,
        "Suite ssssssssssss",
    ):  # fmt: skip
        assert text in shown.text, text


def test_the_page_needs_nothing_from_outside(result, cards):
    """No script, no link, no image, no address that a browser would fetch; and the page forbids them."""
    text = page(result(), cards=cards)
    shown = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(shown.tags)
    fetched = [
        value for _, name, value in shown.attributes if name in {"src", "href", "xlink:href", "action"}
    ]
    assert fetched
    assert all(value.startswith("#") for value in fetched)
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)|@import|<metadata", text)
    assert set(re.findall(r"https?://[\w./]+", text)) == {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }


def test_malicious_text_is_shown_as_text(result, card, scores):
    """Markup in any name, path, metric, note or error adds no tag and no attribute, in page and plots."""
    before = card(scores([0, 1] * 20, name=EVIL, notes=EVIL), target=EVIL)
    after = card(scores([1, 1] * 20, name=EVIL), target=EVIL)
    verdict = Gate.not_worse(margin=0.02).better(EVIL).decide(after, before)
    verdict = attrs.evolve(verdict, notes=(EVIL,), candidate=EVIL, baseline=EVIL)
    shown = Page(page(result(text=EVIL, name=EVIL), cards=[before, after], verdict=verdict))
    assert shown.open == []
    assert not {"script", "img"} & set(shown.tags)
    assert not [name for _, name, _ in shown.attributes if name.startswith("on")]
    assert shown.text.count("alert('1')") >= 12


def test_missing_parts_are_said_to_be_missing(result, card, scores):
    """No cards, no verdict, no step: the report says so and stands."""
    bare = Page(page(result(steps=0)))
    for text in (
        "No scorecard was given",
        "No gate was asked",
        "No step was recorded",
        "Nothing was evaluated",
    ):
        assert text in bare.text
    assert "svg" not in bare.tags


def test_one_card_is_shown_with_its_intervals(result, card, scores):
    """A single scorecard gives a table of values, and no comparison."""
    shown = Page(page(result(), cards=[card(scores([1, 0] * 20))]))
    assert "nothing to compare the scores with" in shown.text
    assert "[0.3520, 0.6480]" in shown.text


def test_cards_that_cannot_be_compared_say_why(result, card, scores):
    """Two cards of different exams are not laid side by side; the reason stands in the report."""
    shown = Page(page(result(), cards=[card(scores([1, 0])), card(scores([1, 0, 1]))]))
    assert "cannot be compared" in shown.text
    assert "two settings" in shown.text


def test_a_refusal_shows_its_evidence(result, cards):
    """A breach is named at the top, with what got worse by how much below."""
    verdict = Gate.not_worse(margin=0.02).decide(cards[0], cards[1])
    shown = Page(page(result(), cards=cards[::-1], verdict=verdict))
    assert "BREACH. The gate refuses it" in shown.text
    assert "held_out/nll not worse 50" in shown.text


def test_a_verdict_without_lines_is_shown_with_its_notes(result):
    """Where nothing could be judged, the report says why."""
    shown = Page(page(result(), verdict=Gate.not_worse(margin=0.02).decide(None, None)))
    assert "The candidate has no scorecard" in shown.text


def test_a_plan_is_shown_with_the_source_of_each_number(result, tiny_model):
    """The numbers that the plan worked out stand beside where they come from."""
    plan = LoRAPlan.for_(str(tiny_model)).sft(TokenCounts(examples=100, trained=5000, total=20000), epochs=2)
    shown = Page(page(attrs.evolve(result(), plan=plan.to_dict())))
    assert plan.decision.rank.source in shown.text
    assert plan.decision.learning_rate.source in shown.text
    assert "The whole plan" in shown.text
