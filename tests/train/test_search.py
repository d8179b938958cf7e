"""A sweep whose values Optuna proposes: told what came of them, pruned, killed and gone on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution

from tinker_officer import LocalEngine, Run, Sweep
from tinker_officer.errors import RunError


RATES = FloatDistribution(1e-5, 1e-2, log=True)
optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module")
def sweep(make_run: Callable[..., Run]) -> Sweep:
    """A sweep of runs of four steps, by the loss that they train on."""
    return Sweep(make_run(count=8, epochs=2)).over(rank=[4, 8])


def study(seed: int = 0) -> optuna.Study:
    """A study that is to minimise, whose proposals follow from `seed`."""
    return optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=seed))


def test_what_is_proposed_is_trained_and_told(sweep: Sweep, engine: LocalEngine, tmp_path: Path) -> None:
    """Each proposal is a run of its own, the study knows its score, and the best is the study's best."""
    asked = study()
    found = sweep.search(
        engine, tmp_path, trials=3, study=asked, learning_rate=RATES, at_once=2, progress=False
    )
    assert [trial.settings for trial in found.trials] == [one.params for one in asked.trials]
    assert [trial.score for trial in found.trials] == [one.value for one in asked.trials]
    assert found.best.settings == asked.best_params
    assert found.best.result.stopped == "completed"
    assert found.best.result.plan["computed"]["rank"] == asked.best_params["rank"]
    assert len(found.rows()) == 3


class Breaks(optuna.pruners.NopPruner):
    """A pruner of the user's that breaks at the second trial."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Break, or let the trial go on."""
        if trial.number == 1:
            raise ConnectionError("the storage is gone")
        return super().prune(study, trial)


def test_a_search_that_broke_off_goes_on_as_if_it_had_not(
    sweep: Sweep, engine: LocalEngine, tmp_path: Path
) -> None:
    """What had ended is told again, what had begun is proposed first, and nothing is trained twice."""
    halved = sweep.halving(at=(0.5,))
    breaks = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=Breaks())
    with pytest.raises(ConnectionError):
        halved.search(engine, tmp_path, trials=3, study=breaks, learning_rate=RATES, progress=False)
    begun = [json.loads(line) for line in (tmp_path / "standings.jsonl").read_text().splitlines()]
    assert [one["share"] for one in begun] == [0.5, 1.0, 0.5]
    asked = study()
    found = halved.search(engine, tmp_path, trials=3, study=asked, learning_rate=RATES, progress=False)
    proposed = [trial.settings for trial in found.trials]
    assert len(proposed) == 3
    assert proposed[:2] == [one.params for one in breaks.trials]
    # The new sampler begins where the old one did; what it proposes again is told, and not trained.
    assert [one.params for one in asked.trials] == [*proposed[:2], *proposed]
    for trial in found.trials:
        ledger = [json.loads(line) for line in (trial.folder / "ledger.jsonl").read_text().splitlines()]
        assert [one["step"] for one in ledger if "step" in one] == [1, 2, 3, 4]
        assert sum("resumed_at" in one for one in ledger) == 2  # one start for each rung


def test_the_pruner_is_asked_at_each_rung(sweep: Sweep, engine: LocalEngine, tmp_path: Path) -> None:
    """A trial that is worse than the median at a rung is not trained further, also after a restart."""
    asked = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0))
    for rate in (5e-3, 1e-5):
        asked.enqueue_trial({"learning_rate": rate, "rank": 4})
    halved = sweep.halving(at=(0.5,))
    found = halved.search(engine, tmp_path, trials=2, study=asked, learning_rate=RATES, progress=False)
    assert [one.state.name for one in asked.trials] == ["COMPLETE", "PRUNED"]
    assert [trial.whole for trial in found.trials] == [True, False]
    again = study()
    repeated = halved.search(engine, tmp_path, trials=2, study=again, learning_rate=RATES, progress=False)
    assert repeated.rows() == found.rows()
    assert [one.state.name for one in again.trials] == ["COMPLETE", "PRUNED"]


def test_a_search_that_cannot_be_is_refused(sweep: Sweep, engine: LocalEngine, tmp_path: Path) -> None:
    """A setting that is not known, and a study that looks for the other end."""
    with pytest.raises(RunError, match="did you mean 'learning_rate'"):
        sweep.search(engine, tmp_path, trials=1, learning_rat=RATES)
    wrong = optuna.create_study(direction="maximize")
    with pytest.raises(RunError, match="wrong end"):
        sweep.search(engine, tmp_path, trials=1, study=wrong, learning_rate=RATES)
