"""The evals that a suite holds, as values: what to ask, and how. `prepare` reads what is needed, and counts.

Each kind says what it measures and what it needs; nothing is read from disk, loaded or sampled before
`prepare`, and nothing is sampled before the coroutine that `prepare` returns is awaited.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import attrs

from tinker_officer._digest import canonical
from tinker_officer._fields import one_of, real, whole
from tinker_officer._text import nearest
from tinker_officer.data.conversations import Conversations
from tinker_officer.errors import EvalError
from tinker_officer.evals import benchmarks, catalogue, graders, texts
from tinker_officer.evals.calibration import load_questions, run_calibration
from tinker_officer.evals.cases import load_cases, some
from tinker_officer.evals.cookbook import Evaluator
from tinker_officer.evals.graders import Grader
from tinker_officer.evals.grading import TIMEOUT_S
from tinker_officer.evals.judge import run_judge
from tinker_officer.evals.labels import load_labelled
from tinker_officer.evals.nll import run_nll
from tinker_officer.evals.prepared import Context, Prepared
from tinker_officer.evals.product import Sampling, run_product
from tinker_officer.evals.rubric import Rubric
from tinker_officer.evals.tasks import JUDGES


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import EvalResult
    from tinker_officer.evals.target import Target

TOOLS = ("auto", "text")
_LOOKED_AT = 100  # conversations that are looked at for the field to group by
_NLL = "EvalSuite().nll(held_out)"
_BENCHMARK = 'EvalSuite().benchmark("inspect_evals/gsm8k", limit=200)'
_SANDBOX = 'EvalSuite().benchmark("inspect_evals/humaneval", sandbox="local")  # runs its code here'
_SURE = 'suite.calibration("sure", "questions.jsonl", samples=8)'
_PRODUCT = 'EvalSuite().product("tickets", "eval.jsonl", grader=graders.includes)'


@attrs.frozen
class Nll:
    """Layer 1: negative log-likelihood of held-out conversations; see `EvalSuite.nll`."""

    layer: ClassVar[str] = "nll"
    metrics: ClassVar[tuple[str, ...]] = ("nll", "perplexity", "nats_per_example", "bits_per_byte")

    name: str
    data: Conversations | None = attrs.field(
        repr=lambda data: repr(data) if data is not None else "not at hand"
    )
    max_length: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(whole(2, error=EvalError, fix=_NLL))
    )
    train_on: str = attrs.field(default="last", validator=one_of(("last", "all"), error=EvalError, fix=_NLL))
    by: str | None = None
    rows: int = attrs.field(
        default=attrs.Factory(lambda self: len(self.data) if self.data is not None else 0, takes_self=True)
    )
    fingerprint: str = attrs.field(
        default=attrs.Factory(
            lambda self: self.data.fingerprint if self.data is not None else "", takes_self=True
        )
    )
    from_template: bool = attrs.field(default=False, eq=False)

    @property
    def size(self) -> int | None:
        """Items, where that is known without reading anything."""
        return self.rows

    @property
    def measures(self) -> str:
        """What the figure says."""
        return "nats per trained token on held-out conversations"

    @property
    def needs(self) -> str:
        """What must be there."""
        return (
            "nothing else" if self.data is not None else "its data: EvalSuite.from_json(text, data=held_out)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the eval as JSON; the data stays outside, its fingerprint is here."""
        return {
            "kind": "nll",
            "name": self.name,
            "rows": self.rows,
            "fingerprint": self.fingerprint,
            "max_length": self.max_length,
            "train_on": self.train_on,
            "by": self.by,
        }

    def prepare(self) -> Prepared:
        """Return the eval, ready to run.

        Raises:
            EvalError: the data is not at hand, or is empty.
        """
        data = self.data
        if data is None or not len(data):
            raise EvalError(
                f"{self.name!r} has no held-out data",
                got="0 conversations"
                if data is not None
                else f"only the fingerprint {self.fingerprint[:12]}",
                need="at least one conversation" if data is not None else "the conversations themselves",
                fix="train, held_out = tickets.split(held_out=0.1, seed=0)"
                if data is not None
                else "EvalSuite.from_json(text, data=held_out)",
            )
        fields = {field for conversation in data.take(_LOOKED_AT) for field in conversation.metadata}
        if self.by is not None and self.by not in fields:
            raise EvalError(
                f"the conversations of {self.name!r} have no field to group by",
                got=f"by={self.by!r}",
                need="a field of their rows"
                + (f": {', '.join(sorted(fields))}" if fields else ", which have none"),
                fix=f"suite.nll(held_out, by={nearest(self.by, fields) or repr('language')})",
            )

        async def run(target: Target, context: Context) -> EvalResult:
            return await run_nll(
                self.name,
                data,
                target,
                max_length=self.max_length,
                train_on="all" if self.train_on == "all" else "last",
                by=self.by,
                context=context,
            )

        return Prepared(len(data), run, lambda: texts.of_conversations(data))

    def _groups(self, by: str, data: Conversations) -> None:
        fields = {field for row in islice(data, _LOOKED_AT) for field in row.metadata}
        if by not in fields:
            raise EvalError(
                f"the conversations of {self.name!r} have no field to group by",
                got=f"by={by!r}",
                need="a field of their rows: " + (", ".join(sorted(fields)) or "they have none"),
                fix=f"suite.nll(held_out, by={nearest(by, fields) or repr('language')})",
            )


