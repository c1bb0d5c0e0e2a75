"""Every metric on the outputs of a destroyed model: undefined, never a number by default."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.metrics import (
    aggregates,
    classification,
    distances,
    gap,
    images,
    membership,
    memorisation,
    regression,
    svc_membership,
    tofu,
)
from mu.utils.errors import UndefinedError

ROWS, CLASSES = 24, 3
LABEL = torch.arange(ROWS) % CLASSES
MASK = torch.ones(ROWS, 4, dtype=torch.bool)
FOUR = {"UA": 1.0, "RA": 1.0, "TA": 1.0, "MIA": 1.0}


def spread(*shape: int) -> Tensor:
    """Sensible values of a shape."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LOGITS = spread(ROWS, CLASSES)
OTHER = spread(ROWS)

# by function: the function of one tensor [ROWS], [ROWS, CLASSES] or [ROWS, 4], or of one number
OF_LOGITS: dict[str, Callable[[Tensor], Any]] = {
    "accuracy": lambda z: classification.accuracy(z, LABEL),
    "unlearning_accuracy": lambda z: classification.unlearning_accuracy(z, LABEL),
    "correctness": lambda z: classification.correctness(z, LABEL),
    "confidence": lambda z: classification.confidence(z, LABEL),
    "nll": lambda z: classification.nll(z, LABEL),
    "entropy": classification.entropy,
    "modified_entropy": lambda z: classification.modified_entropy(z, LABEL),
    "modified_entropy_reference": lambda z: classification.modified_entropy_reference(z, LABEL),
    "margin": lambda z: classification.margin(z, LABEL),
    "logit_scaled_confidence": lambda z: classification.logit_scaled_confidence(z, LABEL),
    "hard_margin": lambda z: classification.hard_margin(z, LABEL),
    "activation_distance": lambda z: distances.activation_distance(z, LOGITS),
    "js_divergence": lambda z: distances.js_divergence(z, LOGITS),
    "kl_divergence": lambda z: distances.kl_divergence(z, LOGITS),
    "completeness": lambda z: distances.completeness(z, LOGITS),
    "zrf": lambda z: distances.zrf(z, LOGITS),
    "zrf_reference": lambda z: distances.zrf_reference(z, LOGITS),
    "svc_mia": lambda z: svc_membership.svc_mia(z, LABEL, z, LABEL, z, LABEL, ["confidence"])[
        "confidence"
    ],
    "training_privacy_mia": lambda z: svc_membership.training_privacy_mia(
        z, LABEL, z, LABEL, ["confidence"]
    )["confidence"],
    "entropy_lr_mia": lambda z: svc_membership.entropy_lr_mia(z, z, z),
    "fid": lambda z: images.fid(LOGITS, z),
    "kid": lambda z: images.kid(LOGITS, z, 2, 10)[0],
    "real_floor": lambda z: images.real_floor(images.fid, z, 8).mean,
    "clip_score": lambda z: images.clip_score(z, LOGITS),
}
OF_VALUES: dict[str, Callable[[Tensor], Any]] = {
    "probability": tofu.probability,
    "normalised_probability": lambda v: tofu.normalised_probability(v, v[:, None]),
    "truth_ratio": lambda v: tofu.truth_ratio(v, v[:, None]),
    "undefined_ratios": lambda v: tofu.undefined_ratios(v, v[:, None]),
    "truth_probability": lambda v: tofu.truth_probability(v, v[:, None]),
    "closer_to_one": tofu.closer_to_one,
    "true_better": tofu.true_better,
    "mean_true_better": lambda v: tofu.mean_true_better(v, v[:, None]),
    "harmonic_mean": tofu.harmonic_mean,
    "forget_quality": lambda v: tofu.forget_quality(v, OTHER[: len(v)]).p,
    "zlib_score": lambda v: memorisation.zlib_score(v, ["text"] * len(v)),
    "reference_score": lambda v: memorisation.reference_score(v, OTHER[: len(v)]),
    "gradient_norm": lambda v: memorisation.gradient_norm([v]),
    "membership_auc": lambda v: memorisation.membership_auc(v, OTHER),
    "loss_threshold_auc": lambda v: membership.loss_threshold_auc(v, OTHER),
    "tpr_at_fpr": lambda v: membership.tpr_at_fpr(v, OTHER, 0.1),
    "scrub_mia": lambda v: membership.scrub_mia(v, LABEL[: len(v)], OTHER, LABEL),
    "ThresholdAttack": lambda v: membership.ThresholdAttack.fit(
        OTHER, LABEL, OTHER, LABEL
    ).accuracy(v, LABEL[: len(v)], OTHER, LABEL),
    "svc_mia_regression": lambda v: svc_membership.svc_mia_regression(OTHER, OTHER + 1, v),
    "mean_absolute_error": lambda v: regression.mean_absolute_error(v, OTHER[: len(v)]),
    "root_mean_squared_error": lambda v: regression.root_mean_squared_error(v, OTHER[: len(v)]),
    "wasserstein1": lambda v: distances.wasserstein1(v, OTHER),
}
OF_TOKENS: dict[str, Callable[[Tensor], Any]] = {
    "min_k": lambda t: memorisation.min_k(t, MASK),
    "min_k_plus_plus": lambda t: memorisation.min_k_plus_plus(t, t, t.abs(), MASK),
}
OF_NUMBERS: dict[str, Callable[[float], Any]] = {
    "privleak": memorisation.privleak,
    "rel_diff": memorisation.rel_diff,
    "memorisation_score": lambda x: aggregates.memorisation_score([x, 0.5]),
    "membership_closeness": lambda x: aggregates.membership_closeness(x, 0.5),
    "membership_closeness_reference_code": lambda x: aggregates.membership_closeness_reference_code(
        x, 0.5
    ),
    "privacy_score": lambda x: aggregates.privacy_score({"loss": x}, {"loss": 0.5}),
    "utility_score": lambda x: aggregates.utility_score(x, 0.5),
    "overall_score": lambda x: aggregates.overall_score(x, 0.5, 0.5),
    "model_utility": lambda x: tofu.model_utility(
        {"retain": {"probability": x, "rouge": 0.5, "truth_ratio": 0.5}}
    ),
    "mean_of": gap.mean_of,
    "gaps": lambda x: gap.gaps({"UA": x}, {"UA": 1.0}),
    "average_gap": lambda x: gap.average_gap({"UA": [x, 1.0]}, {"UA": 1.0}),
    "t_interval": lambda x: gap.t_interval([x, 1.0]),
    "tow": lambda x: gap.tow({**FOUR, "TA": x}, FOUR),
    "tow_mia": lambda x: gap.tow_mia({**FOUR, "MIA": x}, FOUR),
    "accuracy_unlearning_score": lambda x: gap.accuracy_unlearning_score(x, 50.0, 50.0),
}
NO_OUTPUT = {  # of booleans, texts, sizes, or parts of other metrics
    "check_logits",
    "log_probabilities",
    "log_complement",
    "attack_features",
    "evenly",
    "exact_memorisation",
    "extraction_strength",
    "rouge_l",
}


