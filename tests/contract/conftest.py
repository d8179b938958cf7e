"""The server that the contract is held against: our own engine, or any that speaks Tinker's protocol.

    pytest tests/contract --contract-table                      LocalEngine, and a table of what it does
    pytest tests/contract --contract-table docs/reference/contract.md
                                                                the same, written into that file
    TINKER_API_KEY=... pytest tests/contract --contract-table --base-url http://host:8000 --base-model NAME
                                                                SkyRL, TuFT, hosted Tinker (which bills)

Prompts are token ids below 250, which every vocabulary has, so that no tokenizer is needed. A test that needs
more than the protocol is skipped elsewhere than on LocalEngine.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import tinker


HERE = Path(__file__).parent
_ROWS = pytest.StashKey[dict[tuple[str, str], str]]()
_MARKS = {"passed": "yes", "failed": "no", "xfailed": "refused", "skipped": "not tried"}
_INTRODUCTION = """\
# What each server supports

Made by `python -m pytest tests/contract --contract-table docs/reference/contract.md`: each row is a test that
runs the real `tinker` SDK against the server. *Refused*: the server says clearly that it does not do this.
Other servers are tried with `--base-url URL --base-model NAME` and their key in `TINKER_API_KEY`; each adds
its column.
"""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = {}


# -- the table


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if not isinstance(item, pytest.Function) or HERE not in item.path.parents:
        return
    if report.when == "call" or report.outcome != "passed":
        area = item.path.stem.removeprefix("test_").capitalize()
        spec = getattr(item, "callspec", None)
        said = inspect.cleandoc(item.function.__doc__ or "").split("\n")[0].rstrip(".")
        label = f"{said}: `{spec.id}`" if spec is not None else said
        word = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        item.config.stash[_ROWS].setdefault((area, label), _MARKS[word])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    target, rows = config.getoption("contract_table"), config.stash[_ROWS]
    if target is None or not rows:
        return
    name = server_name(config)
    table = _merged(Path(target) if target != "-" else None, name, rows)
    if target != "-":
        Path(target).write_text(f"{_INTRODUCTION}\n{table}", encoding="utf-8")
    terminalreporter.section(f"what {name} supports")
    terminalreporter.write(table)


def _merged(path: Path | None, name: str, rows: dict[tuple[str, str], str]) -> str:
    """Return the table with a column of this run, beside the columns of other servers in `path`."""
    columns: list[str] = []
    known: dict[tuple[str, str], dict[str, str]] = {key: {} for key in rows}
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    if cells:
        columns = [column for column in cells[0][2:] if column != name]
        for area, label, *values in cells[2:]:
            row = dict(zip(cells[0][2:], values, strict=True))
            known.setdefault((area, label), {}).update({key: row[key] for key in columns})
    columns = [name, *columns]
    for key, mark in rows.items():
        known[key][name] = mark
    head = ["Area", "What the SDK asks for", *columns]
    body = [
        [area, label, *(row.get(column, "") for column in columns)]
        for (area, label), row in known.items()
        if any(row.values())
    ]
    made = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in made)


# -- the server


def server_name(config: pytest.Config) -> str:
    url = config.getoption("base_url")
    return "LocalEngine" if url is None else str(url).split("//")[-1].split("/")[0]


@pytest.fixture(scope="session")
def local(request: pytest.FixtureRequest) -> bool:
    """Whether the server is LocalEngine."""
    return server_name(request.config) == "LocalEngine"


@pytest.fixture(scope="session")
def address(request: pytest.FixtureRequest, local: bool) -> tuple[str, str]:
    """The server's URL and key."""
    if not local:
        return request.config.getoption("base_url"), os.environ["TINKER_API_KEY"]
    engine = request.getfixturevalue("engine")
    return engine.base_url, engine.token


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest, local: bool, rest: tinker.RestClient) -> str:
    """The base model: a tiny one of our own, `--base-model`, or the first that the server names."""
    if local:
        return str(request.getfixturevalue("tiny_model"))
    named = request.config.getoption("base_model")
    return named or str(rest.get_server_capabilities().result().supported_models[0].model_name)


@pytest.fixture(scope="session")
def service(address: tuple[str, str], local: bool, request: pytest.FixtureRequest) -> tinker.ServiceClient:
    if local:
        return request.getfixturevalue("engine").service_client()
    return tinker.ServiceClient(base_url=address[0], api_key=address[1])


@pytest.fixture(scope="session")
def rest(address: tuple[str, str]) -> tinker.RestClient:
    return tinker.RestClient(base_url=address[0], api_key=address[1])


