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
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from tinker_officer import _portal
from tinker_officer._digest import digest
from tinker_officer._service import On
from tinker_officer._text import nearest
from tinker_officer.data.conversations import Conversations
from tinker_officer.errors import EvalError, OfficerError
from tinker_officer.evals import leaks
from tinker_officer.evals.asking import ask, prepare
from tinker_officer.evals.contamination import DIRTY, Contamination
from tinker_officer.evals.cookbook import Evaluator
from tinker_officer.evals.methods import Methods
from tinker_officer.evals.missing import Missing
from tinker_officer.evals.race import against_card
from tinker_officer.evals.results import LAYERS
from tinker_officer.evals.scorecard import Scorecard
from tinker_officer.evals.searched import Searchable, source_of
from tinker_officer.evals.specs import Benchmark, Spec, spec_from_dict


FORMAT = 1


@attrs.frozen(repr=False)
class EvalSuite(Methods):
    """Evals in three layers: held-out likelihood, public benchmarks, and your own cases.

    Attributes:
        evals: the evals, in the order in which they are asked.
        use_case: of the template that it was made from; empty when from none.
    """

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
        return attrs.evolve(self, evals=tuple(spec.cut(n) for spec in self.evals))

    def without(self, *names: str) -> Self:
        """Return a copy without these evals.

        Raises:
            EvalError: there is no eval of such a name.
        """
        self._known(names)
        return attrs.evolve(self, evals=tuple(spec for spec in self.evals if spec.name not in names))

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
        from tinker_officer.evals.explain import explain

        return explain(self.evals, self.use_case)

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

    def check(self, layers: Collection[str] | None = None) -> Missing:
        """Return what is missing on this machine, by eval; empty when nothing is. Nothing is sampled.

        Tasks and case files are loaded for real: what passes here does not fail for want of data later.

            >>> print(EvalSuite().benchmark("inspect_evals/gsm8k").check())
            'gsm8k' cannot run on this machine
              got:  the data set openai/gsm8k is not in the cache of this machine, ...
        """
        errors: dict[str, OfficerError] = {}
        specs = self._of(layers)
        for spec in specs:
            try:
                spec.prepare()
            except OfficerError as error:
                errors[spec.name] = error
        return Missing(errors, asked=len(specs))

    def contamination(
        self,
        train: Searchable,
        *,
        layers: Collection[str] | None = None,
        threshold: float = DIRTY,
        progress: bool | None = None,
    ) -> Contamination:
        """Return which items of the suite stand, word for word, in the training data; nothing is sampled.

        Args:
            train: what is trained on: conversations, pairs (prompt and both answers are searched), or a
                list of texts such as the prompts of an RL run. Rows are read once, and none is kept.
            layers: some of `nll`, `benchmark`, `product`; all when None.
            threshold: the share of an item's runs of words from which it counts as dirty.
            progress: False for none.

        Raises:
            EvalError: something that an eval needs is missing, the threshold is out of range, or `train`
                shows no texts: a cookbook dataset, environments.
        """
        rows = source_of(train)
        evals = {spec.name: list(prepared.texts()) for spec, prepared in prepare(self._of(layers))}
        kept = {name: items for name, items in evals.items() if items}
        return leaks.find(kept, rows, threshold=threshold, progress=progress)

    def _of(self, layers: Collection[str] | None) -> tuple[Spec, ...]:
        if isinstance(layers, str):
            raise EvalError(
                "layers is one text",
                got=repr(layers),
                need="a collection of " + ", ".join(map(repr, LAYERS)),
                fix=f"suite.evaluate(target, on=engine, layers=({layers!r},))",
            )
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
            against: a card to compare with while asking: benchmarks and cases stop as soon as it is decided
                which of the two is better, by a test that may be looked at after every item.
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
        folder = Path(at) if at is not None else None
        if folder is not None and folder.exists() and not folder.is_dir():
            raise EvalError(
                "at= is not a folder",
                got=f"{folder}, a file",
                need="a folder, or a path where nothing is yet: what was graded is kept there",
                fix=f"suite.evaluate(target, on=engine, at={str(folder.with_name('evals'))!r})",
            )
        return await ask(
            specs,
            target,
            on=on,
            at=folder,
            renderer_name=renderer_name,
            suite_digest=self.digest,
            progress=progress,
            against=against_card(against, alpha) if against is not None else None,
        )


def _identity(spec: Spec) -> dict[str, Any]:
    if isinstance(spec, Evaluator):
        return {"kind": "evaluator", "name": spec.name, "reports": spec.measures, "metric": spec.metric}
    if isinstance(spec, Benchmark) and not isinstance(spec.task, str):
        return {"kind": "benchmark", "name": spec.name, "task": repr(type(spec.task)), "limit": spec.limit}
    return spec.to_dict()
