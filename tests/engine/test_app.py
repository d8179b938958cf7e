"""Every request that the SDK makes, made by the real SDK to a real engine."""

from __future__ import annotations

import json
import math
import socket
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest


if TYPE_CHECKING:
    import tinker

    from tinker_officer import LocalEngine

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:tinker")


@pytest.fixture(scope="module")
def service(engine: LocalEngine) -> tinker.ServiceClient:
    return engine.service_client()


@pytest.fixture(scope="module")
def rest(engine: LocalEngine) -> tinker.RestClient:
    import tinker

    return tinker.RestClient(base_url=engine.base_url, api_key=engine.token)


@pytest.fixture
def new_client(service: tinker.ServiceClient, tiny_model: Path) -> Callable[..., tinker.TrainingClient]:
    """A function that makes a training client on the tiny model."""

    def make(**arguments: Any) -> tinker.TrainingClient:
        return service.create_lora_training_client(
            str(tiny_model), **({"rank": 4, "seed": 1} | arguments)
        ).result()

    return make


@pytest.fixture
def client(new_client: Callable[..., tinker.TrainingClient]) -> tinker.TrainingClient:
    return new_client()


def datum(shift: int = 0, length: int = 12, **inputs: Any) -> tinker.Datum:
    import tinker

    tokens = [(7 * i + shift) % 250 for i in range(length + 1)]
    given = {"target_tokens": tokens[1:], "weights": [1.0] * length} | inputs
    return tinker.Datum(model_input=tinker.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=given)


def prompt(*tokens: int) -> tinker.ModelInput:
    import tinker

    return tinker.ModelInput.from_ints(list(tokens) or [1, 2, 3, 4])


def params(**given: Any) -> tinker.SamplingParams:
    import tinker

    return tinker.SamplingParams(**({"max_tokens": 6, "temperature": 1.0, "seed": 5, "stop": []} | given))


def loss(client: tinker.TrainingClient, *data: tinker.Datum) -> float:
    return client.forward(list(data) or [datum()], "cross_entropy").result().metrics["loss:sum"]


def step(client: tinker.TrainingClient, **adam: Any) -> dict[str, float]:
    import tinker

    client.forward_backward([datum()], "cross_entropy")
    return client.optim_step(tinker.AdamParams(**({"learning_rate": 1e-2} | adam))).result().metrics


class Raw:
    """Requests that the SDK would not make."""

    def __init__(self, engine: LocalEngine) -> None:
        self._url, self._key = f"{engine.base_url}/api/v1/", {"X-API-Key": engine.token}

    def __call__(self, method: str, path: str, **given: Any) -> httpx.Response:
        headers = self._key | given.pop("headers", {})
        with httpx.Client(trust_env=False) as http:
            return http.request(method, self._url + path, headers=headers, **given)


@pytest.fixture(scope="module")
def raw(engine: LocalEngine) -> Raw:
    return Raw(engine)


# -- training


def test_training_lowers_the_loss(client: tinker.TrainingClient) -> None:
    """forward_backward and optim_step, pipelined, lower the loss of what they are trained on."""
    import tinker

    before = loss(client)
    pairs = [
        (
            client.forward_backward([datum()], "cross_entropy"),
            client.optim_step(tinker.AdamParams(learning_rate=1e-2)),
        )
        for _ in range(8)
    ]
    losses = [forward.result().metrics["loss:sum"] for forward, _ in pairs]
    assert all(optim.result().metrics["grad_norm:mean"] > 0 for _, optim in pairs)
    assert losses[0] == pytest.approx(before)
    assert losses == sorted(losses, reverse=True)


def test_logprobs_come_back_in_the_order_of_the_data(client: tinker.TrainingClient) -> None:
    """Each datum's log-probabilities come back at its place, as long as it is, and sum to the loss."""
    data = [datum(shift, length) for shift, length in ((0, 5), (3, 60), (9, 17))]
    result = client.forward_backward(data, "cross_entropy").result()
    logprobs = [output["logprobs"].to_numpy() for output in result.loss_fn_outputs]
    assert [len(values) for values in logprobs] == [5, 60, 17]
    assert result.metrics["loss:sum"] == pytest.approx(-sum(values.sum() for values in logprobs), rel=1e-5)
    alone = [client.forward([one], "cross_entropy").result().loss_fn_outputs[0] for one in data]
    for together, apart in zip(logprobs, alone, strict=True):
        np.testing.assert_allclose(together, apart["logprobs"].to_numpy(), rtol=1e-4)


