"""Tinker's messages to ours and back. The only file that imports `tinker.proto`.

Importing the SDK's protobuf module brings the SDK and torch with it, so it is imported by the first
call (`warm`, in the compute thread), and the server answers before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_officer.engine.fields import Fields, malformed
from tinker_officer.engine.refusal import Refused


if TYPE_CHECKING:
    from tinker_officer.engine.sampler import SampleOutput
    from tinker_officer.engine.trainer import LossOutput

Array = NDArray[Any]

PROTOBUF = "application/x-protobuf"
_MOST_TARGETS = 2**24
_MOST_ELEMENTS = 2**26  # of a dense tensor, or of all sparse ones of a request: 256 MiB in float32


@attrs.frozen
class Datum:
    """Tokens, and what a loss needs for each of them: dense arrays."""

    tokens: Array
    inputs: dict[str, Array]


@attrs.frozen
class ForwardBackward:
    """A `forward_backward` request."""

    model_id: str
    seq_id: int
    data: list[Datum]
    loss_fn: str
    config: dict[str, float | str]
    forward_only: bool


@attrs.frozen
class Sample:
    """An `asample` request."""

    session_id: str
    seq_id: int | None
    prompt: Array
    num_samples: int
    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    stop_tokens: tuple[int, ...] | None
    stop_strings: tuple[str, ...]
    seed: int | None
    prompt_logprobs: bool
    prompt_logprobs_last_n: int | None
    topk_prompt_logprobs: int
    topk_sample_logprobs: int
    targets: Array | None = None
    targets_csr: tuple[Array, Array] | None = None  # row and column indices, when they were sent sparse
    alternatives: int = 0


@cache
def _pb() -> ModuleType:
    from tinker.proto import tinker_public_pb2

    return tinker_public_pb2


def warm() -> None:
    """Import the SDK's protobuf module, which takes seconds the first time."""
    _pb()


# -- requests


