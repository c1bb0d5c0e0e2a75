"""Progress of a study or a search: a live table in a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mu.bench.events import JobEnded, JobEvent, JobRestarted, JobStarted, JobWaiting, Outcome
from mu.bench.study import Job

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_TRAINED = ("ran", "measured")
"""States whose seconds tell how long such a run takes."""


class StudyProgress:
    """Running and ended jobs of a study, and the time that is left.

    Args:
        jobs: all jobs of the study.
        workers: number of jobs that run at the same time; None where it is not known.

    Example:
        >>> from mu.bench.study import Seeds
        >>> job, twin = (Job("method", "class", "SSD", Seeds(n, n, n)) for n in (0, 1))
        >>> progress = StudyProgress([job, twin], workers=1)
        >>> progress.update(JobStarted(job), now=0.0)
        >>> progress.update(JobEnded(job, Outcome(job, "ran"), seconds=4.0), now=4.0)
        >>> progress.seconds_left(now=4.0)
        4.0
    """

    def __init__(self, jobs: Sequence[Job], workers: int | None = None) -> None:
        self.jobs = list(jobs)
        self.workers = workers
        self.running: dict[Job, tuple[float, str]] = {}
        self.waiting: set[Job] = set()
        self.outcomes: dict[Job, Outcome] = {}
        self._seconds: dict[Job, float] = {}

    def update(self, event: JobEvent, now: float | None = None) -> None:
        """Take in an event; `now` is a time of `time.monotonic`."""
        now = time.monotonic() if now is None else now
        job = event.job
        self.waiting.discard(job)
        if isinstance(event, JobStarted):
            self.running[job] = (now, event.worker)
        elif isinstance(event, JobWaiting):
            self.waiting.add(job)
        else:
            self.running.pop(job, None)
        if isinstance(event, JobEnded):
            self.outcomes[job] = event.outcome
            if event.outcome.state in _TRAINED:
                self._seconds[job] = event.seconds

    def count(self, *states: str) -> int:
        """Number of jobs that ended in one of some states."""
        return sum(outcome.state in states for outcome in self.outcomes.values())

    def seconds_left(self, now: float | None = None) -> float | None:
        """Estimated seconds until the last job ends; None before a run has been trained.

        A job is taken to last as long as those of its method on its task did; else of its method,
        of its sort, or of all. Jobs that turn out to be finished shorten it.
        """
        now = time.monotonic() if now is None else now
        means = self._means()
        if not means:
            return None
        remaining = [
            self._estimate(job, means)
            for job in self.jobs
            if job not in self.outcomes and job not in self.running
        ]
        running = [
            max(0.0, self._estimate(job, means) - (now - start))
            for job, (start, _) in self.running.items()
        ]
        workers = self.workers or max(1, len(self.running))
        return max([sum([*remaining, *running]) / workers, *running], default=0.0)

    def _means(self) -> dict[tuple[str, ...], float]:
        """Mean seconds of the trained jobs: by task and method, by method, by role, of all."""
        groups: dict[tuple[str, ...], list[float]] = {}
        for job, seconds in self._seconds.items():
            for key in _groups(job):
                groups.setdefault(key, []).append(seconds)
        return {key: fmean(values) for key, values in groups.items()}

    @staticmethod
    def _estimate(job: Job, means: dict[tuple[str, ...], float]) -> float:
        return next(means[key] for key in _groups(job) if key in means)


def _groups(job: Job) -> list[tuple[str, ...]]:
    """Groups of jobs that last about as long, the closest first.

    The trainings of original and oracle follow one recipe.
    """
    role = "training" if job.role in ("train", "oracle") else job.role
    return [(job.task, job.method, job.role), (job.method, job.role), (role,), ()]


# ---- display -------------------------------------------------------------------------------------


@contextmanager
def display(progress: StudyProgress, console: Console) -> Iterator[Display]:
    """Display of a study's progress: live in a terminal, lines elsewhere."""
    if not console.is_interactive:
        yield LineDisplay(progress, console)
        return
    from rich.live import Live

    view = TableDisplay(progress, console)
    # four times a second, so that the clock of a long run goes on
    with Live(get_renderable=view.render, console=console, transient=True, refresh_per_second=4):
        yield view