def test_two_dimensional_targets_arrive_whole(client: tinker.TrainingClient) -> None:
    """Targets and weights of shape (T, K), sent sparse by the SDK, give the dense sum."""
    import torch

    plain = datum(length=40)
    targets, weights = torch.zeros((40, 8), dtype=torch.int64), torch.zeros((40, 8))
    targets[:, 0] = plain.loss_fn_inputs["target_tokens"].to_torch()
    weights[:, 0] = 1.0
    wide = datum(length=40, target_tokens=targets, weights=weights)
    assert wide.loss_fn_inputs["weights"].sparse_crow_indices is not None
    assert loss(client, wide) == pytest.approx(loss(client, plain), rel=1e-5)


def test_forward_leaves_no_gradient(client: tinker.TrainingClient) -> None:
    """`forward` gathers no gradient: an optimizer step after it has nothing to apply."""
    import tinker

    client.forward([datum()], "cross_entropy").result()
    with pytest.raises(tinker.RequestFailedError, match="no gradient"):
        client.optim_step(tinker.AdamParams(learning_rate=1.0)).result()


def test_the_same_seed_gives_the_same_training(new_client: Callable[..., tinker.TrainingClient]) -> None:
    """Two clients with one seed train alike to the last bit; another seed does not."""
    traces = []
    for seed in (7, 7, 8):
        one = new_client(seed=seed)
        for _ in range(3):
            step(one)
        traces.append(loss(one))
    assert traces[0] == traces[1] != traces[2]


def test_every_adam_setting_arrives(new_client: Callable[..., tinker.TrainingClient]) -> None:
    """Each setting of AdamParams changes what a second step does."""
    settings: list[dict[str, float]] = [
        {},
        {"learning_rate": 2e-2},
        {"beta1": 0.5},
        {"beta2": 0.5},
        {"eps": 1e-2},
        {"weight_decay": 0.5},
        {"grad_clip_norm": 1e-6, "eps": 1e-4},
    ]
    outcomes = []
    for given in settings:
        one = new_client()
        step(one)
        step(one, **given)
        outcomes.append(loss(one))
    assert len(set(outcomes)) == len(settings)


def test_only_the_layers_asked_for_are_trained(
    new_client: Callable[..., tinker.TrainingClient], engine: LocalEngine
) -> None:
    """train_mlp, train_attn and train_unembed decide which matrices are saved."""
    from safetensors.numpy import load_file

    only = new_client(train_mlp=False, train_unembed=False)
    path = only.save_weights_for_sampler("attention").result().path
    run = path.removeprefix("tinker://").split("/")[0].replace(":", "+")
    folder = engine.root / "runs" / run / "sampler_weights" / "attention"
    names = load_file(folder / "adapter_model.safetensors")
    assert names
    assert all("self_attn" in name for name in names)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4


def test_custom_losses_run_on_our_side(client: tinker.TrainingClient) -> None:
    """`forward_backward_custom` with minus the sum of log-probabilities is cross_entropy."""

    def nll(_data: Any, logprobs: Any) -> Any:
        total = -sum(values.sum() for values in logprobs)
        return total, {"mine": float(total)}

    result = client.forward_backward_custom([datum(), datum(3)], nll).result()
    assert result.metrics["loss:sum"] == pytest.approx(loss(client, datum(), datum(3)), rel=1e-5)


def test_importance_sampling_arrives(client: tinker.TrainingClient) -> None:
    """importance_sampling with old log-probabilities equal to the new is minus the sum of the advantages."""
    fresh = client.forward([datum()], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].to_numpy()
    import tinker

    rl = tinker.Datum(
        model_input=datum().model_input,
        loss_fn_inputs={
            "target_tokens": datum().loss_fn_inputs["target_tokens"],
            "logprobs": fresh,
            "advantages": np.full(12, 0.5, dtype=np.float32),
        },
    )
    assert client.forward_backward([rl], "importance_sampling").result().metrics["loss:sum"] == pytest.approx(
        -6.0, rel=1e-4
    )


