"""What a sampling request asks, what it answers, and its answers on their way; knows nothing of models."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np

from tinker_officer.engine.choosing import Choice, stream
from tinker_officer.engine.lora import Adapter
from tinker_officer.errors import EngineError


TopK = tuple[np.ndarray, np.ndarray]
_MOST = 1000  # of the likeliest tokens that may be asked for


@attrs.frozen(eq=False)
class SampleSpec:
    """One sampling request.

    Attributes:
        prompt: token ids, int64, shape `(P,)`.
        num_samples: independent answers.
        max_tokens: longest answer; None for as long as the context allows.
        temperature: 0 takes the likeliest token.
        top_p: share of the probability to draw from.
        top_k: number of tokens to draw from; -1 or 0 for all.
        stop_tokens: ids that end an answer; None, without stop strings, for the model's own.
        stop_strings: texts that end an answer, found in the decoded answer.
        seed: of the random numbers; None draws fresh ones.
        prompt_logprobs: whether to score the prompt.
        prompt_logprobs_last_n: how many tokens at its end to score; None for all but the first.
        topk_prompt_logprobs: how many of the likeliest tokens to return at each prompt position.
        topk_sample_logprobs: how many at each sampled position.
        targets: token ids to score at every prompt position after the first, int64 `(P - 1, K)`, -1 for none.
        alternatives: how many tokens to draw at every prompt position after the first.
    """

    prompt: np.ndarray
    num_samples: int = 1
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop_tokens: tuple[int, ...] | None = None
    stop_strings: tuple[str, ...] = ()
    seed: int | None = None
    prompt_logprobs: bool = False
    prompt_logprobs_last_n: int | None = None
    topk_prompt_logprobs: int = 0
    topk_sample_logprobs: int = 0
    targets: np.ndarray | None = None
    alternatives: int = 0


@attrs.frozen(eq=False)
class SampleSequence:
    """One answer.

    Attributes:
        tokens: int32, shape `(n,)`, the stopping token included.
        logprobs: float32, shape `(n,)`.
        stop_reason: `"stop"` or `"length"`.
        topk: ids and log-probabilities `(n, k)`, if asked for.
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    stop_reason: str
    topk: TopK | None = None


@attrs.frozen(eq=False)
class SampleOutput:
    """The answers to one request.

    Attributes:
        sequences: in the order of their sample index.
        prompt_logprobs: float32 `(P,)`, NaN first and where not asked for; None if not asked for at all.
        topk_prompt: ids and log-probabilities `(P, k)`, the first row empty; None if not asked for.
        target_logprobs: of the targets, float32 `(P - 1, K)`, 0 where there is none; None if not asked for.
        alternatives: ids and log-probabilities `(P - 1, k)`; None if not asked for.
    """

    sequences: tuple[SampleSequence, ...]
    prompt_logprobs: np.ndarray | None = None
    topk_prompt: TopK | None = None
    target_logprobs: np.ndarray | None = None
    alternatives: TopK | None = None


def check_parameters(spec: SampleSpec, vocab_size: int) -> None:
    """Check every parameter but the prompt.

    Raises:
        EngineError: one is out of range.
    """
    most = min(_MOST, vocab_size)
    limits: tuple[tuple[str, Any, bool, str], ...] = (
        ("num_samples", spec.num_samples, spec.num_samples >= 1, "at least 1"),
        (
            "max_tokens",
            spec.max_tokens,
            spec.max_tokens is None or spec.max_tokens >= 1,
            "at least 1, or None",
        ),
        ("temperature", spec.temperature, 0 <= spec.temperature < math.inf, "a finite number of at least 0"),
        ("top_p", spec.top_p, 0 < spec.top_p <= 1, "above 0 and at most 1"),
        ("top_k", spec.top_k, spec.top_k >= -1, "-1 for all tokens, or at least 1"),
        (
            "topk_prompt_logprobs",
            spec.topk_prompt_logprobs,
            0 <= spec.topk_prompt_logprobs <= most,
            f"0 to {most}",
        ),
        (
            "topk_sample_logprobs",
            spec.topk_sample_logprobs,
            0 <= spec.topk_sample_logprobs <= most,
            f"0 to {most}",
        ),
        ("prompt_alt_tokens_k", spec.alternatives, 0 <= spec.alternatives <= _MOST, f"0 to {_MOST}"),
        ("stop_strings", spec.stop_strings, all(spec.stop_strings), "texts that are not empty"),
    )
    for name, got, good, need in limits:
        if not good:
            raise EngineError(
                f"{name} is out of range",
                got=repr(got),
                need=need,
                fix="tinker.SamplingParams(max_tokens=64, temperature=1.0)",
            )
    if spec.targets is not None:
        _check_targets(spec.targets, spec.prompt.size, vocab_size)


