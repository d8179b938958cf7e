"""From what scorers said to one number an item, and to the figures beside it.

Inspect leaves samples without a grade out of its means, takes a word that it does not know for 0, and keeps
several scorers and reducers apart only by a suffix to their names. Here every sample counts in every figure,
a word is worth what it says or is an error, and each scorer has a figure of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer.evals import catalogue
from tinker_officer.evals.results import Item
from tinker_officer.evals.sittings import Ended
from tinker_officer.evals.tasks import Sat, scorer_name


if TYPE_CHECKING:
    from inspect_ai import Task

# What Inspect's scorers say, and what it is worth.
_WORDS = {"c": 1.0, "i": 0.0, "p": 0.5, "n": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_CUT = {"max_tokens", "model_length"}


@attrs.frozen
class Grades:
    """Which score of a task counts, and what its words are worth: 0 to 1.

    Attributes:
        counts: `scorer`, or `scorer/part` of one that gives several values.
        higher_is_better: the direction of progress.
        words: what words are worth, beside those that Inspect knows.
        reducers: of the epochs of an item, beside their mean: `pass_at_2`, by name.
    """

    counts: str
    higher_is_better: bool = True
    words: Mapping[str, float] = attrs.field(factory=dict)
    reducers: Mapping[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, sat: Sat, task: Task) -> Self:
        """Return how a task is graded: as the suite says, else the catalogue, else by its first scorer."""
        here = catalogue.known(sat.task)
        first = next((scorer_name(scorer) for scorer in task.scorer or ()), "")
        turned = here.reversed_by is not None and (
            str(sat.task_args.get(here.reversed_by[0])) == here.reversed_by[1]
        )
        return cls(
            counts=sat.scorer or here.counts or first,
            higher_is_better=here.higher_is_better is not turned,
            words=here.grades,
            reducers=_reducers(task),
        )

    def items(self, samples: Iterable[Ended]) -> tuple[Item, ...]:
        """Return one item an id: the mean over its epochs, the worst for one that errored or has no score."""
        return tuple(self._item(name, epochs) for name, epochs in _by_id(samples).items())

    def _item(self, name: str, epochs: list[Ended]) -> Item:
        graded = [self.grade(sample, self.counts) for sample in epochs]
        worst = 0.0 if self.higher_is_better else 1.0
        scores = [worst if error else score for score, error in graded]
        reasons = [sample.stop_reason for sample in epochs]
        return Item(
            id=name,
            score=sum(scores) / len(scores),
            tokens=sum(sample.tokens for sample in epochs),
            stop_reason=next((reason for reason in reasons if reason in _CUT), reasons[0]),
            error="; ".join(dict.fromkeys(error for _, error in graded if error)),
            input_digest=epochs[0].shown,
            status=_status(epochs, [error for _, error in graded]),
            epochs=scores if len(scores) > 1 else (),
        )

    def grade(self, sample: Ended, counts: str) -> tuple[float, str]:
        """Return the score of one sample, or 0 and why there is none."""
        if sample.error:
            return 0.0, sample.error
        scorer, _, part = counts.partition("/")
        if scorer not in sample.scores:
            return 0.0, f"unscored by {scorer!r}: there is {', '.join(sample.scores) or 'no score'}"
        value = sample.scores[scorer]
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, Mapping):
            if part not in value:
                parts = ", ".join(f"{scorer}/{name}" for name in value)
                return 0.0, f"the scorer returns several values: choose one with scorer=, of {parts}"
            value = value[part]
        number = self._number(value)
        if number is None:
            said = sample.reasons.get(scorer) or (
                f"{value!r} is no grade" if value is not None else "no grade"
            )
            return 0.0, f"unscored: {said}"
        return number, ""

    def _number(self, value: Any) -> float | None:
        if isinstance(value, bool | int | float):
            return float(value)
        if not isinstance(value, str):
            return None
        word = value.strip().casefold()
        if word in self.words:
            return self.words[word]
        if word in _WORDS:
            return _WORDS[word]
        try:
            return float(word)
        except ValueError:
            return None

    def others(self, samples: Sequence[Ended]) -> dict[str, float]:
        """Return the means of the other scorers and parts, by name, and what the reducers make of the epochs.

        Every item counts, with 0 where it has no value; what has no number at all is left out.
        """
        others: dict[str, None] = {}
        for sample in samples:
            for scorer, value in sample.scores.items():
                parts = [f"{scorer}/{part}" for part in value] if isinstance(value, Mapping) else [scorer]
                others |= dict.fromkeys(parts)
        figures = {}
        for counts in others:
            graded = [self.grade(sample, counts) for sample in samples]
            if counts != self.counts and any(not error for _, error in graded):
                figures[counts] = sum(score for score, _ in graded) / len(graded)
        return figures | self._reduced(samples)

    def _reduced(self, samples: Sequence[Ended]) -> dict[str, float]:
        from inspect_ai.scorer import Score, value_to_float

        figures = {}
        epochs_by_id = _by_id(samples)
        for name, reduce in self.reducers.items():
            reduced = [
                value_to_float()(
                    reduce([Score(value=self.grade(sample, self.counts)[0]) for sample in epochs]).value
                )
                for epochs in epochs_by_id.values()
            ]
            figures[name] = sum(reduced) / len(reduced)
        return figures


def _status(epochs: list[Ended], errors: list[str]) -> str:
    """Return what an item counts as: one epoch without a grade leaves the item without one."""
    if any(sample.error for sample in epochs):
        return "errored"
    return "unscored" if any(errors) else "completed"


def _by_id(samples: Iterable[Ended]) -> dict[str, list[Ended]]:
    by_id: dict[str, list[Ended]] = {}
    for sample in samples:
        by_id.setdefault(sample.id, []).append(sample)
    return by_id


def _reducers(task: Task) -> dict[str, Any]:
    if (task.epochs or 1) == 1 or not task.epochs_reducer:
        return {}
    from inspect_ai.scorer._reducer.registry import reducer_log_name

    named = {str(reducer_log_name(reduce)): reduce for reduce in task.epochs_reducer}
    return {name: reduce for name, reduce in named.items() if name != "mean"}