def test_a_large_batch_is_sent_in_one_order(client: tinker.TrainingClient) -> None:
    """More data than one request holds gives the sum over all of it, and each output at its place."""
    data = [datum(i % 50, 4) for i in range(1100)]
    result = client.forward(data, "cross_entropy").result()
    assert len(result.loss_fn_outputs) == 1100
    np.testing.assert_allclose(
        result.loss_fn_outputs[1099]["logprobs"].to_numpy(),
        result.loss_fn_outputs[49]["logprobs"].to_numpy(),
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"target_tokens": [10**6] * 12}, "outside the vocabulary"),
        ({"weights": [math.nan] * 12}, "not finite"),
        ({"weights": [1.0] * 5}, "shape"),
    ],
)
def test_a_poisoned_request_fails_alone(
    client: tinker.TrainingClient, bad: dict[str, Any], problem: str
) -> None:
    """Bad data fails its own request with a reason; requests before and after it stand."""
    import tinker

    before = loss(client)
    good = client.forward_backward([datum()], "cross_entropy")
    poisoned = client.forward_backward([datum(**bad)], "cross_entropy")
    after = client.optim_step(tinker.AdamParams(learning_rate=0.0))
    with pytest.raises(tinker.RequestFailedError, match=problem) as caught:
        poisoned.result()
    assert caught.value.category == tinker.types.RequestErrorCategory.User
    assert good.result().metrics["loss:sum"] == pytest.approx(before)
    after.result()
    assert loss(client) == pytest.approx(before)


def test_an_unknown_loss_names_those_there_are(client: tinker.TrainingClient) -> None:
    """A loss that this engine does not have is refused, and the others are listed."""
    import tinker

    with pytest.raises(tinker.RequestFailedError, match="cross_entropy"):
        client.forward_backward([datum()], "stable_reinforce").result()


@pytest.mark.parametrize(
    ("rank", "problem"), [(0, "rank is out of range"), (513, "exceeds max LoRA rank 512")]
)
def test_a_rank_out_of_range_is_refused(
    new_client: Callable[..., tinker.TrainingClient], rank: int, problem: str
) -> None:
    """A rank of 0, or above the largest, fails the creation with the range."""
    import tinker

    with pytest.raises(tinker.RequestFailedError, match=problem):
        new_client(rank=rank)


def test_an_unknown_model_is_explained(service: tinker.ServiceClient) -> None:
    """A base model that is nowhere fails with the model room's own message, for training and for sampling."""
    import tinker

    with pytest.raises(tinker.RequestFailedError, match="cannot be found"):
        service.create_lora_training_client("./no/such/model").result()
    with pytest.raises(tinker.BadRequestError, match="cannot be found"):
        service.create_sampling_client(base_model="./no/such/model").result()


def test_another_optimizer_is_refused(service: tinker.ServiceClient, tiny_model: Path) -> None:
    """Dimuon is refused, with what to use instead."""
    import tinker

    with pytest.raises(tinker.BadRequestError, match="AdamParams"):
        service.create_lora_training_client(
            str(tiny_model), optimizer=tinker.types.optimizer.DimuonOptimizerConfig()
        ).result()


def test_the_tokenizer_and_the_model_are_named(client: tinker.TrainingClient, tiny_model: Path) -> None:
    """`get_info` and `get_tokenizer` of both kinds of client lead to the base model's folder."""
    info = client.get_info()
    assert (info.model_name, info.lora_rank, info.is_lora) == (str(tiny_model), 4, True)
    sampler = client.save_weights_and_get_sampling_client().result()
    assert sampler.get_base_model() == str(tiny_model)
    for tokenizer in (client.get_tokenizer(), sampler.get_tokenizer()):
        assert tokenizer.decode(tokenizer.encode("hello there")) == "hello there"


# -- checkpoints


def test_state_loads_with_and_without_the_optimizer(
    client: tinker.TrainingClient, service: tinker.ServiceClient
) -> None:
    """A client from state has the same weights; its next step is the same only with the optimizer."""
    for _ in range(3):
        step(client)
    path = client.save_state("state", user_metadata={"why": "test"}).result().path
    whole = service.create_training_client_from_state_with_optimizer(path).result()
    weights = service.create_training_client_from_state(path).result()
    assert loss(client) == loss(whole) == loss(weights)
    for one in (client, whole, weights):
        step(one)
    assert loss(client) == loss(whole) != loss(weights)


