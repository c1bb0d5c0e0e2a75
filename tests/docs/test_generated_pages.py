"""Generated pages: what they take from docstrings, constructors, presets and RESULTS.md."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT

RESULTS = """
# Measured

## Shapes

Command: `mu bench -c configs/bench/shapes.yaml`.

Task circle: seed 0.

| method | UA |
|---|---|
| original | 0 |
| ESD | 95 |
| SalUn | 99 |

## Digits

| method | UA |
|---|---|
| SalUn | 83 |

| what | bound |
|---|---|
| SalUn | 1 |
"""


def test_rows_of_results_by_the_class_that_the_study_runs() -> None:
    """Fails when a row lands on the page of another class of the same name in the study."""
    results = importlib.import_module("results_tables")
    studies = {"shapes.yaml": {"SalUn": "SalUnDiffusion", "ESD": "ESD"}}
    shapes, digits = results.tables(RESULTS)
    assert shapes.headings == ("Shapes", "Task circle")
    assert shapes.rows_of("SalUnDiffusion", studies) == [("original", "0"), ("SalUn", "99")]
    assert shapes.rows_of("SalUn", studies) == []
    assert digits.rows_of("SalUn", studies) == [("SalUn", "83")]


def test_every_row_of_results_is_on_a_page() -> None:
    """Fails when a table of RESULTS.md names a method by a word that no page has."""
    results = importlib.import_module("results_tables")
    pages = importlib.import_module("method_pages")
    project = pages.Project.read()
    names = [method.__name__ for part in pages.methods().values() for method in part]
    rows = {
        row
        for table in project.tables
        for row in table.rows
        if row[0].lower() not in results.REFERENCES
    }
    rows_on_pages = {
        row
        for table in project.tables
        for name in names
        for row in table.rows_of(name, project.studies)
    }
    assert rows - rows_on_pages == set()
    assert len(rows) > 60


def test_arguments_follow_kwargs_and_leave_out_what_a_constructor_sets() -> None:
    """Fails when an inherited argument, its default or its description is lost."""
    from mu.methods import SalUn

    constructors = importlib.import_module("constructors")
    by_name = {argument.name: argument for argument in constructors.arguments(SalUn)}
    assert next(iter(by_name)) == "backbone"
    assert by_name["optimizer"].default.startswith("torch.optim.SGD(params, lr=0.013")
    assert by_name["seed"].default == "0"
    assert by_name["seed"].description
    assert by_name["norm"].default == "'train'"


def test_a_page_for_each_method_with_each_of_its_presets() -> None:
    """Fails when a public method has no page, or a preset is on none."""
    from mu import methods

    pages = importlib.import_module("method_pages")
    project = pages.Project.read()
    public = {method.__name__: method for part in pages.methods().values() for method in part}
    assert {"SalUn", "ESD", "NPO", "UCE", "DELETE"} <= set(public)
    assert set(public) <= set(methods.__all__)
    presets = {file.stem for file in (ROOT / "configs/method").glob("*.yaml")}
    on_pages = {
        preset.name
        for name, listed in project.presets.items()
        for preset in listed
        if name in public
    }
    assert presets == on_pages
    page = pages.page(public["SalUn"], project)
    for text in ("arXiv 2310.12508", "`mu.methods.SalUn`", "salun_reference_code.yaml", "oracle"):
        assert text in page


def test_the_glossary_has_every_metric_of_every_suite() -> None:
    """Fails when a suite's sentence is not in the glossary."""
    import callbacks

    reference = importlib.import_module("reference_pages")
    text = reference.glossary()
    for suite in (callbacks.Accuracy, callbacks.TOFU, callbacks.RetrainGap):
        for metric in suite.definitions:
            assert (
                f"| `{metric.rstrip('/') if not metric.endswith('/') else metric + '…'}` |" in text
            )


def test_the_page_of_studies_has_every_key_of_the_schema() -> None:
    from mu.bench.study_schema import entries, sections

    text = importlib.import_module("reference_pages").study_keys()
    for key, section in sections():
        assert f"### {f'`{key}`' if key else 'Top level'}" in text
        assert all(f"\n| `{entry.name}` |" in text for entry in entries(section))


@pytest.mark.parametrize("name", ["docstring_markup"])
def test_examples_of_the_generator(name: str) -> None:
    """Fails when special characters of a docstring reach the markup unescaped."""
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted and not outcome.failed


def test_pages_that_are_no_longer_generated_are_removed(tmp_path: Path) -> None:
    """Fails when the page of a removed method stays, which nothing links."""
    generated = importlib.import_module("generated_pages")
    for folder in ("_generated", "methods", "api"):
        (tmp_path / folder).mkdir()
    (tmp_path / "methods/Removed.md").write_text("# Removed")
    (tmp_path / "api/index.md").write_text("# API")
    generated.write_pages(tmp_path)
    assert not (tmp_path / "methods/Removed.md").exists()
    assert (tmp_path / "api/index.md").exists()
    assert (tmp_path / "methods/SalUn.md").exists()