def _check_targets(targets: np.ndarray, prompt: int, vocab_size: int) -> None:
    rows, columns = targets.shape if targets.ndim == 2 else (-1, 0)  # noqa: PLR2004 - place, candidate
    if rows != prompt - 1 or not 1 <= columns <= _MOST or not _named(targets, vocab_size):
        raise EngineError(
            "target_prompt_logprobs does not fit the prompt",
            got=f"shape {targets.shape}, ids from {targets.min(initial=0)} to {targets.max(initial=0)}",
            need=f"({prompt - 1}, 1 to {_MOST}) ids below {vocab_size}, -1 for none, and one of them named",
            fix="TensorData.from_numpy(np.full((len(prompt) - 1, 1), token_id))",
        )


def _named(targets: np.ndarray, vocab_size: int) -> bool:
    return bool(((targets >= -1) & (targets < vocab_size)).all() and (targets >= 0).any())


class Request:
    """A request that was taken.

    Args:
        name: what its answer will be called.
        spec: what to sample.
        adapter: the weights to sample from; None for the bare base model.
        limit: longest answer, in tokens.
        stops: ids that end an answer.
    """

    def __init__(
        self, name: str, spec: SampleSpec, adapter: Adapter | None, limit: int, stops: frozenset[int]
    ) -> None:
        self.name, self.spec, self.adapter, self.limit, self.stops = name, spec, adapter, limit, stops
        self.choice = Choice(spec.temperature, spec.top_k, spec.top_p)
        self.key = spec.prompt.tobytes()
        self.started = 0
        self.done: dict[int, SampleSequence] = {}
        self.prompt_logprobs: np.ndarray | None = None
        self.topk_prompt: TopK | None = None
        self.probed = False
        self.target_logprobs: np.ndarray | None = None
        self.alternatives: TopK | None = None

    @property
    def probes(self) -> bool:
        """Whether places of the prompt are to be asked for more than the prompt's own tokens."""
        return self.spec.targets is not None or self.spec.alternatives > 0

    @property
    def scored(self) -> bool:
        """Whether the prompt itself is to be scored."""
        return self.spec.prompt_logprobs or self.spec.topk_prompt_logprobs > 0

    @property
    def first_scored(self) -> int:
        """The first position of the prompt that is scored: nothing precedes the very first."""
        last = self.spec.prompt_logprobs_last_n
        return 1 if last is None else max(1, self.spec.prompt.size - last)

    def start(self, count: int) -> list[Row]:
        """Return the next answers, on their way."""
        first, self.started = self.started, self.started + count
        return [Row(self, index) for index in range(first, self.started)]

    def output(self) -> SampleOutput:
        """Return the answers, once all are there."""
        sequences = tuple(self.done[index] for index in range(self.spec.num_samples))
        return SampleOutput(
            sequences, self.prompt_logprobs, self.topk_prompt, self.target_logprobs, self.alternatives
        )


class Row:
    """One answer on its way: the sample `index` of a request."""

    def __init__(self, request: Request, index: int) -> None:
        self.request, self.index = request, index
        self.stream = stream(request.spec.seed, index)
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.topk: list[tuple[list[int], list[float]]] = []

    @property
    def size(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return int(self.request.spec.prompt.size) + len(self.tokens)

    def sequence(self, reason: str) -> SampleSequence:
        """Return the answer as it stands, over for a reason."""
        topk = None
        if self.request.spec.topk_sample_logprobs:
            topk = (
                np.array([ids for ids, _ in self.topk], np.int32),
                np.array([values for _, values in self.topk], np.float32),
            )
        return SampleSequence(
            np.array(self.tokens, np.int32), np.array(self.logprobs, np.float32), reason, topk
        )
