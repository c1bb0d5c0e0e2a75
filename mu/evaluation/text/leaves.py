"""Leaves of the metric graph: answer log-likelihoods, generated answers, gradient norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mu.data.questions import QuestionSet
from mu.data.sequences import collate
from mu.evaluation.text.graph import Encoded, Graph, Leaf
from mu.evaluation.text.scores import (
    NOT_FINITE,
    Scores,
    Texts,
    batches_by_length,
    gradient_scores,
    greedy_continuations,
    labelled_lengths,
    scores_by_pair,
    token_scores,
    tokens_hash,
)
from mu.utils.errors import InputError, UndefinedError
from mu.utils.fingerprint import digest
from mu.utils.resumable import unpack_strings

Answer = Literal["answer", "paraphrased_answer", "perturbed_answer"]
Question = Literal["question", "paraphrased_question"]


@dataclass(frozen=True)
class Scored(Leaf[Scores]):
    """Token scores of answers under the model, teacher forced.

    The answer's own tokens and, directly behind them, the end of the sequence; nothing that a chat
    template writes around them (see `Encoder.scored_pair`).

    Attributes:
        set: name of a question set.
        answer: column of the answers; `perturbed_answer` has several in a row.
        question: column of the questions.
        prefix: words at the beginning of the answer that are not scored.
    """

    set: str
    answer: Answer = "answer"
    question: Question = "question"
    prefix: str = ""

    def encode(self, graph: Graph) -> Encoded:
        rows = graph.questions(self.set)
        pairs = []
        owners = []
        for position, (question, answers) in enumerate(
            zip(
                graph.column(self.set, self.question),
                graph.column(self.set, self.answer),
                strict=True,
            )
        ):
            where = f"row {position} of the set {self.set}"
            if isinstance(answers, str) == (self.answer == "perturbed_answer"):
                expected = "a list of texts" if self.answer == "perturbed_answer" else "one text"
                raise InputError(f"{self.answer} of {where} is not {expected}.")
            for answer in [answers] if isinstance(answers, str) else answers:
                pairs.append(
                    graph.encoder.scored_pair(question, str(answer), where, begin=self.prefix)
                )
                owners.append(position)
        row = torch.tensor(owners)
        return Encoded(pairs, row, torch.as_tensor(rows.indices)[row], tokens_hash(pairs))

    def evaluate(self, graph: Graph, *inputs: Any) -> Scores:
        encoded = graph.encoded(self)
        order = batches_by_length([len(ids) for ids, _ in encoded.pairs], graph.tokens_per_batch)
        length, ended = labelled_lengths(encoded.pairs, graph.encoder.eos)
        parts = graph.run(
            self,
            encoded,
            {"tokens_per_batch": graph.tokens_per_batch},
            len(order),
            lambda batch: token_scores(
                graph.backbone, collate([encoded.pairs[index] for index in order[batch]])
            ),
            f"scoring {self.set}",
        )
        return Scores(
            encoded.index,
            encoded.row,
            torch.tensor(length),
            torch.tensor(ended),
            tokens=encoded.tokens,
            **scores_by_pair(parts, order, length),
        )


@dataclass(frozen=True)
class GeneratedText(Leaf[Texts]):
    """Answers that the model generates by greedy decoding.

    A prompt ends where the true answer begins in training (see `Encoder.prompt`).

    Attributes:
        set: name of a question set.
        question: column of the questions.
        prefix: words that the answer is forced to begin with (an affirmative jailbreak prefix);
            left out of the generated text.
        max_new_tokens: most tokens of an answer.
        stop_strings: strings at which an answer ends.
        rows: positions of the rows to answer; None answers all.
    """

    set: str
    question: Question = "question"
    prefix: str = ""
    max_new_tokens: int = 200
    stop_strings: tuple[str, ...] = ()
    rows: tuple[int, ...] | None = None

    def encode(self, graph: Graph) -> Encoded:
        graph.column(self.set, self.question)
        rows = graph.questions(self.set)
        rows = rows if self.rows is None else rows.select(self.rows)
        prompts = [
            (graph.encoder.prompt(question, self.prefix, row.get("answer")), [])
            for question, row in zip(rows.column(self.question), rows.rows, strict=True)
        ]
        return Encoded(
            prompts,
            torch.arange(len(rows)),
            torch.as_tensor(rows.indices),
            digest([[ids for ids, _ in prompts], self.max_new_tokens, self.stop_strings]),
        )

    def _rows(self, graph: Graph) -> QuestionSet:
        rows = graph.questions(self.set)
        return rows if self.rows is None else rows.select(self.rows)

    def evaluate(self, graph: Graph, *inputs: Any) -> Texts:
        # order the prompts by length
        encoded = graph.encoded(self)
        prompts = [ids for ids, _ in encoded.pairs]
        indices = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
        order = [
            indices[start : start + graph.prompts_per_batch]
            for start in range(0, len(indices), graph.prompts_per_batch)
        ]
        # answer them
        parts = graph.run(
            self,
            encoded,
            {"prompts_per_batch": graph.prompts_per_batch},
            len(order),
            lambda batch: greedy_continuations(
                graph.backbone,
                [prompts[index] for index in order[batch]],
                self.max_new_tokens,
                self.stop_strings,
            ),
            f"answering {self.set}",
        )
        if any(bool(part["nan"].any()) for part in parts):
            raise UndefinedError(NOT_FINITE)
        # bring the answers into the order of rows, without their prefix
        texts = {
            index: text
            for indices, part in zip(order, parts, strict=True)
            for index, text in zip(indices, unpack_strings(part), strict=True)
        }
        own_texts = tuple(
            texts[index].removeprefix(graph.encoder.merged_text(question, prompt, self.prefix))
            for index, (question, prompt) in enumerate(
                zip(self._rows(graph).column(self.question), prompts, strict=True)
            )
        )
        return Texts(encoded.index, own_texts, encoded.tokens)


@dataclass(frozen=True)
class GradientNorms(Leaf[Tensor]):
    """Gradient-norm scores of answers, `[N]`, by one backward pass for each item.

    Attributes:
        set: name of a question set.
        p: order of the norm.
    """

    set: str
    p: float = 2.0
    _CHUNK_SIZE: ClassVar[int] = 8  # items of a chunk

    def encode(self, graph: Graph) -> Encoded:
        return graph.encoded(Scored(self.set))

    def evaluate(self, graph: Graph, *inputs: Any) -> Tensor:
        encoded = graph.encoded(self)
        # autograd.grad sees the shards, which are not part of the forward pass
        if graph.ranks.lockstep:
            raise InputError(
                "gradients of single items cannot be computed with sharded weights; test the run "
                "with the strategy ddp, or leave the gradient-norm attack out."
            )
        starts = range(0, len(encoded.pairs), self._CHUNK_SIZE)
        parts = graph.run(
            self,
            encoded,
            {"p": self.p},
            len(starts),
            lambda chunk: gradient_scores(
                graph.backbone,
                encoded.pairs[starts[chunk] : starts[chunk] + self._CHUNK_SIZE],
                self.p,
                graph.encoder.eos,
            ),
            f"gradients of {self.set}",
        )
        return torch.cat([part["score"] for part in parts])
