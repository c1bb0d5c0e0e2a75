"""AdvUnlearn: the equation of its step, its attack, and its settings."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.attacks import SoftPromptAttack
from mu.attacks.layouts import Prefix
from mu.methods.components.latents import (
    NoisedData,
)
from mu.methods.diffusion.adv_unlearn import AdvUnlearn
from mu.methods.diffusion.esd import ESD
from mu.utils.errors import InputError
from tests.support.doubles import pipeline_folder, text_to_image
from tests.support.equations_adv_unlearn import ADAM, Statement, adv_unlearn, concept_task
from tests.support.helpers import State, Watch, different, fit, weights

PLAIN: Any = lambda params: torch.optim.SGD(params, lr=1e-2)  # noqa: E731 - a weight moves by minus a hundredth of its gradient


@pytest.mark.parametrize("attacked", [False, True])
def test_one_step_is_its_equation(attacked: bool) -> None:
    """Fails when the target is that of the attacked prompt, of the trained encoder or of another
    sign, or γ weighs the wrong term.
    """
    backbone = text_to_image(part="text_encoder")
    # so that the retain term has a gradient: the student is not the original any more
    with torch.no_grad():
        begun = {
            name: 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3))
            for name, p in backbone.named_parameters()
            if p.requires_grad
        }
    module = adv_unlearn(
        deepcopy(backbone),
        optimizer=PLAIN,
        latents=NoisedData(),
        eta=1.3,
        gamma=0.7,
        warmup=0 if attacked else 9,
    )
    module.configure_model()
    statement = Statement(backbone)
    with torch.no_grad():
        for model in (module.backbone, statement.student):
            for name, p in model.named_parameters():
                p.add_(begun.get(name, torch.zeros(())))
    batches: list[Any] = []
    before = weights(module.backbone)
    fit(
        module,
        concept_task(),
        1,
        max_steps=1,
        callbacks=[Watch(lambda module, batch, batch_idx: batches.append(batch))],
    )
    parts = {
        name: module.backbone.train().prepare(batches[0][name], 0) for name in ("forget", "retain")
    }
    assert bool(module.attacked) == attacked
    loss = statement.loss(
        parts["forget"], parts["retain"], 1.3, 0.7, module.latest[0] if attacked else None
    )
    trained = {name: p for name, p in statement.student.named_parameters() if p.requires_grad}
    slopes = dict(
        zip(
            trained,
            torch.autograd.grad(loss, list(trained.values()), allow_unused=True),
            strict=True,
        )
    )
    steps = {
        name: (before[name].double() - p.double()) / 1e-2
        for name, p in module.backbone.named_parameters()
    }
    for name, slope in slopes.items():
        assert slope is not None
        assert torch.allclose(
            steps[name], slope, rtol=1e-2, atol=1e-2 * float(slope.abs().max()) + 1e-5
        ), name
    assert all(not steps[name].any() for name in steps if name not in slopes)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_without_retain_and_attack_it_is_esd(prediction: str) -> None:
    """Fails when AdvUnlearn's erasing term is not ESD's, to the last bit."""
    backbone = text_to_image(part="text_encoder", model=pipeline_folder(prediction=prediction))
    latents = NoisedData()
    without_attack = fit(
        adv_unlearn(deepcopy(backbone), gamma=0.0, attack_every=0, latents=latents, eta=1.5),
        concept_task(forget_batch_size=3),
        1,
        max_steps=4,
    )
    esd = fit(
        ESD(deepcopy(backbone), eta=1.5, latents=latents, optimizer=ADAM),
        concept_task(forget_batch_size=3),
        1,
        max_steps=4,
    )
    assert different(weights(without_attack.backbone), weights(esd.backbone)) == []
    assert not without_attack.needs_retain and different(
        weights(backbone), weights(without_attack.backbone)
    )


def test_no_prompt_is_dropped() -> None:
    """Fails when a backbone that was trained with condition dropout erases the empty prompt."""
    ends = [
        weights(
            fit(
                adv_unlearn(text_to_image(part="text_encoder", condition_dropout=share)),
                concept_task(),
                1,
                max_steps=2,
            ).backbone
        )
        for share in (0.0, 0.9)
    ]
    assert different(*ends) == []


def test_warm_up_is_on_clean_prompts() -> None:
    """Fails when the attack has an effect before it begins; from then on it has one."""

    def run(warmup: int, steps: int, **changes: Any) -> State:
        module = adv_unlearn(warmup=warmup, **changes)
        return weights(fit(module, concept_task(), 1, max_steps=steps).backbone)

    never = run(0, 2, attack_every=0)
    assert different(never, run(2, 2)) == []
    assert different(never, run(1, 2))


def test_the_attack_approaches_the_prediction_for_the_clean_concept() -> None:
    """Fails when the attack moves away from the concept, or is asked with the student's own clean
    prompt.
    """
    module = adv_unlearn(
        attack=SoftPromptAttack(steps=25, optimizer=lambda p: torch.optim.Adam(p, lr=0.05)),
        latents=NoisedData(),
    )
    module.configure_model()
    with torch.no_grad():
        for name, p in module.backbone.named_parameters():
            if name.startswith("text_encoder.") and p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    prompts = concept_task()
    prompts.setup()
    forget = module.prepare(
        prompts.datasets["forget"].__getitems__([0, 1, 2])
        | {"visit": torch.zeros(3, dtype=torch.int64)}
    )
    clean = module.original.condition(forget)

    @torch.no_grad()
    def distance_to_concept(condition: Any) -> Tensor:
        target = module.original.denoise(forget["noised"], forget["t"], clean)
        return (
            (module.student.denoise(forget["noised"], forget["t"], condition) - target)
            .square()
            .mean((1, 2, 3))
        )

    search = module.search(forget, clean)
    begun = module.attack.begin(
        module.student, forget["input_ids"], forget["index"], forget["visit"]
    )
    start = module.student.encode_text(begun.slots.ids, begun.tokens())
    assert (
        distance_to_concept(module.student.encode_text(search.slots.ids, search.tokens()))
        < 0.9 * distance_to_concept(start)
    ).all()


def test_attack_every_sets_the_steps_with_an_attack() -> None:
    """Fails when the tokens of an attack are lost before the next, or an attack begins anew where
    it should begin from the last.
    """
    seen: list[tuple[bool, Tensor]] = []
    watch = Watch(
        lambda module, batch, batch_idx: seen.append((bool(module.attacked), module.latest.clone()))
    )  # type: ignore[union-attr]
    module = adv_unlearn(
        warmup=1, attack_every=2, attack=SoftPromptAttack(Prefix(2), steps=1, init="latest")
    )
    fit(module, concept_task(), 1, max_steps=6, callbacks=[watch])
    assert [attacked for attacked, _ in seen] == [False, True, True, True, True, True]
    latest = [value for _, value in seen]
    assert torch.equal(latest[1], latest[2]) and torch.equal(latest[3], latest[4])
    assert not torch.equal(latest[2], latest[3])
    assert (latest[3] - latest[2])[:2].abs().max() < 2e-3  # one step of Adam at 1e-3, from the last
    assert not latest[3][2:].any()
    fresh = adv_unlearn(warmup=1, attack_every=2, attack=SoftPromptAttack(Prefix(2), steps=1))
    fit(fresh, concept_task(), 1, max_steps=4)
    assert (fresh.latest - latest[2])[:2].abs().max() > 1e-2


def test_between_attacks_the_last_tokens_are_added_to_the_prompts() -> None:
    """Fails when steps without an attack are steps on clean prompts."""

    def run(**changes: Any) -> State:
        return weights(fit(adv_unlearn(**changes), concept_task(), 1, max_steps=2).backbone)

    clean_second = adv_unlearn(attack_every=2)

    class Forgets(Watch):
        def on_train_batch_start(
            self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
        ) -> None:
            pl_module.attack_every = 0 if batch_idx else 2

    fit(clean_second, concept_task(), 1, max_steps=2, callbacks=[Forgets(lambda *_: None)])
    assert different(run(attack_every=2), weights(clean_second.backbone))


@pytest.mark.parametrize(
    "changes", [{"eta": -1.0}, {"gamma": -0.1}, {"warmup": -1}, {"attack_every": -1}], ids=str
)
def test_wrong_settings_are_refused(changes: dict[str, Any]) -> None:
    """Fails when a negative number is taken for a setting."""
    with pytest.raises(InputError, match="at least 0"):
        adv_unlearn(**changes)


def test_a_prompt_without_room_is_refused_before_the_step() -> None:
    """Fails when an adversarial token pushes the end of a prompt out."""
    with pytest.raises(InputError, match="no room"):
        fit(
            adv_unlearn(attack=SoftPromptAttack(Prefix(12), steps=1)),
            concept_task(),
            1,
            max_steps=1,
        )


def test_its_defaults_are_the_papers() -> None:
    """Fails when a default is changed by accident."""
    module = AdvUnlearn(text_to_image(part="text_encoder"))
    attack: Any = module.attack
    assert (module.eta, module.gamma, module.warmup, module.attack_every) == (1.0, 0.3, 200, 1)
    assert (attack.steps, attack.layout.tokens, attack.variables.init, attack.variables.sign) == (
        30,
        1,
        "random",
        False,
    )
    latents: Any = module.latents
    assert (latents.num_inference_steps, latents.guidance_scale, latents.timestep) == (
        50,
        3.0,
        "exact",
    )
    assert (
        module.needs_labels,
        module.needs_retain,
        module.needs_forget,
        module.needs_reference,
    ) == (False, True, True, True)
