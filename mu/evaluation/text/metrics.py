"""Metrics of unlearned facts as nodes of a graph (see `mu.evaluation.text.graph`); the formulas
stand in `mu.metrics.tofu` and `.memorisation`.

Whatever compares with the oracle takes a `log` (see `mu.evaluation.text.oracle`), which answers for
the oracle's value of the same node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

from mu.evaluation.text.graph import Graph, Measurement, Metric, Node
from mu.evaluation.text.leaves import Answer, GeneratedText, GradientNorms, Question, Scored
from mu.evaluation.text.scores import Scores, Texts
from mu.metrics import memorisation, tofu
from mu.utils.errors import InputError

if TYPE_CHECKING:
    from mu.evaluation.text.graph import OracleLog

MembershipAttack = Literal["loss", "zlib", "min_k", "min_k_plus_plus", "gradient_norm", "reference"]
MEMBERSHIP_ATTACKS: tuple[MembershipAttack, ...] = (
    "loss",
    "zlib",
    "min_k",
    "min_k_plus_plus",
    "gradient_norm",
    "reference",
)
"""Membership attacks: each gives an item a number that is large where it looks unseen."""
PRIVACY_ATTACKS: tuple[MembershipAttack, ...] = MEMBERSHIP_ATTACKS[:4]
"""Those of OpenUnlearning's privacy score."""

# ---------------------------------------------------------------- TOFU


@dataclass(frozen=True)
class Loss(Metric):
    """Average loss A of each answer, in nats, the end of the sequence included."""

    stem: ClassVar[str] = "loss"
    set: str
    answer: Answer = "answer"
    question: Question = "question"

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (Scored(self.set, self.answer, self.question),)

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        scores: Scores = inputs[0]
        return Measurement.mean(scores.index, scores.nll())