def test_state_loads_into_a_client_that_is_there(client: tinker.TrainingClient) -> None:
    """`load_state` and `load_state_with_optimizer` take a client back to what it was."""
    step(client)
    path = client.save_state("back").result().path
    then = loss(client)
    step(client)
    client.load_state_with_optimizer(path).result()
    assert loss(client) == then
    client.load_state(path).result()
    assert loss(client) == then


def test_a_checkpoint_of_another_rank_is_refused(
    client: tinker.TrainingClient, new_client: Callable[..., tinker.TrainingClient]
) -> None:
    """Loading a checkpoint into a client of another rank fails, with both ranks, and changes nothing."""
    import tinker

    path = new_client(rank=2).save_state("small").result().path
    then = loss(client)
    with pytest.raises(tinker.RequestFailedError, match="rank=2"):
        client.load_state(path).result()
    assert loss(client) == then


def test_a_name_is_used_once_unless_overwritten(
    client: tinker.TrainingClient, rest: tinker.RestClient
) -> None:
    """Saving under a taken name fails and keeps the old one; with overwrite the new one takes its place."""
    import tinker

    path = client.save_state("taken", user_metadata={"n": "1"}).result().path
    step(client)
    with pytest.raises(tinker.RequestFailedError, match="overwrite=True"):
        client.save_state("taken").result()
    assert client.save_state("taken", overwrite=True, user_metadata={"n": "2"}).result().path == path
    (only,) = rest.list_checkpoints(client.model_id).result().checkpoints
    assert only.user_metadata == {"n": "2"}


@pytest.mark.parametrize("name", ["../../escape", "a/b", "", ".hidden", "x" * 200, "nul\x00"])
def test_a_name_that_leaves_the_root_is_refused(
    client: tinker.TrainingClient, engine: LocalEngine, name: str
) -> None:
    """Checkpoint names are checked by pattern; nothing is written outside."""
    import tinker

    before = sorted(engine.root.parent.iterdir())
    with pytest.raises(tinker.BadRequestError, match="not the name of a checkpoint"):
        client.save_state(name).result()
    assert sorted(engine.root.parent.iterdir()) == before


def test_a_checkpoint_that_is_not_there_is_named(
    service: tinker.ServiceClient, client: tinker.TrainingClient
) -> None:
    """Loading what was never saved is a 404 that offers a name that is near."""
    import tinker

    path = client.save_state("step-100").result().path
    with pytest.raises(tinker.NotFoundError, match="step-100"):
        service.create_training_client_from_state(path.replace("step-100", "step-10")).result()
    with pytest.raises(tinker.BadRequestError, match="not the path of a checkpoint"):
        service.create_training_client_from_state("tinker://what").result()


def test_checkpoints_are_listed_and_deleted(client: tinker.TrainingClient, rest: tinker.RestClient) -> None:
    """The rest client lists a run's checkpoints with sizes and kinds, and deletes them one by one."""
    import tinker

    state = client.save_state("one").result().path
    sampler = client.save_weights_for_sampler("two", ttl_seconds=3600).result().path
    listed = {
        found.tinker_path: found for found in rest.list_checkpoints(client.model_id).result().checkpoints
    }
    assert {path: found.checkpoint_type for path, found in listed.items()} == {
        state: "training",
        sampler: "sampler",
    }
    assert listed[state].size_bytes > listed[sampler].size_bytes > 0
    assert listed[sampler].expires_at is not None
    run = rest.get_training_run(client.model_id).result()
    assert run.last_checkpoint.tinker_path == state
    assert run.last_sampler_checkpoint.tinker_path == sampler
    everything = rest.list_user_checkpoints(limit=1000).result()
    assert {state, sampler} <= {found.tinker_path for found in everything.checkpoints}
    rest.delete_checkpoint_from_tinker_path(state).result()
    assert [found.tinker_path for found in rest.list_checkpoints(client.model_id).result().checkpoints] == [
        sampler
    ]
    with pytest.raises(tinker.NotFoundError, match="no such checkpoint"):
        rest.delete_checkpoint_from_tinker_path(state).result()


