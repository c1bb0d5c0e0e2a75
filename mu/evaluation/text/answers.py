"""Metrics of plain questions and answers as nodes of the metric graph: perplexity, exact match.

The formulas are in `mu.metrics.answers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mu.evaluation.text.graph import Graph, Measurement, Metric, Node
from mu.evaluation.text.leaves import Answer, GeneratedText, Question
from mu.evaluation.text.metrics import Loss
from mu.evaluation.text.scores import Scores, Texts
from mu.metrics import answers


@dataclass(frozen=True)
class Perplexity(Loss):
    """Perplexity of the answers of a set; the items are average negative log-likelihoods.

    The end of the sequence counts as a token, as in `Loss`.

    Attributes:
        set: name of a question set.
        answer: column of the answers.
        question: column of the questions.
    """

    stem: ClassVar[str] = "perplexity"

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        scores: Scores = inputs[0]
        losses = scores.nll()
        tokens = int(scores.length.sum())
        value = answers.perplexity(losses, scores.length)
        return Measurement(value, scores.index, losses, {"tokens": tokens})


@dataclass(frozen=True)
class ExactMatch(Metric):
    """Share of generated answers that match the true ones, see `mu.metrics.answers.exact_match`.

    Attributes:
        set: name of a question set.
        truth: column of the true answers.
        question: column of the questions.
        max_new_tokens: most tokens of an answer.
        stop_strings: strings at which an answer ends.
    """

    stem: ClassVar[str] = "exact_match"
    set: str
    truth: Answer = "answer"
    question: Question = "question"
    max_new_tokens: int = 200
    stop_strings: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (
            GeneratedText(
                self.set,
                self.question,
                max_new_tokens=self.max_new_tokens,
                stop_strings=self.stop_strings,
            ),
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        generated: Texts = inputs[0]
        matches = answers.exact_match(generated.texts, graph.column(self.set, self.truth))
        return Measurement.mean(generated.index, matches)
