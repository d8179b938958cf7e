"""The engine's arithmetic against what a user would pick instead: transformers + PEFT, and `generate`.

    python bench/engine.py [--threads N]

SmolLM2-135M-Instruct, rank 32 on every linear and the unembedding, float32, on this machine's CPU. Three
jobs: a training step on a chat mix (16 rows of 30 to 400 tokens, prompts masked), a training step on 8 rows
of 256 tokens, and sampling 48 tokens after a prompt of 64 at batch 1, 8 and 32. Each side runs in a process
of its own: once to warm up, then three times, of which the fastest counts. Printed: tokens a second (for
sampling, new tokens), the ratio, and the peak resident memory of each process. PEFT pads its batch and steps
torch's AdamW; `generate` samples from the bare base model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
RANK, PROMPT, NEW = 32, 64, 48
BATCHES = (1, 8, 32)


def rows() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return the training jobs: tokens and weights of each row; the last third of a chat row is trained."""
    rng = np.random.default_rng(0)

    def row(length: int, trained: int) -> tuple[np.ndarray, np.ndarray]:
        weights = np.zeros(length, np.float32)
        weights[-trained:] = 1
        return rng.integers(0, 49152, length), weights

    mix = [row(int(length), max(8, int(length) // 3)) for length in rng.integers(30, 400, 16)]
    return {"train chat mix": mix, "train 8 x 256": [row(256, 256) for _ in range(8)]}


def prompts(count: int) -> list[np.ndarray]:
    """Return `count` prompts of random tokens."""
    rng = np.random.default_rng(count)
    return [rng.integers(100, 49152, PROMPT) for _ in range(count)]


def ours() -> dict[str, tuple[int, Callable[[], Any]]]:
    """Return the jobs as the engine does them: units of work, and what does them."""
    from tinker_officer._models import locate
    from tinker_officer.engine import lora, models, sampler, trainer

    base = models.load(NAME, locate(NAME))
    adapter = lora.Adapter.create(base, lora.LoraSpec(rank=RANK, seed=0))
    training = trainer.Trainer(base, adapter)
    sampling = sampler.Sampler(base)

    def step(examples: list[Any]) -> None:
        for _ in training.forward_backward(examples, "cross_entropy", {}):
            pass
        training.optim_step(trainer.AdamSettings(1e-4))

    def sample(count: int) -> None:
        for number, prompt in enumerate(prompts(count)):
            spec = sampler.SampleSpec(prompt, max_tokens=NEW, stop_tokens=(), seed=number)
            sampling.add(str(number), spec, adapter)
        while sampling.busy:
            sampling.step()

    jobs: dict[str, tuple[int, Callable[[], Any]]] = {}
    for name, pairs in rows().items():
        examples = [
            trainer.Example(tokens, {"target_tokens": np.roll(tokens, -1), "weights": weights})
            for tokens, weights in pairs
        ]
        jobs[name] = sum(len(tokens) for tokens, _ in pairs), lambda examples=examples: step(examples)
    for count in BATCHES:
        jobs[f"sample, batch {count}"] = count * NEW, lambda count=count: sample(count)
    return jobs


def theirs() -> dict[str, tuple[int, Callable[[], Any]]]:
    """Return the jobs as plain transformers and PEFT do them."""
    import peft
    import torch
    import transformers

    from tinker_officer._models import locate

    base = transformers.AutoModelForCausalLM.from_pretrained(locate(NAME), dtype=torch.float32)
    bare = transformers.AutoModelForCausalLM.from_pretrained(locate(NAME), dtype=torch.float32).eval()
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
    model = peft.get_peft_model(base, peft.LoraConfig(r=RANK, lora_alpha=32, target_modules=targets))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
        longest = max(len(tokens) for tokens, _ in pairs)
        ids = torch.zeros(len(pairs), longest, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for i, (tokens, weights) in enumerate(pairs):
            n = len(tokens)
            ids[i, :n], mask[i, :n] = torch.from_numpy(tokens), 1
            labels[i, :n] = torch.from_numpy(np.where(weights > 0, np.roll(tokens, -1), -100))
        logits = model(input_ids=ids, attention_mask=mask).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").backward()
        optimizer.step()
        optimizer.zero_grad()

    def sample(count: int) -> None:
        ids = torch.from_numpy(np.stack(prompts(count)))
        with torch.inference_mode():
            bare.generate(
                ids,
                do_sample=True,
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                attention_mask=torch.ones_like(ids),
            )

    jobs: dict[str, tuple[int, Callable[[], Any]]] = {}
    for name, pairs in rows().items():
        jobs[name] = sum(len(tokens) for tokens, _ in pairs), lambda pairs=pairs: step(pairs)
    for count in BATCHES:
        jobs[f"sample, batch {count}"] = count * NEW, lambda count=count: sample(count)
    return jobs


def measure(side: str, threads: int) -> None:
    """Do every job of `side`, and print its rates and the memory as JSON."""
    import torch

    torch.set_num_threads(threads)
    rates: dict[str, float] = {}
    for name, (units, job) in (ours() if side == "ours" else theirs()).items():
        job()
        times = []
        for _ in range(3):
            began = time.perf_counter()
            job()
            times.append(time.perf_counter() - began)
        rates[name] = units / min(times)
        rates[f"{name}, GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps(rates))


def main() -> None:
    """Run both sides, one after the other, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=("ours", "theirs"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if asked.side:
        measure(asked.side, asked.threads)
        return
    found = {}
    for side in ("ours", "theirs"):
        command = [sys.executable, __file__, "--side", side, "--threads", str(asked.threads)]
        env = {**os.environ, "OMP_NUM_THREADS": str(asked.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        out = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
        found[side] = json.loads(out.stdout.splitlines()[-1])
    print(f"{platform.processor() or platform.machine()}, {asked.threads} threads, float32, tokens/s")
    print(f"{'':22s} {'engine':>8s} {'plain':>8s} {'ratio':>6s}   peak GB (engine, plain)")
    for name, mine in found["ours"].items():
        if name.endswith(", GB"):
            continue
        other = found["theirs"][name]
        memory = f"{found['ours'][f'{name}, GB']:.1f}, {found['theirs'][f'{name}, GB']:.1f}"
        print(f"{name:22s} {mine:8.0f} {other:8.0f} {mine / other:6.2f}   {memory}")


if __name__ == "__main__":
    main()
