"""Attack on all prompts of an image job, in batches divided among ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mu.attacks.base import Criterion
from mu.attacks.unlearn_diff_atk import AttackSummary, PromptAttackResult, UnlearnDiffAtk
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.evaluation.images.drawing import ImageJob, ImageRow, levels
from mu.evaluation.images.judges import Judge
from mu.evaluation.media import add_grid
from mu.metrics.outputs import Outputs
from mu.utils.errors import InputError, UndefinedError
from mu.utils.files import write_json
from mu.utils.progress import progress_bar
from mu.utils.rng import signed_seed


def attack_prompts(
    attack: Any,
    module: UnlearningModule,
    job: ImageJob,
    targets: Tensor,
    judge: Judge,
    concepts: Sequence[str],
    batch_size: int,
) -> tuple[AttackSummary, Tensor]:
    """Attack every prompt of a job, on all ranks.

    Batches are fixed and assigned to ranks whole, so that results do not depend on ranks.

    Args:
        attack: the attack; it draws with the job's sampler where it has none of its own.
        module: module with the served model, ranks, device and precision.
        job: prompts, seeds and guidances.
        targets: images that show the concept, one a prompt, `[N, 3, H, W]` in [0, 1].
        judge: judge of the concepts.
        concepts: concept of each prompt.
        batch_size: prompts attacked at once.

    Returns:
        The summary over all prompts, and the last image of each, `[N, 3, H, W]` on the CPU.

    Raises:
        InputError: when the attack does not work on prompts.
    """
    # divide the prompts into batches
    count = len(job.rows)
    batches = [
        list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)
    ]
    attack = _with_sampler(attack, job.sampler)
    # attack the batches of this rank
    store = Outputs().to(module.device)
    results = []
    rank = module.global_rank
    for positions in progress_bar(
        batches[rank :: module.world_size],
        "attacking prompts",
        disable=rank != 0,
        unit_scale=batch_size,
    ):
        batch = _attack_batch(job.rows, positions, targets, module.device)
        batch["concept"] = [concepts[position] for position in positions]
        with module.precision():
            result = attack(module.served(), batch, _Recognised(judge))
        if not isinstance(result, PromptAttackResult):
            raise InputError(
                "Robustness counts attacks on prompts, as UnlearnDiffAtk; "
                f"{type(attack).__name__} is none."
            )
        results.append(result)
        store.update("attack", {"index": batch["index"], **_per_prompt(result)})
    columns = {name: value.cpu() for name, value in store.compute()["attack"].items()}
    return _summary(job, columns, results), columns["image"]


class _Recognised(Criterion):
    """Criterion that the judge recognises each row's `concept` in its image, rounded to 8 bits."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def objective(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Not defined: a judge of images has no gradient with respect to a prompt's tokens."""
        raise InputError("attacks on prompts have an objective of their own.")

    def met(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Mask of the images that show their concept, `[B]` bool."""
        if not bool(prediction.isfinite().all()):
            raise UndefinedError(
                "images under attack are not finite: the model that was tested has diverged, so "
                "nothing can be seen in them."
            )
        images = levels(prediction).float() / 255
        mask = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        for concept in dict.fromkeys(batch["concept"]):
            rows = torch.tensor([name == concept for name in batch["concept"]], device=mask.device)
            mask[rows] = self.judge.recognises(images[rows], concept).to(mask.device)
        return mask


def attack_budget(attack: Any) -> dict[str, Any]:
    """Class and limits of an attack, as details of its results."""
    name = type(attack).__name__
    if not isinstance(attack, UnlearnDiffAtk):
        return {"attack": name}
    tokens = getattr(attack.layout, "tokens", None)
    return {
        "attack": name,
        "layout": type(attack.layout).__name__,
        **({"tokens": tokens} if tokens is not None else {}),
        "budget": f"{attack.steps} steps at each of {attack.timesteps} timesteps",
    }


