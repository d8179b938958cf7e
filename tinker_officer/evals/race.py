"""A comparison with a card that is at hand, stopped as soon as it is decided.

    card = suite.evaluate(candidate, on=engine, against=baseline_card)

The items are asked in the order of a hash of their sources, which says nothing of how hard they are, and
their differences are taken in that same order, whichever answer arrives first: quick answers would
otherwise be counted first, and they are not like the slow ones. Once the e-process has decided, nothing
more is asked; what was under way is finished and kept, and the rest stand on the card as cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from itertools import chain
from typing import Any, TypeVar

import attrs

from tinker_officer.errors import EvalError
from tinker_officer.evals.results import EvalResult, Item
from tinker_officer.evals.scorecard import Scorecard
from tinker_officer.stats.sequential import Sequential


T = TypeVar("T")


@attrs.frozen
class Against:
    """The card to race against, and how sure to be.

    Attributes:
        target: what it evaluated.
        digest: of the card.
        results: its results by eval.
        alpha: how often equals may be called different.
    """

    target: str
    digest: str
    results: dict[str, EvalResult]
    alpha: float

    def race(self, name: str, items: Iterable[tuple[str, str, str]]) -> Race | None:
        """Return the race of an eval, or None where it has no bounds, or is not on the card.

        Args:
            name: the eval's name.
            items: `(id, source, input digest)` of each; the source may be empty.

        Raises:
            EvalError: the items are not those of the card.
        """
        before = self.results.get(name)
        if before is None or before.bounds is None:
            return None
        return Race(self, before, tuple(items))


def against_card(card: Scorecard, alpha: float) -> Against:
    """Return `card` as what an evaluation races against.

    Raises:
        EvalError: `alpha` is not strictly between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise EvalError(
            "alpha is out of range",
            got=repr(alpha),
            need="a number above 0 and below 1",
            fix="suite.evaluate(candidate, on=engine, against=card, alpha=0.05)",
        )
    return Against(card.target, card.digest, {result.name: result for result in card.evals}, alpha)


def by_hash(source: str) -> bytes:
    """Return what sources are ordered by: it says nothing of the items."""
    return sha256(source.encode()).digest()


class Race:
    """One eval's differences from the card, as items are graded. Made by `Against.race`."""

    def __init__(self, against: Against, before: EvalResult, items: tuple[tuple[str, str, str], ...]) -> None:
        old = {item.id: item for item in before.items}
        changed = sorted(
            old.keys() ^ {name for name, _, _ in items}
            | {name for name, _, shown in items if name in old and old[name].input_digest != shown}
        )
        if changed or any(item.status == "cancelled" for item in before.items):
            raise EvalError(
                f"{before.name!r} cannot be compared with the card as it is asked",
                got=f"{len(changed)} items that are not the same in both: {', '.join(changed[:6])}"
                if changed
                else "a card whose items were not all asked",
                need="a whole card of the same suite",
                fix="suite.evaluate(candidate, on=engine, against=suite.evaluate(baseline, on=engine))",
            )
        low, high = before.bounds or (0.0, 1.0)
        self._span = high - low
        self._sign = 1.0 if before.higher_is_better else -1.0
        self._before = {name: item.score for name, item in old.items()}
        members: dict[str, list[str]] = {}
        for name, source, _ in items:
            members.setdefault(source or name, []).append(name)
        self._members = dict(sorted(members.items(), key=lambda entry: by_hash(entry[0])))
        self._source = {name: source or name for name, source, _ in items}
        self._largest = max(map(len, members.values()))
        self._waiting = list(self._members)[::-1]
        self._after: dict[str, float] = {}
        self._bets = Sequential(against.alpha)
        self._against, self._total = against, len(items)
        self.decided = False

    def order(self, items: Iterable[T], name_of: Callable[[T], str]) -> list[T]:
        """Return `items` in the order in which they are to be asked."""
        place = {name: number for number, name in enumerate(chain.from_iterable(self._members.values()))}
        return sorted(items, key=lambda item: place[name_of(item)])

    def add(self, item_id: str, score: float) -> None:
        """Take in the score of an item, once it is known: 0 for one that failed."""
        self._after[item_id] = score
        while self._waiting and not self.decided:
            members = self._members[self._waiting[-1]]
            if any(name not in self._after for name in members):
                return
            self._waiting.pop()
            changes = [self._after[name] - self._before[name] for name in members]
            self._bets.add(sum(changes) / (self._span * self._largest))
            self.decided = self._bets.decided

    def cancelled(self, item_id: str, input_digest: str, cluster: str) -> Item:
        """Return an item that was not asked, because the comparison was decided before."""
        return Item(
            item_id,
            0.0,
            weight=0.0,
            error=f"not asked: decided after {self._bets.n} of {len(self._members)}",
            status="cancelled",
            input_digest=input_digest,
            cluster=cluster,
        )

    def found(self) -> dict[str, Any]:
        """Return what was decided, as JSON: the difference `after - before` an item, and its interval."""
        scale = self._span * self._largest * len(self._members) / self._total
        low, high = (end * scale for end in self._bets.interval())
        verdict = "no clear difference"
        if self.decided:
            verdict = "better" if (self._bets.mean > 0) == (self._sign > 0) else "worse"
        return {
            "against": self._against.target,
            "card": self._against.digest,
            "alpha": self._against.alpha,
            "verdict": verdict,
            "pairs": self._bets.n,
            "log_e": self._bets.log_e,
            "difference": self._bets.mean * scale,
            "low": low,
            "high": high,
        }
