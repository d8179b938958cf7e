"""The engine's arithmetic against what a user would pick instead: transformers + PEFT, and `generate`.

    python bench/engine.py training      float32, two to four minutes on two idle cores
    python bench/engine.py bfloat16      the same in bfloat16, on fewer rows
    python bench/engine.py sampling      about four minutes
    python bench/engine.py overhead      the protocol and the SDK on a tiny model, a minute

With `--write` a part's table goes into docs/explanation/engine-speed.md too.
SmolLM2-135M-Instruct, rank 32 on every linear and the unembedding, on this machine's CPU. Each side is a
process of its own and does each job some times over, since one that stood idle is slow at first. Of two
times the faster counts; a job of more than half a minute is done once. With `--cpu-time` the processor's
time counts, not the clock's: for a machine that others use too. Printed: tokens a second (for sampling,
new tokens), the ratio, and for the engine's training the share of useful arithmetic in what the
machine's matrix product reaches in the same run. The engine runs in the environment that `LocalEngine`
gives its server. PEFT takes the chats as they come, four at a time, pads each four to their longest,
adds up their gradients and steps torch's AdamW once; `generate` samples from the bare base model, to the
longest answer of its batch.

Useful is, in operations of which a multiplication and an addition are two: for each token and each frozen
weight two products (forward, and the gradient of the input), for each LoRA weight three, whatever way the
engine takes to the same numbers; causal attention at half a square, forward and twice that backward; the
head's product and its LoRA's at every target, and their gradients (one more product, two for the LoRA) at
the trained ones alone. Not counted: norms, softmax, the optimizer, padding, and anything computed twice.
The whole step is timed. The rate that it is compared with is that of one square product, taken between the
jobs, the fastest of all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import _chats
import _page
import numpy as np


NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
RANK = 32
LONG_S = 30  # a job that takes so long is not repeated
PADDED = 4  # rows that plain PEFT pads together: it holds 2.4 MB a token
Rows = list[tuple[np.ndarray, np.ndarray]]  # tokens and weights of each row
Job = Callable[[], Any]


@cache
def training_rows(dtype: str) -> dict[str, Rows]:
    """Return the training jobs: rows of random tokens, all trained, and real chats, their answers trained."""
    rng = np.random.default_rng(0)
    # In bfloat16 without bfloat16 units plain PEFT is so slow that there are fewer and shorter rows.
    narrow = dtype == "bfloat16"
    chats, longest, count, length = (4, 100, 1, 64) if narrow else (8, 1000, 8, 256)
    full = [(rng.integers(0, 49152, length), np.ones(length, np.float32)) for _ in range(count)]
    mix = _chats.mix(NAME, chats, 30, longest)
    lengths = sorted(len(tokens) for tokens, _ in mix)
    return {
        f"train {count} x {length}": full,
        f"train chat mix, {chats} rows of {lengths[0]} to {lengths[-1]}": mix,
    }


def prompts(count: int, length: int) -> list[np.ndarray]:
    """Return `count` prompts of random tokens."""
    rng = np.random.default_rng(count)
    return [rng.integers(100, 49152, length) for _ in range(count)]


# name: prompts, their length, samples of each, and the shortest and longest answer
SAMPLING = {
    "sample, batch 1": (1, 64, 1, 48, 48),
    "sample, batch 8, mixed lengths": (8, 64, 1, 8, 64),
    "sample, batch 32, mixed lengths": (32, 64, 1, 8, 64),
    "sample, 8 prompts x 8": (8, 128, 8, 32, 32),
}


def answer_lengths(count: int, low: int, high: int) -> list[int]:
    """Return how long each answer is, evenly from `low` to `high`."""
    return [int(length) for length in np.linspace(high, low, count).round()]


def ours(part: str, dtype: str) -> dict[str, Job]:
    """Return the jobs as the engine does them."""
    from tinker_officer._models import locate
    from tinker_officer.engine import lora, models, sampler, trainer

    base = models.load(NAME, locate(NAME), dtype=dtype)
    adapter = lora.Adapter.create(base, lora.LoraSpec(rank=RANK, seed=0))

    def step(examples: list[Any], training: Any) -> None:
        for _ in training.forward_backward(examples, "cross_entropy", {}):
            pass
        training.optim_step(trainer.AdamSettings(1e-4))

    def sample(count: int, length: int, group: int, low: int, high: int) -> None:
        sampling = sampler.Sampler(base)
        sampling._weights = kept  # the adapter is merged once, as in a server
        for number, (prompt, new) in enumerate(
            zip(prompts(count, length), answer_lengths(count, low, high), strict=True)
        ):
            spec = sampler.SampleSpec(prompt, num_samples=group, max_tokens=new, stop_tokens=(), seed=number)
            sampling.add(str(number), spec, adapter)
        while sampling.busy:
            sampling.step()

    if part == "sampling":
        kept = sampler.Sampler(base)._weights
        return {name: lambda job=job: sample(*job) for name, job in SAMPLING.items()}
    training = trainer.Trainer(base, adapter)
    jobs: dict[str, Job] = {"matmul": lambda: matmul(dtype)}
    for name, pairs in training_rows(dtype).items():
        examples = [
            trainer.Example(tokens, {"target_tokens": np.roll(tokens, -1), "weights": weights})
            for tokens, weights in pairs
        ]
        jobs[name] = lambda examples=examples: step(examples, training)
    return jobs


def theirs(part: str, dtype: str) -> dict[str, Job]:
    """Return the jobs as plain transformers and PEFT do them."""
    import peft
    import torch
    import transformers

    from tinker_officer._models import locate

    base = transformers.AutoModelForCausalLM.from_pretrained(locate(NAME), dtype=getattr(torch, dtype))

    def sample(count: int, length: int, group: int, _low: int, high: int) -> None:
        ids = torch.from_numpy(np.stack(prompts(count, length))).repeat_interleave(group, 0)
        options = {"do_sample": True, "max_new_tokens": high, "min_new_tokens": high}
        with torch.inference_mode():
            base.generate(ids, attention_mask=torch.ones_like(ids), **options)

    if part == "sampling":
        base.eval()
        return {name: lambda job=job: sample(*job) for name, job in SAMPLING.items()}
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
    model = peft.get_peft_model(base, peft.LoraConfig(r=RANK, lora_alpha=32, target_modules=targets))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step(pairs: Rows) -> None:
        for start in range(0, len(pairs), PADDED):
            add_gradient(pairs[start : start + PADDED])
        optimizer.step()
        optimizer.zero_grad()

    def add_gradient(pairs: Rows) -> None:
        longest = max(len(tokens) for tokens, _ in pairs)
        ids = torch.zeros(len(pairs), longest, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for i, (tokens, weights) in enumerate(pairs):
            n = len(tokens)
            ids[i, :n], mask[i, :n] = torch.from_numpy(tokens), 1
            labels[i, :n] = torch.from_numpy(np.where(weights > 0, np.roll(tokens, -1), -100))
        logits = model(input_ids=ids, attention_mask=mask).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").backward()

    return {name: lambda pairs=pairs: step(pairs) for name, pairs in training_rows(dtype).items()}


def matmul(dtype: str) -> None:
    """Multiply as long as half a second lasts on two idle cores; in bfloat16 as the engine would."""
    import torch

    from tinker_officer.engine.kernels import bfloat16_units, linear

    weight = torch.ones(2048, 2048, dtype=getattr(torch, dtype))
    x = torch.ones(1024, 2048, dtype=weight.dtype if bfloat16_units() else torch.float32)
    for _ in range(MATMULS):
        linear(x, weight)


MATMULS = 8
MATMUL_FLOPS = MATMULS * 2 * 1024 * 2048 * 2048


def useful_flops(pairs: Rows) -> float:
    """Return the arithmetic that one training step on `pairs` cannot do without."""
    hidden, heads, layers, vocab = 576, 576, 30, 49152
    inner = layers * hidden * (960 + 576 + 3072 + 1536)
    lora = layers * RANK * (3 * hidden + 960 + 2 * hidden + 2 * hidden + 3072 + 1536 + hidden)
    head, head_lora = vocab * hidden, RANK * (hidden + vocab)
    total = 0.0
    for tokens, weights in pairs:
        n, trained = len(tokens), int((weights > 0).sum())
        total += n * (4 * inner + 6 * lora) + 3 * 2 * n * n * heads * layers
        total += n * 2 * (head + head_lora) + trained * (2 * head + 4 * head_lora)
    return total


def work(side: str, part: str, dtype: str, threads: int, *, cpu_time: bool) -> None:
    """Do the jobs that standard input names, and answer each with its seconds and the peak memory."""
    import torch

    def clock() -> float:
        return time.process_time() / threads if cpu_time else time.perf_counter()

    torch.set_num_threads(threads)
    jobs = (ours if side == "ours" else theirs)(part, dtype)
    print("ready", flush=True)
    for line in sys.stdin:
        began = clock()
        jobs[line.strip()]()
        seconds = clock() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps([seconds, peak]), flush=True)


class Side:
    """A process that does the jobs of one side."""

    def __init__(self, side: str, part: str, dtype: str, asked: argparse.Namespace) -> None:
        threads = asked.threads
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        env["GOMP_SPINCOUNT"] = "3000"  # plain torch gains from it, too
        if side == "ours":
            from tinker_officer.engine.settings import compute_environment

            env |= compute_environment(threads)
        command = [
            sys.executable,
            __file__,
            part,
            "--side",
            side,
            "--dtype",
            dtype,
            "--threads",
            str(threads),
        ]
        self.process = subprocess.Popen(
            command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.best: dict[str, float] = {}
        self.peaks: dict[str, float] = {}
        self._line("ready")

    def _line(self, what: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(("ready", "[")):
                return line
        sys.exit(f"a process ended before it said {what}")

    def do(self, job: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{job}\n")
        self.process.stdin.flush()
        seconds, self.peaks[job] = json.loads(self._line(job))
        self.best[job] = min(seconds, self.best.get(job, seconds))

    def repeat(self, job: str, turns: int, *, beside: str) -> None:
        """Do a job some times, one after the other, and another, if any, before each."""
        began = time.monotonic()
        for turn in range(turns):
            if turn and time.monotonic() - began > LONG_S:
                break
            if beside:
                self.do(beside)
            self.do(job)


def compare(part: str, dtype: str, asked: argparse.Namespace) -> str:
    """Let both sides do every job in turn, and return the table."""
    mine, other = (Side(side, part, dtype, asked) for side in ("ours", "theirs"))
    rows = training_rows(dtype) if part == "training" else {}
    units = {name: sum(len(tokens) for tokens, _ in pairs) for name, pairs in rows.items()}
    if part == "sampling":
        units = {name: sum(answer_lengths(n, a, b)) * g for name, (n, _, g, a, b) in SAMPLING.items()}
    for name in units:
        for side in (mine, other):
            side.repeat(name, asked.turns, beside="matmul" if rows and side is mine else "")
    second = "s of CPU time" if asked.cpu_time else "s"
    lines = [
        f"| {dtype}, tokens/{second}, best of {asked.turns} | engine | plain | ratio | share of matmul |"
    ]
    lines.append("| --- | --: | --: | --: | --- |")
    for name, count in units.items():
        a, b = mine.best[name], other.best[name]
        share = ""
        if rows:
            peak = MATMUL_FLOPS / mine.best["matmul"]
            rate = useful_flops(rows[name]) / a
            share = f"{rate / 1e9:.0f} of {peak / 1e9:.0f} GFLOP/s, {rate / peak:.0%}"
        lines.append(f"| {name} | {count / a:.0f} | {count / b:.0f} | {b / a:.2f} | {share} |")
    for job in list(units) if rows else list(units)[-1:]:
        what = f"peak memory, {job}, GB" if rows else "peak memory, GB"
        lines.append(f"| {what} | {mine.peaks[job]:.1f} | {other.peaks[job]:.1f} | | |")
    for side in (mine, other):
        side.process.kill()
    return "\n".join(lines)


TINY = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
SHORT = {"target_tokens": np.array([4, 5, 6]), "weights": np.ones(3, np.float32)}  # of the tokens 3, 4, 5


def through_sdk(service: Any, model: str) -> tuple[float, float]:
    """Return how many pairs a second a server does for the SDK, and the milliseconds of a sample request."""
    import tinker

    client = service.create_lora_training_client(model, rank=4).result()
    tokens, one = tinker.ModelInput.from_ints([3, 4, 5]), tinker.SamplingParams(max_tokens=1)
    inputs = {
        name: tinker.TensorData(
            data=data.tolist(), dtype="int64" if data.dtype.kind == "i" else "float32", shape=[3]
        )
        for name, data in SHORT.items()
    }
    datum = tinker.Datum(model_input=tokens, loss_fn_inputs=inputs)

    def pairs(count: int) -> float:
        began = time.perf_counter()
        futures: list[Any] = []
        for _ in range(count):
            futures.append(client.forward_backward([datum], "cross_entropy"))
            futures.append(client.optim_step(tinker.AdamParams(learning_rate=1e-4)))
        for future in futures:
            future.result()
        return count / (time.perf_counter() - began)

    pairs(20)
    rate = max(pairs(200) for _ in range(3))
    sampler = client.save_weights_and_get_sampling_client().result()
    return rate, min(_median_ms(lambda: sampler.sample(tokens, 1, one).result()) for _ in range(3))


def computed(model: str) -> tuple[float, float]:
    """Return the same of the arithmetic alone, without a server: here, one request after another."""
    import torch

    from tinker_officer.engine import lora, models, sampler, trainer

    torch.set_num_threads(1)
    base = models.load(model, Path(model))
    adapter = lora.Adapter.create(base, lora.LoraSpec(rank=4, seed=0))
    training, sampling = trainer.Trainer(base, adapter), sampler.Sampler(base)
    tokens = np.array([3, 4, 5])

    def pair() -> None:
        for _ in training.forward_backward([trainer.Example(tokens, SHORT)], "cross_entropy"):
            pass
        training.optim_step(trainer.AdamSettings(1e-4))

    def sample() -> None:
        sampling.add("", sampler.SampleSpec(tokens, num_samples=1, max_tokens=1), adapter)
        while sampling.busy:
            sampling.step()

    return 1e3 / min(_median_ms(pair) for _ in range(3)), min(_median_ms(sample) for _ in range(3))


def _median_ms(job: Job) -> float:
    times = []
    for _ in range(200):
        began = time.perf_counter()
        job()
        times.append(time.perf_counter() - began)
    return sorted(times[50:])[75] * 1e3  # the first ones warm up


FRESH = """
import sys
from tinker_officer import LocalEngine
with LocalEngine(root=sys.argv[1]) as engine:
    engine.service_client().create_lora_training_client(sys.argv[2], rank=4).result()
    print("ready", flush=True)
