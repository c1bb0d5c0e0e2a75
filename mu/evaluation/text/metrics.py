"""TOFU and memorisation metrics as nodes of the metric graph.

The formulas are in `mu.metrics.tofu` and `mu.metrics.memorisation`. A metric that compares with the
oracle has a field `log`, the source of the oracle's values (see `mu.evaluation.text.oracle`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from mu.evaluation.text.graph import Graph, Measurement, Metric, Node, OracleLog
from mu.evaluation.text.leaves import Answer, GeneratedText, Question, Scored
from mu.evaluation.text.scores import Scores, Texts
from mu.metrics import aggregates, memorisation, tofu
from mu.utils.errors import UndefinedError

# ---------------------------------------------------------------- TOFU


@dataclass(frozen=True)
class Loss(Metric):
    """Average negative log-likelihood A of each answer, in nats, end of sequence included."""

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
    """Length-normalised probability exp(-A) of each answer.

    Attributes:
        set: name of a question set.
        answer: column of the answers.
        question: column of the questions.
        prefix: words that the answer is forced to begin with, which are not scored.
        normalised: divide by the sum over right and wrong answers, for sets that have wrong answers
            and are not training data.
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
    """ROUGE-L of generated answers against the true ones.

    Attributes:
        set: name of a question set.
        truth: column of the true answers.
        question: column of the questions.
        prefix: words that the answer is forced to begin with.
        max_new_tokens: most tokens of an answer.
        stop_strings: strings at which an answer ends.
        measure: `recall` (TOFU) or `f1` (MUSE).
    """

    stem: ClassVar[str] = "rouge"
    set: str
    truth: Answer = "answer"
    question: Question = "question"
    prefix: str = ""
    max_new_tokens: int = 200
    stop_strings: tuple[str, ...] = ()
    measure: Literal["recall", "f1"] = "recall"

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (
            GeneratedText(
                self.set, self.question, self.prefix, self.max_new_tokens, self.stop_strings
            ),
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        generated: Texts = inputs[0]
        truths = graph.column(self.set, self.truth)
        recall, f1 = tofu.rouge_l(generated.texts, truths)
        mean = Measurement.mean(generated.index, recall if self.measure == "recall" else f1)
        return replace(mean, detail={"words": _word_rule(generated.texts, truths)})


def _word_rule(outputs: Sequence[str], truths: Sequence[str]) -> str:
    """Rule by which the words of ROUGE were cut, for the detail of a result."""
    from mu.metrics.words import is_published_case

    pairs = list(zip(outputs, truths, strict=True))
    unicode = sum(not is_published_case(output, truth) for output, truth in pairs)
    if not unicode:
        return "ASCII, as published"
    return f"Unicode in {unicode} of {len(pairs)} answers, else ASCII as published"


@dataclass(frozen=True)
class TruthRatio(Metric):
    """Truth ratio R = wrong / right of each row, and a score of it.

    Attributes:
        set: name of a question set with wrong answers.
        right: column of the true answers; sets without a paraphrase use `answer`.
        score: aggregate of the items: `closer_to_one` (forget set), `true_better` (retained
            knowledge), or `probability`, the mean of right / (right + wrong).
        question: column of the questions.
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
        scores, wrong_scores = inputs
        right, wrong = scores.nll(), wrong_scores.nll_by_row()
        if self.score == "probability":
            return Measurement.mean(scores.index, tofu.truth_probability(right, wrong))
        ratio = tofu.truth_ratio(right, wrong)
        if self.score == "true_better":
            value = tofu.mean_true_better(right, wrong)
        else:
            value = tofu.closer_to_one(ratio).mean().item()
        return Measurement(value, scores.index, ratio)


@dataclass(frozen=True)
class ModelUtility(Metric):
    """Model utility: harmonic mean of probability, ROUGE-L recall and truth ratio on retained sets.

    Attributes:
        sets: names of question sets; TOFU's are retain, real authors and world facts.
        choices: the sets whose rows have wrong answers and no paraphrase: probabilities are
            normalised, and the truth ratio uses `answer`.
        max_new_tokens: most tokens of an answer.
        stop_strings: strings at which an answer ends.
    """

    stem: ClassVar[str] = "model_utility"
    accepts_undefined: ClassVar[bool] = True
    sets: tuple[str, ...]
    choices: tuple[str, ...] = ()
    max_new_tokens: int = 200
    stop_strings: tuple[str, ...] = ()

    def set_metrics(self, name: str) -> dict[str, Metric]:
        """Probability, ROUGE-L and truth ratio of one set."""
        choice = name in self.choices
        return {
            "probability": Probability(name, normalised=choice),
            "rouge": Rouge(
                name, max_new_tokens=self.max_new_tokens, stop_strings=self.stop_strings
            ),
            "truth_ratio": TruthRatio(
                name, "answer" if choice else "paraphrased_answer", "true_better"
            ),
        }

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return tuple(metric for name in self.sets for metric in self.set_metrics(name).values())

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        undefined = [item for item in inputs if isinstance(item, UndefinedError)]
        if undefined:
            # a harmonic mean with a zero is zero, whatever the others are
            if any(item.value == 0 for item in inputs if isinstance(item, Measurement)):
                return Measurement(0.0, detail={"undefined_part": str(undefined[0])})
            raise undefined[0]
        measurements = iter(inputs)
        values = {
            name: {metric: next(measurements).value for metric in self.set_metrics(name)}
            for name in self.sets
        }
        return Measurement(tofu.model_utility(values))


@dataclass(frozen=True)
class ForgetQuality(Metric):
    """Forget quality: p-value of a Kolmogorov-Smirnov test of truth ratios, model against oracle.

    The detail has `log10`, `statistic` and `items`.

    Attributes:
        set: name of the forget set.
        log: source of the oracle's values.
        question: column of the questions.
    """

    stem: ClassVar[str] = "forget_quality"
    set: str
    log: OracleLog
    question: Question = "question"

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (TruthRatio(self.set, question=self.question),)

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        ratios, oracle_ratios = inputs[0].items, self.log.measure(self.inputs[0], graph).items  # type: ignore[arg-type]
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
    """Exact memorisation: share of answer tokens that the model ranks first, teacher forced.

    The end of the sequence is left out.
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
    """Extraction strength: share of an answer that the model completes from its beginning.

    `floor` is an argument of `mu.metrics.memorisation.extraction_strength`.
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
    """Memorisation score: harmonic mean of 1 - x over four memorisation metrics.

    Extraction strength, exact memorisation, probability of the paraphrase, truth probability.
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
            aggregates.memorisation_score([measurement.value for measurement in inputs])
        )
