"""A suite in a user's own file shows in every format of the report, without an edit in mu."""

from __future__ import annotations

import ast
import inspect
import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

import callbacks
from callbacks.base import Suite
from mu.bench import report
from mu.config.components import Components
from mu.metrics.results import SHARED_DEFINITIONS
from mu.utils.spec import to_spec
from tests.support.helpers import classifier, digits, trainer

BENCH = Path(report.__file__).parents[1]

SUITE_FILE = '''
"""Suite of a user."""

from callbacks.base import Evaluated, Suite
from mu.core import UnlearningModule
from mu.metrics import Result, TradeOff


class Margin(Suite):
    """Mean loss of the forget and the test part."""

    needs = ("nll",)
    definitions = {
        "test_loss": "Mean loss on held-out samples, in nats; lower is better.",
        "forget_loss": "Mean loss on the forget set, in nats; higher is better.",
        "loss_ratio": "Ratio of the two losses.",
        "forget_loss/": "As forget_loss, of the largest or the smallest loss.",
    }
    headline = ("forget_loss", "test_loss")
    trade_offs = (TradeOff("Forgetting and loss", ("forget_loss",), ("test_loss",)),)

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Four numbers."""
        forget, test = (self.rows(outputs, split)["nll"].double() for split in ("forget", "test"))
        return [
            Result("loss_ratio", float(forget.mean() / test.mean())),
            Result("test_loss", float(test.mean()), False, "test", "nats"),
            Result("forget_loss", float(forget.mean()), True, "forget", "nats"),
            Result("forget_loss/largest", float(forget.max()), True, "forget", "nats"),
        ]
'''


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folders of two methods, tested with the user's suite alone."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "margin_suite.py").write_text(SUITE_FILE)
    sys.path.append(str(folder))
    try:
        suites = [{"class_path": "margin_suite.Margin"}, {"class_path": "callbacks.ResultsWriter"}]
        for method in ("FineTune", "GradientAscent"):
            run_folder = folder / "runs" / method
            suites_of_run = Components().make("callbacks", suites)
            module = Components().make(
                "model",
                {
                    "class_path": f"mu.methods.{method}",
                    "init_args": {"backbone": to_spec(classifier())},
                },
            )
            trainer(1, callbacks=suites_of_run, default_root_dir=str(run_folder)).fit(
                module, datamodule=digits()
            )
            module.trainer.test(module, datamodule=digits(), verbose=False)
    finally:
        sys.path.remove(str(folder))
    text = io.StringIO()
    report.write(folder / "runs", Console(file=text, width=120))
    (folder / "runs" / "console.txt").write_text(text.getvalue(), encoding="utf-8")
    return folder / "runs"


def test_its_columns_stand_in_its_order_in_all_tables(study: Path) -> None:
    """Fails when a column is left out, loses its arrow, or follows the order of measuring."""
    console = " ".join((study / "console.txt").read_text().split())
    assert "method forget_loss ↑ test_loss ↓ seconds" in console
    assert "loss_ratio" not in console
    header = (study / "results.csv").read_text().splitlines()[0].split(",")
    assert header[5:10] == [
        "forget_loss",
        "test_loss",
        "seconds",
        "forget_loss/largest",
        "loss_ratio",
    ]
    tex = (study / "tables.tex").read_text()
    assert r"forget\_loss $\uparrow$ & test\_loss $\downarrow$ & RTE (s)" in tex


def test_its_sentences_and_its_figure_stand_on_the_page(study: Path) -> None:
    """Fails when a definition is dropped on its way through results.json, or a part has none."""
    page = (study / "report.html").read_text()
    entries = [
        "<dt>test_loss</dt><dd>Mean loss on held-out samples, in nats; lower is better.</dd>",
        "<dt>forget_loss</dt><dd>Mean loss on the forget set, in nats; higher is better.</dd>",
        "<dt>loss_ratio</dt><dd>Ratio of the two losses.</dd>",
        "<dt>forget_loss …</dt><dd>As forget_loss, of the largest or the smallest loss.</dd>",
    ]
    positions = [page.index(entry) for entry in entries]
    assert positions[:3] == sorted(positions[:3]) and positions[3] > positions[2]
    assert "<h3>Forgetting and loss</h3>" in page and "Better: to the right and down." in page


def suites() -> list[type[Suite]]:
    exported = [getattr(callbacks, name) for name in callbacks.__all__]
    return [suite for suite in exported if inspect.isclass(suite) and issubclass(suite, Suite)]


def test_every_suite_defines_its_headline() -> None:
    """Fails when a column of a table has no sentence in the glossary."""
    for suite in suites():
        assert suite is Suite or suite.definitions, suite
        for metric in suite.headline or ():
            keys = [key for key in suite.definitions if metric.startswith(key)]
            assert keys or metric in suite.definitions, (suite, metric)


def test_no_metric_of_a_suite_is_named_in_bench() -> None:
    """Fails when the report treats a metric of a suite by its name."""
    shared = set(SHARED_DEFINITIONS)
    names = {key for suite in suites() for key in (*suite.definitions, *(suite.headline or ()))}
    names -= shared | {"seconds/"}
    assert "UA" in names and "peak_memory" in names
    offenders = []
    for file in sorted(BENCH.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in names:
                offenders.append(f"{file.relative_to(BENCH)}:{node.lineno}: {node.value}")
    assert offenders == []