def test_a_checkpoint_is_published_and_given_time(
    client: tinker.TrainingClient, rest: tinker.RestClient
) -> None:
    """Publishing and a time to live are recorded, and taken back."""
    path = client.save_state("public").result().path

    def seen() -> tuple[bool, bool]:
        (only,) = rest.list_checkpoints(client.model_id).result().checkpoints
        return only.public, only.expires_at is not None

    rest.publish_checkpoint_from_tinker_path(path).result()
    rest.set_checkpoint_ttl_from_tinker_path(path, 7200).result()
    assert seen() == (True, True)
    rest.unpublish_checkpoint_from_tinker_path(path).result()
    rest.set_checkpoint_ttl_from_tinker_path(path, None).result()
    assert seen() == (False, False)


def test_runs_are_listed_with_their_metadata(
    service: tinker.ServiceClient, rest: tinker.RestClient, tiny_model: Path
) -> None:
    """A training run keeps its user_metadata, hands it on to what is made from its state, and pages."""
    metadata = {"renderer_name": "smollm2", "id": uuid.uuid4().hex}
    one = service.create_lora_training_client(str(tiny_model), rank=2, user_metadata=metadata).result()
    path = one.save_state("x").result().path
    child = service.create_training_client_from_state(path).result()
    for model_id in (one.model_id, child.model_id):
        assert rest.get_training_run(model_id).result().user_metadata == metadata
    assert rest.get_training_run_by_tinker_path(path).result().training_run_id == one.model_id
    page = rest.list_training_runs(limit=1, offset=1).result()
    assert [run.training_run_id for run in page.training_runs] == [one.model_id]
    assert page.cursor.total_count >= 2


def test_weights_info_tells_what_a_checkpoint_is(
    new_client: Callable[..., tinker.TrainingClient], rest: tinker.RestClient, tiny_model: Path
) -> None:
    """The base model, the rank and the layers of a checkpoint can be asked for."""
    path = new_client(rank=3, train_attn=False).save_state("info").result().path
    info = rest.get_weights_info_by_tinker_path(path).result()
    assert (info.base_model, info.lora_rank, info.train_attn, info.train_mlp) == (
        str(tiny_model),
        3,
        False,
        True,
    )


# -- sampling


def test_samples_have_the_length_and_the_number_asked_for(client: tinker.TrainingClient) -> None:
    """num_samples sequences of max_tokens tokens, each with log-probabilities and an id of its own."""
    sampler = client.save_weights_and_get_sampling_client().result()
    result = sampler.sample(prompt=prompt(), num_samples=3, sampling_params=params()).result()
    assert [len(sequence.tokens) for sequence in result.sequences] == [6, 6, 6]
    assert all(len(sequence.logprobs) == 6 and max(sequence.logprobs) <= 0 for sequence in result.sequences)
    assert len({sequence.sequence_id for sequence in result.sequences}) == 3
    assert {sequence.stop_reason for sequence in result.sequences} == {"length"}


