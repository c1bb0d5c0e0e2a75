"""Ray tasks on a cluster of two local nodes, of which one is killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mu.bench.events import JobEnded, JobRestarted, JobStarted
from mu.bench.executors.ray import Ray
from mu.bench.study_file import read_study
from mu.cli.bench import main
from mu.utils.errors import InputError
from tests.bench.executors.waiting_bench import GO, WaitingBench
from tests.bench.small_study import numbers_of, written

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Cluster with a head of one CPU, on the loopback address alone."""
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_jobs_of_a_killed_node_run_again_and_no_number_changes(
    cluster: Any, finished: Path, tmp_path: Path
) -> None:
    """Fails when a lost node loses a job, runs one twice, or fails the study."""
    node = cluster.add_node(num_cpus=1)
    study = read_study(written(tmp_path))
    events = []
    killed = ""
    for event in Ray(address=cluster.address).execute(WaitingBench(study)):
        events.append(event)
        if isinstance(event, JobStarted) and not killed and node.node_id[:6] in event.worker:
            killed = event.job.label
            cluster.remove_node(node, allow_graceful=False)
            (study.output / GO).touch()
    assert killed, "no job has run on the node"
    ended = [event for event in events if isinstance(event, JobEnded)]
    assert Counter(event.job for event in ended) == Counter(study.jobs())
    assert {event.outcome.state for event in ended} == {"ran"}
    assert killed in {event.job.label for event in events if isinstance(event, JobRestarted)}
    assert main(["-c", str(tmp_path / "study.yaml")]) == 0
    assert numbers_of(tmp_path) == numbers_of(finished)


def test_ray_starts_on_this_machine_without_an_address(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-c", str(written(tmp_path)), "--executor", "ray", "--workers", "2"]
    assert main(arguments) == 0
    assert "5 ran" in capsys.readouterr().out
    assert numbers_of(tmp_path) == numbers_of(finished)


def test_an_address_without_a_cluster_is_one_sentence(tmp_path: Path) -> None:
    executor = Ray(address="127.0.0.1:9")
    with pytest.raises(InputError, match=r"no Ray cluster at 127\.0\.0\.1:9"):
        list(executor.execute(WaitingBench(read_study(written(tmp_path)))))
