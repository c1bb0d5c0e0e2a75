"""results.csv: one line for each run, in full precision."""

from __future__ import annotations

import csv
import io

from mu.bench.report.contents import Report


def as_csv(report: Report) -> str:
    """Text of results.csv; a cell is empty where a run did not measure, nan where undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(report.run_columns)
    writer.writerows(report.run_rows)
    return text.getvalue()
