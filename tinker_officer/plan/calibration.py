"""A rule for the learning rate, fitted to finished runs, that knows how far off it is.

The rule is `coefficient x (rank / 32)^exponent`: one exponent for all, one coefficient a family, and a
pooled one for a family that was never tried. It is chosen to have the least mean regret, each model
counting once, with each family's coefficient drawn towards the pooled one. How strongly it is drawn is
chosen by the regret on models left out of the fit; the intervals come from those, and from families left
out, too: they say where the best rate of a model that the fit has *not* seen was found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import attrs
import numpy as np

from tinker_officer._text import table
from tinker_officer.errors import PlanError
from tinker_officer.plan.trials import Cell, Floats, Trial, cells


REFERENCE_RANK = 32
COVERAGE = 0.90  # share of best rates that an interval is to hold, their model or family not being seen
_LEAST_SPREAD, _UNKNOWN_SPREAD = 1.25, 2.5
_FEWEST_RESIDUALS = 10  # below this, a quantile of residuals says nothing
_EXPONENTS = np.arange(0.0, 0.505, 0.01)
_STEP = 0.01  # of ln(coefficient): 1 %
_MARGIN = 2.0  # of ln(coefficient), beyond the rates tried
_PULLS = (0.003, 0.01, 0.03, 0.1, 0.3)  # percent of loss for a coefficient e times the pooled one


@attrs.frozen
class FamilyRate:
    """What was found for one family.

    Attributes:
        name: the family.
        coefficient: the learning rate at rank 32.
        models: how many of its models were tried.
        ranks: the lowest and the highest rank tried.
    """

    name: str
    coefficient: float
    models: int
    ranks: tuple[int, int]


@attrs.frozen
class CalibratedRule:
    """A learning rate for every model and rank, with what it costs to believe it.

    Attributes:
        source: what it was fitted to.
        exponent: of rank / 32.
        pooled: the coefficient for a family that was not tried.
        families: the coefficient of each family that was.
        spread: a tried family's best rate is expected within the rate divided and multiplied by this.
        spread_unknown: the same for a family that was not tried.
        regret: mean regret in percent of the loss, on what was fitted.
        regret_model_left_out: the same on models left out of the fit; None when there is one model.
        regret_family_left_out: the same on families left out; None when there is one family.
        cells: how many pairs of model and rank were judged.
        at_edge: how many of them did best at the lowest or highest rate tried.
        skipped: how many pairs had fewer than three rates.
    """

    source: str
    exponent: float
    pooled: float
    families: tuple[FamilyRate, ...]
    spread: float
    spread_unknown: float
    regret: float
    regret_model_left_out: float | None
    regret_family_left_out: float | None
    cells: int
    at_edge: int
    skipped: int

    def family(self, name: str | None) -> FamilyRate | None:
        """Return what was found for the family `name`, or None when it was not tried."""
        return next((family for family in self.families if family.name == name), None)

    def rate(self, family: str | None, rank: int) -> float:
        """Return the learning rate of a family at a rank; an unknown family gets the pooled one."""
        known = self.family(family)
        coefficient = known.coefficient if known else self.pooled
        return float(coefficient * (rank / REFERENCE_RANK) ** self.exponent)

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON values."""
        return {
            **attrs.asdict(self),
            "families": [{**attrs.asdict(one), "ranks": list(one.ranks)} for one in self.families],
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Return the rule that `to_dict` wrote.

        Raises:
            PlanError: it is no such rule.
        """
        try:
            families = tuple(
                FamilyRate(**{**one, "ranks": (one["ranks"][0], one["ranks"][1])}) for one in body["families"]
            )
            return cls(**{**body, "families": families})
        except (KeyError, TypeError, IndexError) as error:
            raise PlanError(
                "this is not a calibrated rule",
                got=f"{type(error).__name__}: {error}",
                need="what CalibratedRule.to_dict() writes",
                fix="rates.fit(rows).to_dict()",
            ) from error

    def explain(self) -> str:
        """Return the rule as text: its numbers, and the regret with and without what it was fitted to."""
        rows: list[tuple[object, ...]] = [
            (one.name, f"{one.coefficient:.2e}", one.models, f"{one.ranks[0]} to {one.ranks[1]}")
            for one in self.families
        ]
        rows.append(("any other", f"{self.pooled:.2e}", "", ""))
        shown = table(rows, header=("family", "rate at rank 32", "models", "ranks"))
        return (
            f"learning rate = coefficient x (rank / 32)^{self.exponent:.2f}, fitted to {self.source}\n"
            f"{shown}\n"
            f"best rate expected within x/÷ {self.spread:g}, of another family within x/÷ "
            f"{self.spread_unknown:g}\n"
            f"mean regret: {_percent(self.regret)} on {self.cells} pairs of model and rank "
            f"({self.at_edge} best at an edge of the rates tried, {self.skipped} with too few rates)\n"
            f"             {_percent(self.regret_model_left_out)} with each model left out\n"
            f"             {_percent(self.regret_family_left_out)} with each family left out"
        )


@attrs.frozen
class Judged:
    """What the rule costs on one cell: percent of the loss above the cell's best.

    Attributes:
        cell: the model and rank.
        rate: the rule's rate.
        regret: of that rate.
        regret_model_left_out: of the rate of a rule fitted without this model; None when there is no other.
        regret_family_left_out: the same without its family.
    """

    cell: Cell
    rate: float
    regret: float
    regret_model_left_out: float | None
    regret_family_left_out: float | None


def fit(rows: Iterable[Trial | Mapping[str, Any]], *, source: str = "your runs") -> CalibratedRule:
    """Return the rule with the least regret on finished runs.

    Args:
        rows: trials, or mappings with `base_model`, `rank`, `learning_rate`, `nll` (the sweep's own `model`,
            `lr`, `test` do too), and where wanted `family` and `setting`. At least three learning rates for
            some model and rank.
        source: what to call them.

    Raises:
        PlanError: a row is not a trial, or no model was tried at three rates.

    Source:
        The form: lora_plan.md's pooled rank exponent, and *LoRA Without Regret* (one rate serves all sizes
        of a family). The choice by regret, and the two kinds of leaving out, are ours.
    """
    return judge(rows, source=source)[0]


def judge(
    rows: Iterable[Trial | Mapping[str, Any]], *, source: str = "your runs"
) -> tuple[CalibratedRule, tuple[Judged, ...]]:
    """Return what `fit` does, and what the rule costs on every cell; arguments and errors as there."""
    found, skipped = cells(rows)
    if not found:
        raise PlanError(
            "there is nothing to fit a learning rate to",
            got=f"{skipped} pairs of model and rank, none with three finished learning rates",
            need="a model tried at three learning rates or more, all else equal",
            fix="plan.pilot(train, held_out, on=engine)",
        )
    fitter = _Fitter(found)
    by_pull = {pull: fitter.left_out(pull, lambda cell: cell.base_model) for pull in _PULLS}
    pull = min(_PULLS, key=lambda one: (_mean(by_pull[one]) or 0.0, one))
    models, families = by_pull[pull], fitter.left_out(pull, lambda cell: cell.family)
    rule = fitter.fit(range(len(found)), pull)
    judged = []
    for index, cell in enumerate(found):
        rate = rule.rate(cell.family, cell.rank)
        judged.append(
            Judged(
                cell,
                rate,
                regret=float(cell.regret(rate)),
                regret_model_left_out=models[index][0] if models else None,
                regret_family_left_out=families[index][0] if families else None,
            )
        )
    spread = _spread(models, len({cell.base_model for cell in found}))
    settled = attrs.evolve(
        rule,
        source=source,
        spread=spread,
        spread_unknown=max(spread, _spread(families, len({cell.family for cell in found}))),
        regret=float(np.mean([one.regret for one in judged])),
        regret_model_left_out=_mean(models),
        regret_family_left_out=_mean(families),
        at_edge=sum(cell.at_edge for cell in found),
        skipped=skipped,
    )
    return settled, tuple(judged)


LeftOut = list[tuple[float, float | None]]  # regret, and ln(best / rate) where the best is no edge


class _Fitter:
    """Fits on a grid of exponents and coefficients, on which every cell's regret is known beforehand."""

    def __init__(self, found: Sequence[Cell]) -> None:
        self.cells = found
        rates = [rate for cell in found for rate in cell.rates]
        self.ln_c = np.arange(math.log(min(rates)) - _MARGIN, math.log(max(rates)) + _MARGIN, _STEP)
        self.regret = np.stack([self._table(cell) for cell in found])  # cells by exponents by coefficients

    def _table(self, cell: Cell) -> Floats:
        shift = _EXPONENTS[:, None] * math.log(cell.rank / REFERENCE_RANK)
        return cell.regret(np.exp(self.ln_c[None, :] + shift))

    def fit(self, chosen: Sequence[int], pull: float) -> CalibratedRule:
        """Return the rule with the least mean regret over the models of the chosen cells."""
        cells_ = [self.cells[i] for i in chosen]
        models = [cell.base_model for cell in cells_]
        names = sorted({cell.family for cell in cells_})
        weights = np.array([1 / models.count(model) for model in models]) / len(set(models))
        member = np.array([[cell.family == name for cell in cells_] for name in names], dtype=float)
        of_family = np.tensordot(member * weights, self.regret[list(chosen)], axes=1)
        pooled = np.full(len(_EXPONENTS), np.mean([math.log(cell.best[0]) for cell in cells_]))
        cost = of_family
        for _ in range(100):  # each family's best given the pooled one, and the pooled one given them
            cost = of_family + pull * (self.ln_c - pooled[:, None]) ** 2
            moved = self.ln_c[cost.argmin(axis=2)].mean(axis=0)
            if np.abs(moved - pooled).max() < _STEP / 10:
                break
            pooled = moved
        best = int(cost.min(axis=2).sum(axis=0).argmin())
        coefficients = np.exp(self.ln_c[cost[:, best].argmin(axis=1)])
        return CalibratedRule(
            source="",
            exponent=round(float(_EXPONENTS[best]), 2),
            pooled=float(np.exp(pooled[best])),
            families=tuple(
                FamilyRate(
                    name,
                    float(coefficient),
                    models=len({cell.base_model for cell in cells_ if cell.family == name}),
                    ranks=(
                        min(cell.rank for cell in cells_ if cell.family == name),
                        max(cell.rank for cell in cells_ if cell.family == name),
                    ),
                )
                for name, coefficient in zip(names, coefficients, strict=True)
            ),
            spread=_UNKNOWN_SPREAD,
            spread_unknown=_UNKNOWN_SPREAD,
            regret=math.nan,
            regret_model_left_out=None,
            regret_family_left_out=None,
            cells=len(cells_),
            at_edge=0,
            skipped=0,
        )

    def left_out(self, pull: float, group_of: Callable[[Cell], str]) -> LeftOut:
        """Return each cell's regret and residual when its group is left out; empty for one group."""
        groups = [group_of(cell) for cell in self.cells]
        if len(set(groups)) == 1:
            return []
        rules = {
            group: self.fit([i for i, other in enumerate(groups) if other != group], pull)
            for group in sorted(set(groups))
        }
        out: LeftOut = []
        for cell, group in zip(self.cells, groups, strict=True):
            rate = rules[group].rate(cell.family, cell.rank)
            residual = None if cell.at_edge else math.log(cell.best[0] / rate)
            out.append((float(cell.regret(rate)), residual))
        return out


def _spread(left_out: LeftOut, groups: int) -> float:
    """Return the factor that holds 90 % of the residuals, rounded up to a tenth; 2.5 when there are few.

    The quantile is raised as in split conformal prediction, counting groups and not their cells: the cells
    of a model are off together, and the largest of few says too little of what is to come.
    """
    sizes = [abs(residual) for _, residual in left_out if residual is not None]
    if len(sizes) < _FEWEST_RESIDUALS:
        return _UNKNOWN_SPREAD
    factor = math.exp(float(np.quantile(sizes, min(1.0, COVERAGE * (groups + 1) / groups))))
    return max(_LEAST_SPREAD, math.ceil(10 * factor) / 10)


def _mean(left_out: LeftOut) -> float | None:
    return float(np.mean([regret for regret, _ in left_out])) if left_out else None


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f} %"
