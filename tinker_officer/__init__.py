"""Plan, train, evaluate, decide and record fine-tuning on Tinker, or on your laptop."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from tinker_officer import errors as errors
    from tinker_officer.data.conversations import Conversations as Conversations
    from tinker_officer.data.measure import TokenCounts as TokenCounts
    from tinker_officer.data.pair_counts import PairCounts as PairCounts
    from tinker_officer.data.pairs import Pairs as Pairs
    from tinker_officer.engine import LocalEngine as LocalEngine
    from tinker_officer.evals import graders as graders
    from tinker_officer.evals.scorecard import Scorecard as Scorecard
    from tinker_officer.evals.suite import EvalSuite as EvalSuite
    from tinker_officer.plan.counts import EpisodeCounts as EpisodeCounts
    from tinker_officer.plan.plan import LoRAPlan as LoRAPlan
    from tinker_officer.registry.gate import Gate as Gate
    from tinker_officer.registry.registry import Registry as Registry
    from tinker_officer.train import sinks as sinks
    from tinker_officer.train.result import RunResult as RunResult
    from tinker_officer.train.rewards import Reward as Reward
    from tinker_officer.train.run import Run as Run
    from tinker_officer.train.sweep import Sweep as Sweep
    from tinker_officer.train.teacher import Teacher as Teacher

__version__ = "0.1.0"

# Where each public name lives. Loaded on first use (PEP 562), so that `import tinker_officer` stays fast
# and loads no torch, transformers or inspect_ai.
_HOMES = {
    "Conversations": "data.conversations",
    "EpisodeCounts": "plan.counts",
    "EvalSuite": "evals.suite",
    "Gate": "registry.gate",
    "LoRAPlan": "plan.plan",
    "LocalEngine": "engine",
    "PairCounts": "data.pair_counts",
    "Pairs": "data.pairs",
    "Registry": "registry.registry",
    "Reward": "train.rewards",
    "Run": "train.run",
    "RunResult": "train.result",
    "Scorecard": "evals.scorecard",
    "Sweep": "train.sweep",
    "Teacher": "train.teacher",
    "TokenCounts": "data.measure",
}
_MODULES = {"errors": "errors", "graders": "evals.graders", "sinks": "train.sinks"}

__all__ = [
    "Conversations",
    "EpisodeCounts",
    "EvalSuite",
    "Gate",
    "LoRAPlan",
    "LocalEngine",
    "PairCounts",
    "Pairs",
    "Registry",
    "Reward",
    "Run",
    "RunResult",
    "Scorecard",
    "Sweep",
    "Teacher",
    "TokenCounts",
    "errors",
    "graders",
    "sinks",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
