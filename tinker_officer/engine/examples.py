"""What a training request must look like, checked before anything is computed.

A poisoned request fails here, alone, with nothing changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import attrs
import numpy as np

from tinker_officer.engine.losses import Loss
from tinker_officer.engine.models import BaseModel
from tinker_officer.errors import EngineError


@attrs.frozen(eq=False)
class Example:
    """One datum.

    Attributes:
        tokens: the model's input, int64, shape `(T,)`.
        inputs: of the loss: `target_tokens`, `weights`, ..., dense, shape `(T,)`, or `(T, K)` for several
            targets a position.
    """

    tokens: np.ndarray
    inputs: Mapping[str, np.ndarray]


def checked(examples: Sequence[Example], loss: Loss, base: BaseModel) -> list[Example]:
    """Return the examples with every input in its dtype and missing weights filled in with ones.

    Raises:
        EngineError: no examples, a sequence empty or over-long, an id outside the vocabulary, an input
            missing, unknown, misshapen or not finite.
    """
    if not examples:
        raise EngineError(
            "there is nothing to train on",
            got="no data",
            need="at least one Datum",
            fix="forward_backward(data=[datum], ...)",
        )
    return [_checked(index, example, loss, base) for index, example in enumerate(examples)]


def check_tokens(what: str, tokens: np.ndarray, base: BaseModel) -> np.ndarray:
    """Return token ids as int64.

    Raises:
        EngineError: they are none, more than the context, no integers, or outside the vocabulary.
    """
    if tokens.ndim != 1 or not 1 <= tokens.size <= base.max_context:
        raise EngineError(
            f"{what} has an impossible length",
            got=f"{tokens.size} tokens" if tokens.ndim == 1 else f"an array of shape {tokens.shape}",
            need=f"1 to {base.max_context} tokens, the context of {base.name!r}",
            fix="truncate the conversation: to_datum(..., max_length=...)",
        )
    _check_ids(what, tokens, base)
    return tokens.astype(np.int64, copy=False)


def _check_ids(what: str, ids: np.ndarray, base: BaseModel) -> None:
    if ids.dtype.kind not in "iu":
        raise EngineError(
            f"{what} are not token ids",
            got=f"dtype {ids.dtype}",
            need="integers",
            fix="ids.astype(np.int64)",
        )
    if ids.size and not (int(ids.min()) >= 0 and int(ids.max()) < base.vocab_size):
        raise EngineError(
            f"{what} has a token outside the vocabulary",
            got=f"ids from {ids.min()} to {ids.max()}",
            need=f"0 to {base.vocab_size - 1}, the vocabulary of {base.name!r}",
            fix="tokenize with this model's own tokenizer: training_client.get_tokenizer()",
        )


def _checked(index: int, example: Example, loss: Loss, base: BaseModel) -> Example:
    what = f"data[{index}]"
    tokens = check_tokens(f"{what}.model_input", np.asarray(example.tokens), base)
    given = {name: np.asarray(value) for name, value in example.inputs.items()}
    if "target_tokens" not in given:
        _refuse(what, "no target_tokens", loss)
    targets = given.pop("target_tokens")
    _check_ids(f"{what}.target_tokens", targets, base)
    if targets.shape[:1] != tokens.shape or targets.ndim > (2 if loss.many else 1) or not targets.size:
        _refuse(what, f"target_tokens of shape {targets.shape} for {tokens.size} tokens", loss)
    if loss.needs == ("weights",):
        given.setdefault("weights", np.ones(targets.shape, np.float32))
    inputs: dict[str, np.ndarray] = {"target_tokens": targets.astype(np.int64, copy=False)}
    for name in loss.needs:
        if name not in given:
            _refuse(what, f"no {name}", loss)
    for name, value in given.items():
        if name not in loss.needs and name not in loss.takes:
            _refuse(what, f"an input {name!r} that {loss.name} does not use", loss)
        if value.shape != targets.shape:
            _refuse(what, f"{name} of shape {value.shape}, target_tokens of shape {targets.shape}", loss)
        if value.dtype.kind not in "fiub" or not np.isfinite(value).all():
            _refuse(what, f"{name} with a value that is not finite", loss)
        inputs[name] = value.astype(np.float32, copy=False)
    _check_marks(what, inputs, loss)
    return Example(tokens, inputs)


def _check_marks(what: str, inputs: Mapping[str, np.ndarray], loss: Loss) -> None:
    if loss.marks and not inputs[loss.marks].any() and any(inputs[name].any() for name in loss.active):
        _refuse(what, f"{loss.marks} without a token that it marks", loss)


def _refuse(what: str, got: str, loss: Loss) -> NoReturn:
    inputs = ", ".join(("target_tokens", *loss.needs))
    optional = f" (and may have {', '.join(loss.takes)})" if loss.takes else ""
    raise EngineError(
        f"{what} does not fit the loss {loss.name!r}",
        got=got,
        need=f"{inputs}{optional}, finite, each as long as model_input",
        fix="Datum(model_input=..., loss_fn_inputs={name: array, ...})",
    )
