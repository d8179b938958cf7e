"""The numbers behind a verdict, against simulation and against hand counts."""

from __future__ import annotations

import numpy as np
import pytest

from tinker_officer.registry.evidence import Pairs, own_estimate, pair, scaled_n


SIMULATIONS = 20_000


def counted(b: int, c: int, n: int) -> Pairs:
    """Return n binary pairs of which the candidate lost b and gained c."""
    better = (1.0,) * b + (0.0,) * c + (1.0,) * (n - b - c)
    worse = (0.0,) * b + (1.0,) * c + (1.0,) * (n - b - c)
    return Pairs(better, worse, (1.0,) * n, tuple(map(str, range(n))), binary=True, bounds=(0.0, 1.0))


@pytest.mark.parametrize(
    ("n", "discordance", "margin"),
    [
        (50, 0.04, 0.03), (164, 0.04, 0.03), (164, 0.10, 0.03), (164, 0.20, 0.05), (300, 0.20, 0.05),
        (1000, 0.10, 0.02), (1000, 0.40, 0.01),
    ],
)  # fmt: skip
def test_a_damage_equal_to_the_margin_passes_no_more_often_than_it_may(n, discordance, margin):
    """Simulated at a true damage of the margin, a false PASS comes in at most 3 % (nominal: 2.5 %)."""
    chances = [(discordance + margin) / 2, (discordance - margin) / 2, 1 - discordance]
    draws = np.random.default_rng(7).multinomial(n, chances, size=SIMULATIONS)[:, :2]
    kinds, times = np.unique(draws, axis=0, return_counts=True)
    passed = [counted(int(b), int(c), n).loss(0.95).high <= margin for b, c in kinds]
    assert times[passed].sum() / SIMULATIONS <= 0.03


def test_a_loss_of_nll_equal_to_the_margin_passes_no_more_often_than_it_may():
    """Weighted differences with a true mean of exactly the margin pass in at most 3.5 % of simulations."""
    random, margin, n, passed = np.random.default_rng(3), 0.05, 40, 0
    weights = tuple(float(w) for w in random.integers(5, 60, n))
    names = tuple(map(str, range(n)))
    for _ in range(3000):
        difference = random.normal(margin, 0.2, n)
        passed += (
            Pairs(tuple(difference), (0.0,) * n, weights, names, binary=False, bounds=None).loss(0.95).high
            <= margin
        )
    assert passed / 3000 <= 0.035


def test_the_n_that_would_decide_decides():
    """At the rates seen, the named number of pairs decides, and half of it does not."""
    for b, c, n, margin in ((1, 1, 40, 0.02), (8, 5, 200, 0.05), (0, 0, 10, 0.01), (30, 10, 300, 0.02)):
        pairs = counted(b, c, n)
        needed = pairs.n_to_decide(pairs.loss(0.95), margin)

        def decided(size, *, b=b, c=c, n=n, margin=margin):
            found = counted(-(-b * size // n), -(-c * size // n), size).loss(0.95)
            return found.high <= margin or found.low > margin

        assert needed is not None
        assert decided(needed)
        assert not decided(needed // 2)


def test_a_loss_on_the_margin_is_never_decided():
    """When the loss seen equals the margin, no number of items is named."""
    pairs = counted(20, 10, 500)
    assert pairs.n_to_decide(pairs.loss(0.95), 0.02) is None
    assert scaled_n(100, 0.1, 0.0) is None
    assert scaled_n(100, 0.1, 0.05) == 400


def test_pairs_follow_item_ids_and_not_their_order(binary):
    """Cards whose items lie in another order give the same pairs."""
    first, second = binary([1, 1, 0, 0]), binary([0, 1, 1, 0])
    shuffled = type(second)(**{
        field: getattr(second, field)
        for field in ("name", "layer", "metric", "higher_is_better", "value", "interval", "n", "settings",
                      "settings_digest", "binary", "bounds")
    }, items=second.items[::-1])  # fmt: skip
    straight, turned = pair(first, second), pair(first, shuffled)
    assert isinstance(straight, Pairs)
    assert straight == turned
    assert straight.better == (1, 1, 0, 0)
    assert straight.loss(0.95).value == 0


def test_pairs_of_one_source_count_as_one(binary):
    """Forty copies of ten questions are no firmer than ten questions."""
    import attrs

    def clustered(result):
        items = tuple(attrs.evolve(item, cluster=str(i % 10)) for i, item in enumerate(result.items))
        return attrs.evolve(result, items=items)

    before, after = binary([1, 0] * 20), binary([1, 1, 0, 0] * 10)
    loose, firm = pair(clustered(before), clustered(after)), pair(before, after)
    assert isinstance(loose, Pairs)
    assert isinstance(firm, Pairs)
    assert not loose.binary
    assert loose.loss(0.95).high - loose.loss(0.95).low > firm.loss(0.95).high - firm.loss(0.95).low


def test_an_estimate_of_one_model_agrees_with_its_card(binary, nll):
    """The interval that a floor is held against is the one on the scorecard, at its confidence."""
    for result in (binary([1, 0, 1] * 30), nll([2.0 + i / 50 for i in range(50)])):
        own = own_estimate(result, 0.95)
        assert own.value == pytest.approx(result.value)
        assert own.interval == pytest.approx(result.interval)
