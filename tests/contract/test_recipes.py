"""The cookbook's own recipes, unmodified, with small data and few steps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import chz
import datasets
import numpy as np
import pytest
import tinker
from tinker_cookbook import model_info
from tinker_cookbook.distillation import train_off_policy, train_on_policy
from tinker_cookbook.distillation.datasets import DistillationDatasetConfig, TeacherConfig
from tinker_cookbook.eval import run_inspect_evals
from tinker_cookbook.preference import train_dpo
from tinker_cookbook.preference.dpo_datasets import DPODatasetBuilderFromComparisons
from tinker_cookbook.preference.preference_datasets import (
    ChatDatasetBuilderFromComparisons,
    ComparisonDatasetBuilder,
)
from tinker_cookbook.preference.types import (
    Comparison,
    LabeledComparison,
    PreferenceModelBuilderFromChatRenderer,
)
from tinker_cookbook.recipes.math_rl.arithmetic_env import ArithmeticDatasetBuilder
from tinker_cookbook.rl import preference_envs
from tinker_cookbook.rl import train as rl_train
from tinker_cookbook.supervised import train as supervised_train
from tinker_cookbook.supervised.data import FromConversationFileBuilder
from tinker_cookbook.supervised.types import ChatDatasetBuilderCommonConfig


@attrs.frozen
class Kitchen:
    """What every recipe here takes."""

    model: str
    renderer: str
    folder: Path
    base_url: str

    def common(self, name: str) -> dict[str, Any]:
        """The arguments that all of the cookbook's configurations share."""
        return {
            "log_path": str(self.folder / name),
            "model_name": self.model,
            "renderer_name": self.renderer,
            "recipe_name": f"contract_{name}",
            "lora_rank": 4,
            "learning_rate": 1e-3,
            "base_url": self.base_url,
        }

    def rows(self) -> ChatDatasetBuilderCommonConfig:
        return ChatDatasetBuilderCommonConfig(
            model_name_for_tokenizer=self.model, renderer_name=self.renderer, max_length=256, batch_size=4
        )

    def conversations(self) -> FromConversationFileBuilder:
        path = self.folder / "conversations.jsonl"
        if not path.exists():
            path.write_text(
                "".join(
                    json.dumps(
                        {
                            "messages": [
                                {"role": "user", "content": f"What is {n} and one?"},
                                {"role": "assistant", "content": f"It is {n + 1}."},
                            ]
                        }
                    )
                    + "\n"
                    for n in range(16)
                )
            )
        return FromConversationFileBuilder(file_path=str(path), test_size=4, common_config=self.rows())

    def sums(self, batches: int = 2) -> ArithmeticDatasetBuilder:
        return ArithmeticDatasetBuilder(
            batch_size=4,
            model_name_for_tokenizer=self.model,
            renderer_name=self.renderer,
            n_batches=batches,
            group_size=4,
            include_fewshot=False,
        )

    def metrics(self, name: str, key: str) -> list[float]:
        """What a recipe logged under `key`, step by step."""
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [row[key] for row in map(json.loads, lines) if key in row]

    def last_checkpoint(self, name: str) -> dict[str, Any]:
        lines = (self.folder / name / "checkpoints.jsonl").read_text().splitlines()
        last: dict[str, Any] = json.loads(lines[-1])
        return last


