"""Messages to and fro: what the SDK writes we read, what we write it reads, and garbage harms nobody."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
import tinker
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tinker.proto import tinker_public_pb2 as pb
from tinker.proto.request_conv import forward_backward_request_to_proto
from tinker.proto.response_conv import deserialize_forward_backward_output, deserialize_sample_response
from tinker.types import ForwardBackwardInput, ForwardBackwardRequest, SampleRequest

from tinker_officer.engine import wire
from tinker_officer.engine.fields import Fields, parse_object
from tinker_officer.engine.refusal import Refused
from tinker_officer.engine.sampler import SampleOutput, SampleSequence
from tinker_officer.engine.trainer import LossOutput


def sent(*data: tinker.Datum, **config: Any) -> bytes:
    """Return the bytes that the SDK sends."""
    request = ForwardBackwardRequest(
        model_id="abc:train:0",
        seq_id=7,
        forward_backward_input=ForwardBackwardInput(
            data=list(data), loss_fn="ppo", loss_fn_config=config or None
        ),
    )
    return forward_backward_request_to_proto(request).SerializeToString()


def datum(length: int = 5, **inputs: Any) -> tinker.Datum:
    tokens = list(range(3, 3 + length))
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(tokens).append_int(99),
        loss_fn_inputs={"target_tokens": [*tokens, 100]} | inputs,
    )


def asked(**fields: Any) -> dict[str, Any]:
    """Return the JSON body of a sampling request, as the SDK sends it."""
    params = fields.pop("sampling_params", {})
    request = SampleRequest(
        sampling_session_id="s",
        seq_id=3,
        prompt=tinker.ModelInput.from_ints([1, 2]),
        sampling_params=tinker.SamplingParams(**params),
        **fields,
    )
    return request.model_dump(exclude_unset=False, exclude_none=True, mode="json")


def test_a_training_request_arrives_as_it_was_sent() -> None:
    """Chunks join to one sequence, numbers and texts of the loss stay what they are."""
    request = wire.decode_forward_backward(sent(datum(weights=[0.5] * 6), datum(2), clip=0.2, kind="mean"))
    assert (request.model_id, request.seq_id, request.loss_fn, request.forward_only) == (
        "abc:train:0",
        7,
        "ppo",
        False,
    )
    assert request.config == {"clip": 0.2, "kind": "mean"}
    first, second = request.data
    assert first.tokens.tolist() == [3, 4, 5, 6, 7, 99]
    assert first.tokens.dtype == np.int64
    assert first.inputs["weights"].tolist() == [0.5] * 6
    assert second.inputs["target_tokens"].tolist() == [3, 4, 100]


@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 12),
    share=st.floats(0.0, 1.0),
    whole=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_matrices_arrive_dense_whatever_they_were_sent_as(
    rows: int, columns: int, share: float, whole: bool, seed: int
) -> None:
    """A matrix that the SDK sends sparse or dense comes out as it went in."""
    random = np.random.default_rng(seed)
    matrix = random.integers(1, 99, (rows, columns)) * (random.random((rows, columns)) < share)
    kind = torch.int64 if whole else torch.float32
    tensor = tinker.TensorData.from_torch_sparse(torch.tensor(matrix).to(kind))
    request = wire.decode_forward_backward(sent(datum(weights=tensor)))
    np.testing.assert_array_equal(request.data[0].inputs["weights"], matrix)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_garbage_is_refused(body: bytes) -> None:
    """Random bytes are either a message or a refusal, never another error."""
    try:
        wire.decode_forward_backward(body)
    except Refused as refusal:
        status = refusal.status
    else:
        status = 400
    assert status == 400


@given(position=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.integers(0, 400))
@settings(max_examples=300, deadline=None)
def test_a_damaged_message_is_refused(position: int, value: int, cut: int) -> None:
    """A good message with a byte changed and its end cut off gives a request or a refusal."""
    sparse = tinker.TensorData(
        data=[1.0, 2.0],
        dtype="float32",
        shape=[6, 9],
        sparse_crow_indices=[0, 1, 1, 1, 1, 1, 2],
        sparse_col_indices=[0, 3],
    )
    body = bytearray(sent(datum(weights=sparse), datum(3), clip=0.1))
    body[position % len(body)] = value
    try:
        wire.decode_forward_backward(bytes(body[: len(body) - cut % len(body)]))
    except Refused as refusal:
        said = str(refusal)
    else:
        said = "fix:"
    assert "fix:" in said


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.shape.append(2), "elements for shape"),
        (lambda t: setattr(t, "dense", b"123"), "3 bytes of"),
        (lambda t: setattr(t, "dtype", 0), "dtype 0"),
        (lambda t: t.shape.__setitem__(0, -1), "shape"),
        (lambda t: t.shape.extend([10**6, 10**6]), "shape"),
        (lambda t: setattr(t.sparse_csr, "values", b"1234"), "sparse indices"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_named(change: Any, problem: str) -> None:
    """Shape, size and dtype of a tensor are checked before memory is taken, and the tensor is named."""
    message = pb.ForwardBackwardRequest()
    message.ParseFromString(sent(datum(weights=[1.0] * 6)))
    change(message.data[0].loss_fn_inputs["weights"])
    with pytest.raises(Refused, match=problem) as caught:
        wire.decode_forward_backward(message.SerializeToString())
    assert "weights of datum 0" in str(caught.value)


def test_a_sparse_tensor_cannot_ask_for_the_whole_memory() -> None:
    """A few bytes that declare a matrix of terabytes are refused."""
    message = pb.ForwardBackwardRequest(model_id="m")
    tensor = message.data.add().loss_fn_inputs["weights"]
    tensor.dtype = pb.DTYPE_FLOAT32
    tensor.shape.extend([2**31, 2**31])
    tensor.sparse_csr.crow_indices = np.zeros(1, np.int64).tobytes()
    with pytest.raises(Refused, match="shape"):
        wire.decode_forward_backward(message.SerializeToString())


def test_losses_are_read_by_the_sdk() -> None:
    """Outputs of several lengths and widths come back datum by datum, with the metrics."""
    outputs = [
        {"logprobs": np.arange(3, dtype=np.float32)},
        {"logprobs": np.zeros(0, dtype=np.float32)},
        {"logprobs": np.arange(8, dtype=np.float32).reshape(4, 2)},
        {"logprobs": np.arange(2, dtype=np.float64)},
    ]
    read = deserialize_forward_backward_output(
        wire.encode_loss(LossOutput(outputs, {"loss:sum": 1.5, "x:mean": math.inf}))
    )
    assert read.metrics == {"loss:sum": 1.5, "x:mean": math.inf}
    for given_, got in zip(outputs, read.loss_fn_outputs, strict=True):
        np.testing.assert_array_equal(got["logprobs"].to_numpy(), given_["logprobs"])


def test_samples_are_read_by_the_sdk() -> None:
    """Tokens, log-probabilities, stop reasons and top-k lists come back as they were."""
    topk = (np.array([[4, 5], [6, 7]], np.int32), np.array([[-0.1, -2], [-0.3, -4]], np.float32))
    output = SampleOutput(
        (
            SampleSequence(np.array([4, 6], np.int32), np.array([-0.1, -0.3], np.float32), "stop", topk),
            SampleSequence(np.array([9], np.int32), np.array([-1.0], np.float32), "length"),
        ),
        np.array([np.nan, -0.5], np.float32),
        topk,
    )
    request = wire.decode_sample(asked(num_samples=2))
    read = deserialize_sample_response(wire.encode_sample(output, request))
    assert [sequence.stop_reason for sequence in read.sequences] == ["stop", "length"]
    assert read.sequences[0].tokens == [4, 6]
    assert read.sequences[1].logprobs == [-1.0]
    assert read.sequences[0].topk_logprobs[1] == [(6, pytest.approx(-0.3)), (7, pytest.approx(-4.0))]
    assert read.prompt_logprobs == [None, -0.5]
    assert read.topk_prompt_logprobs[0] == [(4, pytest.approx(-0.1)), (5, pytest.approx(-2.0))]


@pytest.mark.parametrize(
    ("stop", "tokens", "texts"),
    [
        (None, None, ()),
        ([], (), ()),
        ("end", (), ("end",)),
        (["a", "b"], (), ("a", "b")),
        ([5, 6], (5, 6), ()),
    ],
)
def test_stops_arrive_as_the_sdk_means_them(stop: Any, tokens: Any, texts: Any) -> None:
    """None is the model's own end of text, an empty list is none, and the rest is what it says."""
    request = wire.decode_sample(asked(sampling_params={"stop": stop}))
    assert (request.stop_tokens, request.stop_strings) == (tokens, texts)