def decode_forward_backward(body: bytes) -> ForwardBackward:
    """Return the request that `body` (protobuf) holds.

    Raises:
        Refused: the bytes are no such message, or a tensor contradicts itself.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs here

    message = _pb().ForwardBackwardRequest()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise malformed("the body", str(error)) from error
    config: dict[str, float | str] = dict(message.loss_fn_config)
    for key, value in message.loss_fn_config_v2.items():
        config[key] = value.text if value.WhichOneof("value") == "text" else value.number
    sparse = sum(
        math.prod(map(abs, tensor.shape))
        for datum in message.data
        for tensor in datum.loss_fn_inputs.values()
        if tensor.HasField("sparse_csr")
    )
    if sparse > _MOST_ELEMENTS:  # a few bytes can stand for as many zeros as they like
        raise malformed("the body", f"sparse tensors whose shapes have {sparse} elements")
    data = [
        Datum(
            _tokens(datum.model_input, index),
            {
                name: _tensor(tensor, f"{name} of datum {index}")
                for name, tensor in datum.loss_fn_inputs.items()
            },
        )
        for index, datum in enumerate(message.data)
    ]
    return ForwardBackward(
        message.model_id, message.seq_id, data, message.loss_fn, config, message.forward_only
    )


def decode_sample(body: dict[str, Any]) -> Sample:
    """Return the request that `body` (JSON) holds.

    Raises:
        Refused: a field is missing or of another type, or asks for what this engine does not do.
    """
    for field, other in _NOT_HERE.items():
        if body.get(field):
            raise Refused(
                f"{field} is not supported by the embedded engine",
                got=str(body[field])[:80],
                need="a request without it",
                fix=other,
            )
    params = body.get("sampling_params") or {}
    read = Fields(params, "sampling_params")
    outer = Fields(body, "asample")
    stop_tokens, stop_strings = _stop(params.get("stop"))
    targets, targets_csr = _targets(outer.mapping("target_prompt_logprobs"))
    return Sample(
        session_id=outer.text("sampling_session_id"),
        seq_id=outer.whole("seq_id", None),
        prompt=_json_tokens(body.get("prompt")),
        num_samples=outer.whole("num_samples", 1, low=1, high=4096) or 1,
        max_tokens=read.whole("max_tokens", None, low=1),
        temperature=read.real("temperature", 1.0, low=0.0),
        top_p=read.real("top_p", 1.0, low=0.0, high=1.0),
        top_k=_some(read.whole("top_k", -1, low=-1), -1),
        stop_tokens=stop_tokens,
        stop_strings=stop_strings,
        seed=read.whole("seed", None),
        prompt_logprobs=bool(body.get("prompt_logprobs")),
        prompt_logprobs_last_n=outer.whole("prompt_logprobs_last_n", None, low=1),
        topk_prompt_logprobs=_some(outer.whole("topk_prompt_logprobs", 0, low=0, high=1000), 0),
        topk_sample_logprobs=_some(outer.whole("topk_sample_logprobs", 0, low=0, high=1000), 0),
        targets=targets,
        targets_csr=targets_csr,
        alternatives=_some(outer.whole("prompt_alt_tokens_k", 0, low=0, high=1000), 0),
    )


# -- answers


def encode_loss(output: LossOutput) -> bytes:
    """Return `output` as a `ForwardBackwardOutput` message."""
    pb = _pb()
    message = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord")
    for key, value in output.metrics.items():
        message.metrics[key] = float(value)
    start = 0
    while start < len(output.outputs):  # one record for neighbours of the same trailing shapes
        shapes = _trailing(output.outputs[start])
        end = start + 1
        while end < len(output.outputs) and _trailing(output.outputs[end]) == shapes:
            end += 1
        record = message.loss_fn_outputs.add(num_datums=end - start)
        for name, trailing in shapes.items():
            arrays = [np.ascontiguousarray(datum[name]) for datum in output.outputs[start:end]]
            floats = arrays[0].dtype.kind == "f"
            wide = np.float32 if floats else np.int64
            arrays = [array.astype(wide, copy=False) for array in arrays]
            field = record.fields[name]
            field.data = b"".join(array.tobytes() for array in arrays)
            field.offsets = np.cumsum([0, *(array.nbytes for array in arrays)], dtype=np.int64).tobytes()
            field.dtype = pb.DTYPE_FLOAT32 if floats else pb.DTYPE_INT64
            field.trailing_shape.extend(trailing)
        start = end
    return bytes(message.SerializeToString())


def encode_sample(output: SampleOutput, request: Sample) -> bytes:
    """Return `output` as a `SampleResponse` message."""
    pb = _pb()
    message = pb.SampleResponse()
    for sequence in output.sequences:
        stopped = sequence.stop_reason == "stop"
        sent = message.sequences.add(
            stop_reason=pb.STOP_REASON_STOP if stopped else pb.STOP_REASON_LENGTH,
            tokens=np.asarray(sequence.tokens, dtype=np.int32).tobytes(),
            logprobs=np.asarray(sequence.logprobs, dtype=np.float32).tobytes(),
        )
        if sequence.topk is not None:
            _fill_topk(sent.topk_sampled_logprobs, *sequence.topk)
    skipped = 0
    if request.prompt_logprobs_last_n is not None:
        skipped = len(request.prompt) - request.prompt_logprobs_last_n
    if output.prompt_logprobs is not None:
        logprobs = np.array(output.prompt_logprobs, dtype=np.float32)
        logprobs[:skipped] = np.nan
        message.prompt_logprobs = logprobs.tobytes()
    if output.topk_prompt is not None:
        ids, values = (np.array(part) for part in output.topk_prompt)
        ids[:skipped], values[:skipped] = 0, _EMPTY_LOGPROB
        _fill_topk(message.topk_prompt_logprobs, ids, values)
    if output.target_logprobs is not None:
        _fill_tensor(message.target_prompt_logprobs, output.target_logprobs, request.targets_csr)
    if output.alternatives is not None:
        ids, values = output.alternatives
        _fill_tensor(message.prompt_alt_tokens.tokens, ids.astype(np.int32), None)
        _fill_tensor(message.prompt_alt_tokens.logprobs, values, None)
    return bytes(message.SerializeToString())


# -- private

_EMPTY_LOGPROB = -99999.0  # what the SDK takes for "no entry"

_NOT_HERE = {
    "record_stability_info": "use importance_sampling or ppo, which need no recorded information",
}


def _fill_topk(message: Any, ids: Array, logprobs: Array) -> None:
    message.length, message.k = ids.shape
    message.token_ids = np.ascontiguousarray(ids, dtype=np.int32).tobytes()
    message.logprobs = np.ascontiguousarray(logprobs, dtype=np.float32).tobytes()


def _fill_tensor(message: Any, array: Array, csr: tuple[Array, Array] | None) -> None:
    pb = _pb()
    message.dtype = pb.DTYPE_FLOAT32 if array.dtype.kind == "f" else pb.DTYPE_INT32
    message.shape.extend(array.shape)
    if csr is None:
        message.dense = np.ascontiguousarray(array).tobytes()
        return
    rows, columns = csr
    message.sparse_csr.values = array[np.repeat(np.arange(len(rows) - 1), np.diff(rows)), columns].tobytes()
    message.sparse_csr.crow_indices = rows.tobytes()
    message.sparse_csr.col_indices = columns.tobytes()


def _targets(tensor: dict[str, Any] | None) -> tuple[Array | None, tuple[Array, Array] | None]:
    """Return token ids to score, dense with -1 for none, and the indices of those that were sent sparse."""
    if tensor is None:
        return None, None
    what = "target_prompt_logprobs"
    parts = [tensor.get(name) for name in ("data", "shape", "sparse_crow_indices", "sparse_col_indices")]
    if not all(
        part is None or (isinstance(part, list) and all(type(x) is int for x in part)) for part in parts
    ):
        raise malformed(what, "something else than lists of integers")
    try:
        data, shape, rows, columns = (None if part is None else np.array(part, np.int64) for part in parts)
    except OverflowError as error:
        raise malformed(what, str(error)) from error
    if data is None or shape is None or shape.size != 2:  # noqa: PLR2004 - place, candidate
        raise malformed(what, f"shape {parts[1]}")
    size = (int(shape[0]), int(shape[1]))
    if min(size) < 0 or math.prod(size) > _MOST_TARGETS:
        raise malformed(what, f"shape {size}")
    if rows is not None and columns is not None:
        return _scattered(data, rows, columns, size, -1, what), (rows, columns)
    if data.size != math.prod(size):
        raise malformed(what, f"{data.size} elements for shape {size}")
    return data.reshape(size), None


def _trailing(datum: dict[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in datum.items()}


def _tokens(chunks: Sequence[Any], index: int) -> Array:
    parts = []
    for chunk in chunks:
        kind = chunk.WhichOneof("chunk")
        if kind != "encoded_text":
            raise _only_text(str(kind))
        parts.append(_from_bytes(chunk.encoded_text.tokens, np.dtype(np.int32), f"tokens of datum {index}"))
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)


def _json_tokens(prompt: Any) -> Array:
    chunks = prompt.get("chunks") if isinstance(prompt, dict) else None
    if not isinstance(chunks, list):
        raise malformed("prompt", "no list of chunks")
    tokens: list[int] = []
    for chunk in chunks:
        kind = chunk.get("type", "encoded_text") if isinstance(chunk, dict) else type(chunk).__name__
        if kind != "encoded_text":
            raise _only_text(str(kind))
        part = chunk.get("tokens")
        if not isinstance(part, list) or not all(type(token) is int for token in part):
            raise malformed("prompt", "tokens are not integers")
        tokens.extend(part)
    try:
        return np.asarray(tokens, dtype=np.int64)
    except OverflowError as error:
        raise malformed("prompt", str(error)) from error


def _stop(stop: Any) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Return the tokens and the texts that end a sample; None and none: the model's own end of text."""
    if stop is None:
        return None, ()
    if isinstance(stop, str):
        return (), (stop,)
    if isinstance(stop, list) and all(type(item) is int for item in stop):
        return tuple(stop), ()
    if isinstance(stop, list) and all(isinstance(item, str) for item in stop):
        return (), tuple(stop)
    raise malformed("stop", repr(stop)[:80])


