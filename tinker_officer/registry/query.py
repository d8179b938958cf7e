"""The language of `Registry.search`, read into a tree: fields, comparisons, AND, OR, NOT, parentheses.

    base_model = 'Qwen/Qwen3-8B' AND (evals.gsm8k.accuracy > 0.6 OR channel = 'production')

Keywords are written in any case. Text stands in single quotes, a quote in it is doubled. A part of a field
that is no plain word stands in double quotes: `evals."my.eval".accuracy`. Nothing of it is ever put into SQL.
"""

from __future__ import annotations

import math
import re
from typing import TypeAlias

import attrs

from tinker_officer.errors import RegistryError


COMPARISONS = ("=", "!=", "<", "<=", ">", ">=", "LIKE")
_DEEPEST = 50
_LONGEST = 20_000
_EXAMPLE = "registry.search(\"base_model = 'Qwen/Qwen3-8B' AND evals.gsm8k.accuracy > 0.6\")"
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*')
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,)
      | (?P<word>(?:[^\W\d][\w/-]*|"[^"]+")(?:\.(?:[\w/-]+|"[^"]+"))*)
    )""",
    re.VERBOSE,
)
_PART = re.compile(r'"([^"]+)"|([^.]+)')


@attrs.frozen
class Compare:
    """`field` stands in relation `sign` to `value`."""

    field: str
    sign: str
    value: str | float


@attrs.frozen
class Both:
    """All of `parts` hold."""

    parts: tuple[Query, ...]


@attrs.frozen
class Either:
    """One of `parts` holds."""

    parts: tuple[Query, ...]


@attrs.frozen
class Not:
    """`part` does not hold."""

    part: Query


Query: TypeAlias = "Compare | Both | Either | Not"


def parse(text: str) -> Query | None:
    """Return the tree of a query; None for an empty one, which every version fits.

    Raises:
        RegistryError: it is no query; the place is pointed at.
    """
    if len(text) > _LONGEST:
        raise _wrong("the query is too long", text[:60] + "...", f"at most {_LONGEST} characters")
    reader = _Reader(text)
    if reader.kind == "end":
        return None
    found = reader.either(0)
    if reader.kind != "end":
        raise reader.wrong("AND, OR, or the end")
    return found


def parse_order(text: str) -> tuple[tuple[str, bool], ...]:
    """Return the fields to order by, each with whether it falls: "evals.gsm8k.accuracy desc, created".

    Raises:
        RegistryError: it is no list of fields.
    """
    reader = _Reader(text)
    found: list[tuple[str, bool]] = []
    while reader.kind == "word":
        field = _field(reader.take())
        falls = reader.keyword() == "DESC"
        if reader.keyword() in {"ASC", "DESC"}:
            reader.take()
        found.append((field, falls))
        if reader.value != ",":
            break
        reader.take()
        found += [("", False)] if reader.kind == "end" else []
    if reader.kind != "end" or not found or not found[-1][0]:
        raise reader.wrong("a field, then asc or desc")
    return tuple(found)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.place = text, 0
        self.kind, self.value, self.start = "end", "", 0
        self._advance()

    def _advance(self) -> None:
        rest = self.text[self.place :]
        if not rest.strip():
            self.kind, self.value, self.start = "end", "", len(self.text)
            return
        match = _TOKEN.match(self.text, self.place)
        if match is None:
            self.start = self.place + len(rest) - len(rest.lstrip())
            raise self.wrong("a field, a comparison, a number, or text in single quotes")
        self.kind = str(match.lastgroup)
        self.value, self.start, self.place = match[self.kind], match.start(self.kind), match.end()

    def take(self) -> str:
        """Return the token at hand, and go on to the next."""
        value = self.value
        self._advance()
        return value

    def keyword(self) -> str:
        """Return the word at hand in capitals; empty where there is none."""
        return self.value.upper() if self.kind == "word" else ""

    def either(self, depth: int) -> Query:
        """Read parts joined by OR."""
        parts = [self.both(depth)]
        while self.keyword() == "OR":
            self.take()
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def both(self, depth: int) -> Query:
        """Read parts joined by AND."""
        parts = [self.one(depth)]
        while self.keyword() == "AND":
            self.take()
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def one(self, depth: int) -> Query:
        """Read one comparison, a NOT, or what stands in parentheses."""
        if depth > _DEEPEST:
            raise self.wrong(f"at most {_DEEPEST} parentheses and NOTs within each other")
        if self.keyword() == "NOT":
            self.take()
            return Not(self.one(depth + 1))
        if self.value == "(" and self.kind == "sign":
            self.take()
            found = self.either(depth + 1)
            if self.value != ")" or self.kind != "sign":
                raise self.wrong("a closing parenthesis")
            self.take()
            return found
        if self.kind != "word" or self.keyword() in {"AND", "OR"}:
            raise self.wrong("a field, such as base_model or evals.gsm8k.accuracy")
        field = _field(self.take())
        sign = {"<>": "!=", "==": "="}.get(self.value, self.value).upper()
        if sign not in COMPARISONS:
            raise self.wrong(f"one of {', '.join(COMPARISONS)}")
        self.take()
        return Compare(field, sign, self._literal())

    def _literal(self) -> str | float:
        if self.kind == "text":
            return self.take()[1:-1].replace("''", "'")
        if self.kind == "number" and math.isfinite(float(self.value)):
            return float(self.take())
        raise self.wrong("a number, or text in single quotes")

    def wrong(self, need: str) -> RegistryError:
        """Return the error for the place at hand."""
        line = self.text.replace("\n", " ").replace("\t", " ")
        low = max(0, self.start - 60)
        shown = line[low : self.start + 40]
        return _wrong("this is not a query", f"{shown}\n{' ' * (self.start - low)}^", need)


def _field(word: str) -> str:
    return ".".join(quoted or plain for quoted, plain in _PART.findall(word))


def _wrong(problem: str, got: str, need: str) -> RegistryError:
    return RegistryError(problem, got=got, need=need, fix=_EXAMPLE)
