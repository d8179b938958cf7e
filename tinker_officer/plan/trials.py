"""Finished runs that differ in their learning rate, and the curve of the loss between the rates tried.

A *cell* is all trials of one model at one rank with everything else equal. Its curve is the polynomial
through the mean losses in ln(learning rate), a cubic where four rates or more were tried. The best rate is
the curve's lowest point *between* the lowest and the highest rate tried; beyond them nothing is known, and
nothing is claimed: a rate outside is judged as the nearest rate tried.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer._fields import real, whole
from tinker_officer.errors import PlanError


Floats = npt.NDArray[np.float64]

_FIX = 'rates.fit([{"model": "Qwen/Qwen3-8B", "rank": 16, "lr": 3e-4, "test": 0.5438}, ...])'
_FEWEST_RATES = 3  # two points have no lowest one between them
_POINTS = 401  # a curve is read at this many rates, about 1 % apart
_OTHER_NAMES = {"model": "base_model", "lr": "learning_rate", "test": "nll"}  # the sweep's own columns

# Which models are expected to want about the same rate: by the published name, by the config's model_type.
_NAMES = (
    (re.compile(r"Qwen3\.[568](?=-)", re.IGNORECASE), "Qwen3.5"),
    (re.compile(r"Qwen3(?=-)", re.IGNORECASE), "Qwen3"),
    (re.compile(r"Llama-3", re.IGNORECASE), "Llama 3"),
    (re.compile(r"DeepSeek-V3", re.IGNORECASE), "DeepSeek-V3"),
    (re.compile(r"Kimi-K2", re.IGNORECASE), "Kimi-K2"),
    (re.compile(r"Nemotron-3-", re.IGNORECASE), "Nemotron 3"),
    (re.compile(r"gpt-oss", re.IGNORECASE), "gpt-oss"),
)
_ARCHITECTURES = {
    "llama": "Llama 3", "mistral": "Llama 3",
    "qwen2": "Qwen3", "qwen3": "Qwen3", "qwen3_moe": "Qwen3",
    "qwen3_5": "Qwen3.5", "qwen3_5_moe": "Qwen3.5",
    "deepseek_v3": "DeepSeek-V3", "kimi_k2": "Kimi-K2", "nemotron_h": "Nemotron 3", "gpt_oss": "gpt-oss",
}  # fmt: skip


def family_of(base_model: str) -> str | None:
    """Return the family that a published name belongs to, or None."""
    return next((family for pattern, family in _NAMES if pattern.search(base_model)), None)


def family_like(architecture: str) -> str | None:
    """Return the family whose members have this `model_type`, or nearly; None when there is none."""
    return _ARCHITECTURES.get(architecture)


@attrs.frozen
class Trial:
    """One finished run.

    Attributes:
        base_model: the model.
        rank: its LoRA rank.
        learning_rate: its peak learning rate.
        nll: held-out loss at its end, nats per trained token. NaN or infinite: it diverged.
        family: which models are expected to want about the same rate; empty takes it from the name.
        setting: what else must be equal for two runs to be compared: data, batch, steps.
    """

    base_model: str
    rank: int = attrs.field(validator=whole(1, error=PlanError, fix=_FIX))
    learning_rate: float = attrs.field(validator=real(0.0, error=PlanError, fix=_FIX, open_low=True))
    nll: float = attrs.field(converter=float)
    family: str = ""
    setting: str = ""

    @classmethod
    def of(cls, row: Trial | Mapping[str, Any]) -> Trial:
        """Return a trial from a mapping with our names, or the sweep's: `model`, `lr`, `test`.

        Raises:
            PlanError: a column is missing, or a number is out of range.
        """
        if isinstance(row, Trial):
            return row
        named = {_OTHER_NAMES.get(name, name): value for name, value in row.items()}
        try:
            return cls(**{name: named[name] for name in attrs.fields_dict(cls) if name in named})
        except TypeError as error:
            raise PlanError(
                "a row is not a trial",
                got=str(dict(row))[:120],
                need="base_model (or model), rank, learning_rate (or lr), nll (or test)",
                fix=_FIX,
            ) from error

    @classmethod
    def from_run(cls, run: Any, *, metric: str = "held_out/nll") -> Trial:
        """Return the trial that a finished run was: a `RunResult`, or a version of the Registry.

        Two runs are compared only where the data, the batch size and the number of steps are equal.

        Args:
            run: what has `base_model`, `plan`, `data` and `metrics`, as both have.
            metric: the held-out loss, by its name in `run.metrics`.

        Raises:
            PlanError: the run has no plan, or was not evaluated with `metric`.
        """
        numbers = run.plan.get("computed", {})
        if metric not in run.metrics or not numbers:
            raise PlanError(
                "this run cannot be calibrated with",
                got=f"{run.name!r} with metrics {', '.join(sorted(run.metrics)) or 'none'}"
                + ("" if numbers else ", and without a plan"),
                need=f"a run made from a plan and evaluated with {metric!r}",
                fix='Trial.from_run(run, metric="held_out/nll")',
            )
        held = (run.data.get("fingerprint", ""), numbers["batch_size"], numbers["steps"])
        return cls(
            base_model=run.base_model,
            rank=numbers["rank"],
            learning_rate=numbers["learning_rate"],
            nll=run.metrics[metric],
            setting=", ".join(map(str, held)),
        )


@attrs.frozen(eq=False)
class Cell:
    """The trials of one model at one rank: losses by learning rate.

    Attributes:
        base_model: the model.
        family: its family.
        rank: the LoRA rank.
        rates: the learning rates tried, ascending.
        losses: the mean loss at each, nats per trained token.
    """

    base_model: str
    family: str
    rank: int
    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @cached_property
    def _curve(self) -> tuple[Floats, Floats]:
        """ln(rate) and loss along the curve; scipy is imported only where something is fitted."""
        from scipy.interpolate import CubicSpline

        x, y = np.log(self.rates), np.asarray(self.losses)
        at = np.asarray(np.linspace(x[0], x[-1], _POINTS), dtype=np.float64)
        if len(x) == _FEWEST_RATES:
            return at, np.asarray(np.polyval(np.polyfit(x, y, 2), at), dtype=np.float64)
        return at, np.asarray(CubicSpline(x, y, bc_type="not-a-knot")(at))

    @property
    def best(self) -> tuple[float, float]:
        """The best rate within those tried, and its loss."""
        at, loss = self._curve
        lowest = int(loss.argmin())
        return float(np.exp(at[lowest])), float(loss[lowest])

    @property
    def at_edge(self) -> bool:
        """Whether the best is the lowest or the highest rate tried, so that a better one may lie beyond."""
        return self.best[0] <= self.rates[0] * 1.001 or self.best[0] >= self.rates[-1] / 1.001

    def loss(self, learning_rate: float | Floats) -> Floats:
        """Return the curve's loss at a rate; outside the rates tried, at the nearest of them."""
        at, loss = self._curve
        return np.asarray(np.interp(np.log(learning_rate), at, loss))

    def regret(self, learning_rate: float | Floats) -> Floats:
        """Return the excess loss at a rate over the best within those tried, in percent of the best."""
        lowest = self.best[1]
        return 100 * (self.loss(learning_rate) - lowest) / lowest


def cells(rows: Iterable[Trial | Mapping[str, Any]]) -> tuple[list[Cell], int]:
    """Return the cells that can be judged, and how many others have fewer than three rates.

    Replicates at one rate are averaged; runs that diverged are left out.

    Raises:
        PlanError: a row is not a trial.
    """
    tried: defaultdict[tuple[str, str, int, str], defaultdict[float, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        trial = Trial.of(row)
        family = trial.family or family_of(trial.base_model) or trial.base_model
        losses = tried[family, trial.base_model, trial.rank, trial.setting]
        if np.isfinite(trial.nll):
            losses[trial.learning_rate].append(trial.nll)
    found = [_cell(*key[:3], losses) for key, losses in sorted(tried.items()) if len(losses) >= _FEWEST_RATES]
    return found, len(tried) - len(found)


def _cell(family: str, base_model: str, rank: int, losses: Mapping[float, list[float]]) -> Cell:
    rates = tuple(sorted(losses))
    return Cell(base_model, family, rank, rates, tuple(float(np.mean(losses[rate])) for rate in rates))