class Display:
    """Base of displays: takes in the events of a study, and prints each failure once.

    Args:
        progress: what is displayed.
        console: where.
    """

    def __init__(self, progress: StudyProgress, console: Console) -> None:
        self.progress = progress
        self.console = console

    def show(self, event: JobEvent) -> None:
        """Take in an event and print what should stay."""
        self.progress.update(event)
        if isinstance(event, JobRestarted):
            self.print(f"restarted {event.job.label}: {event.reason}")
        elif isinstance(event, JobEnded) and event.outcome.state == "failed":
            self.print(f"failed {event.job.label}: {event.outcome.reason}")

    def print(self, line: str) -> None:
        """Print one line as it is, whatever the width."""
        style = "red" if line.startswith("failed") else ""
        self.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


class LineDisplay(Display):
    """Lines for a file or a pipe: one as a run starts, one as it ends."""

    def show(self, event: JobEvent) -> None:
        """Print the event, with counts and the time left behind an end."""
        super().show(event)
        if isinstance(event, JobStarted):
            worker = f" on {event.worker}" if event.worker else ""
            self.print(f"started {event.job.label}{worker}")
        elif isinstance(event, JobWaiting):
            self.print(f"waiting {event.job.label}: another process runs it")
        elif isinstance(event, JobEnded):
            outcome = event.outcome
            took = f" in {duration(event.seconds)}" if event.seconds >= 0.5 else ""
            if outcome.state != "failed":
                self.print(f"{outcome.state} {event.job.label}{took}; {summary(self.progress)}")
        self.console.file.flush()


class TableDisplay(Display):
    """Live table: jobs by task and state, then the running ones."""

    def render(self) -> RenderableType:
        """The table as it stands now."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        progress = self.progress
        head = Table.grid(padding=(0, 1))
        head.add_row(
            ProgressBar(len(progress.jobs), len(progress.outcomes), width=24),
            Text(summary(progress)),
        )
        return Group(head, self._tasks(), *self._running())

    def _tasks(self) -> Table:
        from rich import box
        from rich.table import Table

        progress = self.progress
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("task")
        states = ("runs", "done", "reused", "running", "waiting", "failed")
        for name in states:
            table.add_column(name, justify="right")
        for task in dict.fromkeys(job.task for job in progress.jobs):
            ended = Counter(
                outcome.state for job, outcome in progress.outcomes.items() if job.task == task
            )
            failed = ended.pop("failed", 0)
            reused = ended.pop("reused", 0)
            counts = (
                sum(job.task == task for job in progress.jobs),
                ended.total(),
                reused,
                sum(job.task == task for job in progress.running),
                sum(job.task == task for job in progress.waiting),
                failed,
            )
            table.add_row(task, *(str(count) if count else "" for count in counts))
        return table

    def _running(self) -> Iterable[Any]:
        from rich.text import Text

        now = time.monotonic()
        running = sorted(self.progress.running.items(), key=lambda item: item[1])
        limit = max(3, self.console.height - 14)
        for job, (start, worker) in running[:limit]:
            where = f" · {worker}" if worker else ""
            yield Text(f"  {job.label}{where} · {clock(now - start)}", overflow="ellipsis")
        if len(running) > limit:
            yield Text(f"  and {len(running) - limit} more")


def summary(progress: StudyProgress) -> str:
    """Counts and the time left: `5 of 117 runs done, 1 failed, about 4 min left`."""
    parts = [f"{len(progress.outcomes)} of {len(progress.jobs)} runs done"]
    if failed := progress.count("failed"):
        parts.append(f"{failed} failed")
    if len(progress.outcomes) < len(progress.jobs):
        seconds = progress.seconds_left()
        parts.append(
            "time left not known yet" if seconds is None else f"about {duration(seconds)} left"
        )
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Time in words, to two units.

    >>> duration(4.2), duration(200), duration(5400), duration(90000)
    ('4 s', '3 min 20 s', '1 h 30 min', '1 d 1 h')
    """
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    rest = max(0, round(seconds))
    parts = []
    for name, size in units:
        count, rest = divmod(rest, size)
        if count or parts or name == "s":
            parts.append((count, name))
    return " ".join(f"{count} {name}" for count, name in parts[:2] if count or len(parts) == 1)


def clock(seconds: float) -> str:
    """Time as a clock shows it.

    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
