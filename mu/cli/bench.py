"""`mu bench`: run a study with a progress display, and write its index and its report."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mu.bench.events import Outcome
from mu.bench.runner import Bench
from mu.bench.study import Study
from mu.bench.study_file import read_study
from mu.cli.parser import Parser
from mu.config.spec_faults import CommandLineValue
from mu.utils.errors import InputError
from mu.utils.files import read_json, write_json
from mu.utils.text_files import parse_yaml, shortened

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: list[str]) -> int:
    """Run `mu bench`; returns 0, or 1 when a run failed.

    Raises:
        InputError: for a study that cannot be run.
    """
    arguments = _parser().parse_args(argv)
    path = arguments.config or arguments.study
    if path is None:
        raise InputError("mu bench needs a study file: mu bench -c configs/bench/quickstart.yaml.")
    study = read_study(path, _overrides(arguments))
    study = study.only(arguments.tasks, arguments.methods)
    if arguments.search:
        from mu.bench.search import search

        return search(study, debug=arguments.debug)
    words = [word for word in argv if word not in ("-c", "--config", path)]
    command = " ".join(["mu bench -c", str(path), *words])
    return run_study(study, command, debug=arguments.debug)


def _parser() -> Parser:
    parser = Parser(
        prog="mu bench",
        description="Run a study: tasks x methods x seeds, measured against the oracle.",
    )
    parser.add_argument("study", nargs="?", help="the study's YAML file")
    parser.add_argument("-c", "--config", help="the same")
    parser.add_argument(
        "--output", help="folder of everything it writes (default: the study's own)"
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
        help="search the methods' settings, by the study's `search` section",
    )
    parser.add_argument(
        "--debug", action="store_true", help="stop at the first error, with its traceback"
    )
    return parser


def _overrides(arguments: argparse.Namespace) -> list[tuple[str, Any]]:
    """Keys and values of the study's entries that the command line overrides."""
    pairs: list[tuple[str, Any]] = []
    for item in arguments.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"--set {item} has no value; write KEY=VALUE.")
        parse_yaml(value, f"--set {shortened(item)}")
        pairs.append((key, CommandLineValue(value)))
    if arguments.output:
        pairs.append(("output", arguments.output))
    if arguments.seeds:
        try:
            pairs.append(("seeds", [int(seed) for seed in arguments.seeds.split(",")]))
        except ValueError:
            raise InputError(
                f"--seeds {arguments.seeds} is not a list of whole numbers separated by commas."
            ) from None
    return pairs


def run_study(study: Study, command: str, debug: bool = False) -> int:
    """Run a study with a progress bar, print its tables, write results.csv and report.html.

    Args:
        study: the study.
        command: command line, for the report.
        debug: stop at the first error.

    Returns:
        0, or 1 when a run failed.
    """
    from rich.console import Console

    from mu.bench import report

    console = Console()
    bench = Bench(study, debug=debug)
    bench.check()
    outcomes = _run_all(bench, console)
    _write_index(study, command, outcomes)
    counts = {
        state: sum(outcome.state == state for outcome in outcomes)
        for state in ("ran", "resumed", "reused", "failed")
    }
    summary = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    console.print(f"{len(outcomes)} runs: {summary}")
    report.write(study.output, console=console)
    return 1 if counts["failed"] else 0


def _run_all(bench: Bench, console: Console) -> list[Outcome]:
    """Outcomes of all runs, with a progress bar and a line about each failed run."""
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    jobs = bench.study.jobs()
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
            progress.update(bar, description=escape(job.label))
            outcome = bench.run(job)
            outcomes.append(outcome)
            if outcome.state == "failed":
                progress.console.print(
                    f"[red]failed[/red] {escape(f'{job.label}: {outcome.reason}')}", soft_wrap=True
                )
            progress.advance(bar)
    return outcomes


def _write_index(study: Study, command: str, outcomes: list[Outcome]) -> None:
    """Write `study.json`, the folders that a report of the study reads.

    Runs of earlier calls with other methods or seeds stay in the list.
    """
    file = study.output / "study.json"
    runs: dict[str, str] = read_json(file)["runs"] if file.is_file() else {}
    failed_runs = []
    for outcome in outcomes:
        if outcome.job.role == "train" and outcome.state != "failed":
            continue
        name = f"{outcome.job.task}/{outcome.job.method}/{outcome.job.seeds.label}"
        runs.pop(name, None)
        if outcome.folder is not None:
            runs[name] = outcome.folder.relative_to(study.output).as_posix()
        else:
            failed_runs.append({"run": outcome.job.label, "reason": outcome.reason})
    skipped = {
        f"{task}/{name}": reason
        for task in study.tasks
        for name in study.methods
        if (reason := study.method_spec(task, name).get("skip"))
    }
    write_json(
        file,
        {
            "name": study.name,
            "title": study.title,
            "command": command,
            "tasks": list(study.tasks),
            "runs": runs,
            "failed": failed_runs,
            "methods": study.rows,
            "skipped": skipped,
        },
    )
