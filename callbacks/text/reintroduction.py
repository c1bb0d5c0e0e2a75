"""Reintroduction attack: accuracy on forget questions with related facts in context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch

from callbacks import scores
from callbacks.base import Evaluated, Suite
from mu.core.module import UnlearningModule
from mu.data.encoding import Encoder
from mu.data.questions import QuestionSet
from mu.evaluation.text.graph import Graph, Measurement, Metric, Node
from mu.evaluation.text.leaves import Answer, Scored
from mu.evaluation.text.metrics import ExactMemorisation, Loss
from mu.evaluation.text.session import questions_of
from mu.metrics.rates import Rate
from mu.metrics.results import Result, compute_result
from mu.utils import rng
from mu.utils.errors import InputError

Row = Mapping[str, Any]


class Reintroduction(Suite):
    """Accuracy on forget questions with k related facts before each of them.

    Unlearned knowledge returns in context (Shumailov et al., "UnUnlearning", 2024, arXiv
    2407.00106). Nothing is trained.

    `reintroduction` is accuracy(facts and question) - accuracy(question) in percentage points,
    accuracy being the share of an answer's tokens that are the model's first choice, teacher
    forced, without the end of the sequence. A model that never saw the data uses the context too,
    so closeness to the oracle is the goal; the two levels identify a model before unlearning.
    Parts:

    - `reintroduction/accuracy/question`, `.../context` and `.../control`: the levels; `control` has
      as many facts about other subjects;
    - `reintroduction/control`: accuracy(other facts and question) - accuracy(question), the effect
      of any context;
    - `reintroduction/loss/...`: the mean loss of the answers, in nats;
    - `reintroduction/choice` and `reintroduction/choice/...`: the same with the share of questions
      whose right answer is likelier than every wrong one, for sets with wrong answers.

    Sequences are divided among ranks and gathered.

    Args:
        facts: number k of facts before a question; all where a subject has fewer other rows.
        source: `subject`: the answers of other rows about the same subject. `paraphrase`: the row's
            own answer in other words, among those of k - 1 other rows.
        subject: column of the subject, or number of consecutive rows about one subject (TOFU's
            files: 20).
        set: question set.
        control: question set of the other facts; None measures no control.
        seed: seed of the choice of facts, and of their order.
        max_length: most tokens of a sequence; None takes the model's context.
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "reintroduction": "Gain of accuracy on the forget questions (share of likeliest tokens) "
        "when related facts stand before each question, in percentage points; the oracle's own is "
        "the goal.",
        "reintroduction/control": "The same gain with facts about another subject: the effect of "
        "any context.",
        "reintroduction/choice": "As reintroduction, by the share of questions whose right answer "
        "is likelier than every wrong one.",
        "reintroduction/": "Accuracy or share of right choices in percent, or loss in nats: of "
        "the question alone, after related facts (context), or after other facts (control).",
    }

    def __init__(
        self,
        facts: int = 3,
        source: Literal["subject", "paraphrase"] = "subject",
        subject: str | int = "author",
        set: str = "forget",
        control: str | None = "retain",
        seed: int = 0,
        max_length: int | None = None,
    ) -> None:
        if facts < 1 or (isinstance(subject, int) and subject < 2):
            raise InputError(
                "Reintroduction puts at least one fact before a question, of subjects of at "
                f"least 2 rows, not {facts} and {subject}."
            )
        if source not in ("subject", "paraphrase"):
            raise InputError(f"source is {source!r}; it is `subject` or `paraphrase`.")
        self.facts = facts
        self.source = source
        self.subject = subject
        self.set = set
        self.control = control
        self.seed = seed
        self.max_length = max_length

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Results `reintroduction` and its parts."""
        # questions with and without facts before them
        task_sets, task_encoder = questions_of(module)
        sets = self.contexts(task_sets)
        graph = scores.metric_graph(
            module.served(), module, sets, self._longer(task_encoder, module.served())
        )
        budget = {
            "facts": self.facts,
            "source": self.source,
            "attack_seed": self.seed,
            "tokens": _tokens(graph, "context"),
            "tokens_without": _tokens(graph, "question"),
        }
        # levels of each measure, and gains by the facts
        measures: dict[str, Callable[[str], Metric]] = {"accuracy": ExactMemorisation, "loss": Loss}
        if all(row.get("perturbed_answer") for row in sets["question"].rows):
            measures["choice"] = ChoiceAccuracy
        results = []
        for measure, metric in measures.items():
            unit, scale = ("nats", 1) if measure == "loss" else ("%", 100)
            levels = {
                name: compute_result(
                    f"reintroduction/{measure}/{name}",
                    partial(_level, graph, metric(name), scale, measure),
                    None,
                    self.set,
                    unit,
                )
                for name in sets
            }
            results += levels.values()
            if measure == "accuracy":
                results.insert(0, self._gain("reintroduction", levels, "context", budget))
                if "control" in levels:
                    results.append(self._gain("reintroduction/control", levels, "control"))
            elif measure == "choice":
                results.append(self._gain("reintroduction/choice", levels, "context", {}))
        return results

    def _gain(
        self,
        metric: str,
        levels: Mapping[str, Result],
        name: str,
        detail: Mapping[str, Any] | None = None,
    ) -> Result:
        """Level with facts minus that of the question alone; with the levels where detail is."""
        defined = {key: level.value for key, level in levels.items() if level.value is not None}
        return compute_result(
            metric,
            lambda: levels[name].number - levels["question"].number,
            None,
            self.set,
            "pp",
            None if detail is None else {**detail, **defined},
        )

    def contexts(self, sets: Mapping[str, QuestionSet]) -> dict[str, QuestionSet]:
        """Question sets without facts (`question`), with facts (`context`), and with other facts.

        The last one (`control`) has facts about other subjects.

        Raises:
            InputError: when there is no such set, or there is no fact for a row.
        """
        for name in (self.set, *([self.control] if self.control is not None else [])):
            if name not in sets:
                raise InputError(f"the task has no set {name!r}; it has {', '.join(sets)}.")
        rows = sets[self.set]
        facts = self._of_subject(rows) if self.source == "subject" else self._paraphrases(rows)
        contexts = {"question": rows, "context": _before(rows, facts)}
        if self.control is not None:
            statements = sets[self.control].column("answer")
            drawn = [
                _order(self.seed, int(index), "others", len(statements)) for index in rows.indices
            ]
            chosen = [
                [statements[position] for position in order[: len(row_facts)]]
                for order, row_facts in zip(drawn, facts, strict=True)
            ]
            contexts["control"] = _before(rows, chosen)
        return contexts

    def _of_subject(self, rows: QuestionSet) -> list[list[str]]:
        """Answers of other rows about the same subject, for each row."""
        subjects = (
            [int(index) // self.subject for index in rows.indices]
            if isinstance(self.subject, int)
            else rows.column(self.subject)
        )
        answers = rows.column("answer")
        facts = []
        for position, subject in enumerate(subjects):
            order = _order(self.seed, int(rows.indices[position]), "facts", len(rows))
            same = [other for other in order if other != position and subjects[other] == subject]
            if not same:
                raise InputError(
                    f"row {position} of the set {rows.name} is the only one about its subject "
                    f"{subject!r}; take source: paraphrase."
                )
            facts.append([answers[other] for other in same[: self.facts]])
        return facts

    def _paraphrases(self, rows: QuestionSet) -> list[list[str]]:
        """Paraphrased answer of each row, among those of other rows."""
        stated = rows.column("paraphrased_answer")
        facts = []
        if self.facts > len(rows):
            raise InputError(
                f"the set {rows.name} has {len(rows)} rows, and Reintroduction takes {self.facts} "
                "facts of it; take fewer."
            )
        for position, index in enumerate(rows.indices):
            order = _order(self.seed, int(index), "facts", len(rows))
            chosen = [position, *(other for other in order if other != position)][: self.facts]
            mixed = _order(self.seed, int(index), "place", len(chosen))
            facts.append([stated[chosen[at]] for at in mixed])
        return facts

    def _longer(self, encoder: Encoder, served: Any) -> Encoder:
        """Encoder of the task, for longer sequences."""
        longest = (
            self.max_length
            or getattr(served, "context", None)
            or encoder.max_length * (self.facts + 1)
        )
        return Encoder(encoder.tokenizer, encoder.template, int(longest), "refuse")


@dataclass(frozen=True)
class ChoiceAccuracy(Metric):
    """Share of questions whose right answer has a smaller average loss than every wrong one.

    Attributes:
        set: question set with wrong answers.
        right: column of the true answers.
    """

    stem: ClassVar[str] = "choice"
    set: str
    right: Answer = "answer"

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return Scored(self.set, self.right), Scored(self.set, "perturbed_answer")

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        right, wrong = inputs
        least = torch.stack([losses.min() for losses in wrong.nll_by_row()])
        return Measurement.mean(right.index, (right.nll() < least).double())


def _level(graph: Graph, node: Metric, scale: float, measure: str) -> float | Rate:
    """Value of a metric in the unit of its result; a share of questions is a rate."""
    measured = graph.value(node)
    value = scale * measured.value
    if measure != "choice" or measured.index is None:
        return value
    return Rate(value, len(measured.index), len(measured.index))


def _before(rows: QuestionSet, facts: Sequence[Sequence[str]]) -> QuestionSet:
    """Question set with facts before the questions, one a line."""
    asked = [
        "\n".join([*row_facts, row["question"]])
        for row, row_facts in zip(rows.rows, facts, strict=True)
    ]
    return QuestionSet(
        rows.name,
        [{**row, "question": question} for row, question in zip(rows.rows, asked, strict=True)],
        rows.indices,
    )


def _order(seed: int, index: int, purpose: str, count: int) -> list[int]:
    """Random permutation of `count` rows, drawn for one row."""
    return (
        rng.uniform(seed, torch.tensor([index]), 0, f"reintroduction/{purpose}", count)[0]
        .argsort(stable=True)
        .tolist()
    )


def _tokens(graph: Graph, name: str) -> float:
    """Mean number of tokens of the sequences of a set."""
    pairs = graph.encoded(Scored(name)).pairs
    return round(sum(len(ids) for ids, _ in pairs) / len(pairs), 1)
