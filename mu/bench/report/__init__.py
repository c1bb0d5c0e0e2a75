"""`mu report`: tables and a page from run folders, and from nothing else.

`results.csv` has a line for each run, `tables.tex` a table for each task in the papers' style,
`report.html` is one self-contained page.

The files read in this order: runs (collect), gaps (complete), summary (means over seeds), contents
(one `Report` value), and csv_file, latex, console and page (which only read it).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mu.utils.files import write_text

if TYPE_CHECKING:
    from rich.console import Console


def write(folder: Path, console: Console | None = None, with_missing: bool = True) -> None:
    """Report a study into its own folder.

    Args:
        folder: has `study.json`, or holds run folders.
        console: where the tables are printed; nowhere when None.
        with_missing: name the missing runs on the console; otherwise only their number.

    Raises:
        InputError: when there is nothing to report, or runs cannot be compared (different splits or
            recipes).
    """
    write_runs([Path(folder)], Path(folder), console, with_missing)


def write_runs(
    folders: Sequence[Path],
    output: Path,
    console: Console | None = None,
    with_missing: bool = True,
) -> None:
    """Report the runs below several folders into `output`; as `write` otherwise."""
    from mu.bench.report.console import print_report
    from mu.bench.report.contents import make_report
    from mu.bench.report.csv_file import as_csv
    from mu.bench.report.latex import as_tex
    from mu.bench.report.page import as_html

    report = make_report(folders)
    pages = {
        "results.csv": as_csv(report),
        "tables.tex": as_tex(report),
        "report.html": as_html(report),
    }
    for name, text in pages.items():
        write_text(output / name, text)
    if console is None:
        return
    print_report(report, console, with_missing)
    path = output / "report.html"
    console.print(f"Report: {path}", markup=False, highlight=False, soft_wrap=True)