def _tensor(message: Any, what: str) -> Array:
    pb = _pb()
    kinds = {
        pb.DTYPE_FLOAT32: np.float32,
        pb.DTYPE_INT64: np.int64,
        pb.DTYPE_INT32: np.int32,
        pb.DTYPE_BFLOAT16: np.uint16,
    }
    if message.dtype not in kinds:
        raise malformed(what, f"dtype {message.dtype}")
    kind = np.dtype(kinds[message.dtype])
    shape = tuple(message.shape)
    if any(size < 0 for size in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise malformed(what, f"shape {shape}")
    if message.HasField("sparse_csr"):
        dense = _densified(message.sparse_csr, shape, kind, what)
    else:
        dense = _from_bytes(message.dense, kind, what)
        shape = shape or dense.shape
        if math.prod(shape) != dense.size:
            raise malformed(what, f"{dense.size} elements for shape {shape}")
        dense = dense.reshape(shape)
    if message.dtype == pb.DTYPE_BFLOAT16:
        return np.asarray((dense.astype(np.uint32) << 16).view(np.float32))
    return dense.astype(np.int64) if kind.kind == "i" else dense


def _densified(csr: Any, shape: tuple[int, ...], kind: np.dtype[Any], what: str) -> Array:
    values = _from_bytes(csr.values, kind, what)
    rows = _from_bytes(csr.crow_indices, np.dtype(np.int64), what)
    columns = _from_bytes(csr.col_indices, np.dtype(np.int64), what)
    return _scattered(values, rows, columns, shape, 0, what)


def _scattered(
    values: Array, rows: Array, columns: Array, shape: tuple[int, ...], fill: int, what: str
) -> Array:
    good = (
        len(shape) == 2  # noqa: PLR2004 - CSR is for matrices
        and len(rows) == shape[0] + 1
        and rows[0] == 0
        and rows[-1] == len(values) == len(columns)
        and bool((np.diff(rows) >= 0).all())
        and bool(((columns >= 0) & (columns < shape[1])).all())
    )
    if not good:
        raise malformed(what, f"sparse indices do not fit shape {shape}")
    dense = np.full(shape, fill, dtype=values.dtype)
    dense[np.repeat(np.arange(shape[0]), np.diff(rows)), columns] = values
    return dense


def _from_bytes(data: bytes, kind: np.dtype[Any], what: str) -> Array:
    if len(data) % kind.itemsize:
        raise malformed(what, f"{len(data)} bytes of {kind}")
    return np.frombuffer(data, dtype=kind)


def _some(value: int | None, default: int) -> int:
    return default if value is None else value


def _only_text(kind: str) -> Refused:
    return Refused(
        "only text can be used with the embedded engine",
        got=f"a chunk of kind {kind}",
        need="chunks of tokens",
        fix="tinker.ModelInput.from_ints(tokens), or hosted Tinker for images and audio",
    )
