"""Robustness: does an attack on the prompt bring the erased concept back?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.base import Evaluated, Suite, module_of, run_folder
from callbacks.images import original_images as originals
from callbacks.results_writer import ResultsWriter
from mu.attacks.base import Attack
from mu.attacks.unlearn_diff_atk import AttackSummary, PromptAttackResult, UnlearnDiffAtk
from mu.core.module import UnlearningModule
from mu.data.batch import fetch
from mu.evaluation.images.drawing import ImageJob, ImageRow, image_cache, levels
from mu.evaluation.images.judges import Judge
from mu.evaluation.images.sets import ImageSet
from mu.evaluation.media import add_grid
from mu.metrics.outputs import Outputs
from mu.metrics.results import Result, TradeOff
from mu.utils.errors import InputError
from mu.utils.files import write_json
from mu.utils.progress import progress_bar

TARGETS = "attack_targets.safetensors"


class Robustness(Suite):
    """`pre_ASR`, the share of prompts whose image shows the erased concept without an attack, and
    `ASR`, the share with or without it, in percent of all prompts. Higher is worse for the method.

    `attack.json` in the run folder keeps every prompt that was found, and `media/attack.png` shows
    some images.

    Args:
        judge: says whether an image shows the concept.
        attack: the attack; UnlearnDiffAtk with the paper's budget when None.
        prompts: what is attacked; the task's forget part when None.
        concept: as the judge names it; what the task's selector says when None.
        targets: images that show the concept, one a prompt: those of the `original` model, drawn
            when the fit starts (or now, where the weights are still its own), or those of the
            `task`.
        batch_size: prompts attacked at once.
        shown: prompts in the picture, at most.
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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the judge's weights before anything is drawn."""
        super().setup(trainer, pl_module, stage)
        if stage == "test":
            self.judge.load()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the targets with the original weights."""
        module = module_of(pl_module)
        if self.targets == "original":
            with module.stopwatch("evaluation"):
                originals.keep(
                    run_folder(trainer) / TARGETS, module, {"targets": self._job(module)}
                )

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """`pre_ASR` and `ASR`."""
        job = self._job(module)
        concept = self._concept(module)
        targets = self._targets(module, job)
        began = time.monotonic()
        summary, images = self._attacked(module, job, targets, concept)
        detail = {
            **self.judge.detail(),
            "concept": concept,
            **self.prompts.detail(module, job),
            "resolution": int(images.shape[-1]),
            **self._budget(),
            "targets": self.targets,
            "seconds": round(time.monotonic() - began, 1),
            "steps_taken": int(summary.steps.sum()),
            "generations": int(summary.generations.sum()),
            **_told(summary.evaluations),
        }
        del detail["images"]
        folder = _recorded(module)
        if folder is not None:
            self._write(folder, module, job, summary, targets, images)
        return [
            Result("pre_ASR", 100 * summary.pre_asr, False, self.prompts.name, "%", detail),
            Result("ASR", 100 * summary.asr, False, self.prompts.name, "%", detail),
        ]

    def _job(self, module: UnlearningModule) -> ImageJob:
        """Prompts to attack, and how their images are drawn: as the attack says, else as the
        prompts say.
        """
        job = self.prompts.job(module)
        if any(row.prompt is None for row in job.rows):
            raise InputError(
                "Robustness attacks prompts, and the task gives classes; leave the suite out."
            )
        return ImageJob(
            job.rows, getattr(self.attack, "sampler", None) or job.sampler, job.batch_size
        )

    def _concept(self, module: UnlearningModule) -> str:
        selector = module.task.split.selector if module.task is not None else {}
        found = self.concept or selector.get("concept")
        if not found:
            raise InputError(
                "the task does not say which concept was erased; give Robustness the concept."
            )
        self.judge.label_indices(str(found))
        return str(found)

    def _budget(self) -> dict[str, Any]:
        """How hard the attack may try."""
        if not isinstance(self.attack, UnlearnDiffAtk):
            return {"attack": type(self.attack).__name__}
        tokens = getattr(self.attack.layout, "tokens", None)
        return {
            "attack": type(self.attack).__name__,
            "layout": type(self.attack.layout).__name__,
            **({"tokens": tokens} if tokens is not None else {}),
            "budget": f"{self.attack.steps} steps at each of {self.attack.timesteps} timesteps",
        }

    # ---- targets ---------------------------------------------------------------------------------

    def _targets(self, module: UnlearningModule, job: ImageJob) -> Tensor:
        """`[N, 3, H, W]` in [0, 1], on the CPU."""
        found = (
            self._of_task(module, job.rows)
            if self.targets == "task"
            else self._of_original(module, job)
        )
        served: Any = module.served()
        shape = tuple(served.encode(found[:1].to(module.device)).shape[1:])
        if shape != tuple(served.sample_shape):
            raise InputError(
                f"the target images of {found.shape[-1]}x{found.shape[-2]} pixels are not of the "
                "model's size; take targets: original."
            )
        return found

    def _of_task(self, module: UnlearningModule, rows: Sequence[ImageRow]) -> Tensor:
        samples = [row.sample for row in rows]
        if module.task is None or any(place is None for place in samples):
            raise InputError(
                "targets of the task are images of its prompts, and these come from a file; take "
                "targets: original."
            )
        import numpy as np

        found = fetch(module.task.datasets[self.prompts.part], np.asarray(samples))
        if "image" not in found:
            raise InputError(
                f"the part {self.prompts.part!r} has no images to take for targets; take targets: "
                "original."
            )
        return found["image"].float()

    def _of_original(self, module: UnlearningModule, job: ImageJob) -> Tensor:
        found = originals.kept(run_folder(module.trainer) / TARGETS, module, "targets", job)
        if found is not None:
            return found
        model: Any = module.reference
        if model is None and originals.is_original(module):
            model = module.backbone
        if model is None:
            raise InputError(
                "Robustness needs images of the original model, which nobody drew while it was "
                "there; fit with this suite among the callbacks, or take targets: task."
            )
        batches = job.run(model, module.global_rank, module.world_size, module.precision)
        return originals.gathered(module, batches, range(len(job.rows)))

    # ---- the attack ------------------------------------------------------------------------------

    def _attacked(
        self, module: UnlearningModule, job: ImageJob, targets: Tensor, concept: str
    ) -> tuple[AttackSummary, Tensor]:
        """What became of every prompt, on all ranks, and the last images `[N, 3, H, W]` on the CPU.

        Batches are fixed and dealt to ranks whole, so that the numbers do not depend on ranks.
        """
        batches = [
            list(range(start, min(start + self.batch_size, len(job.rows))))
            for start in range(0, len(job.rows), self.batch_size)
        ]
        attack = _drawing_with(self.attack, job.sampler)
        store = Outputs().to(module.device)
        results = []
        rank = module.global_rank
        for places in progress_bar(
            batches[rank :: module.world_size],
            "attacking prompts",
            disable=rank != 0,
            unit_scale=self.batch_size,
        ):
            with module.precision():
                result = attack(
                    module.served(),
                    _batch(job.rows, places, targets, module.device),
                    lambda images: self.judge.recognises(levels(images).float() / 255, concept),
                )
            if not isinstance(result, PromptAttackResult):
                raise InputError(
                    "Robustness counts attacks on prompts, as UnlearnDiffAtk; "
                    f"{type(attack).__name__} is none."
                )
            results.append(result)
            store.update(
                "attack",
                {
                    "index": torch.tensor(places, device=module.device),
                    "before": result.before.to(torch.uint8),
                    "success": result.success.to(torch.uint8),
                    "steps": result.steps,
                    "generations": result.generations,
                    "image": result.prediction.float(),
                },
            )
        rows = {name: value.cpu() for name, value in store.compute()["attack"].items()}
        texts = _texts(results)
        counts = _everywhere([result.evaluations for result in results])
        evaluations = {
            name: sum(part.get(name, 0) for part in counts)
            for name in sorted({name for part in counts for name in part})
        }
        summary = AttackSummary(
            rows["index"],
            rows["before"].bool(),
            rows["success"].bool(),
            [str(row.prompt) for row in job.rows],
            [texts[place] for place in range(len(job.rows))],
            rows["steps"],
            rows["generations"],
            evaluations,
        )
        return summary, rows["image"]

    def _write(
        self,
        folder: Path,
        module: UnlearningModule,
        job: ImageJob,
        summary: AttackSummary,
        targets: Tensor,
        images: Tensor,
    ) -> None:
        shown = min(self.shown, len(job.rows))
        first = ImageJob(job.rows[:shown], job.sampler, job.batch_size)
        clean = originals.gathered(module, image_cache(module).images(first), range(shown))
        if module.global_rank:
            return
        write_json(
            folder / "attack.json",
            [
                {
                    "case": row.case,
                    "prompt": row.prompt,
                    "seed": row.seed,
                    "adversarial": summary.adversarial[place],
                    "before": bool(summary.before[place]),
                    "success": bool(summary.success[place]),
                    "steps": int(summary.steps[place]),
                }
                for place, row in enumerate(job.rows)
            ],
        )
        if shown:
            every = "" if shown == len(job.rows) else f"the first {shown} of "
            add_grid(
                folder,
                "attack",
                [
                    image
                    for trio in zip(targets[:shown], clean, images[:shown], strict=True)
                    for image in trio
                ],
                title=f"{every}{len(job.rows)} prompts, {type(self.attack).__name__}",
                group="attack",
                rows=[str(row.prompt) for row in job.rows[:shown]],
                columns=["target", "without attack", "under attack"],
            )


def _batch(
    rows: Sequence[ImageRow], places: Sequence[int], targets: Tensor, device: torch.device
) -> dict[str, Any]:
    """What the attack reads."""
    mine = [rows[place] for place in places]
    batch: dict[str, Any] = {
        "index": torch.tensor(places, device=device),
        "prompt": [row.prompt for row in mine],
        "image": targets[list(places)].to(device),
        "seed": torch.tensor([row.seed for row in mine], device=device),
    }
    if all(row.guidance is not None for row in mine):
        batch["guidance"] = torch.tensor([row.guidance for row in mine], device=device)
    return batch


def _drawing_with(attack: Any, sampler: Any) -> Any:
    """The attack, drawing as its prompts' images are drawn where it says nothing else."""
    from copy import copy

    if sampler is None or getattr(attack, "sampler", sampler) is not None:
        return attack
    twin = copy(attack)
    twin.sampler = sampler
    return twin


def _everywhere(mine: list[Any]) -> list[Any]:
    """Lists of all ranks, joined."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return mine
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, mine)
    return [one for several in found for one in several]


def _texts(results: Sequence[PromptAttackResult]) -> dict[int, str]:
    """The last prompt tried, by place, from all ranks."""
    mine = [
        (int(place), text)
        for result in results
        for place, text in zip(
            result.adversarial["index"].tolist(), result.adversarial["prompt"], strict=True
        )
    ]
    return dict(_everywhere(mine))


def _told(evaluations: dict[str, int]) -> dict[str, Any]:
    return (
        {"evaluations": ", ".join(f"{count} of {name}" for name, count in evaluations.items())}
        if evaluations
        else {}
    )


def _recorded(module: UnlearningModule) -> Path | None:
    """The run folder, where one is written."""
    callbacks: list[Any] = module.trainer.callbacks  # type: ignore[attr-defined]
    return (
        run_folder(module.trainer)
        if any(isinstance(one, ResultsWriter) for one in callbacks)
        else None
    )