def _json(_instance: Any, attribute: Any, value: Any) -> None:
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


def _pairs(mapping: Mapping[str, Any] | tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(dict(mapping).items()))


@attrs.frozen
class Benchmark:
    """Layer 2: a public benchmark, or any Inspect task; see `EvalSuite.benchmark`."""

    layer: ClassVar[str] = "benchmark"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    name: str
    task: Any
    limit: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(whole(1, error=EvalError, fix=_BENCHMARK))
    )
    task_args: tuple[tuple[str, Any], ...] = attrs.field(default=(), converter=_pairs, validator=_json)
    max_tokens: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(whole(1, error=EvalError, fix=_BENCHMARK))
    )
    temperature: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(real(0, error=EvalError, fix=_BENCHMARK))
    )
    scorer: str | None = None
    roles: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs)
    tools: str = attrs.field(default="auto", validator=one_of(TOOLS, error=EvalError, fix=_BENCHMARK))
    sandbox: str | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(one_of(("docker", "local"), error=EvalError, fix=_SANDBOX)),
    )
    why: str = attrs.field(default="", eq=False)
    from_template: bool = attrs.field(default=False, eq=False)

    @property
    def size(self) -> int | None:
        """Items, where that is known without loading the task."""
        about = catalogue.facts(self._task_name())
        whole = about.items if about is not None and not self.task_args else None
        return self.limit if whole is None else min(whole, self.limit or whole)

    @property
    def measures(self) -> str:
        """What the figure says."""
        here = catalogue.known(self.task)
        return self.why or (here.measures if here is not None else f"accuracy on {self._task_name()}")

    @property
    def needs(self) -> str:
        """What must be there."""
        judged = {role for role, _ in self.roles} & set(JUDGES)
        return catalogue.needs(self._task_name(), bound=bool(judged), sandbox=self.sandbox)

    def _task_name(self) -> str:
        return self.task if isinstance(self.task, str) else str(getattr(self.task, "name", self.name))

    def to_dict(self) -> dict[str, Any]:
        """Return the eval as JSON.

        Raises:
            EvalError: the task is an object, which JSON cannot hold.
        """
        if not isinstance(self.task, str):
            raise EvalError(
                f"{self.name!r} cannot be written as JSON",
                got="a task that is an object",
                need="a task by its registered name",
                fix=_BENCHMARK,
            )
        record = attrs.asdict(self, filter=lambda field, _: field.name not in {"why", "from_template"})
        return {"kind": "benchmark", **record, "task_args": dict(self.task_args), "roles": dict(self.roles)}

    def prepare(self) -> Prepared:
        """Return the eval, ready to run, its task and data loaded.

        Raises:
            EvalError: the task, its data or a package is missing.
        """
        sat = benchmarks.Sat(
            name=self.name,
            task=self.task,
            limit=self.limit,
            task_args=dict(self.task_args),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            scorer=self.scorer,
            roles=dict(self.roles),
            tools=self.tools,
            sandbox=self.sandbox,
        )
        task = benchmarks.load_task(sat)

        async def run(target: Target, context: Context) -> EvalResult:
            return await benchmarks.run_benchmark(
                sat, task, target, at=context.at, done=context.done, against=context.against
            )

        n = len(task.dataset) * benchmarks.epochs_of(task)
        return Prepared(n, run, lambda: texts.of_task(task))