def test_a_sampling_request_arrives_as_it_was_sent() -> None:
    """Every parameter of a sampling request is read, and those that are left out have the SDK's defaults."""
    params = {"max_tokens": 9, "seed": 2**40, "temperature": 0.5, "top_k": 3, "top_p": 0.9}
    request = wire.decode_sample(
        asked(
            num_samples=4,
            sampling_params=params,
            prompt_logprobs=True,
            topk_prompt_logprobs=2,
            topk_sample_logprobs=1,
        )
    )
    assert request.prompt.tolist() == [1, 2]
    assert {name: getattr(request, name) for name in params} == params
    assert (request.num_samples, request.prompt_logprobs) == (4, True)
    assert (request.topk_prompt_logprobs, request.topk_sample_logprobs) == (2, 1)
    plain = wire.decode_sample(asked())
    assert (plain.max_tokens, plain.seed, plain.temperature, plain.top_k, plain.top_p) == (
        None,
        None,
        1.0,
        -1,
        1.0,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"num_samples": 0},
        {"num_samples": "two"},
        {"num_samples": True},
        {"sampling_params": {"temperature": math.inf}},
        {"sampling_params": {"max_tokens": 1.5}},
        {"sampling_params": {"stop": [1, "a"]}},
        {"sampling_params": [1]},
        {"sampling_session_id": None},
        {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [2**70]}]}},
        {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [1.0]}]}},
        {"prompt": {"chunks": ["text"]}},
        {"prompt": None},
        {"target_prompt_logprobs": {"data": [1]}},
        {"record_stability_info": True},
    ],
)
def test_a_sampling_request_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    """A field of another type or out of range, or one that we do not serve, is refused."""
    with pytest.raises(Refused):
        wire.decode_sample(asked() | change)


