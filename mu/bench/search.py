"""Search of a method's learning rate and strength: on the validation part, with seeds and oracles
of its own, its cost counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mu.bench.runner import Bench
from mu.bench.study import Job, Seeds, Study
from mu.config.components import Components, merge
from mu.metrics.results import Result, RunResults
from mu.utils.errors import InputError, RunError
from mu.utils.files import write_text

SEEN = ["forget", "retain", "validation"]
"""The parts that a search looks at, unless `search.evaluated` names others; never the test set."""

GAP = ("avg_gap",)
"""The objective where there is an oracle."""


def search(study: Study, debug: bool = False) -> int:
    """Search the settings of every method that has a search space.

    The space is the method's `search:`, a range for each argument, written with dots.

    The objective is the average gap to the search's own oracles, with the validation part in the
    test set's place, averaged over the search's seeds (one seed alone rewards luck where the forget
    set is small). A study without an oracle names metrics instead, whose mean, each in its own
    direction, is made as good as it can be. Trials are runs of a study in `OUTPUT/search`, so an
    interrupted search goes on where it stopped.

    Args:
        study: its `search` has `seeds` (each of split, training and unlearning; none of the
            reported ones) and `trials`, and perhaps `objective` (metrics of one unit, each with a
            direction), `evaluated` (parts of the split) and `data` (arguments of the tasks in place
            of their own: what is forgotten in the search, where there is no validation part). Where
            the study's oracle is a model that is there already, or `oracle` is `none` here, the
            search has none, and names an objective.
        debug: stop at the first error.

    Returns:
        Exit code: 1 when a method had no successful trial.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    trials = int(study.search.get("trials", 12))
    seeds = tuple(
        Seeds(int(seed), int(seed), int(seed)) for seed in study.search.get("seeds", [1000])
    )
    reported = {value for entry in study.seeds for value in entry.as_dict().values()}
    if not seeds or trials < 1:
        raise InputError(
            "a search needs at least one seed and one trial; set search.seeds and search.trials."
        )
    if {entry.split for entry in seeds} & reported:
        raise InputError(
            "a seed of the search is one of the reported seeds; choose others in search.seeds."
        )
    objective = _objective(study)
    components = Components()
    inner = _on_validation(study, seeds)
    specs = {
        (task, method): study.method_spec(task, method)
        for task in study.tasks
        for method in study.methods
    }
    spaces = {
        pair: spec["search"]
        for pair, spec in specs.items()
        if spec.get("search") and not spec.get("skip")
    }
    if not spaces:
        raise InputError(
            "no method of the study has a search space; give a method a `search` with a range for "
            "each argument."
        )
    console = Console()
    settings = {}
    failed = False
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("search", total=len(spaces) * trials)
        bench = Bench(inner, components, debug)
        for task in dict.fromkeys(task for task, _ in spaces):
            for job in inner.jobs():
                outcome = (
                    bench.run(job) if job.task == task and job.role in ("train", "oracle") else None
                )
                if outcome is not None and outcome.state == "failed":
                    raise RunError(f"the search's {job.method} on {task} failed: {outcome.reason}")
        for (task, method), space in spaces.items():

            def tell(text: str, failure: str) -> None:
                progress.update(bar, advance=0 if failure else 1, description=escape(text))
                if failure:
                    progress.console.print(f"failed {text} {failure}", markup=False, soft_wrap=True)

            best = _search_method(bench, inner, task, method, space, objective, trials, tell)
            failed = failed or best is None
            if best is None:
                line = escape(f"no trial of {method} on {task} succeeded")
                progress.console.print(f"[red]{line}[/red]")
            else:
                settings.setdefault(task, {})[method] = best
                summary = best["found"]
                reached = (
                    f"gap {summary['gap']:.2f}"
                    if "gap" in summary
                    else f"{', '.join(objective)}: {summary['value']:.4g}"
                )
                progress.console.print(
                    f"{task}/{method}: {best['model']['init_args']}  {reached}  "
                    f"({summary['trials']} trials, {summary['seconds']:.0f} s)",
                    markup=False,
                )
    _write(study, settings)
    path = study.output / "search" / "found.yaml"
    console.print(f"Found settings: {path}", markup=False, highlight=False, soft_wrap=True)
    return int(failed)


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
        oracle=study.oracle if _has_oracle(study) else "none",
    )


def _has_oracle(study: Study) -> bool:
    """Whether the search retrains oracles of its own forget sets."""
    oracle = study.search.get("oracle", "retrain")
    if oracle not in ("retrain", "none"):
        raise InputError(f"search.oracle is {oracle!r}; it is none, or retrain.")
    return oracle == "retrain" and study.has_oracle and study.pretrained_oracle is None


def _objective(study: Study) -> tuple[str, ...]:
    """Metrics of the objective."""
    named = study.search.get("objective")
    if named:
        return (named,) if isinstance(named, str) else tuple(named)
    if not _has_oracle(study):
        raise InputError(
            "a search judges by the gap to the oracle, and this study has none for it; name "
            "metrics in search.objective."
        )
    return GAP