def test_a_seed_repeats_a_sample(client: tinker.TrainingClient) -> None:
    """The same seed gives the same samples, and another one others."""
    sampler = client.save_weights_and_get_sampling_client().result()
    drawn = [
        sampler.sample(prompt=prompt(), num_samples=1, sampling_params=params(seed=seed))
        .result()
        .sequences[0]
        .tokens
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_sampling_parameters_arrive(client: tinker.TrainingClient) -> None:
    """Temperature 0, top_k 1 and a tiny top_p all take the likeliest token, first of the top-k list."""
    sampler = client.save_weights_and_get_sampling_client().result()

    def drawn(**given: Any) -> Any:
        return (
            sampler.sample(
                prompt=prompt(), num_samples=1, sampling_params=params(**given), topk_sample_logprobs=3
            )
            .result()
            .sequences[0]
        )

    greedy = drawn(temperature=0.0)
    assert greedy.tokens == drawn(top_k=1).tokens == drawn(top_p=1e-6).tokens
    assert [row[0][0] for row in greedy.topk_logprobs] == greedy.tokens


def test_stops_arrive(client: tinker.TrainingClient) -> None:
    """A stop token and a stop string end a sample; the token that stopped it is its last."""
    sampler = client.save_weights_and_get_sampling_client().result()
    free = (
        sampler.sample(prompt=prompt(), num_samples=1, sampling_params=params(max_tokens=12))
        .result()
        .sequences[0]
    )
    stop = free.tokens[4]
    first = free.tokens.index(stop)
    halted = (
        sampler.sample(prompt=prompt(), num_samples=1, sampling_params=params(max_tokens=12, stop=[stop]))
        .result()
        .sequences[0]
    )
    assert (halted.tokens, halted.stop_reason) == (free.tokens[: first + 1], "stop")
    text = client.get_tokenizer().decode(free.tokens)
    halted = (
        sampler.sample(prompt=prompt(), num_samples=1, sampling_params=params(max_tokens=12, stop=text[:3]))
        .result()
        .sequences[0]
    )
    assert halted.stop_reason == "stop"
    assert len(halted.tokens) < 12


def test_prompt_logprobs_equal_the_trainers(client: tinker.TrainingClient) -> None:
    """compute_logprobs of saved weights equals what forward says of the same tokens."""
    step(client)
    one = datum(length=20)
    forward = client.forward([one], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].to_numpy()
    tokens = [*one.model_input.to_ints(), int(one.loss_fn_inputs["target_tokens"].to_numpy()[-1])]
    sampler = client.save_weights_and_get_sampling_client().result()
    scored = sampler.compute_logprobs(prompt(*tokens)).result()
    assert scored[0] is None
    np.testing.assert_allclose(scored[1:], forward, rtol=1e-3, atol=1e-4)
    last = sampler.compute_logprobs(prompt(*tokens), prompt_logprobs_last_n=3).result()
    assert last[:-3] == [None] * (len(tokens) - 3)
    assert last[-3:] == pytest.approx(scored[-3:])


def test_topk_prompt_logprobs_contain_the_prompt(client: tinker.TrainingClient) -> None:
    """The k likeliest tokens of each position come sorted; position 0 has none."""
    sampler = client.save_weights_and_get_sampling_client().result()
    result = sampler.sample(
        prompt=prompt(),
        num_samples=1,
        sampling_params=params(),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=4,
    ).result()
    first, *rest = result.topk_prompt_logprobs
    assert not first
    for row in rest:
        assert [value for _, value in row] == sorted((value for _, value in row), reverse=True)


def test_a_snapshot_does_not_follow_the_training(client: tinker.TrainingClient) -> None:
    """Weights that were saved for sampling stay as they were while training goes on."""
    sampler = client.save_weights_and_get_sampling_client().result()
    before = sampler.compute_logprobs(prompt()).result()
    step(client)
    later = client.save_weights_and_get_sampling_client().result()
    assert sampler.compute_logprobs(prompt()).result() == before
    assert later.compute_logprobs(prompt()).result() != before


def test_old_snapshots_survive_many_new_ones(client: tinker.TrainingClient) -> None:
    """More snapshots than fit in memory are kept on disk, and sample as before."""
    first = client.save_weights_and_get_sampling_client().result()
    before = first.compute_logprobs(prompt()).result()
    for _ in range(20):
        step(client)
        client.save_weights_and_get_sampling_client().result()
    assert first.compute_logprobs(prompt()).result() == before


def test_saved_weights_and_the_base_are_sampled(
    client: tinker.TrainingClient, service: tinker.ServiceClient, tiny_model: Path, rest: tinker.RestClient
) -> None:
    """From a path and from a base model: a fresh adapter samples as the base does, a trained one does not."""
    base = (
        service.create_sampling_client(base_model=str(tiny_model))
        .result()
        .compute_logprobs(prompt())
        .result()
    )
    fresh = client.save_weights_for_sampler("fresh").result().path
    step(client)
    state = client.save_state("trained").result().path
    sampler = service.create_sampling_client(model_path=fresh).result()
    assert sampler.get_base_model() == str(tiny_model)
    assert rest.get_sampler(sampler._sampling_session_id).result().model_path == fresh
    assert sampler.compute_logprobs(prompt()).result()[1:] == pytest.approx(base[1:], rel=1e-5)
    trained = service.create_sampling_client(model_path=state).result().compute_logprobs(prompt()).result()
    assert trained != base


def test_many_samples_at_once_are_all_answered(client: tinker.TrainingClient) -> None:
    """A hundred requests at the same time, with training in between, are all answered."""
    sampler = client.save_weights_and_get_sampling_client().result()
    futures = [
        sampler.sample(prompt=prompt(1, 2, 3 + i), num_samples=1, sampling_params=params(seed=i))
        for i in range(100)
    ]
    step(client)
    assert all(len(future.result(timeout=60).sequences[0].tokens) == 6 for future in futures)


def test_sampling_clients_travel_between_threads_and_pickles(client: tinker.TrainingClient) -> None:
    """A pickled sampling client, and one in other threads, samples as the first does."""
    import pickle

    sampler = client.save_weights_and_get_sampling_client().result()
    before = sampler.compute_logprobs(prompt()).result()
    copy = pickle.loads(pickle.dumps(sampler))
    assert copy.compute_logprobs(prompt()).result() == pytest.approx(before)
    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(lambda _: sampler.compute_logprobs(prompt()).result(), range(8)):
            assert answer[1:] == pytest.approx(before[1:], rel=1e-4)


def test_a_sample_that_is_given_up_is_cancelled(client: tinker.TrainingClient, raw: Raw) -> None:
    """Cancelling a sampling request answers it with an error at once, and others go on."""
    sampler = client.save_weights_and_get_sampling_client().result()
    body = {
        "sampling_session_id": sampler._sampling_session_id,
        "seq_id": 10**6,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1, 2]}]},
        "sampling_params": {"max_tokens": 900, "stop": []},
        "num_samples": 32,
    }
    request_id = raw("POST", "asample", json=body).json()["request_id"]
    assert raw("POST", "cancel_future", json={"request_id": request_id}).status_code == 200
    answer = raw("POST", "retrieve_future", json={"request_id": request_id}, timeout=10).json()
    assert "cancelled" in answer["error"]
    assert len(sampler.compute_logprobs(prompt()).result()) == 4


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop_strings"),
    ],
)
def test_a_bad_sampling_parameter_is_named(
    client: tinker.TrainingClient, given: dict[str, Any], problem: str
) -> None:
    """A sampling parameter out of range fails its own request and is named."""
    import tinker

    sampler = client.save_weights_and_get_sampling_client().result()
    with pytest.raises((tinker.BadRequestError, tinker.RequestFailedError), match=problem):
        sampler.sample(prompt=prompt(), num_samples=1, sampling_params=params(**given)).result(timeout=30)
    with pytest.raises(
        (tinker.BadRequestError, tinker.RequestFailedError), match=r"length|vocabulary|prompt"
    ):
        sampler.sample(prompt=prompt(10**6), num_samples=1, sampling_params=params()).result(timeout=30)


