"""`mu bench`: run a study with a progress display, and write its index and its report."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING, Any

from mu.bench.component_checks import check_data
from mu.bench.default_lengths import default_lengths
from mu.bench.events import STATES, JobEnded
from mu.bench.executors.base import Executor
from mu.bench.progress import StudyProgress, display, summary
from mu.bench.runner import Bench
from mu.bench.study import Study
from mu.bench.study_file import read_study
from mu.bench.study_index import StudyIndex
from mu.cli.executor_options import add_options, executor_of
from mu.cli.parser import Parser
from mu.config.spec_faults import CommandLineValue
from mu.utils.errors import InputError
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
    part = study.only(arguments.tasks, arguments.methods)
    executor = executor_of(arguments)
    if arguments.check:
        return check_study(part)
    if arguments.search:
        from mu.bench.search import search

        return search(part, executor, debug=arguments.debug)
    words = [word for word in argv if word not in ("-c", "--config", path)]
    command = shlex.join(["mu", "bench", "-c", str(path), *words])
    return run_study(part, study, command, executor, debug=arguments.debug)


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
        help="override one entry: methods.SalUn.mask.keep=0.3, suites.TOFU.max_new_tokens=40, "
        "seeds.0=5, trainer.precision=bf16-mixed",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="check the whole study, its data included, say what would run, and run nothing",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="search the methods' settings, by the study's `search` section",
    )
    parser.add_argument(
        "--debug", action="store_true", help="stop at the first error, with its traceback"
    )
    add_options(parser)
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


def run_study(
    study: Study, whole: Study, command: str, executor: Executor, debug: bool = False
) -> int:
    """Run a study with a progress display, print its tables, write results.csv and report.html.

    Args:
        study: what runs: the study, or a part of it.
        whole: the study with all of its tasks and methods, for the report.
        command: command line, for the report.
        executor: runs its jobs.
        debug: stop at the first error.

    Returns:
        0, or 1 when a run failed.
    """
    from rich.console import Console

    # 1. checks
    console = Console()
    bench = Bench(study, debug=debug)
    bench.check()
    executor.check()
    check_data(study.tasks, study.seeds[:1], bench.task)
    for line in default_lengths(study):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    # 2. runs
    jobs = study.jobs()
    progress = StudyProgress(jobs, executor.workers)
    _run_jobs(bench, executor, progress, StudyIndex(whole, command, jobs), console)
    # 3. tables and page
    counts = {state: progress.count(state) for state in STATES}
    listing = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    console.print(f"{len(progress.outcomes)} runs: {listing}")
    return max(_write_report(study, console), 1 if counts["failed"] else 0)


def _run_jobs(
    bench: Bench, executor: Executor, progress: StudyProgress, index: StudyIndex, console: Console
) -> None:
    """Run all jobs, show their progress, and keep the index of the runs.

    Raises:
        KeyboardInterrupt: with what is done and how to go on.
    """
    index.write()
    try:
        with display(progress, console) as view:
            for event in executor.execute(bench):
                view.show(event)
                if isinstance(event, JobEnded):
                    index.add(event.outcome)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{summary(progress)}; the same command goes on from there, and mu report "
            f"{bench.study.output} shows what is done"
        ) from None
    finally:
        index.write()


def _write_report(study: Study, console: Console) -> int:
    """Write the report; where that fails, say so and leave the last page. Returns the exit code."""
    from mu.bench import report

    try:
        report.write(study.output, console=console, with_missing=False)
    except InputError as error:
        page = study.output / "report.html"
        rest = f" {page} is still that of the last call." if page.is_file() else ""
        line = f"There is no new report: {error}{rest}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


def check_study(study: Study) -> int:
    """Check a study and print what would run; returns 0.

    Raises:
        InputError: names the first entry that cannot be used.
    """
    # 1. components, then the data of every repetition
    bench = Bench(study)
    bench.check(with_search=True)
    originals = check_data(study.tasks, study.seeds, bench.task)
    # 2. counts
    jobs = study.jobs()
    counts = {
        "originals to train": len(originals) if study.trains_original else 0,
        "oracles": sum(job.role == "oracle" for job in jobs),
        "originals to measure": sum(job.role == "original" for job in jobs),
        "unlearned models": sum(job.role == "method" for job in jobs),
    }
    sizes = {"task": study.tasks, "method": study.methods, "seed": study.seeds}
    for line in default_lengths(study):
        print(line)
    print(f"{study.name}: {', '.join(map(counted, sizes, map(len, sizes.values())))}")
    for name, count in counts.items():
        if count:
            print(f"{count:6} {name}")
    print(f"{sum(counts.values()):6} runs at most; those that are finished are reused")
    for task in study.tasks:
        for method in study.methods:
            if reason := study.method_spec(task, method).get("skip"):
                print(f"left out: {task} · {method}: {reason}")
    print(f"The study can run; it writes to {study.output}.")
    return 0


def counted(noun: str, count: int) -> str:
    """A count and its noun.

    >>> counted("task", 1), counted("seed", 3)
    ('1 task', '3 seeds')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"
