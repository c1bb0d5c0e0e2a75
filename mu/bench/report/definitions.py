"""Glossary of a report: one sentence for each metric, from the suites that measured it."""

from __future__ import annotations

from collections.abc import Iterable

from mu.bench.report.format import heading
from mu.bench.report.runs import RunEntry
from mu.metrics.results import SHARED_DEFINITIONS, Presentation

Entry = tuple[str, str]
"""Heading and sentence."""

ORIGINAL_WITH_ORACLE: Entry = (
    "original",
    "The model before unlearning; its gap is that of no unlearning at all.",
)
ORIGINAL_ALONE: Entry = ("original", "The model before unlearning.")
ORACLE_MODEL: Entry = (
    "oracle",
    "The model retrained without the forget set by the original's own recipe: the ground truth of "
    "unlearning.",
)
GAP: tuple[Entry, Entry] = (
    ("Gap", SHARED_DEFINITIONS["avg_gap"]),
    (
        "Gap of means",
        "The same distances between means over seeds, as papers report it; never larger than Gap.",
    ),
)
CONFIDENCE: Entry = (
    "confidence",
    "Probability (softmax) that the model gives to the true class.",
)


def metric_definitions(runs: Iterable[RunEntry]) -> list[Entry]:
    """Heading and sentence of every metric that some runs have, in the order of their suites.

    Metrics that share a definition (a key that ends with a slash) have one entry, behind the
    others. The average gap is not among them; see `GAP`.
    """
    single: dict[Entry, None] = {}
    shared: dict[Entry, None] = {}
    for run in runs:
        presentation = Presentation.merged(
            [run.record.presentation, Presentation(dict(SHARED_DEFINITIONS))]
        )
        keys = {presentation.definition_key(metric) for metric in run.values}
        for key, sentence in presentation.definitions.items():
            if key not in keys or key == "avg_gap":
                continue
            if key.endswith("/"):
                shared[f"{heading(key).strip()} …", sentence] = None
            else:
                single[heading(key), sentence] = None
    return [*single, *shared]
