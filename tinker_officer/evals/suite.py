"""`EvalSuite`: which evals are asked, as a value; `evaluate` asks them.

suite = (
    EvalSuite()
    .nll(held_out)
    .benchmark("inspect_evals/gsm8k", limit=200)
    .product("tickets", "eval.jsonl", grader=graders.includes)
)
print(suite.explain())
card = suite.evaluate(result.best, on=engine)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any, Self

import attrs

from tinker_officer import _portal
from tinker_officer._digest import digest
from tinker_officer._service import On
from tinker_officer._text import nearest, table
from tinker_officer.data.conversations import Conversations
from tinker_officer.errors import EvalError, OfficerError
from tinker_officer.evals.asking import ask, prepare
from tinker_officer.evals.contamination import DIRTY, Contamination, contamination
from tinker_officer.evals.cookbook import Evaluator
from tinker_officer.evals.graders import Grader, exact
from tinker_officer.evals.grading import TIMEOUT_S
from tinker_officer.evals.product import Sampling
from tinker_officer.evals.race import against_card
from tinker_officer.evals.rubric import Rubric
from tinker_officer.evals.scorecard import Scorecard
from tinker_officer.evals.specs import Benchmark, Calibrated, Judge, Nll, Product, Spec, spec_from_dict
from tinker_officer.stats import power


LAYERS = ("nll", "benchmark", "product")
FORMAT = 1

# What `explain` assumes of two models that are compared, before either was seen.
DISCORDANCE = 0.2
DEVIATION_NATS = 0.2
_WIDE = 54


def _specs(evals: Iterable[Spec]) -> tuple[Spec, ...]:
    return tuple(evals)


@attrs.frozen
class EvalSuite:
    """Evals in three layers: held-out likelihood, public benchmarks, and your own cases.

    Attributes:
        evals: the evals, in the order in which they are asked.
        use_case: of the template that it was made from; empty when from none.
    """

    evals: tuple[Spec, ...] = attrs.field(default=(), converter=_specs)
    use_case: str = attrs.field(default="", eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        names = [spec.name for spec in self.evals]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise EvalError(
                "two evals of the suite have one name",
                got=repr(twice),
                need="a name for each: results are found and paired by it",
                fix=f"suite.benchmark(task, name={twice + '-2'!r})",
            )
        bad = next((name for name in names if not re.fullmatch(r"[\w.-]+", name)), None)
        if bad is not None:
            raise EvalError(
                "an eval has a name that cannot be used",
                got=repr(bad),
                need="letters, digits, '.', '_' and '-': metrics are called <eval>/<metric>",
                fix='suite.product("tickets", "eval.jsonl", grader=graders.includes)',
            )

    @classmethod
    def template(cls, use_case: str) -> Self:
        """Return the suite for a use-case: `chat`, `code`, `math` or `tools`.

        It holds public benchmarks only, a hundred items of each; `explain` says what the other two layers
        should hold. An eval that is added under the name of one of these takes its place, and
        `suite.without(*suite.check())` leaves out what cannot run on this machine.

        Raises:
            EvalError: there is no such template.
        """
        from tinker_officer.evals.templates import template

        return cls(template(use_case), use_case=use_case)

    @staticmethod
    def catalogue(goal: str | None = None) -> str:
        """Return the known public benchmarks as a table, or those for a goal: `chat`, `code`, `math`, ...

        Raises:
            EvalError: there is no such goal.
        """
        from tinker_officer.evals.catalogue import catalogue

        return catalogue(goal)

    def nll(
        self,
        held_out: Conversations,
        *,
        name: str = "held_out",
        max_length: int | None = None,
        train_on: str = "last",
        by: str | None = None,
    ) -> Self:
        """Return a copy that also measures negative log-likelihood on `held_out`.

        Args:
            held_out: conversations that are not trained on.
            name: the eval's name.
            max_length: longest sequence in tokens; the model's context when None.
            train_on: which turns count: the `last` of the assistant, or `all`.
            by: a field of the rows; the card then shows each of its values apart:
                `card["held_out"].by_group()`.

        Raises:
            EvalError: the name is taken, or a setting is out of range.
        """
        if not isinstance(held_out, Conversations):
            raise EvalError(
                "held-out data must be Conversations",
                got=type(held_out).__name__,
                need="Conversations, with at least one",
                fix="train, held_out = Conversations.from_jsonl('tickets.jsonl').split(held_out=0.1)",
            )
        return self._with(Nll(name, held_out, max_length=max_length, train_on=train_on, by=by))

    def benchmark(
        self,
        task: str,
        *,
        limit: int | None = None,
        name: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        scorer: str | None = None,
        roles: Mapping[str, str] | None = None,
        tools: str = "auto",
        sandbox: str | None = None,
        **task_args: Any,
    ) -> Self:
        """Return a copy that also runs the Inspect task `task`.

        Args:
            task: its registered name, such as `inspect_evals/gsm8k`; or a file with one, `exam.py@my_task`.
            limit: how many of its items, chosen by a hash of their ids: the same for every model.
            name: the eval's name; the last part of the task's when None.
            max_tokens: of an answer; the task's own, or 2048, when None.
            temperature: the task's own, or 0, when None.
            scorer: which of the task's scores counts, `scorer` or `scorer/part`; when None what the catalogue
                says, or the task's first.
            roles: models for the roles that the task asks for, `{"grader": "openai/gpt-4o"}`.
            tools: how tools are written: `auto`, in the renderer's own format where it has one; or `text`,
                as `text_tools` does, for small models that were trained so.
            sandbox: `local` runs what the model writes on this machine, unguarded; the task's own, docker,
                when None.
            **task_args: the task's own arguments.

        Raises:
            EvalError: the name is taken, or a setting is out of range.
        """
        spec = Benchmark(
            name=name or task.rpartition("/")[2].rpartition("@")[2].removesuffix(".py"),
            task=task,
            limit=limit,
            task_args=task_args,
            max_tokens=max_tokens,
            temperature=temperature,
            scorer=scorer,
            roles=roles or {},
            tools=tools,
            sandbox=sandbox,
        )
        return self._with(spec)

    def task(
        self,
        task: Any,
        *,
        name: str | None = None,
        limit: int | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        scorer: str | None = None,
        roles: Mapping[str, str] | None = None,
        tools: str = "auto",
        sandbox: str | None = None,
    ) -> Self:
        """Return a copy that also runs an Inspect `Task` object of your own; such a suite has no JSON.

        The arguments are those of `benchmark`.

        Raises:
            EvalError: the name is taken, or a setting is out of range.
        """
        spec = Benchmark(
            name=name or str(getattr(task, "name", "task")).rpartition("/")[2],
            task=task,
            limit=limit,
            max_tokens=max_tokens,
            temperature=temperature,
            scorer=scorer,
            roles=roles or {},
            tools=tools,
            sandbox=sandbox,
        )
        return self._with(spec)

    def safety(self, *, judge: str | None = None) -> Self:
        """Return a copy that also asks what tuning may have broken: truthfulness, hazards and refusals.

        Args:
            judge: Inspect's name of a model that grades answers, such as `openai/gpt-4o`. Without it only
                what needs no judge is asked, and refusals are not.
        """
        from tinker_officer.evals.templates import safety

        suite = self
        for spec in safety(judge):
            suite = suite._with(spec)
        return suite

    def product(
        self,
        name: str,
        cases: str | Path | Iterable[Mapping[str, Any]] | Conversations,
        *,
        grader: Grader | Callable[..., Any],
        max_tokens: int = 256,
        temperature: float = 0.0,
        tools: str = "auto",
        limit: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """Return a copy that also asks your own cases.

        Args:
            name: the eval's name.
            cases: a JSONL file, rows, or conversations whose last turn is the target; see `cases`.
            grader: one of `graders`, or a function `(answer, target) -> 0 to 1`, which may be a coroutine.
            max_tokens: of an answer.
            temperature: 0 for the most likely answer, which can be repeated.
            tools: how the cases' tools are written, as for `benchmark`.
            limit: how many of the cases, chosen by a hash of their ids; all when None.
            timeout_s: how long a grader function may take for one answer, in seconds.

        Raises:
            EvalError: the name is taken, the grader is none, or a setting is out of range.
        """
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
        return self._with(
            Product(name, cases, grader, sampling=sampling, tools=tools, limit=limit, timeout_s=timeout_s)
        )

    def judge(
        self,
        name: str,
        cases: str | Path | Iterable[Mapping[str, Any]] | Conversations,
        *,
        rubric: str | Iterable[str],
        grader_model: str,
        partial: bool = False,
        labelled: str | Path | Iterable[Mapping[str, Any]] | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        tools: str = "auto",
        limit: int | None = None,
    ) -> Self:
        """Return a copy that also has another model judge the answers to your own cases.

        Args:
            name: the eval's name.
            cases: as for `product`; a target may be left out, and is shown to the judge as a reference.
            rubric: what a good answer does, in one sentence or several; each counts the same.
            grader_model: the judge: a `tinker://` path or a base model on the service, or a model of
                Inspect's such as `openai/gpt-4o`. `tinker_officer/NAME` is always the service's. Never the
                candidate.
            partial: whether a point may be met in part, for half of it.
            labelled: answers that people have graded: rows with `input`, `answer` and a `label` from 0 to 1.
                The judge grades them too, and the card shows its agreement and the score without its errors.
            max_tokens: of an answer.
            temperature: 0 for the most likely answer, which can be repeated.
            tools: how the cases' tools are written, as for `benchmark`.
            limit: how many of the cases, chosen by a hash of their ids; all when None.

        Raises:
            EvalError: the name is taken, the rubric is empty, or a setting is out of range.
        """
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
        held = Rubric(rubric, partial=partial)
        spec = Judge(
            name, cases, held, grader_model, labelled=labelled, sampling=sampling, tools=tools, limit=limit
        )
        return self._with(spec)

    def evaluator(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        metric: str | None = None,
        higher_is_better: bool = True,
        layer: str = "benchmark",
    ) -> Self:
        """Return a copy that also runs an evaluator of the cookbook's.

        Args:
            name: the eval's name.
            build: a class or a function without arguments that returns a `SamplingClientEvaluator` or a
                `TrainingClientEvaluator`; one that can be imported survives JSON.
            metric: which of its figures counts; the first when None.
            higher_is_better: the direction of progress.
            layer: the layer that it is asked with: `nll`, `benchmark` or `product`.

        Raises:
            EvalError: the name is taken, or there is no such layer.
        """
        self._of((layer,))
        return self._with(
            Evaluator(name, build, metric=metric, higher_is_better=higher_is_better, layer=layer)
        )

    def builders(
        self,
        *,
        layers: Collection[str] | None = None,
        renderer_name: str | None = None,
        on: On | None = None,
    ) -> list[Callable[[], Any]]:
        """Return the suite as the cookbook's `evaluator_builders`: its recipes then report `<eval>/<metric>`.

        Args:
            layers: some of `nll`, `benchmark`, `product`; all when None.
            renderer_name: the renderer that the recipe trains with; the base model's usual one when None.
            on: the service, where a judge is asked there too.

        Raises:
            EvalError: an evaluator of the suite builds none, or there is no such layer.
        """
        from tinker_officer.evals.cookbook import builders

        self._of(layers)
        return builders(self, layers=layers, renderer_name=renderer_name, on=on)

    def calibration(
        self,
        name: str,
        cases: str | Path | Iterable[Mapping[str, Any]],
        *,
        grader: Grader | Callable[..., Any] = exact,
        samples: int = 8,
        max_tokens: int = 64,
        temperature: float = 1.0,
        limit: int | None = None,
    ) -> Self:
        """Return a copy that also measures whether the model knows what it knows.

        Args:
            name: the eval's name.
            cases: a JSONL file or rows: cases, or questions with `choices` and a `target` among them.
            grader: which open answers are right, and which agree with each other; not used where there are
                choices.
            samples: answers sampled to an open question: confidence is the share that agrees.
            max_tokens: of an open answer.
            temperature: of sampling open answers; above 0, or all of them are the same.
            limit: how many of the cases, chosen by a hash of their ids; all when None.

        Raises:
            EvalError: the name is taken, or a setting is out of range.
        """
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
        spec = Calibrated(name, cases, grader, samples=samples, sampling=sampling, limit=limit)
        return self._with(spec)

    def only(self, *names: str) -> Self:
        """Return a copy with these evals alone, replacing the rest.

        Raises:
            EvalError: there is no eval of such a name.
        """
        self._known(names)
        return attrs.evolve(self, evals=tuple(spec for spec in self.evals if spec.name in names))

    def smoke(self, n: int = 16) -> Self:
        """Return a copy that asks at most `n` items of each eval: for a look, not for a decision.

        Items of benchmarks and cases are chosen by a hash of their ids, conversations are the first ones.

        Raises:
            EvalError: `n` is not a number of at least 1.
        """
        if n < 1:
            raise EvalError(
                "a smoke test needs items",
                got=f"n={n!r}",
                need="a number of at least 1",
                fix="run.evaluate(suite.smoke(16), every=50)",
            )
        return attrs.evolve(self, evals=tuple(_cut(spec, n) for spec in self.evals))

    def without(self, *names: str) -> Self:
        """Return a copy without these evals.

        Raises:
            EvalError: there is no eval of such a name.
        """
        self._known(names)
        return attrs.evolve(self, evals=tuple(spec for spec in self.evals if spec.name not in names))

    def _with(self, spec: Spec) -> Self:
        kept = (old for old in self.evals if not (old.from_template and old.name == spec.name))
        return attrs.evolve(self, evals=(*kept, spec))

    def _known(self, names: Collection[str]) -> None:
        have = [spec.name for spec in self.evals]
        for name in names:
            if name not in have:
                near = nearest(name, have)
                raise EvalError(
                    "the suite has no such eval",
                    got=repr(name),
                    need="one of " + (", ".join(map(repr, have)) or "none: the suite is empty"),
                    fix=f"suite.only({near or repr(have[0] if have else 'held_out')})",
                )

    def explain(self) -> str:
        """Return what each eval measures, its items, what it can tell apart, and what it needs."""
        rows = [row for spec in self.evals for row in _rows(spec)]
        header = ("eval", "layer", "n", "tells apart", "measures, and what it needs")
        if not rows:
            return "an empty suite: add .nll(held_out), .benchmark(...) or .product(...)"
        return (
            table(rows, header=header)
            + self._wanted()
            + "\n\nTells apart: the smallest difference seen with power 0.8 at 95 %, if two models disagree"
            + f"\non {DISCORDANCE:.0%} of the items, or if their NLL differs by {DEVIATION_NATS} nats"
            + " (standard deviation) between\nconversations. ?: counted when the eval is loaded."
        )

    def _wanted(self) -> str:
        from tinker_officer.evals.templates import wanted

        said = wanted(self.use_case, {spec.layer for spec in self.evals}) if self.use_case else ""
        return said and f"\n\n{said}"

    def __repr__(self) -> str:
        return f"EvalSuite({', '.join(spec.name for spec in self.evals)})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self.explain())}</pre>"

    @property
    def digest(self) -> str:
        """What the suite asks, in 64 hexadecimal digits."""
        return digest([_identity(spec) for spec in self.evals])

    def to_json(self) -> str:
        """Return the suite as JSON; conversations stay outside, by their fingerprints.

        Raises:
            EvalError: an eval holds a task object.
        """
        record = {"kind": "suite", "format": FORMAT, "evals": [spec.to_dict() for spec in self.evals]}
        return json.dumps(record, ensure_ascii=False, indent=2)

    @classmethod
    def from_json(cls, text: str, *, data: Conversations | Mapping[str, Conversations] | None = None) -> Self:
        """Return the suite that `to_json` wrote.

        Args:
            text: what `to_json` returned.
            data: the conversations, by the name of the eval that uses them; one alone is for every NLL.
                Without them the suite can be read, but its NLL cannot be evaluated.

        Raises:
            EvalError: the text is not a suite, or the conversations are not those that it was made with.
        """
        try:
            record = json.loads(text)
            good = record["kind"] == "suite" and record["format"] == FORMAT
            specs = record["evals"]
            if isinstance(data, Conversations):
                data = {spec["name"]: data for spec in specs if spec["kind"] == "nll"}
            found = tuple(spec_from_dict(spec, data or {}) for spec in specs) if good else None
        except (ValueError, TypeError, KeyError) as error:
            if isinstance(error, OfficerError):
                raise
            found = None
        if found is None:
            raise EvalError(
                "this is not a suite",
                got=repr(text[:60]),
                need=f"JSON that EvalSuite.to_json wrote (format {FORMAT})",
                fix="EvalSuite.from_json(suite.to_json(), data=held_out)",
            )
        return cls(found)

    def check(self, layers: Collection[str] | None = None) -> dict[str, OfficerError]:
        """Return what is missing on this machine, by eval; empty when nothing is. Nothing is sampled.

        Tasks and case files are loaded for real: what passes here does not fail for want of data later.
        """
        missing: dict[str, OfficerError] = {}
        for spec in self._of(layers):
            try:
                spec.prepare()
            except OfficerError as error:
                missing[spec.name] = error
        return missing

    def contamination(
        self,
        train: Conversations,
        *,
        layers: Collection[str] | None = None,
        threshold: float = DIRTY,
        progress: bool | None = None,
    ) -> Contamination:
        """Return which items of the suite stand, word for word, in the training data; nothing is sampled.

        Args:
            train: what is trained on; its rows are read once, and none is kept.
            layers: some of `nll`, `benchmark`, `product`; all when None.
            threshold: the share of an item's runs of words from which it counts as dirty.
            progress: False for none.

        Raises:
            EvalError: something that an eval needs is missing, or the threshold is out of range.
        """
        evals = {spec.name: list(prepared.texts()) for spec, prepared in prepare(self._of(layers))}
        kept = {name: items for name, items in evals.items() if items}
        return contamination(kept, train, threshold=threshold, progress=progress)

    def _of(self, layers: Collection[str] | None) -> tuple[Spec, ...]:
        wrong = next((layer for layer in layers or () if layer not in LAYERS), None)
        if wrong is not None:
            raise EvalError(
                "there is no such layer",
                got=repr(wrong),
                need="some of " + ", ".join(map(repr, LAYERS)),
                fix='suite.evaluate(target, on=engine, layers=("nll", "product"))',
            )
        return tuple(spec for spec in self.evals if layers is None or spec.layer in layers)

    def evaluate(
        self,
        target: Any,
        *,
        on: On,
        layers: Collection[str] | None = None,
        at: str | Path | None = None,
        renderer_name: str | None = None,
        progress: bool | None = None,
        against: Scorecard | None = None,
        alpha: float = 0.05,
    ) -> Scorecard:
        """Ask every eval of `target`, and return its scorecard.

        Args:
            target: a base-model name or folder, a `tinker://` sampler path, a `tinker.SamplingClient`, a
                `tinker.TrainingClient`, or an object with `sampler_path` and `base_model`, such as a
                `Checkpoint`.
            on: a `LocalEngine`, a `tinker.ServiceClient`, or a base URL.
            layers: some of `nll`, `benchmark`, `product`; all when None.
            at: folder for the scorecard, Inspect's logs, and each graded item as soon as it is known: an
                evaluation that was interrupted goes on there. Nothing is written when None.
            renderer_name: another renderer than the target's own.
            progress: False for none.
            against: a card to compare with while asking: an eval stops as soon as it is decided which of
                the two is better, by a test that may be looked at after every item.
            alpha: how often two equal models may be called different by it.

        Raises:
            EvalError: something is missing, a sample is not accounted for, or every sample of an eval failed.
        """
        return _portal.run(
            self.evaluate_async(
                target,
                on=on,
                layers=layers,
                at=at,
                renderer_name=renderer_name,
                progress=progress,
                against=against,
                alpha=alpha,
            )
        )

    async def evaluate_async(
        self,
        target: Any,
        *,
        on: On,
        layers: Collection[str] | None = None,
        at: str | Path | None = None,
        renderer_name: str | None = None,
        progress: bool | None = None,
        against: Scorecard | None = None,
        alpha: float = 0.05,
    ) -> Scorecard:
        """Do what `evaluate` does, from a coroutine."""
        specs = self._of(layers)
        if not specs:
            raise EvalError(
                "there is nothing to evaluate",
                got=f"{self!r}" + (f" with layers {tuple(layers)}" if layers is not None else ""),
                need="at least one eval",
                fix="EvalSuite().nll(held_out).evaluate(target, on=engine)",
            )
        return await ask(
            specs,
            target,
            on=on,
            at=Path(at) if at is not None else None,
            renderer_name=renderer_name,
            suite_digest=self.digest,
            progress=progress,
            against=against_card(against, alpha) if against is not None else None,
        )


def _cut(spec: Spec, n: int) -> Spec:
    """Return the eval with at most `n` items."""
    if isinstance(spec, Nll):
        few = spec.data.take(n) if spec.data is not None else None
        return Nll(spec.name, few, max_length=spec.max_length, train_on=spec.train_on, by=spec.by)
    if isinstance(spec, Evaluator):
        return spec
    return attrs.evolve(spec, limit=min(n, spec.limit or n))


def _identity(spec: Spec) -> dict[str, Any]:
    if isinstance(spec, Evaluator):
        return {"kind": "evaluator", "name": spec.name, "reports": spec.measures, "metric": spec.metric}
    if isinstance(spec, Benchmark) and not isinstance(spec.task, str):
        return {"kind": "benchmark", "name": spec.name, "task": repr(type(spec.task)), "limit": spec.limit}
    return spec.to_dict()


def _rows(spec: Spec) -> list[tuple[str, ...]]:
    """Return an eval's lines in the table: what it measures, then what it needs."""
    needs = spec.needs
    said = [*wrap(spec.measures, _WIDE), *wrap(f"needs {needs}" if needs != "nothing else" else "", _WIDE)]
    size = "?" if spec.size is None else str(spec.size)
    first = (spec.name, spec.layer, size, _reach(spec), said[0])
    return [first, *(("", "", "", "", line) for line in said[1:])]


def _reach(spec: Spec) -> str:
    n = spec.size
    if n is None:
        return "?"
    if spec.layer == "nll":
        return f"{power.smallest_detectable_mean(n, DEVIATION_NATS):.3f} nats" if n else "nothing"
    return f"{power.smallest_detectable(n, DISCORDANCE):.3f}"
