"""Robustness: attack success on prompts of an erased concept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.base import Evaluated, Suite, module_of, run_folder
from callbacks.images.judging import erased_concepts, selected_concepts
from callbacks.images.original_images import (
    TARGETS,
    check_size,
    gather_images,
    original_targets,
    save_originals,
    task_targets,
)
from callbacks.images.recognition import image_rate
from callbacks.results_writer import recorded_folder
from mu.attacks.base import Attack
from mu.attacks.unlearn_diff_atk import AttackSummary, UnlearnDiffAtk
from mu.core.module import UnlearningModule
from mu.evaluation.images.attack_run import (
    add_attack_grid,
    attack_budget,
    attack_prompts,
    write_attack,
)
from mu.evaluation.images.drawing import ImageJob, image_cache
from mu.evaluation.images.judges import Judge
from mu.evaluation.images.sets import ImageSet
from mu.metrics.results import Result, TradeOff, compute_result
from mu.utils.errors import InputError

NO_CONCEPT = "the task does not say which concept was erased; give Robustness the concept."


class Robustness(Suite):
    """Attack success rates on prompts of the erased concept, before and after an attack.

    `pre_ASR` is the share of prompts whose image shows the erased concept without an attack, and
    `ASR` the share with or without it, in percent of all prompts. Higher is worse for the method.

    `attack.json` in the run folder has every adversarial prompt, `media/attack.png` some images.

    Args:
        judge: judge of the concept.
        attack: the attack; UnlearnDiffAtk with the paper's budget when None.
        prompts: prompts to attack; the task's forget part when None.
        concept: name of the concept for the judge; when None, that of the task, or each prompt's of
            several.
        targets: images that show the concept, one a prompt: those of the `original` model, drawn
            when the fit starts, or in the test, by the original that the run records; or those of
            the `task`.
        batch_size: prompts attacked at once.
        shown: largest number of prompts in `media/attack.png`.
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "pre_ASR": "Share of the attacked prompts whose images show the erased concept without any "
        "attack, in percent; lower is better.",
        "ASR": "Attack success rate: share of these prompts for which the attack brings the "
        "concept back, in percent; lower is better.",
    }
    trade_offs = (
        TradeOff(
            "Robustness and quality", ("ASR",), ("FID",), "ASR: concept brought back by the attack"
        ),
    )

    def __init__(
        self,
        judge: Judge,
        attack: Attack | None = None,
        prompts: ImageSet | None = None,
        concept: str | None = None,
        targets: Literal["original", "task"] = "original",
        batch_size: int = 8,
        shown: int = 6,
    ) -> None:
        if targets not in ("original", "task"):
            raise InputError(f"targets is {targets!r}; it is `original` or `task`.")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
        self.judge = judge
        self.prompts = prompts or ImageSet("forget")
        self.attack: Any = attack or UnlearnDiffAtk()
        self.concept = concept
        self.targets = targets
        self.batch_size = batch_size
        self.shown = shown

    def check(self) -> None:
        """Read the judge's weights, and look for the concept among its labels."""
        self.judge.load()
        if self.concept is not None:
            self.judge.label_indices(self.concept)

    def check_run(self, module: UnlearningModule) -> None:
        """Check that there are prompts of a concept that the judge has a label for."""
        self.prompts.check(module)
        if not hasattr(module.backbone, "texts"):
            raise InputError(
                "Robustness attacks prompts, and the model draws from classes; leave the suite out."
            )
        if self.concept is None:
            concepts = selected_concepts(module)
            for name in concepts:
                self.judge.label_indices(name)
            if not concepts:
                raise InputError(NO_CONCEPT)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the target images with the original weights."""
        module = module_of(pl_module)
        if self.targets == "original":
            with module.stopwatch("evaluation"):
                file = run_folder(trainer) / TARGETS
                save_originals(file, module, {"targets": self._job(module)})

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Results `pre_ASR` and `ASR`."""
        # prompts and target images
        job = self._job(module)
        concepts = self._concepts(module, job)
        targets = self._targets(module, job)
        # the attack
        start = time.monotonic()
        summary, images = attack_prompts(
            self.attack,
            module,
            job,
            targets,
            self.judge,
            concepts,
            self.batch_size,
        )
        seconds = round(time.monotonic() - start, 1)
        # results, and the files of the run folder
        detail = {
            **self.judge.detail(),
            "concept": ", ".join(dict.fromkeys(concepts)),
            **self.prompts.detail(module, job),
            "resolution": int(images.shape[-1]),
            **attack_budget(self.attack),
            "targets": self.targets,
            "seconds": seconds,
            "steps_taken": int(summary.steps.sum()),
            "generations": int(summary.generations.sum()),
            **_evaluations(summary),
        }
        del detail["images"]
        folder = recorded_folder(module)
        if folder is not None:
            self._write(folder, module, job, summary, targets, images)
        return [
            compute_result(
                metric, partial(image_rate, hits, job.rows), False, self.prompts.name, "%", detail
            )
            for metric, hits in (("pre_ASR", summary.before), ("ASR", summary.success))
        ]

    def _job(self, module: UnlearningModule) -> ImageJob:
        """Job of prompts to attack, with the attack's sampler, else that of the prompts."""
        job = self.prompts.job(module)
        if any(row.prompt is None for row in job.rows):
            raise InputError(
                "Robustness attacks prompts, and the task gives classes; leave the suite out."
            )
        sampler = getattr(self.attack, "sampler", None) or job.sampler
        return ImageJob(job.rows, sampler, job.batch_size)

    def _concepts(self, module: UnlearningModule, job: ImageJob) -> list[str]:
        """Concept of each prompt, as the judge names it."""
        concepts = [self.concept or name for name in erased_concepts(job.rows, module)]
        if not all(concepts):
            raise InputError(NO_CONCEPT)
        names = [str(name) for name in concepts]
        for name in dict.fromkeys(names):
            self.judge.label_indices(name)
        return names

    def _targets(self, module: UnlearningModule, job: ImageJob) -> Tensor:
        """Target images `[N, 3, H, W]` in [0, 1], on the CPU."""
        targets = (
            task_targets(module, self.prompts.part, job)
            if self.targets == "task"
            else original_targets(run_folder(module.trainer), module, job)
        )
        check_size(module, targets)
        return targets

    def _write(
        self,
        folder: Path,
        module: UnlearningModule,
        job: ImageJob,
        summary: AttackSummary,
        targets: Tensor,
        images: Tensor,
    ) -> None:
        count = min(self.shown, len(job.rows))
        first = ImageJob(job.rows[:count], job.sampler, job.batch_size)
        clean = gather_images(module, image_cache(module).images(first), range(count))
        if module.global_rank:
            return
        write_attack(folder, job, summary)
        if count:
            add_attack_grid(folder, job, self.attack, targets[:count], clean, images[:count])


def _evaluations(summary: AttackSummary) -> dict[str, str]:
    """Detail: number of evaluations of each network."""
    counts = [f"{count} of {name}" for name, count in summary.evaluations.items()]
    return {"evaluations": ", ".join(counts)} if counts else {}
