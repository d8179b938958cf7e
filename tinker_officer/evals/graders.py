"""Graders: from what the model wrote, and what was wanted, to a score from 0 to 1.

    suite.product("tickets", "eval.jsonl", grader=graders.includes)
    suite.product("sums", "sums.jsonl", grader=graders.numeric.options(tolerance=0.01))
    suite.product("tone", "eval.jsonl", grader=my_function)       # my_function(answer, target) -> 0 to 1

A grader is a value with a name, a version and options: they identify the exam, so that two scorecards
graded differently are never compared. A grader that raises fails that one item, which then counts as 0.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeAlias

import attrs

from tinker_officer._digest import canonical
from tinker_officer._text import nearest
from tinker_officer.errors import EvalError
from tinker_officer.evals.calls import Call, allowed_calls, calls_match, parse_calls
from tinker_officer.evals.importing import imported


@attrs.frozen
class Answer:
    """What the model answered.

    Attributes:
        text: what it wrote, reasoning and tool calls taken out by the renderer.
        calls: the tool calls that the renderer recognised.
        stop_reason: `stop` or `length`.
        tokens: how many it wrote.
    """

    text: str
    calls: tuple[Call, ...] = ()
    stop_reason: str = "stop"
    tokens: int = 0


Grade: TypeAlias = Callable[[Answer, Any, Mapping[str, Any]], float | bool]
# 1,234.5 is one number, 1,2,3 are three; a minus after a letter, digit or bracket is a dash: 3-4, (a)-1.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]])[-+])?(?:(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
)
_REGEX_TIMEOUT_S = 5.0


@attrs.frozen
class Grader:
    """One way to grade, as a value.

    Attributes:
        name: a name of this module, or `module:function` for a Python function.
        version: changes when equal answers may get another score.
        settings: its options, as pairs.
        grade: `(answer, target, options) -> score`; not part of the grader's identity.
    """

    name: str
    version: str
    settings: tuple[tuple[str, Any], ...] = ()
    grade: Grade = attrs.field(kw_only=True, eq=False, repr=False)

    def options(self, **changed: Any) -> Self:
        """Return a copy with these options, replacing those of the same name.

        Raises:
            EvalError: the grader has no such option, or its value is not JSON.
        """
        known = dict(self.settings)
        for name, value in changed.items():
            if name not in known:
                raise EvalError(
                    f"the grader {self.name!r} has no option {name!r}",
                    got=f"{name}={value!r}",
                    need="one of " + (", ".join(map(repr, known)) or "none: it has no options"),
                    fix=f"graders.{self.name}" + (f"  # {nearest(name, known)}?" if known else ""),
                )
        try:
            canonical(changed)
        except (TypeError, ValueError) as error:
            raise EvalError(
                f"an option of the grader {self.name!r} cannot be written as JSON",
                got=f"{changed!r}: {error}",
                need="text, finite numbers, true, false or null: options identify the exam",
                fix=f"graders.{self.name}",
            ) from None
        return attrs.evolve(self, settings=tuple(sorted((known | changed).items())))

    def __call__(self, answer: Answer | str, target: Any) -> float:
        """Return the score of `answer` against `target`, from 0 to 1.

        Raises:
            ValueError: what the grading function returned is no number from 0 to 1.
        """
        return self.checked(self.raw(answer, target))

    @property
    def foreign(self) -> bool:
        """Whether it is a function of the user's, which may be slow, a coroutine, or wrong."""
        return ":" in self.name

    def raw(self, answer: Answer | str, target: Any) -> Any:
        """Return what the grading function returns; a coroutine, where it is one."""
        given = Answer(answer) if isinstance(answer, str) else answer
        return self.grade(given, target, dict(self.settings))

    def checked(self, score: Any) -> float:
        """Return `score` as a number from 0 to 1.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(score, int | float) or not math.isfinite(score) or not 0 <= score <= 1:
            raise ValueError(f"the grader {self.name!r} returned {score!r}, not a number from 0 to 1")
        return float(score)

    def to_dict(self) -> dict[str, Any]:
        """Return what identifies the grader, as JSON."""
        return {"name": self.name, "version": self.version, "options": dict(self.settings)}


def _exact(answer: Answer, target: Any, options: Mapping[str, Any]) -> bool:
    return _plain(answer.text, options) == _plain(_written(target), options)


def _includes(answer: Answer, target: Any, options: Mapping[str, Any]) -> bool:
    wanted = [_plain(_written(part), options) for part in (target if isinstance(target, list) else [target])]
    if not all(wanted):  # every answer holds the empty text
        raise ValueError(f"the target is empty: {target!r}")
    given = _plain(answer.text, options)
    return bool(wanted) and all(part in given for part in wanted)


def _written(target: Any) -> str:
    """Return a target as text: text as it is, anything else as JSON writes it."""
    return target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)


def _plain(text: str, options: Mapping[str, Any]) -> str:
    squeezed = " ".join(text.split())
    return squeezed.casefold() if options["ignore_case"] else squeezed


def _regex(answer: Answer, target: Any, options: Mapping[str, Any]) -> bool:
    import regex  # like re, with a time limit: a pattern that backtracks for hours fails its own item

    flags = regex.IGNORECASE if options["ignore_case"] else 0
    found = regex.search(str(target), answer.text, flags | regex.DOTALL, timeout=_REGEX_TIMEOUT_S)
    return found is not None


def _numeric(answer: Answer, target: Any, options: Mapping[str, Any]) -> bool:
    found, wanted = _NUMBER.findall(answer.text), _NUMBER.findall(str(target))
    if not wanted:
        raise ValueError(f"the target holds no number: {str(target)[:80]!r}")
    if not found:
        return False
    given, goal = (float(numbers[-1].replace(",", "")) for numbers in (found, wanted))
    return math.isclose(given, goal, rel_tol=options["relative"], abs_tol=options["tolerance"])


def _json_match(answer: Answer, target: Any, _options: Mapping[str, Any]) -> bool:
    wanted = json.loads(target) if isinstance(target, str) else target
    given = _json_in(answer.text)
    return given is not _NOTHING and _json_equal(given, wanted)


def _json_fields(answer: Answer, target: Any, _options: Mapping[str, Any]) -> float:
    wanted = json.loads(target) if isinstance(target, str) else target
    if not isinstance(wanted, dict) or not wanted:
        raise ValueError("json_fields needs a target that is a JSON object with at least one field")
    given = _json_in(answer.text)
    if not isinstance(given, dict):
        return 0.0
    return sum(key in given and _json_equal(given[key], value) for key, value in wanted.items()) / len(wanted)


def _json_schema(answer: Answer, target: Any, options: Mapping[str, Any]) -> bool:
    own = options["schema"]
    schema = own if own is not None else json.loads(target) if isinstance(target, str) else target
    given = _json_in(answer.text)
    return given is not _NOTHING and bool(_validator(canonical(schema)).is_valid(given))


@functools.lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    from jsonschema.validators import validator_for

    decoded = json.loads(schema)
    if not isinstance(decoded, dict):
        raise ValueError("json_schema needs a schema: an object, in the case's target or as schema=")  # noqa: TRY004 - as graders do
    kind = validator_for(decoded)
    kind.check_schema(decoded)
    return kind(decoded, format_checker=kind.FORMAT_CHECKER)


_NOTHING = object()


def _json_in(text: str) -> Any:
    """Return the first JSON object or array in `text`, or the whole text as JSON."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"[{\[]", text):
        try:
            return decoder.raw_decode(text, match.start())[0]
        except ValueError:
            continue
    try:
        return json.loads(text)
    except ValueError:
        return _NOTHING


def _json_equal(given: Any, wanted: Any) -> bool:
    """Compare as JSON does: true is not 1, but 1 is 1.0."""
    if isinstance(given, bool) or isinstance(wanted, bool):
        return given is wanted
    if isinstance(given, dict) and isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(_json_equal(given[key], wanted[key]) for key in wanted)
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(_json_equal, given, wanted))
    return bool(given == wanted)


def _function_call(answer: Answer, target: Any, options: Mapping[str, Any]) -> bool:
    allowed = allowed_calls(_json_or_text(target))
    calls = list(answer.calls) or parse_calls(answer.text)
    return calls_match(calls, allowed, strict=options["strict"])


def _json_or_text(target: Any) -> Any:
    if isinstance(target, str) and target.lstrip()[:1] in {"{", "["}:
        try:
            return json.loads(target)
        except ValueError:
            return target
    return target


exact = Grader("exact", "2", (("ignore_case", False),), grade=_exact)
"""1 when the answer is the target; runs of white space count as one space."""

includes = Grader("includes", "2", (("ignore_case", True),), grade=_includes)
"""1 when the answer holds the target, or every part of a list."""

regex = Grader("regex", "2", (("ignore_case", False),), grade=_regex)
"""1 when the target, a regular expression, is found in the answer."""

numeric = Grader("numeric", "2", (("relative", 1e-6), ("tolerance", 0.0)), grade=_numeric)
"""1 when the last number of the answer is the last number of the target, within a tolerance."""

json_match = Grader("json_match", "1", grade=_json_match)
"""1 when the first JSON in the answer equals the target."""

json_fields = Grader("json_fields", "1", grade=_json_fields)
"""The share of the target's fields that the first JSON object in the answer has, with equal values."""

json_schema = Grader("json_schema", "1", (("schema", None),), grade=_json_schema)
"""1 when the first JSON in the answer is valid under the JSON schema that is the target, or `schema=`."""

function_call = Grader("function_call", "1", (("strict", False),), grade=_function_call)
"""1 when the answer makes the target's function calls: names, and arguments among those allowed.

The target is a call as text, `{"name", "arguments"}`, or BFCL's `[{"f": {"x": [1, 2], "unit": ["cm", ""]}}]`,
where a list holds the values that are allowed, and `""` in it says that the argument may be left out.
"""

BUILT_IN = {
    grader.name: grader
    for grader in (exact, includes, regex, numeric, json_match, json_fields, json_schema, function_call)
}


def as_grader(grader: Grader | Callable[..., Any]) -> Grader:
    """Return `grader` as a `Grader`; a Python function is called with the answer's text and the target.

    A function that names its first parameter `answer` and annotates it as `Answer` gets the whole answer.
    Its version is a digest of its source, so that an edited grader is another grader.

    Raises:
        EvalError: it is neither a grader nor a function.
    """
    if isinstance(grader, Grader):
        return grader
    if not callable(grader):
        raise EvalError(
            "this is not a grader",
            got=repr(grader),
            need="a grader of tinker_officer.graders, or a function (answer, target) -> 0 to 1",
            fix='suite.product("tickets", "eval.jsonl", grader=graders.includes)',
        )
    function = grader
    name = (
        f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__name__)}"
    )
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = repr(getattr(getattr(function, "__code__", None), "co_code", name))
    version = hashlib.sha256(source.encode()).hexdigest()[:12]
    whole = _takes_answer(function)
    return Grader(
        name,
        version,
        grade=lambda answer, target, _: function(answer if whole else answer.text, target),
    )


def _takes_answer(function: Callable[..., Any]) -> bool:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    return bool(parameters) and parameters[0].annotation in {Answer, "Answer", "graders.Answer"}


def from_dict(record: Mapping[str, Any]) -> Grader:
    """Return the grader that `Grader.to_dict` described.

    Raises:
        EvalError: there is no such grader, or it is a function that has changed or cannot be imported.
    """
    name, version = str(record["name"]), str(record["version"])
    found = BUILT_IN.get(name)
    if found is None and ":" in name:
        function = imported(name)
        found = as_grader(function) if function is not None else None
    if found is None or found.version != version:
        raise EvalError(
            "a grader cannot be rebuilt",
            got=f"{name} (version {version})" + (f", here it is version {found.version}" if found else ""),
            need="one of " + ", ".join(BUILT_IN) + ", or an importable function that has not changed",
            fix="define the function in a module that can be imported, and build the suite again",
        )
    return found.options(**record.get("options", {}))
