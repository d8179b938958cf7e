"""Gate: the policy by which a version may move, as a value. How it is applied stands in `judge`.

A candidate passes when no guardrail may have worsened by more than its margin and, where success was asked
for, at least one success metric has surely improved. What is missing, stale, errored, unpaired or empty never
passes. Guardrails need no correction for their number, since all must hold; success metrics get Holm's.
"""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Self

import attrs

from tinker_officer._digest import digest
from tinker_officer._fields import one_of, real, whole
from tinker_officer._text import table
from tinker_officer.errors import RegistryError


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import Scorecard
    from tinker_officer.evals.suite import EvalSuite
    from tinker_officer.registry.planning import GatePlan
    from tinker_officer.registry.values import Version
    from tinker_officer.registry.verdict import Verdict


_EXAMPLE = 'Gate.not_worse(margin=0.02).guard("held_out", margin=0.05).better("tickets")'


def _named(_instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise RegistryError(
            f"{attribute.name} is not the name of an eval",
            got=repr(value),
            need='the name of an eval ("held_out") or of its metric ("held_out/nll")',
            fix=_EXAMPLE,
        )


_amount = real(0, error=RegistryError, fix=_EXAMPLE)
_finite = real(float("-inf"), error=RegistryError, fix='Gate().at_least("tickets", 0.6)')


@attrs.frozen
class Guard:
    """`eval` may not be worse by more than `margin`, in the metric's own unit."""

    eval: str = attrs.field(validator=_named)
    margin: float = attrs.field(validator=_amount)


@attrs.frozen
class Limit:
    """`eval` must surely be `rule` ("at least" or "at most") `value`, whatever the baseline scored."""

    eval: str = attrs.field(validator=_named)
    rule: str = attrs.field(
        validator=one_of(("at least", "at most"), error=RegistryError, fix='Gate().at_least("tickets", 0.6)')
    )
    value: float = attrs.field(validator=_finite)


@attrs.frozen
class Requirement:
    """`eval` must have been sat with at least `n` items."""

    eval: str = attrs.field(validator=_named)
    n: int = attrs.field(validator=whole(1, error=RegistryError, fix='Gate().require("tickets", n=100)'))


@attrs.frozen
class Gate:
    """What a version must show before it may move.

    Attributes:
        margin: how much worse any eval of the baseline may be, in each metric's own unit: 0.02 is two
            points of accuracy, and 0.02 nats a token of NLL. None guards only the evals in `guards`.
        guards: evals with a margin of their own.
        success: evals of which at least one must be better than the baseline.
        limits: floors and ceilings.
        requirements: evals that must be there, with how many items.
        pinned: the version (`name@number`, or its id) that is guarded against besides the one in the
            channel, by the same margins; empty for none.
        confidence: of every two-sided interval; one end errs with half of the rest: 2.5 % at 0.95.

    Source:
        Schultzberg et al. 2024 (arXiv 2402.11609): guardrails by non-inferiority, Holm across successes.
    """

    margin: float | None = attrs.field(default=None, validator=attrs.validators.optional(_amount))
    guards: tuple[Guard, ...] = attrs.field(default=())
    success: tuple[str, ...] = attrs.field(default=(), validator=attrs.validators.deep_iterable(_named))
    limits: tuple[Limit, ...] = attrs.field(default=())
    requirements: tuple[Requirement, ...] = attrs.field(default=())
    pinned: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    confidence: float = attrs.field(
        default=0.95, validator=real(0.5, 0.9999, error=RegistryError, fix="Gate(confidence=0.95)")
    )

    @classmethod
    def not_worse(cls, margin: float = 0.02, *, confidence: float = 0.95) -> Self:
        """Return a gate that guards every eval that the baseline has, each by `margin` in its own unit."""
        return cls(margin=margin, confidence=confidence)

    def guard(self, eval: str, *, margin: float) -> Self:  # noqa: A002 - the field's own word
        """Return a copy that also guards `eval`, replacing any margin it had; it must then be there.

        Args:
            eval: name of the eval ("held_out") or of its metric ("held_out/nll").
            margin: how much worse it may be, in the metric's own unit: points of accuracy, nats of NLL.
        """
        others = tuple(guard for guard in self.guards if guard.eval != eval)
        return attrs.evolve(self, guards=(*others, Guard(eval, margin)))

    def better(self, eval: str) -> Self:  # noqa: A002 - the field's own word
        """Return a copy that also counts `eval` as a success metric; at least one must be better."""
        return attrs.evolve(self, success=tuple(dict.fromkeys((*self.success, eval))))

    def at_least(self, eval: str, value: float) -> Self:  # noqa: A002 - the field's own word
        """Return a copy that also asks that the interval of `eval` lies at or above `value`.

        The lower end counts, not the value: 7 of 10 does not show a true rate of 0.6.
        """
        return attrs.evolve(self, limits=(*self.limits, Limit(eval, "at least", value)))

    def at_most(self, eval: str, value: float) -> Self:  # noqa: A002 - the field's own word
        """Return a copy that also asks that the interval of `eval` lies at or below `value`.

        Either limit can be on a further figure of a card, such as `"mmlu/ece"`: that one is held by
        its value alone where the card gives no `ece_low` and `ece_high` beside it, and the line says so.
        """
        return attrs.evolve(self, limits=(*self.limits, Limit(eval, "at most", value)))

    def require(self, eval: str, *, n: int = 1) -> Self:  # noqa: A002 - the field's own word
        """Return a copy that also asks for `eval` with at least `n` items, replacing an earlier n."""
        others = tuple(rule for rule in self.requirements if rule.eval != eval)
        return attrs.evolve(self, requirements=(*others, Requirement(eval, n)))

    def anchor(self, version: Version | str) -> Self:
        """Return a copy that also guards against `version`, a pinned anchor, replacing any.

        The margins are those of the guardrails. Where the version in production is replaced a dozen times,
        each time by one that may be a point worse, the anchor is what still holds.

        Args:
            version: of the same registry: a Version, `name@number`, or an id.
        """
        pinned = version if isinstance(version, str) else version.label
        _named(self, attrs.fields(type(self)).pinned, pinned)
        return attrs.evolve(self, pinned=pinned)

    @property
    def empty(self) -> bool:
        """Whether the gate asks nothing; then nothing passes it."""
        return not self._clauses()

    @property
    def digest(self) -> str:
        """Of the whole policy."""
        return digest(attrs.asdict(self))

    def __repr__(self) -> str:
        return f"Gate({'; '.join(self._clauses()) or 'asks nothing, so nothing passes'})"

    def _clauses(self) -> list[str]:
        clauses = [f"no eval worse by more than {self.margin:g}"] if self.margin is not None else []
        clauses += [f"{guard.eval} not worse by more than {guard.margin:g}" for guard in self.guards]
        if self.success:
            clauses.append(" or ".join(self.success) + " better")
        clauses += [f"{limit.eval} {limit.rule} {limit.value:g}" for limit in self.limits]
        clauses += [f"the same margins against {self.pinned}"] if self.pinned else []
        return clauses + [f"{rule.eval} with {rule.n} items or more" for rule in self.requirements]

    def explain(self) -> str:
        """Return the policy as text, a rule a line."""
        rows = [(f"{number}.", clause) for number, clause in enumerate(self._clauses(), start=1)]
        sure = f"Each is held with {(1 + self.confidence) / 2:.1%} confidence, one-sided."
        return f"{table(rows)}\n{sure}" if rows else "The gate asks nothing, so nothing passes."

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"

    def to_json(self) -> str:
        """Return the gate as JSON."""
        return json.dumps(attrs.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the gate that `to_json` wrote.

        Raises:
            RegistryError: `text` is not such a gate, or a rule in it is out of range.
        """
        import cattrs

        try:
            return cattrs.Converter(forbid_extra_keys=True).structure(json.loads(text), cls)
        except (ValueError, TypeError, AttributeError, cattrs.BaseValidationError) as error:
            raise RegistryError(
                "this is not a gate",
                got=f"{text[:80]} ({error})",
                need="JSON that Gate.to_json wrote",
                fix=f"{_EXAMPLE}.to_json()",
            ) from error

    def decide(
        self,
        candidate: Scorecard | None,
        baseline: Scorecard | None,
        *,
        anchor: Scorecard | None = None,
        first: bool | None = None,
    ) -> Verdict:
        """Return the verdict on `candidate` against `baseline`, with the evidence for each rule.

        Args:
            candidate: the scorecard of the version that is to move; without one nothing passes.
            baseline: the scorecard of the version that it would replace.
            anchor: the scorecard of the pinned version; a gate that pins one does not pass without it.
            first: whether there is no version to replace, so that only floors, required evals and the
                anchor are judged; True by default when there is no baseline card.
        """
        from tinker_officer.registry import judge

        first = baseline is None if first is None else first
        return judge.decide(self, candidate, baseline, anchor=anchor, first=first)

    def plan(
        self, suite: EvalSuite, *, discordance: float = 0.2, deviation: float = 0.2, power: float = 0.8
    ) -> GatePlan:
        """Return what the gate can decide with the items of `suite`, before anything is sampled.

        Args:
            suite: the evals, with their numbers of items.
            discordance: the share of items on which two models are expected to differ.
            deviation: how much their NLL is expected to differ between conversations, a standard
                deviation in nats.
            power: the chance that each rule must have to be decided for a model that is as good as the
                baseline; it is shared among the guardrails, which must all pass.
        """
        from tinker_officer.registry import planning

        return planning.plan(self, suite, discordance=discordance, deviation=deviation, power=power)