@given(st.binary(max_size=200))
def test_a_body_is_an_object_or_refused(body: bytes) -> None:
    """Any bytes are a JSON object or refused."""
    with contextlib.suppress(Refused):
        assert isinstance(parse_object(body), dict)


def test_a_body_that_would_not_fit_in_memory_is_refused_unread() -> None:
    """JSON longer than any that the SDK sends is refused: lists take far more memory than their text."""
    with pytest.raises(Refused, match="cannot be read"):
        parse_object(b'{"a": [' + b"[]," * 12_000_000 + b"[]]}")


def test_few_bytes_do_not_become_much_memory() -> None:
    """Sparse tensors of a request, each within the limit, are refused when together they are not."""
    request = pb.ForwardBackwardRequest(model_id="abc:train:0", seq_id=1, loss_fn="cross_entropy")
    for _ in range(3):
        tensor = request.data.add().loss_fn_inputs["target_tokens"]
        tensor.dtype = pb.DTYPE_INT64
        tensor.shape.extend([1, 2**25])
        tensor.sparse_csr.crow_indices = np.zeros(2, np.int64).tobytes()
    with pytest.raises(Refused, match="cannot be read") as caught:
        wire.decode_forward_backward(request.SerializeToString())
    assert str(3 * 2**25) in str(caught.value)


def test_fields_name_what_is_wrong() -> None:
    """A field that is missing, of another type or out of range is named, with what it must be."""
    read = Fields({"n": 5, "x": "text", "f": math.nan, "m": [], "huge": 10**400}, "place")
    for refused, need in (
        (lambda: read.text("n"), "a string"),
        (lambda: read.text("missing"), "a string"),
        (lambda: read.whole("n", 0, low=6, high=9), "an integer from 6 to 9"),
        (lambda: read.whole("x", 0), "an integer"),
        (lambda: read.real("f", 0.0, low=0.0), "a finite number of at least 0"),
        (lambda: read.real("huge", 0.0), "a finite number"),
        (lambda: read.flag("n", default=True), "true or false"),
        (lambda: read.mapping("m"), "an object"),
    ):
        with pytest.raises(Refused, match="place: ") as caught:
            refused()
        assert caught.value.need.startswith(need)
    assert (read.whole("n", 0), read.text("y", "z"), read.maybe_text("y"), read.flag("y", default=True)) == (
        5,
        "z",
        None,
        True,
    )
