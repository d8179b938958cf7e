"""A plan in a notebook."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import attrs
import pytest

from tinker_officer import LoRAPlan, TokenCounts
from tinker_officer.plan.explain import rate
from tinker_officer.plan.html import capacity_chart, rate_chart


def plan(trained: int = 2_000_000) -> LoRAPlan:
    return LoRAPlan.for_("Qwen/Qwen3-8B").sft(TokenCounts(examples=300, trained=trained, total=trained))


def test_nothing_from_the_outside_is_markup() -> None:
    """A base model called like a script is text; nothing is loaded from anywhere."""
    evil = attrs.evolve(plan(), base_model="<script>alert(1)</script>")
    html = evil._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("trained", [1, 10**6, 10**9, 10**14])
def test_the_charts_are_wellformed_and_the_dot_is_on_them(trained: int) -> None:
    """Both drawings parse as XML and keep their dot inside, however extreme the data."""
    for chart in (capacity_chart(plan(trained)), rate_chart(plan(trained).pin(learning_rate=0.9))):
        drawing = ET.fromstring(chart)
        [dot] = [node for node in drawing if node.tag.endswith("circle")]
        assert 16 <= float(dot.attrib["cx"]) <= 544
        widths = [float(node.attrib["width"]) for node in drawing if node.tag.endswith("rect")]
        assert min(widths) > 0
        assert sum(widths) == pytest.approx(528, abs=0.5)


def test_the_page_shows_numbers_warnings_and_the_explanation() -> None:
    """Headline, both charts, the warnings and the folded text are all there."""
    html = plan()._repr_html_()
    assert f"learning rate {rate(plan().learning_rate)}" in html
    assert len(re.findall("<svg", html)) == 2
    assert "<li>only 38 steps" in html
    assert "Every number and its source" in html


def test_a_plan_without_data_shows_too() -> None:
    """A notebook shows the next step."""
    assert "plan.sft(train)" in LoRAPlan.for_("Qwen/Qwen3-8B")._repr_html_()