def loss(record: RunResults, objective: tuple[str, ...]) -> float:
    """Loss of a trial: the mean over the objective's metrics, negative where higher is better.

    Raises:
        InputError: when a metric was not measured or has no direction, or two have different units.
    """
    results: dict[str, Result] = {
        result.metric: result for result in record.results if result.metric in objective
    }
    values = []
    for name in objective:
        value = record.value(name)
        if results[name].higher_is_better is None:
            raise InputError(
                f"{name} is good when it is close to the oracle's, so a search cannot make it "
                "large or small; choose another metric in search.objective."
            )
        values.append(-value if results[name].higher_is_better else value)
    units = list(dict.fromkeys(result.unit for result in results.values()))
    if len(units) > 1:
        raise InputError(
            f"search.objective averages {', '.join(objective)}, whose units differ "
            f"({', '.join(u or 'none' for u in units)}); name metrics of one unit."
        )
    return sum(values) / len(values)


def _undefined(record: RunResults, objective: tuple[str, ...]) -> list[str]:
    """Reasons of the objective's metrics that are undefined on a trial."""
    return [
        f"{result.metric} is undefined, because {result.undefined}"
        for result in record.results
        if result.metric in objective and result.undefined
    ]


def _search_method(
    bench: Bench,
    study: Study,
    task: str,
    method: str,
    space: Mapping[str, Any],
    objective: tuple[str, ...],
    trials: int,
    tell: Any,
) -> dict[str, Any] | None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seeds = study.seeds
    sampler = optuna.samplers.TPESampler(
        seed=seeds[0].unlearn, n_startup_trials=max(4, trials // 3)
    )
    optimiser = optuna.create_study(direction="minimize", sampler=sampler)
    seconds = 0.0
    settings: dict[int, dict[str, Any]] = {}
    for _ in range(trials):
        trial = optimiser.ask()
        setting: dict[str, Any] = {}
        for name, limits in space.items():
            setting = merge(setting, _nested(name, _suggest(trial, name, limits)))
        settings[trial.number] = setting
        tried = merge(study.method_spec(task, method), {"model": {"init_args": setting}})
        bench.study = replace(
            study,
            methods={**study.methods, method: tried},
            tasks={**study.tasks, task: study.task_spec(task)},
        )
        outcomes = [bench.run(Job("method", task, method, seed)) for seed in seeds]
        tell(f"{task}/{method}", "")
        records = [
            RunResults.load(outcome.folder) for outcome in outcomes if outcome.folder is not None
        ]
        undefined = next((why for r in records for why in _undefined(r, objective)), "")
        seconds += sum(record.unlearning_seconds for record in records)
        if len(records) < len(seeds):  # a learning rate that diverges is an answer, not an accident
            optimiser.tell(trial, state=optuna.trial.TrialState.FAIL)
            reasons = [outcome.reason for outcome in outcomes if outcome.folder is None]
            tell(f"{task}/{method}", f"{setting}: {reasons[0]}")
        elif undefined:
            optimiser.tell(trial, state=optuna.trial.TrialState.FAIL)
            tell(f"{task}/{method}", f"{setting}: {undefined}")
        else:
            optimiser.tell(trial, sum(loss(record, objective) for record in records) / len(records))
    done = [t for t in optimiser.trials if t.state == optuna.trial.TrialState.COMPLETE]
    if not done:
        return None
    best = optimiser.best_trial
    value = round(float(best.value or 0.0), 4)
    reached = (
        {"gap": value} if objective == GAP else {"objective": list(objective), "value": -value}
    )
    return {
        "model": {"init_args": settings[best.number]},
        "found": {
            "trials": trials,
            "failed": trials - len(done),
            **reached,
            "seconds": round(seconds, 1),
            "seeds": [seed.unlearn for seed in seeds],
        },
    }


def _suggest(trial: Any, name: str, limits: Any) -> Any:
    if isinstance(limits, Mapping) and "choices" in limits:
        return trial.suggest_categorical(name, limits["choices"])
    if not isinstance(limits, Mapping) or "low" not in limits or "high" not in limits:
        raise InputError(
            f"the range of {name} is {limits!r}; write {{low: ..., high: ..., log: true}} or "
            f"{{choices: [...]}}."
        )
    low = limits["low"]
    high = limits["high"]
    log = bool(limits.get("log", False))
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log)
    # as it will stand in the configuration
    return float(f"{trial.suggest_float(name, float(low), float(high), log=log):.4g}")


def _nested(name: str, value: Any) -> dict[str, Any]:
    """`optimizer.lr` of an object with init_args: `{optimizer: {init_args: {lr: ...}}}`."""
    *outer, last = name.split(".")
    nested: Any = {last: value}
    for part in reversed(outer):
        nested = {part: {"init_args": nested}}
    return nested


def _write(study: Study, settings: Mapping[str, Any]) -> None:
    import yaml

    tasks = {task: {"methods": methods} for task, methods in settings.items()}
    head = f"# Found by the search of study {study.name}; merge into its file.\n"
    write_text(
        study.output / "search" / "found.yaml",
        head + yaml.safe_dump({"tasks": tasks}, sort_keys=False),
    )
