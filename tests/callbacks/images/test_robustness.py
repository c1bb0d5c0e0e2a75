"""Attack success is counted over all prompts, on the model that is served, with targets of the
original.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from callbacks import ResultsWriter, Robustness
from mu.attacks.layouts import Prefix
from mu.attacks.unlearn_diff_atk import UnlearnDiffAtk
from mu.backbones.diffusion.sampler import Sampler
from mu.core.module import UnlearningModule
from mu.evaluation.images.attack_run import attack_prompts
from mu.evaluation.images.drawing import ImageJob, levels
from mu.evaluation.images.judges import Judge
from mu.evaluation.images.sets import ImageSet
from mu.methods import FineTune
from mu.metrics.results import Result
from mu.utils.errors import InputError
from mu.utils.weights import weights_hash
from tests.support.doubles import class_conditional, digit_pictures, pictures, text_to_image
from tests.support.helpers import trainer, weights


class Bright(Judge):
    """Images whose mean is above a level show a circle."""

    labels = ("circle", "other")
    version = "1"

    def __init__(self, level: float) -> None:
        self.level = level
        super().__init__("bright", None, 1, None, None)

    def judge(self, images: Tensor) -> Tensor:
        bright = (images.mean((1, 2, 3)) > self.level).float()
        return torch.stack([bright, 1 - bright], 1)


def attack(**changes: Any) -> UnlearnDiffAtk:
    return UnlearnDiffAtk(Prefix(2), **{"steps": 2, "timesteps": 2, **changes})


def model() -> FineTune:
    return FineTune(
        text_to_image(part="xattn"), optimizer=lambda params: torch.optim.SGD(params, lr=0.01)
    )


def measured(
    module: UnlearningModule,
    suite: Robustness,
    task: Any = None,
    folder: Path | None = None,
    fit: bool = False,
) -> dict[str, Result]:
    more: dict[str, Any] = {} if folder is None else {"default_root_dir": str(folder)}
    run = trainer(1, callbacks=[suite, *([ResultsWriter()] if folder else [])], **more)
    task = task or pictures()
    if fit:
        run.fit(module, task)
    run.test(module, task, verbose=False)
    return {result.metric: result for result in module.results}


def means(module: UnlearningModule) -> Tensor:
    """Brightness of each prompt's image."""
    with torch.no_grad():
        images = torch.cat(
            [batch for batch, _ in ImageJob(ImageSet("forget").rows(module)).run(module.served())]
        )
    return images.mean((1, 2, 3))


def test_rates_count_all_prompts(tmp_path: Path) -> None:
    """Fails when ASR leaves out the prompts that succeed without an attack, or counts them
    twice.
    """
    module = model()
    measured(module, Robustness(Bright(0.0), attack(), concept="circle"))
    bright = means(module).sort().values
    level = float((bright[-1] + bright[-2]) / 2)
    results = measured(
        module, Robustness(Bright(level), attack(), concept="circle", batch_size=2), folder=tmp_path
    )
    assert results["pre_ASR"].value == pytest.approx(100 / 3)
    attack_log = json.loads((tmp_path / "attack.json").read_text())
    assert results["ASR"].value == pytest.approx(
        100 * sum(row["success"] for row in attack_log) / 3
    )
    assert sum(row["before"] for row in attack_log) == 1 and all(
        row["success"] for row in attack_log if row["before"]
    )
    for row in attack_log:
        assert row["steps"] == 0 if row["before"] else row["steps"] > 0
    assert (results["ASR"].higher_is_better, results["ASR"].unit, results["ASR"].split) == (
        False,
        "%",
        "forget",
    )


@pytest.mark.parametrize(("level", "rates"), [(0.0, (100, 100)), (2.0, (0, 0))])
def test_an_untouched_model_shows_the_concept_and_a_blind_judge_sees_none(
    level: float, rates: tuple[float, float]
) -> None:
    results = measured(model(), Robustness(Bright(level), attack(), concept="circle"))
    assert (results["pre_ASR"].value, results["ASR"].value) == rates


def test_the_attack_is_the_one_that_is_called_by_hand(tmp_path: Path) -> None:
    """Fails when seeds, targets, prompts or the model are others than said."""
    module = model()
    judge = Bright(2.0)
    measured(
        module,
        Robustness(judge, attack(), concept="circle", targets="task", batch_size=3),
        folder=tmp_path,
    )
    attack_log = json.loads((tmp_path / "attack.json").read_text())
    rows, data = ImageSet("forget").rows(module), module.task.datasets["forget"]  # type: ignore[union-attr]
    image = torch.stack([data[row.sample]["image"] for row in rows])  # type: ignore[index]
    assert [data[row.sample]["prompt"] for row in rows] == [row.prompt for row in rows]  # type: ignore[index]
    batch = {
        "index": torch.arange(3),
        "prompt": [row.prompt for row in rows],
        "image": image,
        "seed": torch.tensor([row.seed for row in rows]),
    }
    by_hand = attack()(
        module.served(), batch, lambda images: judge.recognises(levels(images) / 255, "circle")
    )
    assert [row["adversarial"] for row in attack_log] == by_hand.adversarial["prompt"]
    assert [row["prompt"] for row in attack_log] == [
        "a red circle",
        "a green circle",
        "a blue circle",
    ]


