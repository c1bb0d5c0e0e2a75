"""`mu report`: tables and a page from run folders, and from nothing else.

`results.csv` has a line for each run, `tables.tex` a table for each task in the papers' style,
`report.html` is one self-contained page.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mu.utils.files import write_text

if TYPE_CHECKING:
    from rich.console import Console


def write(folder: Path, console: Console | None = None) -> None:
    """Report a study into its own folder.

    Args:
        folder: has `study.json`, or holds run folders.
        console: where the tables are printed; nowhere when None.

    Raises:
        InputError: when there is nothing to report, or runs cannot be compared (different splits or
            recipes).
    """
    write_runs([Path(folder)], Path(folder), console)


def write_runs(folders: Sequence[Path], output: Path, console: Console | None = None) -> None:
    """Report the runs below several folders into `output`; as `write` otherwise."""
    from mu.bench.report.gaps import complete
    from mu.bench.report.page import as_html
    from mu.bench.report.runs import collect
    from mu.bench.report.summary import summarise
    from mu.bench.report.tables import as_csv, as_tex, print_tables

    collection = collect(folders)
    for task in collection.tasks:
        collection.notes += complete(task)
    summaries = [summarise(task) for task in collection.tasks]
    pages = {
        "results.csv": as_csv(collection, summaries),
        "tables.tex": as_tex(summaries),
        "report.html": as_html(collection, summaries),
    }
    for name, text in pages.items():
        write_text(output / name, text)
    if console is None:
        return
    print_tables(summaries, console)
    for line in [
        f"failed: {f['run']}: {f['reason']}" for f in collection.failed
    ] + collection.notes:
        console.print(line, markup=False, highlight=False)
    console.print(
        f"Report: {output / 'report.html'}", markup=False, highlight=False, soft_wrap=True
    )