@dataclass(frozen=True)
class Probability(Metric):
    """exp(-A) of each answer.

    Attributes:
        set: of questions.
        answer: `answer`, or its paraphrase.
        question: which wording.
        prefix: words that the answer is made to begin with, which are not scored.
        normalised: over the wrong answers, for sets that have them and are no part of the training
            data.
    """

    stem: ClassVar[str] = "probability"
    set: str
    answer: Answer = "answer"
    question: Question = "question"
    prefix: str = ""
    normalised: bool = False

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        right = Scored(self.set, self.answer, self.question, self.prefix)
        return (
            (right, Scored(self.set, "perturbed_answer", self.question, self.prefix))
            if self.normalised
            else (right,)
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        right: Scores = inputs[0]
        if not self.normalised:
            return Measurement.mean(right.index, tofu.probability(right.nll()))
        return Measurement.mean(
            right.index, tofu.normalised_probability(right.nll(), inputs[1].nll_by_row())
        )


@dataclass(frozen=True)
class Rouge(Metric):
    """ROUGE-L of what the model answers, against the truth.

    Attributes:
        set: of questions.
        truth: `answer`, or its paraphrase.
        question: which wording.
        prefix: words that the answer is made to begin with.
        max_new_tokens: at most.
        stop: strings at which an answer ends.
        kind: `recall` (TOFU) or `f1` (MUSE).
    """

    stem: ClassVar[str] = "rouge"
    set: str
    truth: Answer = "answer"
    question: Question = "question"
    prefix: str = ""
    max_new_tokens: int = 200
    stop: tuple[str, ...] = ()
    kind: Literal["recall", "f1"] = "recall"

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (
            GeneratedText(self.set, self.question, self.prefix, self.max_new_tokens, self.stop),
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        generated: Texts = inputs[0]
        recall, f1 = tofu.rouge_l(generated.texts, graph.questions(self.set).column(self.truth))
        return Measurement.mean(generated.index, recall if self.kind == "recall" else f1)


@dataclass(frozen=True)
class TruthRatio(Metric):
    """R = wrong / right of each row (its items), and a score of it.

    Attributes:
        set: of questions with wrong answers.
        right: the answer that stands for the truth; sets without a paraphrase take `answer`.
        score: how the items become a number: `closer_to_one` (forget), `true_better` (what is to be
            kept), or `probability`, where the items are right / (right + wrong).
        question: which wording.
    """

    stem: ClassVar[str] = "truth_ratio"
    set: str
    right: Answer = "paraphrased_answer"
    score: Literal["closer_to_one", "true_better", "probability"] = "closer_to_one"
    question: Question = "question"

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return Scored(self.set, self.right, self.question), Scored(
            self.set, "perturbed_answer", self.question
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        right, wrong = inputs
        if self.score == "probability":
            return Measurement.mean(
                right.index, tofu.truth_probability(right.nll(), wrong.nll_by_row())
            )
        ratio = tofu.truth_ratio(right.nll(), wrong.nll_by_row())
        score = (
            tofu.closer_to_one(ratio) if self.score == "closer_to_one" else tofu.true_better(ratio)
        )
        return Measurement(score.mean().item(), right.index, ratio)


@dataclass(frozen=True)
class ModelUtility(Metric):
    """Harmonic mean of probability, ROUGE-L recall and truth ratio over sets that are to be kept.

    Attributes:
        sets: of questions; TOFU's are retain, real authors and world facts.
        choices: those of them whose rows have wrong answers and no paraphrase: probabilities are
            normalised, and the truth ratio takes the answer itself.
        max_new_tokens: of an answer.
        stop: strings at which an answer ends.
    """

    stem: ClassVar[str] = "model_utility"
    sets: tuple[str, ...]
    choices: tuple[str, ...] = ()
    max_new_tokens: int = 200
    stop: tuple[str, ...] = ()

    def of(self, name: str) -> dict[str, Metric]:
        """The three metrics of one set."""
        choice = name in self.choices
        return {
            "probability": Probability(name, normalised=choice),
            "rouge": Rouge(name, max_new_tokens=self.max_new_tokens, stop=self.stop),
            "truth_ratio": TruthRatio(
                name, "answer" if choice else "paraphrased_answer", "true_better"
            ),
        }

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return tuple(metric for name in self.sets for metric in self.of(name).values())

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        measurements = iter(inputs)
        values = {
            name: {metric: next(measurements).value for metric in self.of(name)}
            for name in self.sets
        }
        return Measurement(tofu.model_utility(values))


@dataclass(frozen=True)
class ForgetQuality(Metric):
    """p-value of the Kolmogorov-Smirnov test between the truth ratios of model and oracle; `log10`,
    `statistic` and `items` in the detail.

    Attributes:
        set: the forget set.
        log: the oracle's.
        question: which wording.
    """

    stem: ClassVar[str] = "forget_quality"
    set: str
    log: OracleLog
    question: Question = "question"

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (TruthRatio(self.set, question=self.question),)

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        ratios, oracle_ratios = inputs[0].items, self.log.measured(self.inputs[0], graph).items  # type: ignore[arg-type]
        assert oracle_ratios is not None
        test = tofu.forget_quality(ratios, oracle_ratios)
        return Measurement(
            test.p,
            detail={
                "log10": test.log10,
                "statistic": test.statistic,
                "items": test.size,
                "oracle": self.log.label(graph),
            },
        )


# ---------------------------------------------------------------- memorisation


@dataclass(frozen=True)
class ExactMemorisation(Metric):
    """Share of an answer's tokens that are the model's first choice, teacher forced, without the
    end of the sequence.
    """

    stem: ClassVar[str] = "exact_memorisation"
    set: str
    question: Question = "question"

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (Scored(self.set, question=self.question),)

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        (hits,), mask = inputs[0].padded("hit")
        return Measurement.mean(inputs[0].index, memorisation.exact_memorisation(hits, mask))


@dataclass(frozen=True)
class ExtractionStrength(Metric):
    """Share of an answer that the model completes by heart; `floor` as in
    `mu.metrics.memorisation.extraction_strength`.
    """

    stem: ClassVar[str] = "extraction_strength"
    set: str
    question: Question = "question"
    floor: bool = True

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (Scored(self.set, question=self.question),)

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        (hits,), mask = inputs[0].padded("hit")
        return Measurement.mean(
            inputs[0].index, memorisation.extraction_strength(hits, mask, self.floor)
        )


@dataclass(frozen=True)
class MemorisationScore(Metric):
    """Harmonic mean of 1 - x over extraction strength, exact memorisation, paraphrased probability
    and truth probability.
    """

    stem: ClassVar[str] = "memorisation"
    set: str
    question: Question = "question"

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (
            ExtractionStrength(self.set),
            ExactMemorisation(self.set),
            Probability(self.set, "paraphrased_answer", self.question),
            TruthRatio(self.set, score="probability", question=self.question),
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        return Measurement(
            memorisation.memorisation_score([measurement.value for measurement in inputs])
        )


# ---------------------------------------------------------------- privacy


@dataclass(frozen=True)
class MembershipScore(Metric):
    """An attack's number for each row of a set, large where it looks unseen.

    Losses take the end of the sequence in, min-k and min-k++ leave it out, as the reference does.

    Attributes:
        kind: the attack.
        set: of questions.
        share: of the tokens, for min-k and min-k++.
        log: the oracle's, for `reference`.
    """

    stem: ClassVar[str] = "membership"
    kind: MembershipAttack
    set: str
    share: float = 0.4
    log: OracleLog | None = None

    def __post_init__(self) -> None:
        if self.kind not in MEMBERSHIP_ATTACKS:
            raise InputError(
                f"there is no membership attack {self.kind!r}; the attacks are {', '.join(MEMBERSHIP_ATTACKS)}."
            )
        if self.kind == "reference" and self.log is None:
            raise InputError(
                "the reference attack compares with the oracle's losses; give the oracle."
            )

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        if self.kind == "gradient_norm":
            return (GradientNorms(self.set), Scored(self.set))
        return (
            (Loss(self.set), Scored(self.set)) if self.kind == "reference" else (Scored(self.set),)
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        scores: Scores = inputs[-1]
        return Measurement.mean(scores.index, self._items(graph, scores, inputs[0]))

    def _items(self, graph: Graph, scores: Scores, first: Any) -> Tensor:
        if self.kind == "loss":
            return scores.nll()
        if self.kind == "zlib":
            return memorisation.zlib_score(scores.nll(), graph.questions(self.set).column("answer"))
        if self.kind == "gradient_norm":
            return first
        if self.kind == "reference":
            assert self.log is not None
            oracle_losses = self.log.measured(Loss(self.set), graph).items
            assert oracle_losses is not None
            return memorisation.reference_score(first.items, oracle_losses)
        (log_prob, mean, variance), mask = scores.padded("log_prob", "mean", "variance")
        if self.kind == "min_k":
            return memorisation.min_k(log_prob, mask, self.share)
        return memorisation.min_k_plus_plus(log_prob, mean, variance, mask, self.share)


@dataclass(frozen=True)
class MembershipAUC(Metric):
    """How well an attack tells the forget set (members) from items that nobody trained on; 1 =
    memorised.

    Attributes:
        kind: the attack.
        forget: the forget set.
        holdout: rows that no model saw.
        share: of the tokens, for min-k and min-k++.
        log: the oracle's, for `reference`.
    """

    stem: ClassVar[str] = "auc"
    kind: MembershipAttack
    forget: str
    holdout: str
    share: float = 0.4
    log: OracleLog | None = None

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        log = self.log if self.kind == "reference" else None
        return MembershipScore(self.kind, self.forget, self.share, log), MembershipScore(
            self.kind, self.holdout, self.share, log
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        forget, holdout = inputs
        value = memorisation.membership_auc(forget.items, holdout.items)
        return Measurement(
            value, detail={"forget": len(forget.items), "holdout": len(holdout.items)}
        )


@dataclass(frozen=True)
class PrivLeak(Metric):
    """Relative difference of an attack's AUC to the oracle's, in percent; see
    `mu.metrics.memorisation.privleak`.
    """

    stem: ClassVar[str] = "privleak"
    forget: str
    holdout: str
    log: OracleLog
    kind: MembershipAttack = "min_k"
    share: float = 0.4

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (MembershipAUC(self.kind, self.forget, self.holdout, self.share),)

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        oracle_auc = self.log.measured(self.inputs[0], graph).value  # type: ignore[arg-type]
        return Measurement(
            memorisation.privleak(inputs[0].value, oracle_auc),
            detail={
                "AUC": inputs[0].value,
                "AUC_oracle": oracle_auc,
                "rel_diff": memorisation.rel_diff(inputs[0].value, oracle_auc),
                "oracle": self.log.label(graph),
            },
        )


@dataclass(frozen=True)
class PrivacyScore(Metric):
    """Harmonic mean over attacks of how close their AUC is to the oracle's."""

    stem: ClassVar[str] = "privacy"
    forget: str
    holdout: str
    log: OracleLog
    kinds: tuple[MembershipAttack, ...] = PRIVACY_ATTACKS
    share: float = 0.4

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return tuple(
            MembershipAUC(attack, self.forget, self.holdout, self.share) for attack in self.kinds
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        aucs = {
            attack: measurement.value
            for attack, measurement in zip(self.kinds, inputs, strict=True)
        }
        oracle_aucs = {
            attack: self.log.measured(node, graph).value  # type: ignore[arg-type]
            for attack, node in zip(self.kinds, self.inputs, strict=True)
        }
        return Measurement(
            memorisation.privacy_score(aucs, oracle_aucs), detail={"oracle": self.log.label(graph)}
        )
