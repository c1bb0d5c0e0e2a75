"""`mu report`: pages and tables from run folders."""

from __future__ import annotations

from pathlib import Path

from mu.bench.report import write_runs
from mu.cli.parser import Parser
from mu.utils.errors import InputError
from mu.utils.text_files import check_new_folder


def main(argv: list[str]) -> int:
    """Run `mu report`; returns the exit code.

    Raises:
        InputError: for folders without runs, or several folders without `--output`.
    """
    from rich.console import Console

    parser = Parser(prog="mu report", description="Tables and a page from run folders.")
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUNS",
        help="a study's folder, a run folder, or a folder that holds some",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where to write (default: RUNS, if it is one folder)",
    )
    options = parser.parse_args(argv)
    if options.output is None and len(options.runs) > 1:
        raise InputError("mu report needs --output DIR when it reports several folders.")
    check_new_folder(options.output or options.runs[0], "the output folder")
    write_runs(options.runs, options.output or options.runs[0], Console())
    return 0
