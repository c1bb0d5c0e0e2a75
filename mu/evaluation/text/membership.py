"""Membership attacks and privacy metrics as nodes of the metric graph.

The formulas are in `mu.metrics.memorisation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from mu.evaluation.text.graph import Graph, Measurement, Metric, Node, OracleLog
from mu.evaluation.text.leaves import GradientNorms, Scored
from mu.evaluation.text.metrics import Loss
from mu.evaluation.text.scores import Scores
from mu.metrics import aggregates, memorisation
from mu.utils.errors import InputError

MembershipAttack = Literal["loss", "zlib", "min_k", "min_k_plus_plus", "gradient_norm", "reference"]
MEMBERSHIP_ATTACKS: tuple[MembershipAttack, ...] = (
    "loss",
    "zlib",
    "min_k",
    "min_k_plus_plus",
    "gradient_norm",
    "reference",
)
"""Names of membership attacks."""
PRIVACY_ATTACKS: tuple[MembershipAttack, ...] = MEMBERSHIP_ATTACKS[:4]
"""Attacks of OpenUnlearning's privacy score."""


@dataclass(frozen=True)
class MembershipScore(Metric):
    """Membership attack scores of the rows of a set, larger for unseen rows.

    Losses include the end of the sequence; min-k, min-k++ and gradient norms exclude it, as in the
    reference.

    Attributes:
        attack: name of the attack.
        set: name of a question set.
        share: share of the tokens that min-k and min-k++ average, in (0, 1].
        log: source of the oracle's values, for `reference`.
    """

    stem: ClassVar[str] = "membership"
    attack: MembershipAttack
    set: str
    share: float = 0.4
    log: OracleLog | None = None

    def __post_init__(self) -> None:
        if self.attack not in MEMBERSHIP_ATTACKS:
            raise InputError(
                f"there is no membership attack {self.attack!r}; the attacks are "
                f"{', '.join(MEMBERSHIP_ATTACKS)}."
            )
        if self.attack == "reference" and self.log is None:
            raise InputError(
                "the reference attack compares with the oracle's losses; give the oracle."
            )

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        if self.attack == "gradient_norm":
            return (GradientNorms(self.set), Scored(self.set))
        return (
            (Loss(self.set), Scored(self.set))
            if self.attack == "reference"
            else (Scored(self.set),)
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        scores: Scores = inputs[-1]
        return Measurement.mean(scores.index, self._items(graph, scores, inputs[0]))

    def _items(self, graph: Graph, scores: Scores, first: Any) -> Tensor:
        if self.attack == "loss":
            return scores.nll()
        if self.attack == "zlib":
            return memorisation.zlib_score(scores.nll(), graph.questions(self.set).column("answer"))
        if self.attack == "gradient_norm":
            return first
        if self.attack == "reference":
            assert self.log is not None
            oracle_losses = self.log.measure(Loss(self.set), graph).items
            assert oracle_losses is not None
            return memorisation.reference_score(first.items, oracle_losses)
        (log_prob, mean, variance), mask = scores.padded("log_prob", "mean", "variance")
        if self.attack == "min_k":
            return memorisation.min_k(log_prob, mask, self.share)
        return memorisation.min_k_plus_plus(log_prob, mean, variance, mask, self.share)


@dataclass(frozen=True)
class MembershipAUC(Metric):
    """AUC of a membership attack, forget set against holdout; 1 = memorised.

    Attributes:
        attack: name of the attack.
        forget: name of the forget set (members).
        holdout: name of a set that no model was trained on.
        share: share of the tokens that min-k and min-k++ average, in (0, 1].
        log: source of the oracle's values, for `reference`.
    """

    stem: ClassVar[str] = "auc"
    attack: MembershipAttack
    forget: str
    holdout: str
    share: float = 0.4
    log: OracleLog | None = None

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        log = self.log if self.attack == "reference" else None
        return MembershipScore(self.attack, self.forget, self.share, log), MembershipScore(
            self.attack, self.holdout, self.share, log
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        forget, holdout = inputs
        detail = {"forget": len(forget.items), "holdout": len(holdout.items)}
        # a model with the oracle's losses is the oracle, which the reference attack cannot attack
        if self.attack == "reference" and not (forget.items.any() or holdout.items.any()):
            return Measurement(0.5, detail=detail)
        return Measurement(memorisation.membership_auc(forget.items, holdout.items), detail=detail)


@dataclass(frozen=True)
class PrivLeak(Metric):
    """PrivLeak: relative difference of an attack's AUC from the oracle's, in percent.

    See `mu.metrics.memorisation.privleak`.
    """

    stem: ClassVar[str] = "privleak"
    forget: str
    holdout: str
    log: OracleLog
    attack: MembershipAttack = "min_k"
    share: float = 0.4

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (MembershipAUC(self.attack, self.forget, self.holdout, self.share),)

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        auc = inputs[0].value
        oracle_auc = self.log.measure(self.inputs[0], graph).value  # type: ignore[arg-type]
        detail = {"AUC": auc, "AUC_oracle": oracle_auc, "oracle": self.log.label(graph)}
        if oracle_auc > 0:
            detail["rel_diff"] = memorisation.rel_diff(auc, oracle_auc)
        return Measurement(memorisation.privleak(auc, oracle_auc), detail=detail)


@dataclass(frozen=True)
class PrivacyScore(Metric):
    """Privacy score: harmonic mean over attacks of the closeness of their AUC to the oracle's."""

    stem: ClassVar[str] = "privacy"
    forget: str
    holdout: str
    log: OracleLog
    attacks: tuple[MembershipAttack, ...] = PRIVACY_ATTACKS
    share: float = 0.4

    @staticmethod
    def closeness(auc: float, oracle_auc: float) -> float:
        """Closeness of an AUC to the oracle's, `mu.metrics.aggregates.membership_closeness`."""
        return aggregates.membership_closeness(auc, oracle_auc)

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return tuple(
            MembershipAUC(attack, self.forget, self.holdout, self.share) for attack in self.attacks
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        aucs = {
            attack: measurement.value
            for attack, measurement in zip(self.attacks, inputs, strict=True)
        }
        oracle_aucs = {
            attack: self.log.measure(node, graph).value  # type: ignore[arg-type]
            for attack, node in zip(self.attacks, self.inputs, strict=True)
        }
        return Measurement(
            aggregates.privacy_score(aucs, oracle_aucs, self.closeness),
            detail={"oracle": self.log.label(graph)},
        )


@dataclass(frozen=True)
class PrivacyScoreReferenceCode(PrivacyScore):
    """Privacy score with the closeness of released code.

    See `mu.metrics.aggregates.membership_closeness_reference_code`.
    """

    stem: ClassVar[str] = "privacy_reference_code"

    @staticmethod
    def closeness(auc: float, oracle_auc: float) -> float:
        """Closeness divided by the oracle's AUC, as the released code has it."""
        return aggregates.membership_closeness_reference_code(auc, oracle_auc)
