"""Rows of one method with different settings."""

from __future__ import annotations

import os
from pathlib import Path

from mu.bench.report.contents import make_report
from mu.bench.report.variants import variant_labels
from tests.support.report_studies import save_run


def arguments(rate: float, **further: object) -> dict[str, object]:
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": rate, "foreach": None}}
    return {"method_arguments": {"optimizer": optimizer, "seed": 3, **further}, "epochs": 5}


def test_label_names_the_settings_that_differ() -> None:
    assert variant_labels([arguments(0.1), arguments(0.02)]) == ["lr=0.1", "lr=0.02"]
    facts = [arguments(0.1, alpha=1.0), arguments(0.1, alpha=2.0, mask=None)]
    assert variant_labels(facts) == ["alpha=1", "alpha=2"]


def test_equal_settings_have_no_label_whatever_the_seed() -> None:
    backbone = {"class_path": "B", "init_args": {"weights": "runs/a", "init_seed": 1}}
    other = {"class_path": "B", "init_args": {"weights": "runs/b", "init_seed": 2}}
    facts = [arguments(0.1, backbone=backbone), arguments(0.1, backbone=other, seed=4)]
    assert variant_labels(facts) == ["", ""]


def test_arguments_of_another_class_are_named_by_the_class_alone() -> None:
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.02}}
    facts = [arguments(0.1), {"method_arguments": {"optimizer": adam}}]
    assert variant_labels(facts) == ["optimizer=SGD", "optimizer=Adam"]


def test_epochs_count_only_where_they_are_a_setting() -> None:
    facts = [arguments(0.1), {**arguments(0.1), "epochs": 9}]
    assert variant_labels(facts) == ["", ""]
    assert variant_labels(facts, with_epochs=True) == ["epochs=5", "epochs=9"]


def test_two_learning_rates_of_one_method_are_two_rows(tmp_path: Path) -> None:
    for name, rate, value in (("a", 0.1, 1.0), ("b", 0.02, 2.0), ("c", 0.02, 3.0)):
        folder = save_run(tmp_path / name, {"UA": value}, facts=arguments(rate))
        os.utime(folder / "results.json", (2e9 + value, 2e9 + value))
    report = make_report([tmp_path])
    assert [row.method for row in report.tasks[0].rows] == ["SalUn (lr=0.02)", "SalUn (lr=0.1)"]
    assert [row[1] for row in report.run_rows] == ["SalUn (lr=0.02)", "SalUn (lr=0.1)"]
    assert report.notes == [
        "Left out, because a newer run has the same task, method, settings and seeds: b."
    ]
