"""Trials of a search in a journal that workers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mu.bench.events import JobEnded, Outcome
from mu.bench.executors.serial import Serial
from mu.bench.search import _best, _on_validation, _seeds
from mu.bench.study_file import read_study
from mu.bench.trials import SearchBench, Trial, nested
from mu.metrics.results import Result
from mu.metrics.run_results import Measurement, RunResults
from tests.bench.small_study import STUDY, written

SPACE = {"alpha": {"low": 1.0, "high": 9.0}, "lam": {"choices": [0.25, 0.5]}}


@pytest.fixture(autouse=True)
def instant_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose gap is the setting's alpha, without training."""

    def runs(self: SearchBench, job: Trial, setting: dict[str, Any]) -> list[Outcome]:
        return [Outcome(job, "ran", Path(str(setting["alpha"])))]

    def load(folder: Path) -> RunResults:
        gap = Result("avg_gap", float(str(folder)), False, "", "pp")
        measurement = Measurement("callbacks.RetrainGap", results=[gap])
        return RunResults("random", "SSD", [measurement], seconds={"edit": 2.0})

    monkeypatch.setattr(SearchBench, "_runs", runs)
    monkeypatch.setattr("mu.bench.trials.RunResults.load", load)


def bench(folder: Path, trials: int = 4) -> SearchBench:
    """Bench of a search of SSD, as any process would build it."""
    method = {**STUDY["methods"]["SSD"], "search": SPACE}
    search = {"trials": trials, "seeds": [50]}
    study = read_study(written(folder, methods={"SSD": method}, search=search))
    return SearchBench(_on_validation(study, _seeds(study)), debug=True)


def trials_of(searching: SearchBench) -> list[Trial]:
    return [job for job in searching.edges() if isinstance(job, Trial)]


def run(searching: SearchBench, trials: list[Trial]) -> list[str]:
    """States of trials, one after the other."""
    states = []
    for trial in trials:
        work = searching.begin(trial)
        outcome = work() if callable(work) else work
        assert outcome is not None
        states.append(outcome.state)
    return states


def settings(searching: SearchBench) -> dict[int, dict[str, Any]]:
    """Setting by index."""
    stored = searching.optimiser("random", "SSD").get_trials(deepcopy=False)
    return {trial.user_attrs["index"]: trial.user_attrs["setting"] for trial in stored}


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Fails when the trials after an interruption are others than without one."""
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    uninterrupted = bench(tmp_path / "whole")
    assert run(uninterrupted, trials_of(uninterrupted)) == ["ran"] * 4
    cut = bench(tmp_path / "cut")
    run(cut, trials_of(cut)[:2])
    again = bench(tmp_path / "cut")
    assert run(again, trials_of(again)) == ["reused", "reused", "ran", "ran"]
    assert settings(again) == settings(uninterrupted)
    assert len({str(setting) for setting in settings(uninterrupted).values()}) == 4


def test_a_trial_of_a_dead_worker_is_taken_up_with_its_setting(tmp_path: Path) -> None:
    """Fails when a trial is lost, or asked for twice."""
    dying = bench(tmp_path)
    (first, *_) = trials_of(dying)
    work = dying.begin(first)
    asked = settings(dying)
    other = bench(tmp_path)
    assert other.begin(first) is None, "its worker lives"
    del work, dying
    assert run(other, [first]) == ["ran"]
    assert settings(other) == asked and len(asked) == 1
    best = _best(other, "random", "SSD", ("avg_gap",))
    assert best is not None
    summary = best["searched"]
    assert (summary["trials"], summary["seconds"]) == (1, 2.0)
    assert summary["gap"] == asked[0]["alpha"]


def test_more_trials_add_to_those_that_are_there(tmp_path: Path) -> None:
    small = bench(tmp_path, trials=2)
    run(small, trials_of(small))
    larger = bench(tmp_path, trials=3)
    assert run(larger, trials_of(larger)) == ["reused", "reused", "ran"]


def test_another_range_is_another_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when trials of an old range count for a new one."""
    before = bench(tmp_path)
    run(before, trials_of(before))
    monkeypatch.setitem(SPACE, "alpha", {"low": 1.0, "high": 2.0})
    after = bench(tmp_path)
    assert run(after, trials_of(after)) == ["ran"] * 4
    assert all(setting["alpha"] <= 2.0 for setting in settings(after).values())


def test_trials_of_one_method_run_beside_each_other_where_workers_would_idle(
    tmp_path: Path,
) -> None:
    """Fails when one method's search uses one worker of many."""
    searching = bench(tmp_path)
    needs = [searching.edges()[trial] for trial in trials_of(searching)]
    assert [[job.role for job in jobs] for jobs in needs[1:]] == [["trial"]] * 3
    searching.width = 2
    trials = trials_of(searching)
    edges = searching.edges()
    assert edges[trials[1]] == edges[trials[0]] and edges[trials[2]] == [trials[0]]


def test_an_executor_runs_every_trial_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mu.bench.runner.Bench.begin", lambda self, job, wait=False: Outcome(job, "reused")
    )
    searching = bench(tmp_path)
    ends = [event.job for event in Serial().execute(searching) if isinstance(event, JobEnded)]
    assert [job for job in ends if isinstance(job, Trial)] == trials_of(searching)
    assert len(settings(searching)) == 4


def test_a_nested_argument_is_written_with_init_args() -> None:
    assert nested("optimizer.lr", 0.1) == {"optimizer": {"init_args": {"lr": 0.1}}}