def write_attack(folder: Path, job: ImageJob, summary: AttackSummary) -> None:
    """Write `attack.json`: original and adversarial prompts, and their success."""
    write_json(
        folder / "attack.json",
        [
            {
                "case": row.case,
                "prompt": row.prompt,
                "seed": row.seed,
                "adversarial": summary.adversarial[position],
                "before": bool(summary.before[position]),
                "success": bool(summary.success[position]),
                "steps": int(summary.steps[position]),
            }
            for position, row in enumerate(job.rows)
        ],
    )


def add_attack_grid(
    folder: Path,
    job: ImageJob,
    attack: Any,
    targets: Tensor,
    clean: Tensor,
    attacked: Tensor,
) -> None:
    """Add a grid of the first prompts to `media/`: target, image without attack, under attack.

    Args:
        folder: the run folder.
        job: its rows are the prompts.
        attack: attack, for the title.
        targets: `[N, 3, H, W]`, N the number of prompts to show.
        clean: `[N, 3, H, W]`, without an attack.
        attacked: `[N, 3, H, W]`, under attack.
    """
    count = len(clean)
    share = "" if count == len(job.rows) else f"the first {count} of "
    columns = zip(targets, clean, attacked, strict=True)
    add_grid(
        folder,
        "attack",
        [image for images in columns for image in images],
        title=f"{share}{len(job.rows)} prompts, {type(attack).__name__}",
        group="attack",
        rows=[str(row.prompt) for row in job.rows[:count]],
        columns=["target", "without attack", "under attack"],
    )


def _with_sampler(attack: Any, sampler: Any) -> Any:
    """Attack with the sampler of the prompts, where it has none of its own."""
    if sampler is None or getattr(attack, "sampler", sampler) is not None:
        return attack
    with_sampler = copy(attack)
    with_sampler.sampler = sampler
    return with_sampler


def _attack_batch(
    rows: Sequence[ImageRow], positions: Sequence[int], targets: Tensor, device: torch.device
) -> dict[str, Any]:
    """Batch of prompts, target images, seeds and guidances."""
    selected = [rows[position] for position in positions]
    batch: dict[str, Any] = {
        "index": torch.tensor(positions, device=device),
        "prompt": [row.prompt for row in selected],
        "image": targets[list(positions)].to(device),
        "seed": torch.tensor([signed_seed(row.seed) for row in selected], device=device),
    }
    if all(row.guidance_scale is not None for row in selected):
        batch["guidance_scale"] = torch.tensor(
            [row.guidance_scale for row in selected], device=device
        )
    return batch


def _per_prompt(result: PromptAttackResult) -> dict[str, Tensor]:
    """Tensors of a result with one row for each prompt, to gather them."""
    return {
        "before": result.before.to(torch.uint8),
        "success": result.success.to(torch.uint8),
        "steps": result.steps,
        "generations": result.generations,
        "image": result.prediction.float(),
    }


def _summary(
    job: ImageJob, columns: dict[str, Tensor], results: Sequence[PromptAttackResult]
) -> AttackSummary:
    """Counts and texts of all ranks."""
    adversarial = dict(
        _from_all_ranks(
            (int(index), text)
            for result in results
            for index, text in zip(
                result.adversarial["index"].tolist(), result.adversarial["prompt"], strict=True
            )
        )
    )
    counts = _from_all_ranks(result.evaluations for result in results)
    names = sorted({name for count in counts for name in count})
    return AttackSummary(
        index=columns["index"],
        before=columns["before"].bool(),
        success=columns["success"].bool(),
        original=[str(row.prompt) for row in job.rows],
        adversarial=[adversarial[position] for position in range(len(job.rows))],
        steps=columns["steps"],
        generations=columns["generations"],
        evaluations={name: sum(count.get(name, 0) for count in counts) for name in names},
    )


def _from_all_ranks(values: Iterable[Any]) -> list[Any]:
    """Values of all ranks in one list."""
    local = list(values)
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return local
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, local)
    return [value for values_of_rank in gathered for value in values_of_rank]