# -- the protocol


def test_capabilities_name_the_models(
    service: tinker.ServiceClient, client: tinker.TrainingClient, rest: tinker.RestClient
) -> None:
    """The models that were used are listed with their context."""
    models = rest.get_server_capabilities().result().supported_models
    assert (client.get_info().model_name, 1024) in {
        (one.model_name, one.max_context_length) for one in models
    }


def test_a_request_that_comes_twice_is_done_once(client: tinker.TrainingClient, raw: Raw) -> None:
    """The same seq_id again is answered with the first promise: an optimizer step is not taken twice."""
    client.forward_backward([datum()], "cross_entropy").result()
    body = {"model_id": client.model_id, "seq_id": 500, "adam_params": {"learning_rate": 1e-2}}
    first, second = (raw("POST", "optim_step", json=body).json()["request_id"] for _ in range(2))
    assert first == second
    for _ in range(2):
        assert "metrics" in raw("POST", "retrieve_future", json={"request_id": first}).json()


def test_wrong_keys_hosts_and_origins_are_turned_away(engine: LocalEngine, raw: Raw) -> None:
    """401 for another key, 403 for another host or any origin, 413 for too long a body; each says why."""
    for headers, status in (
        ({"X-API-Key": "tml-" + "0" * 64}, 401),
        ({"X-API-Key": ""}, 401),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://localhost"}, 403),
    ):
        answer = raw("GET", "healthz", headers=headers)
        assert answer.status_code == status
        assert "fix:" in answer.json()["error"]
        assert engine.token not in answer.text
    assert too_long(engine) == 413


def too_long(engine: LocalEngine) -> int:
    """Return the status of a request that announces a terabyte."""
    with socket.create_connection(("127.0.0.1", int(engine.base_url.rpartition(":")[2]))) as connection:
        head = f"POST /api/v1/telemetry HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {engine.token}\r\n"
        connection.sendall(f"{head}Content-Length: {10**12}\r\n\r\n".encode())
        return int(connection.recv(4096).split()[1])


def test_the_sdk_is_told_that_its_key_is_wrong(engine: LocalEngine) -> None:
    """A client with another engine's token gets AuthenticationError, not a hang."""
    import tinker

    with pytest.raises(tinker.AuthenticationError, match=r"engine\.service_client"):
        tinker.ServiceClient(base_url=engine.base_url, api_key="tml-" + "0" * 64).holder.get_session_id()


