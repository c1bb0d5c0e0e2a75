"""Search of a method's learning rate and strength: on the validation part, with seeds and oracles
of its own, its cost counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mu.bench.events import JobEnded
from mu.bench.executors.base import Executor
from mu.bench.executors.serial import Serial
from mu.bench.objective import GAP, has_oracle, objective_of
from mu.bench.progress import StudyProgress, display
from mu.bench.study import Seeds, Study
from mu.bench.trials import SearchBench, Trial
from mu.config.components import merge
from mu.utils.errors import InputError, RunError
from mu.utils.files import write_text

SEEN = ["forget", "retain", "validation"]
"""The parts that a search looks at, unless `search.evaluated` names others; never the test set."""


def search(study: Study, executor: Executor | None = None, debug: bool = False) -> int:
    """Search the settings of every method that has a search space.

    The space is the method's `search:`, a range for each argument, written with dots.

    The objective is the average gap to the search's own oracles, with the validation part in the
    test set's place, averaged over the search's seeds (one seed alone rewards luck where the forget
    set is small). A study without an oracle names metrics instead, whose mean, each in its own
    direction, is made as good as it can be. Trials are runs of a study in `OUTPUT/search`, recorded
    in an Optuna journal, so an interrupted search goes on where it stopped, and several workers or
    several commands share one search.

    Args:
        study: its `search` has `seeds` (each of split, training and unlearning; none of the
            reported ones) and `trials`, and perhaps `objective` (metrics of one unit, each with a
            direction), `evaluated` (parts of the split) and `data` (arguments of the tasks in place
            of their own: what is forgotten in the search, where there is no validation part). Where
            the study's oracle is a model that is there already, or `oracle` is `none` here, the
            search has none, and names an objective.
        executor: runs the trials; in this process when None.
        debug: stop at the first error.

    Returns:
        Exit code: 1 when a method had no successful trial.
    """
    from rich.console import Console

    executor = executor or Serial()
    bench = SearchBench(_on_validation(study, _seeds(study)), debug=debug)
    objective = objective_of(study)
    spaces = bench.spaces()
    if not spaces:
        raise InputError(
            "no method of the study has a search space; give a method a `search` with a range for "
            "each argument."
        )
    executor.check()
    # no more trials of one method at a time than keep all workers busy
    bench.width = -(-(executor.workers or 1) // len(spaces))
    console = Console()
    _run_trials(bench, executor, console)
    settings: dict[str, dict[str, Any]] = {}
    for task, method in spaces:
        best = _best(bench, task, method, objective)
        if best is None:
            line = f"no trial of {method} on {task} succeeded"
            console.print(line, style="red", markup=False, soft_wrap=True)
        else:
            settings.setdefault(task, {})[method] = best
            console.print(_line(task, method, best, objective), markup=False)
    _write(study, settings)
    path = study.output / "search" / "found.yaml"
    console.print(f"Found settings: {path}", markup=False, highlight=False, soft_wrap=True)
    return int(sum(map(len, settings.values())) < len(spaces))


def _seeds(study: Study) -> tuple[Seeds, ...]:
    """Seeds of the search, none of which is reported."""
    seeds = tuple(
        Seeds(int(seed), int(seed), int(seed)) for seed in study.search.get("seeds", [1000])
    )
    if not seeds or int(study.search.get("trials", 12)) < 1:
        raise InputError(
            "a search needs at least one seed and one trial; set search.seeds and search.trials."
        )
    reported = {value for entry in study.seeds for value in entry.as_dict().values()}
    if {entry.split for entry in seeds} & reported:
        raise InputError(
            "a seed of the search is one of the reported seeds; choose others in search.seeds."
        )
    return seeds


def _run_trials(bench: SearchBench, executor: Executor, console: Any) -> None:
    """Run all trials, with the progress display of a study; a failed trial stops no other.

    Raises:
        RunError: when an original or oracle failed, without which no trial can be judged.
    """
    progress = StudyProgress(list(bench.edges()), executor.workers)
    with display(progress, console) as view:
        for event in executor.execute(bench):
            job = event.job
            if (
                isinstance(event, JobEnded)
                and event.outcome.state == "failed"
                and not isinstance(job, Trial)
            ):
                raise RunError(
                    f"the search's {job.method} on {job.task} failed: {event.outcome.reason}"
                )
            view.show(event)


def _best(
    bench: SearchBench, task: str, method: str, objective: tuple[str, ...]
) -> dict[str, Any] | None:
    """Entry of the best trial in a study's file; None where none succeeded."""
    stored = bench.optimiser(task, method).get_trials(deepcopy=False)
    trials = [
        trial for trial in stored if trial.user_attrs.get("index", bench.trials) < bench.trials
    ]
    done = [trial for trial in trials if trial.value is not None]
    if not done:
        return None
    best = min(done, key=lambda trial: trial.value)
    value = round(best.value, 4)
    reached = (
        {"gap": value} if objective == GAP else {"objective": list(objective), "value": -value}
    )
    seconds = sum(trial.user_attrs.get("seconds", 0.0) for trial in trials)
    return {
        "model": {"init_args": best.user_attrs["setting"]},
        "searched": {
            "trials": len(trials),
            "failed": len(trials) - len(done),
            **reached,
            "seconds": round(seconds, 1),
            "seeds": [seed.unlearn for seed in bench.study.seeds],
        },
    }


def _line(task: str, method: str, best: Mapping[str, Any], objective: tuple[str, ...]) -> str:
    summary = best["searched"]
    reached = (
        f"gap {summary['gap']:.2f}"
        if "gap" in summary
        else f"{', '.join(objective)}: {summary['value']:.4g}"
    )
    return (
        f"{task}/{method}: {best['model']['init_args']}  {reached}  ({summary['trials']} trials, "
        f"{summary['seconds']:.0f} s)"
    )


def _on_validation(study: Study, seeds: tuple[Seeds, ...]) -> Study:
    """Study that a search runs: suites measure the validation part, and no test part is loaded."""
    from mu.utils.spec import find_class

    def looks_at_validation(spec: Any) -> Any:
        spec = dict(spec) if isinstance(spec, Mapping) else {"class_path": spec}
        if "held_out" in inspect.signature(find_class(spec["class_path"]).__init__).parameters:
            return merge(spec, {"init_args": {"held_out": "validation"}})
        return spec

    seen = list(study.search.get("evaluated") or SEEN)
    if "test" in seen:
        raise InputError(
            "search.evaluated has the test part, which a search may not look at; name others."
        )
    other = {**(study.search.get("data") or {}), "evaluated": seen}
    tasks = {
        name: {
            **merge(spec, {"init_args": other}),
            "suites": [looks_at_validation(s) for s in spec.get("suites") or []],
        }
        for name, spec in study.tasks.items()
    }
    suites = [looks_at_validation(spec) for spec in study.suites]
    return replace(
        study,
        output=study.output / "search",
        seeds=seeds,
        suites=suites,
        tasks=tasks,
        oracle=study.oracle if has_oracle(study) else "none",
    )


def _write(study: Study, settings: Mapping[str, Any]) -> None:
    import yaml

    tasks = {task: {"methods": methods} for task, methods in settings.items()}
    head = f"# Found by the search of study {study.name}; merge into its file.\n"
    write_text(
        study.output / "search" / "found.yaml",
        head + yaml.safe_dump({"tasks": tasks}, sort_keys=False),
    )
