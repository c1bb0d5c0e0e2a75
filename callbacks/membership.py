"""Membership inference attacks on the forget set of classifiers and regressors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from callbacks.base import Evaluated, Suite
from mu.core.module import UnlearningModule
from mu.metrics import membership, svc_membership
from mu.metrics.rates import Rate
from mu.metrics.results import Result, compute_result


class Membership(Suite):
    """Membership inference on the forget set: five SVC attacks and a loss-threshold attack.

    The SVC attacks are those of the OPTML code. An SVC is trained, under the unlearned model, to
    separate retain samples (members) from held-out ones by one feature; `MIA` is the share of the
    forget set that it classifies as *non-members*, in percent, with the feature `confidence` (the
    "MIA" column of Unlearn-Sparse and SalUn). The others are `MIA/correctness`, `MIA/entropy`,
    `MIA/m_entropy`, `MIA/prob`. `MIA/loss_auc` is the area under the curve of the loss as a score
    of membership, forget against held-out: 0.5 is chance.

    All are judged by closeness to the oracle.

    Args:
        held_out: non-members; `validation` in searches.
        attacks: features of the attacks; `confidence` alone is the fastest.
    """

    needs = ("logits", "label", "nll")

    definitions: ClassVar[Mapping[str, str]] = {
        "MIA": "Share of the forget set that an SVC attack on the confidence of the true class "
        "calls non-members, in percent.",
        "MIA/loss_auc": "Area under the ROC curve of the loss as a score of membership, forget "
        "against held-out; at 0.5 the two cannot be told apart.",
        "MIA/": "As MIA, by an attack on that feature instead of the confidence.",
    }

    def __init__(self, held_out: str = "test", attacks: list[str] | None = None) -> None:
        self.held_out = held_out
        self.attacks = list(svc_membership.ATTACKS) if attacks is None else list(attacks)

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Results `MIA`, `MIA/feature` and `MIA/loss_auc`."""
        retain, held_out, forget = (
            self.rows(outputs, name) for name in ("retain", self.held_out, "forget")
        )
        pools = [rows[name] for rows in (retain, held_out, forget) for name in ("logits", "label")]

        def attacked(feature: str) -> Result:
            detail: dict[str, Any] = {}

            def share() -> Rate:
                attack = svc_membership.svc_mia(*pools, attacks=[feature])
                detail.update(attack.detail(feature))
                return Rate(attack[feature], len(forget["label"]), len(forget["label"]))

            name = "MIA" if feature == "confidence" else f"MIA/{feature}"
            result = compute_result(name, share, None, "forget", "%")
            return replace(result, detail={**detail, **result.detail})

        auc = compute_result(
            "MIA/loss_auc",
            lambda: membership.loss_threshold_auc(forget["nll"], held_out["nll"]),
            None,
            "forget",
        )
        return [*(attacked(feature) for feature in self.attacks), auc]


class RegressionMembership(Suite):
    """Membership inference on the forget set of a regressor, by an SVC on the absolute error.

    `MIA/error_member` is the share of the forget set that the attack classifies as members, in
    percent (Tarun et al., ICML 2023).

    Args:
        held_out: non-members.
        size: largest number of members and non-members that the SVC is trained on (the papers use
            2,000).
    """

    needs = ("prediction", "target")

    definitions: ClassVar[Mapping[str, str]] = {
        "MIA/error_member": "Share of the forget set that an SVC attack on the absolute error "
        "calls members, in percent.",
    }
    headline = ("MIA/error_member",)

    def __init__(self, held_out: str = "test", size: int = 2000) -> None:
        self.held_out = held_out
        self.size = size

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Result `MIA/error_member`."""
        retain, held_out, forget = (
            (rows["prediction"] - rows["target"]).abs()
            for rows in (self.rows(outputs, n) for n in ("retain", self.held_out, "forget"))
        )

        def share() -> Rate:
            value = svc_membership.svc_mia_regression(retain, held_out, forget, size=self.size)
            return Rate(value, len(forget), len(forget))

        pools = {
            "members": min(self.size, len(retain)),
            "non_members": min(self.size, len(held_out)),
        }
        return [compute_result("MIA/error_member", share, None, "forget", "%", pools)]
