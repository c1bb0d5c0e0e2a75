"""AdvUnlearn as in the released code: one part a step, and its attack."""

from __future__ import annotations

from mu.data.plan import plan_steps
from mu.methods.compat.adv_unlearn_reference import AlternatingSteps, SoftPromptAttackReference
from tests.support.equations_adv_unlearn import adv_unlearn, concept_task
from tests.support.helpers import State, different, distance, fit, weights


def test_a_step_has_one_part() -> None:
    """Fails when the two terms share a step although the schedule shows one part at a time."""
    steps = plan_steps(
        AlternatingSteps(length="max"), 0, {"forget": 2, "retain": 4}, {"forget": 1, "retain": 2}, 0
    )
    assert [sorted(step.parts) for step in steps] == [["forget"], ["retain"]] * 2
    terms: list[list[str]] = []
    module = adv_unlearn(plan=AlternatingSteps(length="max"))
    plain = module.objective
    module.objective = lambda forget, retain: (
        terms.append([]) or terms[-1].extend(out := plain(forget, retain)) or out
    )  # type: ignore
    before: State = weights(module.backbone)
    fit(module, concept_task(), 1, max_steps=4)
    assert terms == [["forget"], ["retain"], ["forget"], ["retain"]]
    assert distance(before, weights(module.backbone)) > 0


def test_reference_attack_trains_adv_unlearn() -> None:
    module = adv_unlearn(attack=SoftPromptAttackReference(steps=2))
    before = weights(module.backbone)
    fit(module, concept_task(forget_batch_size=2), 1, max_steps=2)
    assert different(before, weights(module.backbone))
