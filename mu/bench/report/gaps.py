"""Gaps to the oracle of the same seeds, added to runs that did not measure them."""

from __future__ import annotations

from collections.abc import Sequence

from mu.bench.report.runs import ORACLE, RunEntry, TaskRuns
from mu.metrics.gap import PAPERS_FOUR, average_gap
from mu.utils.errors import InputError


def partner(run: RunEntry, candidates: Sequence[RunEntry]) -> RunEntry | None:
    """Oracle or original with the seeds of a run; None when there is none.

    Runs of a study are paired by their seeds. A run from outside does not know its original's
    training seed: it is paired with the only candidate of its split.

    Args:
        run: the run.
        candidates: the oracles, or the originals, of the task.

    Raises:
        InputError: when the pair was made on different splits.
    """
    same = [other for other in candidates if other.record.seeds == run.record.seeds]
    if not same and not run.of_study:
        same = [other for other in candidates if _split(other) == _split(run)] or list(candidates)
    if len(same) != 1:
        return None
    other = same[0]
    if _split(run) != _split(other):
        raise InputError(
            f"{run.name} was made on split {_split(run)}, but the {other.method} in {other.name} "
            f"on split {_split(other)}, so there is no gap between them; run both on one split, "
            "or report them apart."
        )
    return other


def gap_metrics(task: TaskRuns) -> list[str]:
    """Metrics of the task's average gap: as its runs recorded, or the papers' four, or none.

    The papers' four are taken where no run recorded a gap and every oracle measured them.

    Raises:
        InputError: when two runs averaged over different metrics.
    """
    recorded: dict[tuple[str, ...], RunEntry] = {}
    for run in task.runs:
        for result in run.record.results:
            if result.metric == "avg_gap" and result.detail.get("metrics"):
                recorded.setdefault(tuple(result.detail["metrics"]), run)
    if len(recorded) > 1:
        (metrics, run), (other_metrics, other) = list(recorded.items())[:2]
        raise InputError(
            f"{run.name} averages its gap over {', '.join(metrics)}, but {other.name} over "
            f"{', '.join(other_metrics)}; measure both alike, or report them apart."
        )
    if recorded:
        return list(next(iter(recorded)))
    complete = bool(task.oracles) and all(
        name in run.metrics for run in task.oracles for name in PAPERS_FOUR
    )
    return list(PAPERS_FOUR) if complete else []


def complete(task: TaskRuns) -> list[str]:
    """Add `avg_gap` and `gap/METRIC` to the values of runs that have none.

    These are the oracle (its gap is 0), the original, which was tested before its oracle existed,
    and methods that were tested without RetrainGap.

    Returns:
        Notes on gaps that could not be taken.

    Raises:
        InputError: when a run and its oracle were made on different splits or by different recipes.
    """
    metrics = gap_metrics(task)
    notes = []
    for run in task.runs:
        oracle = run if run.method == ORACLE else partner(run, task.oracles)
        if "avg_gap" in run.metrics or oracle is None or not metrics:
            continue
        reasons = [
            side.undefined[name]
            for side in (run, oracle)
            for name in metrics
            if name in side.undefined
        ]
        if reasons:
            run.undefined["avg_gap"] = reasons[0]
            continue
        if any(name not in run.values or name not in oracle.values for name in metrics):
            continue
        if not _same_recipe(run, oracle, _unchecked(task)):
            notes.append(
                f"{task.name}: {run.name} has no gap, because "
                f"{'it' if not _recipe(run) else 'its oracle'} does not record the recipe that it "
                "was trained by."
            )
            continue
        values = {name: run.values[name] for name in metrics}
        oracle_values = {name: oracle.values[name] for name in metrics}
        run.values |= {f"gap/{name}": abs(values[name] - oracle_values[name]) for name in metrics}
        run.values["avg_gap"] = float(average_gap(values, oracle_values))
    return notes


def _split(run: RunEntry) -> str:
    return run.record.hashes.get("split", "")


def _recipe(run: RunEntry) -> str:
    return run.record.hashes.get("recipe", "")


def _unchecked(task: TaskRuns) -> bool:
    """Whether the task's methods were run with RetrainGap's `recipe: unchecked`."""
    gaps = (
        result for run in task.runs for result in run.record.results if result.metric == "avg_gap"
    )
    return any(gap.detail.get("recipe") == "unchecked" for gap in gaps)


def _same_recipe(run: RunEntry, oracle: RunEntry, unchecked: bool) -> bool:
    recipe = _recipe(run)
    oracle_recipe = _recipe(oracle)
    if unchecked or run is oracle:
        return True
    if recipe and oracle_recipe and recipe != oracle_recipe:
        raise InputError(
            f"{run.name} was trained by recipe {recipe}, but the oracle in {oracle.name} by "
            f"{oracle_recipe}, so there is no gap between them; retrain the oracle by the "
            "original's recipe."
        )
    return bool(recipe and oracle_recipe)
