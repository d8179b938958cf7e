"""The evals that ask the user's own cases, as values: graded by a rule, by a judge, or for confidence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import attrs

from tinker_officer._digest import canonical
from tinker_officer._fields import one_of, real, whole
from tinker_officer.data.conversations import Conversations
from tinker_officer.errors import EvalError
from tinker_officer.evals import catalogue, graders, texts
from tinker_officer.evals.calibration import load_questions, run_calibration
from tinker_officer.evals.cases import load_cases, some
from tinker_officer.evals.graders import Grader
from tinker_officer.evals.grading import TIMEOUT_S
from tinker_officer.evals.judge import run_judge
from tinker_officer.evals.labels import load_labelled
from tinker_officer.evals.prepared import Context, Prepared
from tinker_officer.evals.product import Sampling, run_product
from tinker_officer.evals.rubric import Rubric
from tinker_officer.evals.tasks import questions_of


if TYPE_CHECKING:
    from tinker_officer.evals.results import EvalResult
    from tinker_officer.evals.target import Target

TOOLS = ("auto", "text")
Cases: TypeAlias = str | tuple[Mapping[str, Any], ...] | Conversations
_PRODUCT = 'EvalSuite().product("tickets", "eval.jsonl", grader=graders.includes)'
_SURE = 'suite.calibration("sure", "questions.jsonl", samples=8)'
_LIMIT = 'suite.product("tickets", "eval.jsonl", grader=graders.includes, limit=200)'


def written(_instance: Any, attribute: Any, value: Any) -> None:
    """Check that what identifies an exam can be written as JSON.

    Raises:
        EvalError: it cannot.
    """
    if isinstance(value, str | Conversations):
        return
    try:
        canonical(value)
    except (TypeError, ValueError) as error:
        raise EvalError(
            f"{attribute.name} cannot be written as JSON, which identifies the exam",
            got=str(error),
            need="text, finite numbers, true, false, null, and lists and objects of these",
            fix="str(path), date.isoformat() or list(numbers) in place of what is not JSON",
        ) from None


def _frozen(cases: Any) -> Any:
    if isinstance(cases, str | Conversations):
        return cases
    return str(cases) if isinstance(cases, Path) else tuple(cases)


@attrs.frozen
class OnCases:
    """What these evals share: the cases, and how many of them are asked."""

    layer: ClassVar[str] = "product"
    kind: ClassVar[str]

    name: str
    cases: Cases = attrs.field(converter=_frozen, validator=written)
    sampling: Sampling = attrs.field(factory=Sampling, kw_only=True)
    limit: int | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(whole(1, error=EvalError, fix=_LIMIT))
    )

    @property
    def size(self) -> int | None:
        """Cases, where that is known without reading a file."""
        have = None if isinstance(self.cases, str) else len(self.cases)
        return have if self.limit is None or have is None else min(have, self.limit)

    @property
    def needs(self) -> str:
        """What must be there."""
        return self.cases if isinstance(self.cases, str) else "nothing else"

    def cut(self, n: int) -> Self:
        """Return a copy that asks at most `n` cases."""
        return attrs.evolve(self, limit=min(n, self.limit or n))

    def to_dict(self) -> dict[str, Any]:
        """Return the eval as JSON: a path as it was given, rows in full, conversations by fingerprint."""
        record = {"kind": self.kind, "name": self.name, "cases": self._written_cases()}
        return {**record, "sampling": attrs.asdict(self.sampling), "limit": self.limit}

    def _written_cases(self) -> dict[str, Any]:
        if isinstance(self.cases, str):
            return {"path": self.cases}
        if isinstance(self.cases, Conversations):
            return {"fingerprint": self.cases.fingerprint, "rows": len(self.cases)}
        return {"rows": json.loads(json.dumps(list(self.cases)))}


@attrs.frozen
class Product(OnCases):
    """Layer 3: the user's own cases and a grader; see `EvalSuite.product`."""

    kind: ClassVar[str] = "product"
    metrics: ClassVar[tuple[str, ...]] = ("score",)

    grader: Grader = attrs.field(converter=graders.as_grader)
    tools: str = attrs.field(
        default="auto", kw_only=True, validator=one_of(TOOLS, error=EvalError, fix=_PRODUCT)
    )
    timeout_s: float = attrs.field(
        default=TIMEOUT_S, kw_only=True, validator=real(0, error=EvalError, fix=_PRODUCT, open_low=True)
    )

    @property
    def measures(self) -> str:
        """What the figure says."""
        return f"your cases, graded by {self.grader.name}"

    def to_dict(self) -> dict[str, Any]:
        """Return the eval as JSON: a path as it was given, rows in full, conversations by fingerprint."""
        own = {"grader": self.grader.to_dict(), "tools": self.tools, "timeout_s": self.timeout_s}
        return super().to_dict() | own

    def prepare(self) -> Prepared:
        """Return the eval, ready to run, every case read and checked.

        Raises:
            DataError: the file is missing or empty, or a row is bad.
        """
        cases = some(load_cases(self.cases), self.limit)

        async def run(target: Target, context: Context) -> EvalResult:
            return await run_product(
                self.name,
                cases,
                self.grader,
                self.sampling,
                target,
                tools=self.tools,
                timeout_s=self.timeout_s,
                context=context,
            )

        return Prepared(len(cases), run, lambda: texts.of_cases(cases))