class Make(Protocol):
    """Makes a training client."""

    def __call__(self, **given: Any) -> tinker.TrainingClient: ...


@pytest.fixture(scope="session")
def new(service: tinker.ServiceClient, model: str) -> Make:
    def make(**given: Any) -> tinker.TrainingClient:
        client: tinker.TrainingClient = service.create_lora_training_client(
            model, **({"rank": 4, "seed": 0} | given)
        ).result()
        return client

    return make


@pytest.fixture
def client(new: Make) -> tinker.TrainingClient:
    """A fresh training client."""
    return new()


@pytest.fixture(scope="session")
def stirred(new: Make, ask: Ask) -> tinker.TrainingClient:
    """A client whose weights are no longer the base model's; for tests that do not train it further."""
    client = new()
    ask.fit(client, steps=2)
    return client


@pytest.fixture(scope="session")
def sampler(stirred: tinker.TrainingClient) -> tinker.SamplingClient:
    client: tinker.SamplingClient = stirred.save_weights_and_get_sampling_client().result()
    return client


# -- what is sent


class Ask:
    """What the tests send, and what they read of the answers."""

    def tokens(self, count: int, start: int = 0) -> list[int]:
        return [(7 * (start + index)) % 241 + 3 for index in range(count)]

    def prompt(self, count: int = 12, start: int = 0) -> tinker.ModelInput:
        return tinker.ModelInput.from_ints(self.tokens(count, start))

    def datum(self, start: int = 0, length: int = 12, **inputs: Any) -> tinker.Datum:
        """An example of the next token; its weights are ones unless given, None leaves an input away."""
        chain = self.tokens(length + 1, start)
        given = {"target_tokens": chain[1:], "weights": [1.0] * length} | inputs
        return tinker.Datum(
            model_input=tinker.ModelInput.from_ints(chain[:-1]),
            loss_fn_inputs={key: value for key, value in given.items() if value is not None},
        )

    def rollout(self, client: tinker.TrainingClient, start: int = 0, **inputs: Any) -> tinker.Datum:
        """A rollout of a policy near the client's: a prompt of three tokens, ratios beyond any clip."""
        rng = np.random.default_rng(start)
        near = self.logprobs(client, self.datum(start))
        sampled = np.arange(12) >= 3
        given = {
            "weights": None,
            "logprobs": (near + np.where(sampled, rng.normal(size=12) * 0.4, 0)).astype(np.float32),
            "advantages": np.where(sampled, rng.normal(size=12), 0).astype(np.float32),
        }
        return self.datum(start, **(given | inputs))

    def logprobs(self, client: tinker.TrainingClient, *data: tinker.Datum) -> np.ndarray:
        """The log-probabilities of every target, of all data in a row."""
        outputs = client.forward(list(data), "cross_entropy").result().loss_fn_outputs
        return np.concatenate([output["logprobs"].to_numpy() for output in outputs])

    def fit(self, client: tinker.TrainingClient, *, steps: int = 1, **adam: Any) -> list[float]:
        """Train on one example, pipelined; return the loss before each step."""
        params = tinker.AdamParams(**({"learning_rate": 1e-2} | adam))
        pairs = [
            (client.forward_backward([self.datum()], "cross_entropy"), client.optim_step(params))
            for _ in range(steps)
        ]
        losses = [forward.result().metrics["loss:sum"] for forward, _ in pairs]
        for _, step in pairs:
            step.result()
        return losses

    def sample(
        self, sampler: tinker.SamplingClient, *, count: int = 1, given: Any = None, **params: Any
    ) -> tinker.SampleResponse:
        """Sample eight tokens after a prompt of twelve; `given` are arguments beside the parameters."""
        settings = tinker.SamplingParams(**({"max_tokens": 8, "stop": []} | params))
        answer: tinker.SampleResponse = sampler.sample(
            prompt=self.prompt(), num_samples=count, sampling_params=settings, **(given or {})
        ).result()
        return answer


@pytest.fixture(scope="session")
def ask() -> Ask:
    return Ask()


@pytest.fixture
def refused_here(request: pytest.FixtureRequest, local: bool) -> Callable[[], None]:
    """Return a function that says: LocalEngine refuses what follows, and must do so clearly."""

    def expect() -> None:
        if local:
            refusals = (tinker.BadRequestError, tinker.NotFoundError, tinker.RequestFailedError, RuntimeError)
            request.node.add_marker(
                pytest.mark.xfail(strict=True, raises=refusals, reason="refused, with what to do instead")
            )

    return expect
