"""What many tests need: an Inspect task of our own with known scores, and weights that change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinker_officer import EvalSuite


if TYPE_CHECKING:
    import tinker
    from inspect_ai import Task

    from tinker_officer import LocalEngine
    from tinker_officer.evals.results import EvalResult


def made(n: int = 5, *, fails: tuple[int, ...] = (), shuffled: bool = False, **options: Any) -> Task:
    """An Inspect task whose even items are right whatever the model says; the items in `fails` raise."""
    from inspect_ai import Task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.scorer import Score, accuracy, scorer
    from inspect_ai.solver import generate, solver

    @scorer(metrics=[accuracy()])
    def even():
        async def score(state, target):
            return Score(value=int(target.text) % 2 == 0)

        return score

    @solver
    def sometimes():
        async def solve(state, generate):
            if int(state.sample_id.removeprefix("q")) in fails:
                raise RuntimeError("the solver broke")
            return state

        return solve

    samples = [Sample(id=f"q{i}", input=f"say {i}", target=str(i)) for i in range(n)]
    dataset = MemoryDataset(samples, name="made")
    if shuffled:
        dataset.shuffle()
    settings: dict[str, Any] = {"scorer": even(), "solver": [sometimes(), generate()]} | options
    return Task(dataset=dataset, name="made", version=3, **settings)


def learn(client: tinker.TrainingClient, steps: int) -> None:
    """Take large steps: afterwards the weights say something else of any text."""
    import tinker

    tokens = list(range(300, 340))
    datum = tinker.Datum(
        model_input=tinker.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": tinker.TensorData(data=tokens[1:], dtype="int64", shape=[39]),
            "weights": tinker.TensorData(data=[1.0] * 39, dtype="float32", shape=[39]),
        },
    )
    for _ in range(steps):
        client.forward_backward([datum], "cross_entropy").result()
        client.optim_step(tinker.AdamParams(learning_rate=0.3)).result()


def sit(
    task: Task, engine: LocalEngine, target: Path | str, at: Path | None = None, **options: Any
) -> EvalResult:
    """What a target on the engine scores on a task."""
    suite = EvalSuite().task(task, **{"max_tokens": 3} | options)
    return suite.evaluate(str(target), on=engine, at=at, progress=False)["made"]