def value(metric: Callable[..., Any], argument: Any) -> Any:
    """Value of a metric; NaN where it is undefined."""
    try:
        return metric(argument)
    except UndefinedError:
        return math.nan


def numbers(measured: Any) -> Tensor:
    return torch.as_tensor(measured, dtype=torch.float64).flatten()


@pytest.mark.parametrize("name", OF_LOGITS)
@pytest.mark.parametrize("rows", [slice(0, 1), slice(None)])
def test_nan_logits_have_no_metric(name: str, rows: slice) -> None:
    logits = LOGITS.clone()
    logits[rows] = math.nan
    assert numbers(OF_LOGITS[name](LOGITS)).isfinite().all()
    assert numbers(value(OF_LOGITS[name], logits)).isnan().any()


@pytest.mark.parametrize("name", [*OF_VALUES, *OF_TOKENS])
def test_nan_losses_have_no_metric(name: str) -> None:
    metric = (OF_VALUES | OF_TOKENS)[name]
    values = spread(ROWS, 4) if name in OF_TOKENS else OTHER.clone()
    assert numbers(metric(values)).isfinite().all()
    values[0] = math.nan
    assert numbers(value(metric, values)).isnan().any()


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_aggregates_of_nan_are_undefined(name: str) -> None:
    with pytest.raises(UndefinedError):
        OF_NUMBERS[name](math.nan)


EMPTY = {
    name: metric
    for name, metric in OF_VALUES.items()
    if name not in ("harmonic_mean", "gradient_norm")  # of nothing: no use of them
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_part_has_no_metric(name: str) -> None:
    measured = value(EMPTY[name], OTHER[:0])
    assert numbers(measured).isnan().all()  # no item has a value either


@pytest.mark.parametrize("name", ["svc_mia", "training_privacy_mia", "entropy_lr_mia"])
def test_attacks_on_constant_logits_are_undefined(name: str) -> None:
    with pytest.raises(UndefinedError, match="same feature"):
        OF_LOGITS[name](torch.zeros(ROWS, CLASSES))


@pytest.mark.parametrize(
    "attack",
    [
        lambda v: membership.loss_threshold_auc(v, v),
        lambda v: membership.tpr_at_fpr(v, v, 0.1),
        lambda v: membership.scrub_mia(v, LABEL, v, LABEL),
        lambda v: membership.ThresholdAttack.fit(v, LABEL, v, LABEL),
        lambda v: svc_membership.svc_mia_regression(v, v, v),
    ],
)
@pytest.mark.parametrize("level", [0.0, math.inf])
def test_attacks_on_constant_scores_are_undefined(attack: Any, level: float) -> None:
    """A model without an output is no model that forgot: an AUC of 0.5 would be the goal."""
    with pytest.raises(UndefinedError, match=r"the same|finite|infinite"):
        attack(torch.full((ROWS,), level))


def test_every_metric_is_in_a_table() -> None:
    modules = (
        aggregates,
        classification,
        distances,
        gap,
        images,
        memorisation,
        membership,
        regression,
        svc_membership,
        tofu,
    )
    functions = {
        function.__name__
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    tables = {*OF_LOGITS, *OF_VALUES, *OF_TOKENS, *OF_NUMBERS, *NO_OUTPUT}
    assert functions - tables == set()