@attrs.frozen
class Judge(OnCases):
    """Layer 3 with a judge: the user's own cases, graded by a model; see `EvalSuite.judge`."""

    kind: ClassVar[str] = "judge"
    metrics: ClassVar[tuple[str, ...]] = ("score",)

    rubric: Rubric
    grader_model: str
    labelled: str | tuple[Mapping[str, Any], ...] | None = attrs.field(
        default=None,
        kw_only=True,
        converter=attrs.converters.optional(_frozen),
        validator=attrs.validators.optional(written),
    )
    tools: str = attrs.field(
        default="auto", kw_only=True, validator=one_of(TOOLS, error=EvalError, fix=_PRODUCT)
    )

    def __attrs_post_init__(self) -> None:
        if not str(self.grader_model or "").strip():
            raise EvalError(
                "a judge must be named",
                got=repr(self.grader_model),
                need="a tinker:// path or a base model on the service, or a model of Inspect's",
                fix='suite.judge("tone", cases, rubric=rubric, grader_model="openai/gpt-4o")',
            )

    @property
    def measures(self) -> str:
        """What the figure says."""
        points = len(self.rubric.points)
        return f"your cases, judged on {points} point{'s' if points > 1 else ''}"

    @property
    def needs(self) -> str:
        """What must be there."""
        files = [where for where in (self.cases, self.labelled) if isinstance(where, str)]
        return ", ".join([*files, f"the judge {self.grader_model}"])

    def to_dict(self) -> dict[str, Any]:
        """Return the eval as JSON: a path as it was given, rows in full, conversations by fingerprint."""
        labelled = list(self.labelled) if isinstance(self.labelled, tuple) else self.labelled
        return super().to_dict() | {
            "rubric": self.rubric.to_dict(),
            "grader_model": self.grader_model,
            "labelled": json.loads(json.dumps(labelled)),
            "tools": self.tools,
        }

    def prepare(self) -> Prepared:
        """Return the eval, ready to run, every case and labelled answer read and checked.

        Raises:
            DataError: a file is missing or empty, or a row is bad.
        """
        cases = some(load_cases(self.cases, need_target=False), self.limit)
        labelled = load_labelled(self.labelled) if self.labelled is not None else ()

        async def run(target: Target, context: Context) -> EvalResult:
            return await run_judge(
                self.name,
                cases,
                self.rubric,
                self.grader_model,
                self.sampling,
                target,
                labelled=labelled,
                tools=self.tools,
                context=context,
            )

        return Prepared(len(cases), run, lambda: texts.of_cases(cases))


@attrs.frozen
class Calibrated(OnCases):
    """Whether the model knows what it knows; see `EvalSuite.calibration`."""

    kind: ClassVar[str] = "calibration"
    metrics: ClassVar[tuple[str, ...]] = ("brier", "accuracy", "confidence", "overconfidence", "ece")

    grader: Grader = attrs.field(converter=graders.as_grader)
    samples: int = attrs.field(default=8, kw_only=True, validator=whole(2, error=EvalError, fix=_SURE))

    @property
    def measures(self) -> str:
        """What the figure says."""
        return "Brier score: confidence against what came of it"

    def to_dict(self) -> dict[str, Any]:
        """Return the eval as JSON: a path as it was given, rows in full."""
        return super().to_dict() | {"grader": self.grader.to_dict(), "samples": self.samples}

    @property
    def needs(self) -> str:
        """What must be there."""
        return catalogue.needs(self._public) if self._public else super().needs

    @property
    def _public(self) -> str:
        return self.cases if isinstance(self.cases, str) and catalogue.short(self.cases) else ""

    def prepare(self) -> Prepared:
        """Return the eval, ready to run, every question read and checked.

        Raises:
            DataError: the file is missing or empty, or a row is bad.
            EvalError: the public benchmark cannot be loaded, or has no multiple choice.
        """
        source = questions_of(self._public) if self._public else self.cases
        read = {question.case.id: question for question in load_questions(source)}
        cases = some(tuple(question.case for question in read.values()), self.limit)
        questions = tuple(read[case.id] for case in cases)

        async def run(target: Target, context: Context) -> EvalResult:
            return await run_calibration(
                self.name, questions, self.grader, self.samples, self.sampling, target, context=context
            )

        return Prepared(len(questions), run, lambda: texts.of_cases(cases))


def from_record(record: Mapping[str, Any], cases: Cases) -> Product | Judge | Calibrated:
    """Return the eval that `to_dict` wrote, without its kind, on `cases`.

    Raises:
        EvalError: its grader cannot be rebuilt, or a field is out of range.
    """
    fields = {**record, "cases": cases, "sampling": Sampling(**record["sampling"])}
    kind = fields.pop("kind")
    if kind == Judge.kind:
        rubric = fields["rubric"]
        return Judge(**{**fields, "rubric": Rubric(rubric["points"], partial=rubric["partial"])})
    made = Product if kind == Product.kind else Calibrated
    return made(**{**fields, "grader": graders.from_dict(fields["grader"])})
