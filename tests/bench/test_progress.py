"""Progress of a study: counts, time left, and a line for each start and end."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mu.bench.events import JobEnded, JobEvent, JobRestarted, JobStarted, JobWaiting, Outcome
from mu.bench.progress import LineDisplay, StudyProgress, TableDisplay, display, summary
from mu.bench.study import Job, Seeds


def job(method: str = "SSD", task: str = "class", role: str = "method", seed: int = 0) -> Job:
    return Job(role, task, method, Seeds(seed, seed, seed))


def ended(entry: Job, seconds: float = 0.0, state: str = "ran", reason: str = "") -> JobEnded:
    return JobEnded(entry, Outcome(entry, state, reason=reason), seconds)


def lines(events: list[JobEvent], jobs: list[Job]) -> list[str]:
    console = Console(file=io.StringIO(), width=40)
    progress = StudyProgress(jobs, workers=1)
    with display(progress, console) as view:
        assert isinstance(view, LineDisplay)
        for event in events:
            view.show(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_line_says_each_start_and_each_end() -> None:
    first, second = job("SSD"), job("SCRUB")
    events: list[JobEvent] = [
        JobStarted(first, "worker 1"),
        ended(first, 90.0),
        ended(second, state="reused"),
    ]
    assert lines(events, [first, second, job("NPO")]) == [
        "started class · SSD · seed0 on worker 1",
        "ran class · SSD · seed0 in 1 min 30 s; 1 of 3 runs done, about 3 min left",
        "reused class · SCRUB · seed0; 2 of 3 runs done, about 1 min 30 s left",
    ]


def test_failure_is_printed_once_with_its_reason() -> None:
    events: list[JobEvent] = [JobStarted(job()), ended(job(), 1.0, "failed", "no [memory]")]
    printed = lines(events, [job()])
    assert printed[1:] == ["failed class · SSD · seed0: no [memory]"]


def test_lost_worker_and_waiting_run_are_named() -> None:
    events: list[JobEvent] = [JobWaiting(job()), JobRestarted(job(), "it was killed", "worker 2")]
    assert lines(events, [job()]) == [
        "waiting class · SSD · seed0: another process runs it",
        "restarted class · SSD · seed0: it was killed",
    ]


@pytest.mark.parametrize(
    ("timed", "expected"),
    [
        ([(job("SSD"), 4.0), (job("NPO"), 10.0)], 4.0),  # the same method on the same task
        ([(job("SSD", "random"), 6.0), (job("NPO"), 10.0)], 6.0),  # the same method
        ([(job("NPO"), 10.0), (job("WGA"), 20.0)], 15.0),  # another method
        ([(job("oracle", role="oracle"), 30.0)], 30.0),  # whatever has run
    ],
)
def test_time_left_is_taken_from_the_closest_runs(
    timed: list[tuple[Job, float]], expected: float
) -> None:
    open_job = job("SSD", seed=1)
    progress = StudyProgress([*(entry for entry, _ in timed), open_job], workers=1)
    assert progress.seconds_left() is None
    for entry, seconds in timed:
        progress.update(ended(entry, seconds))
    assert progress.seconds_left() == expected


def test_training_of_the_original_lasts_as_long_as_the_oracle() -> None:
    oracle, training = job("oracle", role="oracle"), job("original", role="train")
    progress = StudyProgress([oracle, training, job()], workers=1)
    progress.update(ended(oracle, 30.0))
    progress.update(ended(job(), 2.0))
    assert progress.seconds_left() == 30.0


def test_time_left_counts_down_and_is_shared_by_the_workers() -> None:
    jobs = [job(seed=seed) for seed in range(5)]
    progress = StudyProgress(jobs, workers=2)
    progress.update(ended(jobs[0], 10.0))
    progress.update(JobStarted(jobs[1]), now=100.0)
    progress.update(JobStarted(jobs[2]), now=100.0)
    assert progress.seconds_left(now=104.0) == (2 * 10 + 2 * 6) / 2
    # the longest running job ends last
    for finished in jobs[3:]:
        progress.update(ended(finished, 10.0))
    assert progress.seconds_left(now=104.0) == 6.0
    assert progress.seconds_left(now=400.0) == 0.0


def test_reused_runs_say_nothing_about_the_time_left() -> None:
    jobs = [job(seed=seed) for seed in range(3)]
    progress = StudyProgress(jobs, workers=1)
    progress.update(ended(jobs[0], state="reused"))
    assert progress.seconds_left() is None
    assert summary(progress) == "1 of 3 runs done, time left not known yet"


def test_terminal_shows_a_table_of_tasks_and_the_running_jobs() -> None:
    console = Console(
        file=io.StringIO(), force_terminal=True, width=100, height=24, color_system=None
    )
    jobs = [job("SSD"), job("NPO"), job("SSD", "random"), job("NPO", "random")]
    progress = StudyProgress(jobs, workers=2)
    view = TableDisplay(progress, console)
    view.show(ended(jobs[0], 3.0))
    view.show(ended(jobs[1], 1.0, "failed", "no memory"))
    view.show(JobStarted(jobs[2], "worker 2"))
    console.print(view.render())
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.count("no memory") == 1
    rows = [line.split() for line in text.splitlines()]
    assert ["task", "runs", "done", "reused", "running", "waiting", "failed"] in rows
    assert ["class", "2", "1", "1"] in rows and ["random", "2", "1"] in rows
    assert "2 of 4 runs done, 1 failed, about" in text
    assert "random · SSD · seed0 · worker 2 · 0:00" in text
