"""Hostile text in every field that people fill: rendered by a real Markdown parser, it is only ever text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import attrs
import pytest
import yaml
from markdown_it import MarkdownIt

from tinker_officer.registry.gate import Gate
from tinker_officer.registry.registry import Registry


HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</td></tr></table><h1>x</h1>", "<!-- gone",
    "<http://evil.example>", "http://evil.example/x", "https://evil.example", "www.evil.example",
    "mail me@evil.example", "&lt;script&gt;", "&#60;script&#62;", "&amp;", "[x](javascript:alert(1))",
    "[x]: http://evil.example", "[x][y]", "![i](//evil.example/i.png)", "a | b | c", "|---|---|", "\\| x",
    "ends with \\", "\\", "`code`", "``", "**bold** _it_ __b__", "~~gone~~", "# head", "head\n====",
    "x\n\n# head", "x\n```\n<b>y</b>", "- item", "1. item", "> quote", "---", "***", "x\n---\n# y",
    "license: evil", "x\nlicense: evil", "---\nlicense: evil\n---", "!!python/object/apply:os.system ['id']",
    "&anchor *anchor", "{a: b}", "[a, b]", "- a\n- b", "'", '"', "' x: \"", "null", "true", "1e3", "0x10",
    "2020-01-01", "%TAG", "x #y", "x: y", "? x", "| block", "> folded", "\u202egnp.exe", "a\u2028b", "\x00",
    "a\rb", "\x1b[31mred", "\N{ZERO WIDTH JOINER}", "{{ 7*7 }}", "${jndi:ldap://x}", "$(id)",
    "@everyone #123",
]  # fmt: skip


class Seen(HTMLParser):
    """What a browser would make of a page: its tags, their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.words = [], set(), []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())


def rendered(text):
    """Render Markdown as GitHub would: tables, strikethrough, and links of bare addresses where installed."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Seen(reader.render(text))


def plain(text):
    """Return the text as one line shows it."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def linked(markdown):
    """Return whether GitHub would make a link of a bare address."""
    return re.search(r"(https?://|www\.|me@)evil", re.sub(r"\\`|`[^`\n]*`", "", markdown))


def split(card):
    """Return a card's front matter, as YAML's readers have it, and the Markdown after it."""
    begin, front, body = card.split("---\n", 2)
    assert begin == ""
    return yaml.safe_load(front), body


@pytest.fixture(scope="module")
def filled(tmp_path_factory, card, binary):
    """A registry in which every text stands wherever people may put one, the first of them harmless."""
    registry = Registry.open(tmp_path_factory.mktemp("hostile") / "models.db")
    base = registry.register("base", name="base")
    versions = {}
    for place, text in enumerate(("plain text", *HOSTILE)):
        result = attrs.evolve(binary([1, 0], name=text), settings={"task": text})
        source = (
            text.replace("\x00", "") or "zero"
        )  # no model is named with it, as PostgreSQL's text lacks it
        version = registry.register(
            source,
            card(result, target=source),
            name=f"{plain(text)} {place}".replace("@", "").strip(),
            notes=text,
            data={"licence": text, "model_license": text, "sources": [text], text: text},
            parents={text: [base]},
        )
        stated = {"actor": f"by {text}", "reason": f"as {text}"}
        registry.promote(version, to="production", override=True, gate=Gate.not_worse(), **stated)
        registry.hold(version, **stated)
        versions[text] = version
    return registry, versions


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_on_a_card_is_shown_and_never_obeyed(filled, text):
    """In names, notes, actors, reasons, data, evals, front matter: the tags of plain text, and all there."""
    registry, versions = filled
    front, body = split(registry.card(versions[text]))
    expected, harmless = split(registry.card(versions["plain text"]))
    assert front.keys() == expected.keys()
    assert isinstance(front["base_model"], str)
    assert isinstance(front["license"], str)
    found, usual = rendered(body), rendered(harmless)
    assert found.attributes <= {"style"}  # how a table's columns are aligned
    without_code = [tag for tag in found.tags if tag != "code"]  # odd text is not shown in code's type
    assert without_code == [tag for tag in usual.tags if tag != "code"]
    assert plain(text) in found.text
    assert not linked(body)


def test_hostile_text_in_models_md_and_in_notebooks_is_only_shown(filled):
    """All of it in one document: only tables and headings, each text among them; HTML is escaped."""
    registry, versions = filled
    page = registry.to_markdown(registry._database.path.with_name("MODELS.md")).read_text("utf-8")
    found = rendered(page)
    assert set(found.tags) == {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "code"}
    assert found.attributes <= {"style"}
    assert all(plain(text) in found.text for text in versions)
    assert not linked(page)
    for told in (registry.history()._repr_html_(), registry.search()._repr_html_()):
        assert set(Seen(told).tags) == {"pre"}


def test_hostile_text_is_found_by_search_as_it_was_written(filled):
    """Equal, and by LIKE with its signs taken away; nothing else fits, and the log still verifies."""
    registry, versions = filled
    for text, version in versions.items():
        quoted = text.replace("'", "''")
        assert registry.search(f"notes = '{quoted}'").versions == (version,)
        literal = quoted.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        assert registry.search(f"notes LIKE '{literal}'").versions == (version,)
    assert registry.verify().entries == 1 + 4 * len(versions)
