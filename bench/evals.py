"""What a sample costs beside the model: our suites against Inspect itself, with a model that answers at once.

    python bench/evals.py                    # 2,000 samples, three runs of each
    python bench/evals.py --samples 200

Both sit the same task, one scorer, in a fresh process, after a warm-up of 50 samples. Inspect alone runs with
`log_realtime=False` and a model of a few lines, which reports its usage as every real one does; ours goes
through the renderer, the tokenizer, our model, the samples that are kept, and the scorecard. CPU time of the
whole process; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


MOST = 1.1


def exam(n: int) -> Any:
    from inspect_ai import Task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.scorer import includes

    samples = [Sample(id=f"q{i}", input=f"What is {i} and {i}?", target="4") for i in range(n)]
    return Task(dataset=MemoryDataset(samples, name="exam"), scorer=includes(), name="exam")


def inspect_alone(n: int, folder: Path) -> None:
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import GenerateConfig, ModelAPI, ModelOutput, ModelUsage, get_model, modelapi

    @modelapi(name="at_once")
    class AtOnce(ModelAPI):
        async def generate(self, input: Any, tools: Any, tool_choice: Any, config: Any) -> ModelOutput:  # noqa: A002, ARG002 - Inspect's own signature
            output = ModelOutput.from_content(self.model_name, "It is 4.")
            output.usage = ModelUsage(input_tokens=30, output_tokens=4, total_tokens=34)
            return output

        async def count_text_tokens(self, text: str) -> int:
            return len(text) // 4

    _ = inspect_eval(
        exam(n),
        model=get_model("at_once/x", memoize=False, config=GenerateConfig(max_connections=64)),
        log_dir=str(folder),
        log_format="eval",
        log_realtime=False,
        ctl_server=False,
        display="none",
        score_display=False,
    )


def ours(n: int, folder: Path) -> None:
    import tinker

    from tinker_officer import EvalSuite
    from tinker_officer.data.render import renderer_for
    from tinker_officer.testing import tiny_model

    model = folder / "model"
    if not model.exists():
        _ = tiny_model(model)
    tokens = renderer_for(str(model)).tokenizer.encode("It is 4.<|im_end|>", add_special_tokens=False)

    class AtOnce(tinker.SamplingClient):
        def __init__(self) -> None:
            pass

        def get_base_model(self) -> str:
            return str(model)

        async def sample(self, *_: Any, **__: Any) -> Any:
            await asyncio.sleep(0)
            said = tinker.SampledSequence(stop_reason="stop", sequence_id="x", _tokens_list=tokens)
            return tinker.SampleResponse(sequences=[said])

    card = EvalSuite().task(exam(n)).evaluate(AtOnce(), on="", at=folder, progress=False)
    assert card["exam"].n == n


RUNS = {"inspect": inspect_alone, "ours": ours}


def once(which: str, samples: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        RUNS[which](50, folder)
        cpu, wall = time.process_time(), time.perf_counter()
        RUNS[which](samples, folder)
        return {
            "cpu_ms": (time.process_time() - cpu) / samples * 1000,
            "wall_ms": (time.perf_counter() - wall) / samples * 1000,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", choices=sorted(RUNS))
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(once(asked.one, asked.samples)))
        return 0
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    for _ in range(asked.runs):
        for name, figures in found.items():
            command = [sys.executable, __file__, "--one", name, "--samples", str(asked.samples)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            figures.append(json.loads(said.splitlines()[-1]))
    medians = {
        name: {key: statistics.median(figure[key] for figure in figures) for key in figures[0]}
        for name, figures in found.items()
    }
    for name, median in medians.items():
        print(f"{name:8s} {median['cpu_ms']:6.2f} ms CPU  {median['wall_ms']:6.2f} ms a sample")
    ratio = medians["ours"]["cpu_ms"] / medians["inspect"]["cpu_ms"]
    print(f"ours / inspect: {ratio:.2f} (at most {MOST})")
    return int(ratio > MOST)


if __name__ == "__main__":
    sys.exit(main())
