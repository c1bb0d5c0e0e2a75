"""Metrics of unlearning: pure functions on tensors, and `Outputs`, the store of per-example outputs that all suites read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mu.metrics.classification import (
    accuracy,
    confidence,
    correctness,
    entropy,
    hard_margin,
    logit_scaled_confidence,
    margin,
    modified_entropy,
    modified_entropy_reference,
    nll,
    unlearning_accuracy,
)
from mu.metrics.gap import (
    PAPERS_FOUR,
    accuracy_unlearning_score,
    activation_distance,
    aus,
    average_gap,
    completeness,
    gaps,
    js_divergence,
    kl_divergence,
    mae,
    mean_absolute_error,
    rmse,
    root_mean_squared_error,
    t_interval,
    tow,
    tow_mia,
    wasserstein1,
    zrf,
    zrf_reference,
)
from mu.metrics.membership import (
    ATTACKS,
    SVCMembership,
    ThresholdAttack,
    attack_features,
    entropy_lr_mia,
    loss_threshold_auc,
    scrub_mia,
    svc_mia,
    svc_mia_regression,
    tpr_at_fpr,
    training_privacy_mia,
)
from mu.metrics.svc import SVCFit, fit_svc

if TYPE_CHECKING:
    from mu.metrics.outputs import Outputs

__all__ = [
    "ATTACKS",
    "PAPERS_FOUR",
    "Outputs",
    "SVCFit",
    "SVCMembership",
    "ThresholdAttack",
    "accuracy",
    "accuracy_unlearning_score",
    "activation_distance",
    "attack_features",
    "aus",
    "average_gap",
    "completeness",
    "confidence",
    "correctness",
    "entropy",
    "entropy_lr_mia",
    "fit_svc",
    "gaps",
    "hard_margin",
    "js_divergence",
    "kl_divergence",
    "logit_scaled_confidence",
    "loss_threshold_auc",
    "mae",
    "margin",
    "mean_absolute_error",
    "modified_entropy",
    "modified_entropy_reference",
    "nll",
    "rmse",
    "root_mean_squared_error",
    "scrub_mia",
    "svc_mia",
    "svc_mia_regression",
    "t_interval",
    "tow",
    "tow_mia",
    "tpr_at_fpr",
    "training_privacy_mia",
    "unlearning_accuracy",
    "wasserstein1",
    "zrf",
    "zrf_reference",
]


def __getattr__(name: str) -> Any:
    """`Outputs` on demand: torchmetrics takes a second to import, and the functions do not need it."""
    if name == "Outputs":
        from mu.metrics.outputs import Outputs

        return Outputs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