def test_targets_are_drawn_by_the_original_when_the_fit_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when targets are drawn by the model that is tested."""
    suite = Robustness(Bright(2.0), attack(), concept="circle")
    module = model()
    original = text_to_image()
    before = weights(module.backbone)
    seen: list[Tensor] = []

    def recorded(attack: Any, module: Any, job: Any, targets: Tensor, *rest: Any) -> Any:
        seen.append(targets)
        return attack_prompts(attack, module, job, targets, *rest)

    monkeypatch.setattr("callbacks.images.robustness.attack_prompts", recorded)
    results = measured(module, suite, folder=tmp_path, fit=True)
    drawn = torch.cat(
        [batch for batch, _ in ImageJob(ImageSet("forget").rows(module)).run(original)]
    )
    assert torch.equal(seen[0], drawn)
    assert any(
        not torch.equal(before[name], value) for name, value in weights(module.backbone).items()
    )
    assert results["ASR"].detail["targets"] == "original"
    entry = json.loads((tmp_path / "media" / "media.json").read_text())[0]
    assert (entry["group"], entry["columns"]) == (
        "attack",
        ["target", "without attack", "under attack"],
    )
    assert entry["rows"] == ["a red circle", "a green circle", "a blue circle"]


def test_targets_of_a_tested_checkpoint_are_drawn_by_the_original_that_it_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fit had no such suite, and the tested module is built without the original weights."""
    fitted = model()
    run = trainer(1)
    run.fit(fitted, pictures())
    run.save_checkpoint(tmp_path / "last.ckpt")
    seen: list[Tensor] = []

    def recorded(attack: Any, module: Any, job: Any, targets: Tensor, *rest: Any) -> Any:
        seen.append(targets)
        return attack_prompts(attack, module, job, targets, *rest)

    monkeypatch.setattr("callbacks.images.robustness.attack_prompts", recorded)
    suite = Robustness(Bright(2.0), attack(), concept="circle")
    module = model()
    trainer(1, callbacks=[suite], default_root_dir=str(tmp_path)).test(
        module, pictures(), ckpt_path=str(tmp_path / "last.ckpt"), verbose=False
    )
    original = text_to_image()
    rows = ImageSet("forget").rows(module)
    drawn = torch.cat([batch for batch, _ in ImageJob(rows).run(original)])
    assert torch.equal(seen[0], drawn)
    assert weights_hash(module.backbone) != weights_hash(original)


def test_an_unknown_original_is_named_with_the_cure(tmp_path: Path) -> None:
    """Fails when the unlearned model, or one of other weights, draws the targets."""
    other = {name: value + 0.01 for name, value in weights(text_to_image()).items()}
    module = FineTune(
        text_to_image(other, part="xattn"),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.01),
    )
    trainer(1).fit(module, pictures())
    with pytest.raises(InputError, match=r"hold other weights than .*, or take targets: task"):
        measured(module, Robustness(Bright(2.0), attack(), concept="circle"), folder=tmp_path)


def test_the_budget_stands_beside_the_number() -> None:
    sampler = Sampler(num_inference_steps=2, guidance_scale=3.0)
    results = measured(
        model(),
        Robustness(
            Bright(2.0), attack(sampler=sampler), ImageSet("forget", limit=2), concept="circle"
        ),
    )
    detail = results["ASR"].detail
    assert (detail["tokens"], detail["budget"], detail["prompts"], detail["limit"]) == (
        2,
        "2 steps at each of 2 timesteps",
        2,
        2,
    )
    assert (detail["attack"], detail["layout"], detail["sampler"]) == (
        "UnlearnDiffAtk",
        "Prefix",
        "DDIM, 2 steps, guidance 3",
    )
    assert (detail["judge"], detail["version"], detail["concept"], detail["resolution"]) == (
        "bright",
        "1",
        "circle",
        8,
    )
    assert (detail["steps_taken"], detail["generations"]) == (2 * 4, 2 * 3)
    assert detail["seconds"] > 0 and "of unet" in detail["evaluations"]


def test_the_attack_leaves_the_model_as_it_was() -> None:
    module = model()
    before = weights(module.backbone)
    trained = [name for name, weight in module.backbone.named_parameters() if weight.requires_grad]
    measured(module, Robustness(Bright(2.0), attack(), concept="circle"))
    assert all(torch.equal(before[name], value) for name, value in weights(module.backbone).items())
    assert trained == [
        name for name, weight in module.backbone.named_parameters() if weight.requires_grad
    ]
    assert all(weight.grad is None for weight in module.backbone.parameters())


def test_model_or_data_without_attack_is_refused() -> None:
    with pytest.raises(InputError, match="attacks prompts, and the model draws from classes"):
        measured(FineTune(class_conditional()), Robustness(Bright(2.0), attack()), digit_pictures())
    with pytest.raises(InputError, match="which concept was erased"):
        measured(model(), Robustness(Bright(2.0), attack()))
    with pytest.raises(InputError, match="has no label 'house'"):
        measured(model(), Robustness(Bright(2.0), attack(), concept="house"))
    with pytest.raises(InputError, match="has no images to take for targets"):
        measured(
            model(),
            Robustness(Bright(2.0), attack(), concept="circle", targets="task"),
            pictures(images=False),
        )
    with pytest.raises(InputError, match="`original` or `task`"):
        Robustness(Bright(2.0), targets="folder")  # type: ignore[arg-type]