def _frozen_cases(cases: Any) -> Any:
    if isinstance(cases, str | Conversations):
        return cases
    return str(cases) if isinstance(cases, Path) else tuple(cases)


def _cases_to_dict(cases: str | tuple[Mapping[str, Any], ...] | Conversations) -> dict[str, Any]:
    if isinstance(cases, str):
        return {"path": cases}
    if isinstance(cases, Conversations):
        return {"fingerprint": cases.fingerprint, "rows": len(cases)}
    return {"rows": json.loads(json.dumps(list(cases)))}


@attrs.frozen
class Product:
    """Layer 3: the user's own cases and a grader; see `EvalSuite.product`."""

    layer: ClassVar[str] = "product"
    metrics: ClassVar[tuple[str, ...]] = ("score",)

    name: str
    cases: str | tuple[Mapping[str, Any], ...] | Conversations = attrs.field(
        converter=_frozen_cases, validator=_json
    )
    grader: Grader = attrs.field(converter=graders.as_grader)
    sampling: Sampling = attrs.field(factory=Sampling)
    tools: str = attrs.field(default="auto", validator=one_of(TOOLS, error=EvalError, fix=_PRODUCT))
    limit: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(whole(1, error=EvalError, fix=_PRODUCT))
    )
    timeout_s: float = attrs.field(
        default=TIMEOUT_S, validator=real(0, error=EvalError, fix=_PRODUCT, open_low=True)
    )
    from_template: bool = attrs.field(default=False, eq=False)

    @property
    def size(self) -> int | None:
        """Cases, where that is known without reading a file."""
        have = None if isinstance(self.cases, str) else len(self.cases)
        return have if self.limit is None or have is None else min(have, self.limit)

    @property
    def measures(self) -> str:
        """What the figure says."""
        return f"your cases, graded by {self.grader.name}"

    @property
    def needs(self) -> str:
        """What must be there."""
        return self.cases if isinstance(self.cases, str) else "nothing else"

    def to_dict(self) -> dict[str, Any]:
        """Return the eval as JSON: a path as it was given, rows in full, conversations by fingerprint."""
        return {
            "kind": "product",
            "name": self.name,
            "cases": _cases_to_dict(self.cases),
            "grader": self.grader.to_dict(),
            "sampling": attrs.asdict(self.sampling),
            "tools": self.tools,
            "limit": self.limit,
            "timeout_s": self.timeout_s,
        }

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
class Judge:
    """Layer 3 with a judge: the user's own cases, graded by a model; see `EvalSuite.judge`."""

    layer: ClassVar[str] = "product"
    metrics: ClassVar[tuple[str, ...]] = ("score",)

    name: str
    cases: str | tuple[Mapping[str, Any], ...] | Conversations = attrs.field(
        converter=_frozen_cases, validator=_json
    )
    rubric: Rubric
    grader_model: str
    labelled: str | tuple[Mapping[str, Any], ...] | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(_frozen_cases),
        validator=attrs.validators.optional(_json),
    )
    sampling: Sampling = attrs.field(factory=Sampling)
    tools: str = attrs.field(default="auto", validator=one_of(TOOLS, error=EvalError, fix=_PRODUCT))
    limit: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(whole(1, error=EvalError, fix=_PRODUCT))
    )
    from_template: bool = attrs.field(default=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not str(self.grader_model or "").strip():
            raise EvalError(
                "a judge must be named",
                got=repr(self.grader_model),
                need="a tinker:// path or a base model on the service, or a model of Inspect's",
                fix='suite.judge("tone", cases, rubric=rubric, grader_model="openai/gpt-4o")',
            )

    @property
    def size(self) -> int | None:
        """Cases, where that is known without reading a file."""
        have = None if isinstance(self.cases, str) else len(self.cases)
        return have if self.limit is None or have is None else min(have, self.limit)

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
        return {
            "kind": "judge",
            "name": self.name,
            "cases": _cases_to_dict(self.cases),
            "rubric": self.rubric.to_dict(),
            "grader_model": self.grader_model,
            "labelled": json.loads(json.dumps(labelled)),
            "sampling": attrs.asdict(self.sampling),
            "tools": self.tools,
            "limit": self.limit,
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
class Calibrated:
    """Whether the model knows what it knows; see `EvalSuite.calibration`."""

    layer: ClassVar[str] = "product"
    metrics: ClassVar[tuple[str, ...]] = ("brier", "accuracy", "confidence", "overconfidence", "ece")

    name: str
    cases: str | tuple[Mapping[str, Any], ...] = attrs.field(converter=_frozen_cases, validator=_json)
    grader: Grader = attrs.field(converter=graders.as_grader)
    samples: int = attrs.field(default=8, validator=whole(2, error=EvalError, fix=_SURE))
    sampling: Sampling = attrs.field(factory=Sampling)
    limit: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(whole(1, error=EvalError, fix=_SURE))
    )
    from_template: bool = attrs.field(default=False, eq=False)

    @property
    def size(self) -> int | None:
        """Questions, where that is known without reading a file."""
        have = None if isinstance(self.cases, str) else len(self.cases)
        return have if self.limit is None or have is None else min(have, self.limit)

    @property
    def measures(self) -> str:
        """What the figure says."""
        return "Brier score: confidence against what came of it"

    @property
    def needs(self) -> str:
        """What must be there."""
        return self.cases if isinstance(self.cases, str) else "nothing else"

    def to_dict(self) -> dict[str, Any]:
        """Return the eval as JSON: a path as it was given, rows in full."""
        return {
            "kind": "calibration",
            "name": self.name,
            "cases": _cases_to_dict(self.cases),
            "grader": self.grader.to_dict(),
            "samples": self.samples,
            "sampling": attrs.asdict(self.sampling),
            "limit": self.limit,
        }

    def prepare(self) -> Prepared:
        """Return the eval, ready to run, every question read and checked.

        Raises:
            DataError: the file is missing or empty, or a row is bad.
        """
        read = {question.case.id: question for question in load_questions(self.cases)}
        cases = some(tuple(question.case for question in read.values()), self.limit)
        questions = tuple(read[case.id] for case in cases)

        async def run(target: Target, context: Context) -> EvalResult:
            return await run_calibration(
                self.name, questions, self.grader, self.samples, self.sampling, target, context=context
            )

        return Prepared(len(questions), run, lambda: texts.of_cases(cases))


Spec: TypeAlias = Nll | Benchmark | Product | Judge | Evaluator | Calibrated


def spec_from_dict(record: Mapping[str, Any], data: Mapping[str, Conversations]) -> Spec:
    """Return the eval that its `to_dict` wrote.

    Args:
        record: what `to_dict` returned.
        data: conversations by the name of the eval that uses them.

    Raises:
        EvalError: the record is no eval, or the conversations are not those that were meant.
    """
    fields = dict(record)
    kind, name = fields.pop("kind", None), str(record.get("name"))
    given = data.get(name)
    if kind == "nll":
        _same_data(name, given, fields["fingerprint"])
        return Nll(data=given, **fields)
    if kind == "benchmark":
        return Benchmark(**fields)
    if kind == "evaluator":
        return Evaluator.from_dict(fields)
    if kind in {"product", "judge", "calibration"}:
        source = _cases_from_dict(name, given, fields.pop("cases"))
        sampling = Sampling(**fields.pop("sampling"))
        if kind != "judge":
            grader = graders.from_dict(fields.pop("grader"))
            made = Product if kind == "product" else Calibrated
            return made(cases=source, grader=grader, sampling=sampling, **fields)
        rubric = fields.pop("rubric")
        read = Rubric(rubric["points"], partial=rubric["partial"])
        return Judge(cases=source, rubric=read, sampling=sampling, **fields)
    raise EvalError(
        "this is not an eval",
        got=f"kind {kind!r}",
        need="nll, benchmark, product, judge or evaluator",
        fix="EvalSuite.from_json(suite.to_json())",
    )


def _cases_from_dict(name: str, given: Conversations | None, cases: Mapping[str, Any]) -> Any:
    if "fingerprint" in cases:
        _same_data(name, given, cases["fingerprint"], needed=True)
        return given
    return cases["path"] if "path" in cases else cases["rows"]


def _same_data(name: str, given: Conversations | None, fingerprint: str, *, needed: bool = False) -> None:
    if (given is None and needed) or (given is not None and given.fingerprint != fingerprint):
        raise EvalError(
            f"the data of {name!r} is not what the suite was made with",
            got=f"fingerprint {given.fingerprint[:12]}" if given is not None else "no data",
            need=f"conversations with the fingerprint {fingerprint[:12]}",
            fix=f"EvalSuite.from_json(text, data={{{name!r}: held_out}})",
        )
