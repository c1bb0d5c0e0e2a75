"""Measurements of a run: what a further test adds and replaces, and what counts for its weights."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import torch

from mu.metrics.results import Presentation, Result
from mu.metrics.run_results import Measurement, RunResults, stale_results
from mu.utils.checksums import checkpoint_digest
from mu.utils.errors import InputError
from mu.utils.run_layout import CHECKPOINT, RESULTS


def results(
    value: float,
    metric: str = "UA",
    suite: str = "callbacks.Accuracy",
    weights: str = "w",
    checkpoint: str = "",
    measured: str = "2026-01-01",
    **options: str,
) -> RunResults:
    measurement = Measurement(suite, options, [Result(metric, value)], measured=measured, seconds=1)
    hashes = {"weights": weights, "checkpoint": checkpoint, "split": "s"}
    return RunResults(
        "Digits", "SalUn", [measurement], {"split": 0}, hashes, {"training": 5.0}, {"epochs": 2}
    )


def write_checkpoint(folder: Path, value: float) -> str:
    (folder / CHECKPOINT).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"value": torch.tensor(value)}, folder / CHECKPOINT)
    return checkpoint_digest(folder / CHECKPOINT)


def values(record: RunResults) -> dict[str, float | None]:
    return {result.metric: result.value for result in record.results}


def test_another_suite_adds_its_numbers(tmp_path: Path) -> None:
    results(90.0).save(tmp_path)
    results(40.0, "MIA", "callbacks.Membership").save(tmp_path)
    record = RunResults.load(tmp_path)
    assert values(record) == {"UA": 90.0, "MIA": 40.0}
    assert record.seconds == {"training": 5.0, "evaluation": 2.0}


def test_the_same_suite_replaces_its_numbers(tmp_path: Path) -> None:
    for value in (90.0, 80.0):
        results(value).save(tmp_path)
        results(40.0, "MIA", "callbacks.Membership").save(tmp_path)
    record = RunResults.load(tmp_path)
    assert values(record) == {"UA": 80.0, "MIA": 40.0} and len(record.measurements) == 2


def test_other_options_are_another_measurement_and_the_newest_counts(tmp_path: Path) -> None:
    results(1.0, part="forget", measured="2026-01-03").save(tmp_path)
    results(2.0, part="test", measured="2026-01-02").save(tmp_path)
    record = RunResults.load(tmp_path)
    assert len(record.measurements) == 2 and values(record) == {"UA": 1.0}


def test_a_test_without_a_suite_leaves_the_numbers(tmp_path: Path) -> None:
    results(90.0).save(tmp_path)
    empty = results(0.0)
    empty.measurements = []
    empty.save(tmp_path)
    assert values(RunResults.load(tmp_path)) == {"UA": 90.0}


def test_a_study_keeps_its_names_and_key_when_a_run_is_tested_by_hand(tmp_path: Path) -> None:
    study = results(90.0)
    study.method = "SalUn lr 0.1"
    study.seeds = {"split": 0, "train": 0, "unlearn": 0}
    study.hashes["key"] = "k"
    study.save(tmp_path)
    results(40.0, "MIA", "callbacks.Membership").save(tmp_path)
    record = RunResults.load(tmp_path)
    assert (record.method, record.hashes["key"]) == ("SalUn lr 0.1", "k")
    assert record.seeds == study.seeds and values(record) == {"UA": 90.0, "MIA": 40.0}


def test_numbers_count_for_the_checkpoint_that_the_folder_holds(tmp_path: Path) -> None:
    first = write_checkpoint(tmp_path, 1.0)
    results(90.0, checkpoint=first, weights="a").save(tmp_path)
    results(50.0, checkpoint="middle", weights="b").save(tmp_path)
    assert values(RunResults.load(tmp_path)) == {"UA": 90.0}
    write_checkpoint(tmp_path, 2.0)
    with pytest.raises(InputError, match="weights have changed since the test; measure it again"):
        RunResults.load(tmp_path)
    entries = RunResults.load_all(tmp_path)
    assert stale_results(entries, None) == {"epoch 2": "UA, UA"}


def test_a_changed_file_is_found_by_its_hash(tmp_path: Path) -> None:
    results(90.0).save(tmp_path)
    text = (tmp_path / RESULTS).read_text()
    (tmp_path / RESULTS).write_text(text.replace("90.0", "9.0"))
    for action in (lambda: RunResults.load(tmp_path), lambda: results(1.0).save(tmp_path)):
        with pytest.raises(InputError, match=r"results\.json was changed after it was written"):
            action()
    content = json.loads(text)
    (tmp_path / RESULTS).write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(InputError, match="not a results file of this version"):
        RunResults.load(tmp_path)


def test_everything_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = results(90.0)
    record.facts = {"sizes": {10: 1, 9: 2}, "share": 0.1}
    record.measurements[0].presentation = Presentation({"UA": "Unlearning accuracy."}, ["UA"])
    record.save(tmp_path)
    record.facts = {"sizes": {"10": 1, "9": 2}, "share": 0.1}
    assert RunResults.load(tmp_path) == record
    assert RunResults.load(tmp_path).presentation.headline == ["UA"]


def _measure(folder: Path, index: int) -> None:
    for repetition in range(10):
        results(float(repetition), f"metric{index}", f"suite{index}").save(folder)


def test_two_processes_that_measure_one_run_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_measure, args=(tmp_path, index)) for index in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert values(RunResults.load(tmp_path)) == {f"metric{i}": 9.0 for i in range(3)}
