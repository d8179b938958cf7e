"""Time and memory of counting the LoRA parameters of a 397B mixture of experts from its config alone.

    python bench/capacity.py --write  # into docs/explanation/planning-speed.md

Each line is the median of 3 fresh processes. `libraries` is what importing torch and transformers costs, once
a process, and only for architectures that are neither listed by the cookbook nor dense. `count` is config to
number, the architecture's own module included. Fails when counting takes over 2 s or 1 GB, or planning from
counts over 1 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import timeit

import _page


BUDGET_S, BUDGET_MB, PLAN_S = 2.0, 1000.0, 1e-3
# Qwen/Qwen3.5-397B-A17B, from its config.json; only the sizes.
CONFIG = {
    "model_type": "qwen3_5_moe",
    "text_config": {
        "model_type": "qwen3_5_moe_text", "vocab_size": 248320, "head_dim": 256, "linear_num_key_heads": 16,
        "linear_key_head_dim": 128, "linear_value_head_dim": 128, "hidden_size": 4096,
        "num_hidden_layers": 60, "num_attention_heads": 32, "num_key_value_heads": 2,
        "linear_num_value_heads": 64, "num_experts": 512, "moe_intermediate_size": 1024,
        "shared_expert_intermediate_size": 1024,
    },
}  # fmt: skip
DENSE = {
    "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
LIBRARIES = "import torch, transformers.modeling_utils, transformers.models.auto.modeling_auto\n"
PROGRAM = """
import json, resource, sys, time
from tinker_officer.plan.capacity import model_shape
arguments = json.loads(sys.argv[1])
started = time.perf_counter()
{libraries}
loaded = time.perf_counter()
shape = model_shape(**arguments)
counted = time.perf_counter()
model_shape(**arguments)
again = time.perf_counter() - counted
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)
print(json.dumps([loaded - started, counted - loaded, again, memory, shape.per_rank()]))
"""


def measured(arguments: dict[str, object], *, libraries: bool) -> list[float]:
    """Return seconds to load, count and count again, megabytes, and the count: medians of 3 processes."""
    program = PROGRAM.format(libraries=LIBRARIES if libraries else "")
    command = [sys.executable, "-c", program, json.dumps(arguments)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    runs = [
        json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        )
        for _ in range(3)
    ]
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def planning() -> float:
    """Return the seconds from counts to every number of a plan: the best of 5 hundreds."""
    from tinker_officer import LoRAPlan, TokenCounts

    counts = TokenCounts(examples=9_500, trained=2_000_000, total=2_600_000)

    def plan() -> tuple[object, ...]:
        made = LoRAPlan.for_("Qwen/Qwen3-8B").sft(counts)
        return made.rank, made.learning_rate, made.batch_size, made.steps, made.verdict

    return min(timeit.repeat(plan, number=100, repeat=5)) / 100


def main() -> None:
    """Print the table, and fail over the budget."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="into docs/explanation/planning-speed.md")
    arguments = parser.parse_args()
    cases = {
        "397B mixture, by its config": ({"base_model": "my/model", "config": CONFIG}, True),
        "397B mixture, by its listed name": ({"base_model": "Qwen/Qwen3.5-397B-A17B"}, False),
        "70B dense, by its config": ({"base_model": "my/model", "config": DENSE}, False),
    }
    text = [
        f"On {_page.machine()}:",
        "",
        "| | libraries | count | once more | peak memory | parameters a rank |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    over = ""
    for name, (asked, libraries) in cases.items():
        load, count, again, memory, parameters = measured(asked, libraries=libraries)
        took = f"{load:.2f} s | {count:.3f} s | {again * 1e3:.2f} ms"
        text.append(f"| {name} | {took} | {memory:.0f} MB | {parameters:,.0f} |")
        if count > BUDGET_S or memory > BUDGET_MB:
            over += f"{name}: over the budget of {BUDGET_S:g} s and {BUDGET_MB:g} MB\n"
    each = planning()
    text += [
        "",
        f"From counts to every number of a plan: {each * 1e3:.2f} ms (wanted: under {PLAN_S * 1e3:g}).",
    ]
    if each > PLAN_S:
        over += f"planning takes over {PLAN_S * 1e3:g} ms\n"
    print("\n".join(text))
    if arguments.write:
        _page.write("planning-speed", "capacity", "\n".join(text))
    if over:
        sys.exit(over)


if __name__ == "__main__":
    main()
