"""Layer 3 against the cookbook's own `CustomEvaluator`, before a server that is 100 ms away.

    python bench/product.py                  # 20 cases one by one, 400 by us

Both ask one LocalEngine, with a tiny model, behind the wire of `tests/train/wire.py`, which adds 100 ms to
every request: questions of one kind, the same renderer and sampling, answers of 100 tokens. The cookbook's
class is the installed one; its module is an example that runs when it is imported, so that only the class is
taken from it. What the wire costs is the requests of a sample; the rest is the engine's.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tinker
from _idle import Watched

from tinker_officer import EvalSuite, LocalEngine, graders
from tinker_officer.testing import tiny_model


LATENCY_S, LEAST, RENDERER = 0.1, 5.0, "qwen3_instruct"


def cookbooks_class() -> Any:
    """Return the cookbook's `CustomEvaluator`."""
    spec = importlib.util.find_spec("tinker_cookbook.eval.custom_evaluators")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef)]
    names: dict[str, Any] = {}
    exec(compile(tree, spec.origin, "exec"), names)
    return names["CustomEvaluator"]


def cases(count: int) -> list[dict[str, str]]:
    """Return questions that differ."""
    return [{"input": f"What is {n} plus {n}?", "output": str(2 * n)} for n in range(count)]


def one_by_one(model: Path, service: tinker.ServiceClient, count: int) -> float:
    """Return the cookbook's samples per second."""
    evaluator = cookbooks_class()(
        dataset=cases(count),
        grader_fn=lambda said, wanted: wanted.lower() in said.lower(),
        model_name=str(model),
        renderer_name=RENDERER,
    )
    client = service.create_sampling_client(base_model=str(model))
    began = time.perf_counter()
    _ = asyncio.run(evaluator(client))
    return count / (time.perf_counter() - began)


def ours(model: Path, service: tinker.ServiceClient, count: int) -> float:
    """Return our samples per second, from the call to the card."""
    suite = EvalSuite().product(
        "sums", cases(count), grader=graders.includes, max_tokens=100, temperature=0.7
    )
    began = time.perf_counter()
    card = suite.evaluate(str(model), on=service, renderer_name=RENDERER, progress=False)
    assert card["sums"].n == count
    return count / (time.perf_counter() - began)


def main() -> int:
    """Print both paces and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--theirs", type=int, default=20)
    parser.add_argument("--ours", type=int, default=400)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = tiny_model(Path(scratch) / "model")
        with (
            LocalEngine(root=Path(scratch) / "engine") as engine,
            Watched(engine.base_url, latency_s=LATENCY_S) as far,
        ):
            service = tinker.ServiceClient(base_url=far.url, api_key=engine.token)
            _ = ours(model, service, 4)  # everything is loaded
            theirs, own = one_by_one(model, service, asked.theirs), ours(model, service, asked.ours)
    print(f"CustomEvaluator: {theirs:6.1f} samples/s")
    print(f"tinker_officer:  {own:6.1f} samples/s, {own / theirs:.1f} times as many (at least {LEAST:.0f})")
    return int(own < LEAST * theirs)


if __name__ == "__main__":
    sys.exit(main())
