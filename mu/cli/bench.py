"""`mu bench`: reads a study, runs it with a progress display, and writes its index and its
report.
"""

from __future__ import annotations

import argparse
from typing import Any

from mu.bench.runner import Bench, Outcome
from mu.bench.study import Study, read_study
from mu.cli.parser import Parser
from mu.config.components import merge
from mu.utils.errors import InputError
from mu.utils.files import read_json, write_json


def main(argv: list[str]) -> int:
    """The command; returns its exit code: 0, 1 when a run failed, 2 for a study that cannot be
    run.
    """
    parser = Parser(
        prog="mu bench",
        description="Run a study: tasks x methods x seeds, measured against the oracle.",
    )
    parser.add_argument("study", nargs="?", help="the study's YAML file")
    parser.add_argument("-c", "--config", help="the same")
    parser.add_argument(
        "--output", help="folder of everything it writes (default: as the study says)"
    )
    parser.add_argument("--tasks", help="only these tasks, separated by commas")
    parser.add_argument("--methods", help="only these methods, separated by commas")
    parser.add_argument("--seeds", help="these seeds instead, separated by commas")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one entry: trainer.precision=bf16-mixed",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="search the methods' settings as the study's `search` says",
    )
    parser.add_argument(
        "--debug", action="store_true", help="stop at the first error, with its traceback"
    )
    given = parser.parse_args(argv)
    path = given.config or given.study
    if path is None:
        raise InputError("mu bench needs a study file: mu bench -c configs/bench/quickstart.yaml")
    study = read_study(path, _overrides(given))
    study = study.only(given.tasks, given.methods)
    if given.search:
        from mu.bench.search import search

        return search(study, debug=given.debug)
    return run_study(
        study,
        command=f"mu bench -c {path}"
        + "".join(f" {a}" for a in argv if a not in ("-c", "--config", path)),
        debug=given.debug,
    )


def _overrides(given: argparse.Namespace) -> dict[str, Any]:
    import yaml

    layers: list[dict[str, Any]] = []
    for item in given.set:
        name, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"--set {item} has no value; write KEY=VALUE.")
        layer: Any = yaml.safe_load(value)
        for part in reversed(name.split(".")):
            layer = {part: layer}
        layers.append(layer)
    if given.output:
        layers.append({"output": given.output})
    if given.seeds:
        try:
            layers.append({"seeds": [int(seed) for seed in given.seeds.split(",")]})
        except ValueError:
            raise InputError(
                f"--seeds {given.seeds} is not a list of whole numbers separated by commas."
            ) from None
    return merge(*layers)


def run_study(study: Study, command: str, debug: bool = False) -> int:
    """Run everything, show progress, print the tables, write results.csv and report.html."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from mu.bench import report

    console = Console()
    bench = Bench(study, debug=debug)
    bench.check()
    jobs = study.jobs()
    outcomes: list[Outcome] = []
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("starting", total=len(jobs))
        for job in jobs:
            progress.update(bar, description=job.label)
            outcome = bench.run(job)
            outcomes.append(outcome)
            if outcome.state == "failed":
                progress.console.print(
                    f"[red]failed[/red] {job.label}: {outcome.reason}", soft_wrap=True
                )
            progress.advance(bar)
    _write_index(study, command, outcomes)
    count = {
        state: sum(o.state == state for o in outcomes)
        for state in ("ran", "resumed", "reused", "failed")
    }
    console.print(
        f"{len(jobs)} runs: "
        + ", ".join(f"{number} {state}" for state, number in count.items() if number)
    )
    report.write(study.output, console=console)
    return 1 if count["failed"] else 0


def _write_index(study: Study, command: str, outcomes: list[Outcome]) -> None:
    """`study.json`: which folders belong to the study as it stands now; a report reads these and no
    stale ones.

    Runs that this call did not ask for (another choice of methods or seeds) stay in the list.
    """
    file = study.output / "study.json"
    runs: dict[str, str] = read_json(file)["runs"] if file.is_file() else {}
    failed = []
    for outcome in outcomes:
        if outcome.job.kind == "train" and outcome.state != "failed":
            continue
        name = f"{outcome.job.task}/{outcome.job.method}/{outcome.job.seeds.label}"
        runs.pop(name, None)
        if outcome.folder is not None:
            runs[name] = outcome.folder.relative_to(study.output).as_posix()
        else:
            failed.append({"run": outcome.job.label, "reason": outcome.reason})
    write_json(
        file,
        {
            "name": study.name,
            "title": study.title,
            "command": command,
            "tasks": list(study.tasks),
            "runs": runs,
            "failed": failed,
            "methods": study.rows,
            "skipped": {
                f"{task}/{name}": reason
                for task in study.tasks
                for name in study.methods
                if (reason := study.method_spec(task, name).get("skip"))
            },
        },
    )
