"""Objectives of methods: what an author forgot is said in one sentence, with the cure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.core.module import UnlearningModule
from mu.core.objective import check_terms
from mu.data.batch import Batch
from mu.data.plan import Forget, Paired
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import classifier, fit

Objective = Callable[[Any, Any, Any], Any]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (torch.zeros(()), "returned a Tensor; it returns a dict of scalar tensors"),
        (3.0, "returned a float"),
        (None, "returned nothing"),
        ({}, "returned an empty dict"),
        ({"forget": torch.zeros(4)}, r"the term 'forget' of Method.objective has shape \[4\]"),
        ({"forget": 3.0}, "the term 'forget' of Method.objective is a float"),
        (
            {"forget": (torch.zeros(4), torch.ones(4))},
            r"the term 'forget' of Method.objective is a tuple, .*self.reduce\(pair, forget\)",
        ),
        ({"forget": torch.zeros(())}, "depends on a weight that is trained"),
    ],
)
def test_terms_are_a_dict_of_scalars(terms: Any, message: str) -> None:
    """Fails when a half-written objective ends in a traceback of torch."""
    with pytest.raises(InputError, match=message):
        check_terms("Method", terms)


def method(objective: Objective, **attributes: Any) -> type[UnlearningModule]:
    """A method of a user's own, of one function."""
    return type(
        "Mine", (UnlearningModule,), {"plan": Paired(), "objective": objective, **attributes}
    )


def shape(batch: Batch, key: str) -> Tensor:
    return batch[key].float().mean()


@pytest.mark.parametrize(
    ("objective", "attributes", "message"),
    [
        (
            lambda self, forget, retain: {"forget": -self.backbone.loss(forget)},
            {},
            r"computes with a pair \(sum \[B\], weight \[B\]\).*self.reduce\(pair, part\)",
        ),
        (
            lambda self, forget, retain: {"retain": 0.5 * self.backbone.loss(retain)},
            {},
            "computes with a pair",
        ),
        (
            lambda self, forget, retain: {"retain": self.backbone.loss(retain).mean()},
            {},
            "computes with a pair",
        ),
        (
            lambda self, forget, retain: {
                "retain": self.reduce(self.backbone.loss(retain)[0], retain)
            },
            {},
            r"self.reduce takes a pair \(sum \[B\], weight \[B\]\)",
        ),
        (
            lambda self, forget, retain: {"retain": self.backbone(retain["image"]).mean()},
            {},
            r"a Classifier is not called; backbone.predict\(batch\)",
        ),
        (
            lambda self, forget, retain: {
                "retain": self.reduce(self.backbone.loss(retain), retain)
            },
            {"plan": Forget()},
            r"Mine.objective reads the retain part, which this batch .* plan = Paired\(\)",
        ),
        (
            lambda self, forget, retain: {"retain": retain["images"].mean()},
            {},
            "reads 'images', which the retain part does not have; it has .*image",
        ),
        (
            lambda self, forget, retain: {"retain": shape(forget, "labels")},
            {},
            "reads 'labels', which the forget part does not have; it has .*label",
        ),
        (
            lambda self, forget, retain: {"retain": self.reference.predict(retain).mean()},
            {},
            "uses self.reference, which is None; declare needs_reference = True",
        ),
    ],
)
def test_a_fault_of_an_objective_is_a_sentence_with_its_cure(
    objective: Objective, attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit(method(objective, **attributes)(classifier()))


@pytest.mark.parametrize("error", [KeyError("no part has it"), TypeError("odd"), ValueError("odd")])
def test_another_error_of_an_objective_stays_as_it_is(error: Exception) -> None:
    def fails(self: Any, forget: Any, retain: Any) -> Any:
        table: dict[Any, Any] = {}
        if isinstance(error, KeyError):
            return table[error.args[0]]
        raise error

    with pytest.raises(type(error), match=r"no part has it|odd"):
        fit(method(fails)(classifier()))


def test_a_method_without_a_plan_is_told_to_declare_one() -> None:
    class NoPlan(UnlearningModule):
        def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
            return {}

    with pytest.raises(InputError, match=r"NoPlan declares no plan, .*plan = Paired\(\)"):
        fit(NoPlan(classifier()))


def test_a_language_model_is_not_called_either() -> None:
    calls = method(lambda self, forget, retain: {"loss": self.backbone(forget)})
    with pytest.raises(InputError, match="a CausalLM is not called"):
        fit(calls(causal_lm()), people())