@chz.chz
class Politeness(ComparisonDatasetBuilder):
    """Comparisons in which the polite answer wins."""

    def get_train_and_test_datasets(self) -> tuple[datasets.Dataset, datasets.Dataset]:
        rows = [
            {"question": f"May I have {n}?", "good": f"Please take {n}.", "bad": "No."} for n in range(12)
        ]
        return datasets.Dataset.from_list(rows[4:]), datasets.Dataset.from_list(rows[:4])

    def example_to_labeled_comparison(self, example: dict[str, str]) -> LabeledComparison:
        return LabeledComparison(
            comparison=Comparison(
                prompt_conversation=[{"role": "user", "content": example["question"]}],
                completion_A=[{"role": "assistant", "content": example["good"]}],
                completion_B=[{"role": "assistant", "content": example["bad"]}],
            ),
            label="A",
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture
def kitchen(
    model: str, local: bool, address: tuple[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Kitchen:
    monkeypatch.setenv("TINKER_BASE_URL", address[0])
    monkeypatch.setenv("TINKER_API_KEY", address[1])
    renderer = "qwen3_instruct" if local else model_info.get_recommended_renderer_name(model)
    return Kitchen(model, renderer, folder, address[0])


def _finite(values: list[float]) -> bool:
    return bool(values) and bool(np.isfinite(values).all())


@pytest.fixture
def supervised(kitchen: Kitchen) -> Callable[[], dict[str, Any]]:
    """Train once, for all tests that need what came out."""

    def trained() -> dict[str, Any]:
        if not (kitchen.folder / "sft" / "checkpoints.jsonl").exists():
            config = supervised_train.Config(
                **kitchen.common("sft"),
                dataset_builder=kitchen.conversations(),
                num_epochs=4,
                eval_every=3,
                save_every=6,
            )
            asyncio.run(supervised_train.main(config))
        return kitchen.last_checkpoint("sft")

    return trained


def test_supervised(kitchen: Kitchen, supervised: Callable[[], dict[str, Any]]) -> None:
    """`supervised.train`."""
    checkpoint = supervised()
    losses = kitchen.metrics("sft", "train_mean_nll")
    assert losses[-1] < losses[0]
    assert _finite(kitchen.metrics("sft", "test/nll"))
    assert {"state_path", "sampler_path"} <= checkpoint.keys()


MODES: dict[str, dict[str, Any]] = {
    "sync": {},
    "async": {"async_config": rl_train.AsyncConfig(max_steps_off_policy=2, groups_per_batch=4)},
    "stream-minibatch": {
        "stream_minibatch_config": rl_train.StreamMinibatchConfig(groups_per_batch=4, num_minibatches=2)
    },
    "ppo-and-kl": {
        "loss_fn": "ppo",
        "kl_penalty_coef": 0.1,
        "num_substeps": 2,
        "compute_post_kl": True,
    },
}


@pytest.mark.parametrize("mode", MODES)
def test_rl(kitchen: Kitchen, mode: str) -> None:
    """`rl.train`."""
    given = dict(MODES[mode])
    if "kl_penalty_coef" in given:
        given["kl_reference_config"] = rl_train.KLReferenceConfig(base_model=kitchen.model)
    config = rl_train.Config(
        **kitchen.common(f"rl-{mode}"),
        dataset_builder=kitchen.sums(),
        max_tokens=8,
        eval_every=0,
        save_every=0,
        **given,
    )
    asyncio.run(rl_train.main(config))
    gaps = kitchen.metrics(f"rl-{mode}", "optim/kl_sample_train_v2")
    assert len(gaps) == 2
    assert _finite(gaps)
    if mode in {"sync", "stream-minibatch"}:  # elsewhere a step may come before what was sampled is used
        assert max(gaps) < 1e-4
    assert kitchen.last_checkpoint(f"rl-{mode}")["name"] == "final"


def test_dpo(kitchen: Kitchen) -> None:
    """`preference.train_dpo`."""
    config = train_dpo.Config(
        **kitchen.common("dpo"),
        dataset_builder=DPODatasetBuilderFromComparisons(
            common_config=kitchen.rows(), comparison_builder=Politeness()
        ),
        num_epochs=4,
        save_every=0,
        eval_every=0,
    )
    train_dpo.main(config)
    losses = kitchen.metrics("dpo", "dpo_loss")
    assert losses[0] == pytest.approx(np.log(2), rel=1e-3)  # the policy begins as its reference
    assert losses[-1] < losses[0]


def test_preference_model_and_rlhf(kitchen: Kitchen) -> None:
    """A preference model, and RL against it (`recipes.preference.rlhf`)."""
    config = supervised_train.Config(
        **kitchen.common("rm"),
        dataset_builder=ChatDatasetBuilderFromComparisons(
            common_config=kitchen.rows(), comparison_builder=Politeness()
        ),
        num_epochs=3,
        save_every=0,
        eval_every=0,
    )
    asyncio.run(supervised_train.main(config))
    losses = kitchen.metrics("rm", "train_mean_nll")
    assert losses[-1] < losses[0]

    judge = PreferenceModelBuilderFromChatRenderer(
        renderer_name=kitchen.renderer,
        model_name=kitchen.model,
        rm_weights_path=kitchen.last_checkpoint("rm")["sampler_path"],
        base_url=kitchen.base_url,
    )
    asyncio.run(
        rl_train.main(
            rl_train.Config(
                **kitchen.common("rlhf"),
                dataset_builder=preference_envs.PairwisePreferenceRLDatasetBuilder(
                    comparison_builder=Politeness(),
                    policy_renderer_name=kitchen.renderer,
                    policy_model_name=kitchen.model,
                    preference_model_builder=judge,
                    batch_size=4,
                    group_size=2,
                ),
                max_tokens=8,
                eval_every=0,
                save_every=0,
                max_steps=1,
            )
        )
    )
    assert _finite(kitchen.metrics("rlhf", "optim/kl_sample_train_v2"))


def test_distillation_on_policy(kitchen: Kitchen, supervised: Callable[[], dict[str, Any]]) -> None:
    """`distillation.train_on_policy`."""
    teacher = TeacherConfig(base_model=kitchen.model, load_checkpoint_path=supervised()["sampler_path"])
    given = kitchen.common("on-policy")
    config = train_on_policy.Config(
        **given,
        dataset_configs=[
            DistillationDatasetConfig(
                dataset_builder=kitchen.sums(), teacher_config=teacher, groups_per_batch=4
            )
        ],
        max_tokens=8,
        eval_every=0,
        save_every=0,
    )
    asyncio.run(train_on_policy.main(config))
    assert _finite(kitchen.metrics("on-policy", "teacher_kl"))


def test_distillation_off_policy(kitchen: Kitchen, supervised: Callable[[], dict[str, Any]]) -> None:
    """`distillation.train_off_policy`."""
    teacher = TeacherConfig(base_model=kitchen.model, load_checkpoint_path=supervised()["sampler_path"])
    config = train_off_policy.Config(
        **kitchen.common("off-policy"),
        dataset_configs=[
            train_off_policy.DatasetWithTeacher(
                dataset_builder=kitchen.conversations(), teacher_config=teacher
            )
        ],
        n_teacher_targets=5,
        batch_size=4,
        save_every=0,
        eval_every=0,
        max_steps=2,
    )
    asyncio.run(train_off_policy.main(config))
    assert _finite(kitchen.metrics("off-policy", "train/loss:sum"))


def test_inspect(kitchen: Kitchen, supervised: Callable[[], dict[str, Any]]) -> None:
    """`eval.run_inspect_evals` of a trained checkpoint."""
    from inspect_ai import Task, task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.log import list_eval_logs, read_eval_log
    from inspect_ai.scorer import includes

    @task
    def sums() -> Task:
        samples = [Sample(input=f"What is {n} and one?", target=str(n + 1)) for n in range(3)]
        return Task(dataset=MemoryDataset(samples, name="sums"), scorer=includes())

    config = run_inspect_evals.Config(
        tasks=[sums()],
        model_path=supervised()["sampler_path"],
        renderer_name=kitchen.renderer,
        max_tokens=8,
        log_dir=str(kitchen.folder / "inspect"),
    )
    asyncio.run(run_inspect_evals.main(config))
    (log,) = (read_eval_log(one) for one in list_eval_logs(str(kitchen.folder / "inspect")))
    assert log.status == "success"
    assert [sample.error for sample in log.samples or ()] == [None] * 3


@pytest.mark.parametrize("kind", ["training", "external"])
def test_downloading(kitchen: Kitchen, stirred: tinker.TrainingClient, kind: str, ask: Any) -> None:
    """`weights.download`, then `build_lora_adapter`: PEFT gives the same log-probabilities."""
    import peft
    import torch
    import transformers
    from tinker_cookbook import weights

    save = {"training": stirred.save_state, "external": stirred.save_weights_external}[kind]
    path = save(f"download-{kind}").result().path
    raw, built = kitchen.folder / f"raw-{kind}", kitchen.folder / f"peft-{kind}"
    weights.download(tinker_path=path, output_dir=str(raw), base_url=kitchen.base_url)
    weights.build_lora_adapter(base_model=kitchen.model, adapter_path=str(raw), output_path=str(built))

    base = transformers.AutoModelForCausalLM.from_pretrained(kitchen.model, dtype=torch.float32)
    got = _logprobs(peft.PeftModel.from_pretrained(base, str(built)), ask.tokens(13))
    np.testing.assert_allclose(got, ask.logprobs(stirred, ask.datum()), atol=1e-4)


def test_merging(kitchen: Kitchen, new: Any, ask: Any) -> None:
    """`build_hf_model`: the merged model gives the same log-probabilities (no LoRA on a tied head)."""
    import torch
    import transformers
    from tinker_cookbook import weights

    client = new(train_unembed=False)
    ask.fit(client, steps=2)
    path = client.save_weights_external("merge").result().path
    raw, merged = kitchen.folder / "raw-merge", kitchen.folder / "merged"
    weights.download(tinker_path=path, output_dir=str(raw), base_url=kitchen.base_url)
    weights.build_hf_model(
        base_model=kitchen.model, adapter_path=str(raw), output_path=str(merged), dtype="float32"
    )

    model = transformers.AutoModelForCausalLM.from_pretrained(str(merged), dtype=torch.float32)
    np.testing.assert_allclose(_logprobs(model, ask.tokens(13)), ask.logprobs(client, ask.datum()), atol=1e-4)


def _logprobs(model: Any, chain: list[int]) -> np.ndarray:
    """What transformers says of each token of a chain, given those before it."""
    import torch

    tokens = torch.tensor([chain])
    with torch.no_grad():
        logits = model(input_ids=tokens[:, :-1]).logits[0].log_softmax(-1)
    return np.asarray(logits.gather(1, tokens[0, 1:, None])[:, 0].numpy())
