"""The evals that a suite holds, as values: what to ask, and how. `prepare` reads what is needed, and counts.

Each kind says what it measures and what it needs; nothing is read from disk, loaded or sampled before
`prepare`, and nothing is sampled before the coroutine that `prepare` returns is awaited. Those that ask the
user's own cases are in `case_specs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import attrs

from tinker_officer._fields import one_of, real, whole
from tinker_officer._text import nearest
from tinker_officer.data.conversations import Conversations
from tinker_officer.errors import EvalError
from tinker_officer.evals import benchmarks, catalogue, tasks, texts
from tinker_officer.evals.case_specs import TOOLS, Calibrated, Cases, Judge, Product, from_record, written
from tinker_officer.evals.cookbook import Evaluator
from tinker_officer.evals.nll import run_nll
from tinker_officer.evals.prepared import Context, Prepared


if TYPE_CHECKING:
    from tinker_officer.evals.results import EvalResult
    from tinker_officer.evals.target import Target

_LOOKED_AT = 100  # conversations that are looked at for the field to group by
_NLL = "EvalSuite().nll(held_out)"
_BENCHMARK = 'EvalSuite().benchmark("inspect_evals/gsm8k", limit=200)'
_SANDBOX = 'EvalSuite().benchmark("inspect_evals/humaneval", sandbox="local")  # runs its code here'


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

    def cut(self, n: int) -> Self:
        """Return a copy with the first `n` conversations at most."""
        few = self.data.take(n) if self.data is not None else None
        return type(self)(self.name, few, max_length=self.max_length, train_on=self.train_on, by=self.by)

    def prepare(self) -> Prepared:
        """Return the eval, ready to run.

        Raises:
            EvalError: the data is not at hand, or is empty; or has no such field to group by.
        """
        data = self._at_hand()

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

    def _at_hand(self) -> Conversations:
        if self.data is None:
            raise EvalError(
                f"{self.name!r} has no held-out data",
                got=f"only the fingerprint {self.fingerprint[:12]}",
                need="the conversations themselves",
                fix="EvalSuite.from_json(text, data=held_out)",
            )
        if not len(self.data):
            raise EvalError(
                f"{self.name!r} has no held-out data",
                got="0 conversations",
                need="at least one conversation",
                fix="train, held_out = tickets.split(held_out=0.1, seed=0)",
            )
        fields = {field for conversation in self.data.take(_LOOKED_AT) for field in conversation.metadata}
        if self.by is not None and self.by not in fields:
            raise EvalError(
                f"the conversations of {self.name!r} have no field to group by",
                got=f"by={self.by!r}",
                need="a field of their rows"
                + (f": {', '.join(sorted(fields))}" if fields else ", which have none"),
                fix=f"suite.nll(held_out, by={nearest(self.by, fields) or repr('language')})",
            )
        return self.data


def _pairs(mapping: Mapping[str, Any] | tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(dict(mapping).items()))


@attrs.frozen
class Benchmark:
    """Layer 2: a public benchmark, or any Inspect task; see `EvalSuite.benchmark`.

    One with a `why` comes from a template: an eval that is added under its name takes its place.
    """

    layer: ClassVar[str] = "benchmark"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    name: str
    task: Any
    limit: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(whole(1, error=EvalError, fix=_BENCHMARK))
    )
    task_args: tuple[tuple[str, Any], ...] = attrs.field(default=(), converter=_pairs, validator=written)
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

    @property
    def size(self) -> int | None:
        """Items, where that is known without loading the task."""
        about = catalogue.facts(self._task_name())
        whole = about.items if about is not None and not self.task_args else None
        return self.limit if whole is None else min(whole, self.limit or whole)

    @property
    def measures(self) -> str:
        """What the figure says."""
        return self.why or catalogue.known(self.task).measures or f"accuracy on {self._task_name()}"

    @property
    def needs(self) -> str:
        """What must be there."""
        judged = {role for role, _ in self.roles} & set(tasks.JUDGES)
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
        record = attrs.asdict(self, filter=lambda field, _: field.name != "why")
        return {"kind": "benchmark", **record, "task_args": dict(self.task_args), "roles": dict(self.roles)}

    def cut(self, n: int) -> Self:
        """Return a copy that asks at most `n` items."""
        return attrs.evolve(self, limit=min(n, self.limit or n))

    def prepare(self) -> Prepared:
        """Return the eval, ready to run, its task and data loaded.

        Raises:
            EvalError: the task, its data or a package is missing.
        """
        sat = tasks.Sat(
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
        task = tasks.load_task(sat)

        async def run(target: Target, context: Context) -> EvalResult:
            return await benchmarks.run_benchmark(sat, task, target, context)

        n = len(task.dataset) * tasks.epochs_of(task)
        return Prepared(n, run, lambda: texts.of_task(task))


Spec: TypeAlias = Nll | Benchmark | Product | Judge | Calibrated | Evaluator
KINDS = ("nll", "benchmark", Product.kind, Judge.kind, Calibrated.kind, "evaluator")


def spec_from_dict(record: Mapping[str, Any], data: Mapping[str, Conversations]) -> Spec:
    """Return the eval that its `to_dict` wrote.

    Args:
        record: what `to_dict` returned.
        data: conversations by the name of the eval that uses them.

    Raises:
        EvalError: the record is no eval, or the conversations are not those that were meant.
    """
    kind, name = record.get("kind"), str(record.get("name"))
    if kind not in KINDS:
        raise EvalError(
            "this is not an eval",
            got=f"kind {kind!r}",
            need="one of " + ", ".join(KINDS),
            fix="EvalSuite.from_json(suite.to_json())",
        )
    fields = {key: value for key, value in record.items() if key != "kind"}
    given = data.get(name)
    if kind == "nll":
        if given is not None and given.fingerprint != record["fingerprint"]:
            raise _other_data(name, given, record["fingerprint"])
        return Nll(data=given, **fields)
    if kind == "benchmark":
        return Benchmark(**fields)
    if kind == "evaluator":
        return Evaluator.from_dict(fields)
    return from_record(record, _cases_from_dict(name, given, record["cases"]))


def _cases_from_dict(name: str, given: Conversations | None, cases: Mapping[str, Any]) -> Cases:
    if "fingerprint" not in cases:
        found: Cases = cases["path"] if "path" in cases else cases["rows"]
        return found
    if given is None or given.fingerprint != cases["fingerprint"]:
        raise _other_data(name, given, cases["fingerprint"])
    return given


def _other_data(name: str, given: Conversations | None, fingerprint: str) -> EvalError:
    return EvalError(
        f"the data of {name!r} is not what the suite was made with",
        got=f"fingerprint {given.fingerprint[:12]}" if given is not None else "no data",
        need=f"conversations with the fingerprint {fingerprint[:12]}",
        fix=f"EvalSuite.from_json(text, data={{{name!r}: held_out}})",
    )
