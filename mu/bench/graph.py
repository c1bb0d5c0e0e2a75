"""Graph of the jobs of a study: which runs each one needs."""

from __future__ import annotations

from mu.bench.execution import takes_oracle
from mu.bench.study import Job, Study


def job_graph(study: Study) -> dict[Job, list[Job]]:
    """Jobs of a study in their serial order, each with the jobs that must end before it.

    - The training of an original, and the oracle, need nothing.
    - The measurement of an original needs its training, and the oracle where a suite takes one.
    - A method needs the original that it unlearns: trained, or, where the study names its weights,
      measured; and the oracle, where the study has one.

    Args:
        study: its `jobs()` are the nodes.
    """
    jobs = study.jobs()
    by_role = {(job.role, job.task, job.seeds): job for job in jobs if job.role != "method"}

    def needs(job: Job) -> list[Job]:
        roles = {
            "train": (),
            "oracle": (),
            "original": (
                "train",
                *(("oracle",) if any(map(takes_oracle, study.suites_of(job.task))) else ()),
            ),
            "method": ("train" if study.trains_original else "original", "oracle"),
        }[job.role]
        keys = [(role, job.task, job.seeds) for role in roles]
        return [by_role[key] for key in keys if key in by_role]

    return {job: needs(job) for job in jobs}