"""


def first_client_s(root: str, model: str) -> float:
    """Return the seconds from the start of a process to its first training client, imports and all."""
    began = time.perf_counter()
    command = [sys.executable, "-c", FRESH, root, model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as fresh:
        assert fresh.stdout is not None
        assert fresh.stdout.readline() == "ready\n"
        return time.perf_counter() - began


def overhead() -> str:
    """Measure the protocol on a model whose arithmetic is next to nothing, and return the table."""
    import tinker
    import transformers

    from tinker_officer import LocalEngine

    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/tiny"
        config = transformers.AutoConfig.for_model("llama", **TINY, tie_word_embeddings=True)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(model)
        began = time.perf_counter()
        with LocalEngine(root=f"{folder}/engine") as engine:
            ready = time.perf_counter() - began
            found = [through_sdk(engine.service_client(), model)]
        found.append(computed(model))
        first = min(first_client_s(f"{folder}/fresh", model) for _ in range(3))
    command = [sys.executable, str(Path(__file__).with_name("_at_once.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bare:
        assert bare.stdout is not None
        url = f"http://127.0.0.1:{int(bare.stdout.readline())}"
        found.append(through_sdk(tinker.ServiceClient(base_url=url, api_key=engine.token), "tiny"))
        bare.kill()
    pairs, median_ms = zip(*found, strict=True)
    lines = ["| a tiny model | engine | its arithmetic alone | the SDK with a server that answers at once |"]
    lines.append("| --- | --: | --: | --: |")
    row = "forward_backward + optim_step, pipelined, pairs/s"
    lines.append(f"| {row} | {' | '.join(f'{rate:.0f}' for rate in pairs)} |")
    row = "a sample request of one token, the median of 150, ms"
    lines.append(f"| {row} | {' | '.join(f'{ms:.1f}' for ms in median_ms)} |")
    lines.append(f"| ready, s | {ready:.2f} | | |")
    lines.append(f"| a fresh process to its first training client, s | {first:.1f} | | |")
    return "\n".join(lines)


def main() -> None:
    """Run a part, in processes of their own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="?", choices=("training", "bfloat16", "sampling", "overhead"))
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="into docs/explanation/engine-speed.md too")
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that others use too")
    asked = parser.parse_args()
    if asked.side:
        work(asked.side, asked.part, asked.dtype, asked.threads, cpu_time=asked.cpu_time)
        return
    for part in (asked.part,) if asked.part else ("training", "bfloat16", "sampling", "overhead"):
        dtype = "bfloat16" if part == "bfloat16" else "float32"
        side = "training" if part == "bfloat16" else part
        found = overhead() if part == "overhead" else compare(side, dtype, asked)
        found = f"{_page.machine()}:\n\n{found}"
        print(found, flush=True)
        if asked.write:
            _page.write("engine-speed", "engine", found, part=part)


if __name__ == "__main__":
    main()