@pytest.mark.parametrize(
    ("method", "path", "given", "status"),
    [
        ("GET", "no/such/thing", {}, 404),
        ("GET", "sessions/x/trace_export", {}, 404),
        ("POST", "copy_weights", {"json": {"source_path": "tinker://x"}}, 400),
        ("POST", "create_session", {"content": b"{"}, 400),
        ("POST", "create_session", {"content": b"[" * 100_000}, 400),
        ("POST", "create_session", {"content": b"[1]"}, 400),
        (
            "POST",
            "create_model",
            {"json": {"session_id": "x", "base_model": "y", "lora_config": {"rank": 4}}},
            410,
        ),
        (
            "POST",
            "create_model",
            {"json": {"session_id": 3, "base_model": "y", "lora_config": {"rank": 4}}},
            400,
        ),
        ("POST", "create_model", {"json": {"session_id": "x", "lora_config": "big"}}, 400),
        ("POST", "optim_step", {"json": {"model_id": "x", "adam_params": {"learning_rate": -1}}}, 400),
        ("POST", "optim_step", {"json": {"model_id": "x", "adam_params": {}}}, 404),
        ("POST", "forward_backward", {"json": {}}, 415),
        (
            "POST",
            "forward_backward",
            {"content": b"\xff\xff", "headers": {"Content-Type": "application/x-protobuf"}},
            400,
        ),
        ("POST", "retrieve_future", {"json": {"request_id": "x"}}, 410),
        ("POST", "asample", {"json": {"sampling_session_id": "x", "prompt": {"chunks": []}}}, 404),
        ("POST", "asample", {"json": {"sampling_session_id": "x", "prompt": "text"}}, 400),
        ("POST", "asample", {"json": {"sampling_session_id": "x", "prompt_alt_tokens_k": 2}}, 400),
        ("POST", "session_heartbeat", {"json": {"session_id": "x"}}, 410),
        ("GET", "training_runs/x/checkpoints", {}, 404),
        ("GET", "training_runs?limit=many", {}, 400),
        ("DELETE", "training_runs/x/checkpoints/weights/..%2f..", {}, 404),
        ("DELETE", "training_runs/x/checkpoints/weights/.hidden", {}, 400),
    ],
)
def test_what_is_not_understood_is_explained(
    raw: Raw, client: tinker.TrainingClient, method: str, path: str, given: dict[str, Any], status: int
) -> None:
    """A request that makes no sense is a 4xx whose body says what and what to do, never a 5xx."""
    answer = raw(method, path, **given)
    assert (answer.status_code, "fix:" in answer.json()["error"]) == (status, True), answer.text


def test_images_are_refused(client: tinker.TrainingClient) -> None:
    """An image chunk is refused with what to do instead."""
    import tinker

    image = tinker.types.ImageChunk(data=b"x", format="png", expected_tokens=3)
    with pytest.raises(tinker.BadRequestError, match="only text"):
        client.forward(
            [
                tinker.Datum(
                    model_input=tinker.ModelInput(chunks=[image]), loss_fn_inputs={"target_tokens": [1]}
                )
            ],
            "cross_entropy",
        ).result()


def test_a_finished_session_is_over(engine: LocalEngine, tiny_model: Path) -> None:
    """After `close` the session's clients are refused, while its checkpoints stay."""
    import tinker

    with tinker.ServiceClient(
        base_url=engine.base_url, api_key=engine.token, user_metadata={"a": "b"}
    ) as own:
        client = own.create_lora_training_client(str(tiny_model), rank=2).result()
        path = client.save_state("left").result().path
        session_id, model_id = own.holder.get_session_id(), client.model_id
    rest = tinker.RestClient(base_url=engine.base_url, api_key=engine.token)
    session = rest.get_session(session_id).result()
    assert (session.training_run_ids, session.user_metadata) == ([model_id], {"a": "b"})
    assert session_id in rest.list_sessions(limit=1000).result().sessions
    raw = Raw(engine)
    assert raw("POST", "get_info", json={"model_id": model_id}).status_code == 404
    assert raw("POST", "session_heartbeat", json={"session_id": session_id}).status_code == 410
    assert engine.service_client().create_training_client_from_state(path).result().model_id
