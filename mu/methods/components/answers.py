"""Substitute answers for language models: refusals, other answers, answers from a file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import torch
from torch import Tensor

from mu.backbones import Backbone
from mu.core.substitutes import Substitute
from mu.data.datamodule import UnlearningDataModule
from mu.data.encoding import Encoder
from mu.data.sequences import Pair, collate, count_labelled
from mu.utils import rng
from mu.utils.errors import InputError
from mu.utils.files import read_json_lines


class Answer(Substitute):
    """Base of substitute answers: the forget question with another answer, as a part of tokens."""

    def __init__(self) -> None:
        self._encoder: Encoder | None = None
        self._questions: dict[int, str] = {}
        self._pairs: dict[tuple[int, str], Pair] = {}

    @abstractmethod
    def answers(self, index: Tensor, visit: Tensor, seed: int) -> list[str]:
        """One answer for each sample.

        Args:
            index: `[B]` int64, the samples' indices.
            visit: `[B]` int64, how often each sample has occurred before.
            seed: of the run.
        """

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        encoder = getattr(task, "encoder", None)
        if task is None or encoder is None:
            raise InputError(
                f"{type(self).__name__} answers questions, so it needs a task of texts."
            )
        data: Any = task.datasets["forget"]
        if "question" not in data.texts:
            raise InputError(
                f"{type(self).__name__} answers questions, and {type(task).__name__} gives raw "
                "text."
            )
        self._encoder = encoder
        self._questions = dict(zip(data.indices.tolist(), data.texts["question"], strict=True))

    def draw(self, part: dict[str, Any], seed: int) -> dict[str, Tensor]:
        answers = self.answers(part["index"].cpu(), part["visit"].cpu(), seed)
        pairs = [
            self._pair(int(index), answer)
            for index, answer in zip(part["index"].tolist(), answers, strict=True)
        ]
        return {name: value.to(part["index"].device) for name, value in collate(pairs).items()}

    def total(self, part: dict[str, Any], seed: int) -> Tensor | None:
        if "step" not in part:
            return None
        step = part["step"]
        index = torch.as_tensor(step.index)
        visit = torch.as_tensor(step.visit)
        pairs = zip(index.tolist(), self.answers(index, visit, seed), strict=True)
        count = sum(count_labelled(self._pair(sample, answer)) for sample, answer in pairs)
        return torch.tensor(count / step.accumulate, device=part["index"].device)

    def _pair(self, index: int, answer: str) -> Pair:
        assert self._encoder is not None
        if (index, answer) not in self._pairs:
            self._pairs[index, answer] = self._encoder.pair(
                self._questions[index], answer, f"the substitute of sample {index}"
            )
        return self._pairs[index, answer]


class Refusal(Answer):
    """Refusals: a random sentence that does not answer, at each visit (IdkNLL, IdkDPO).

    Args:
        file: plain text, one sentence in a line; None takes mu's sentences.
    """

    def __init__(self, file: str | None = None) -> None:
        super().__init__()
        self.file = file
        self._lines: list[str] = []

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        super().setup(backbone, task)
        self._lines = refusals(self.file)

    def answers(self, index: Tensor, visit: Tensor, seed: int) -> list[str]:
        rows = rng.integers(seed, index, visit, "refusal", len(self._lines))
        return [self._lines[row] for row in rows.tolist()]


class AnswerOfAnotherQuestion(Answer):
    """The answer of a random retain sample: random labels for language models (SOUL, WAGLE).

    Args:
        redraw: draw at each visit of the question; False draws once.
    """

    def __init__(self, redraw: bool = True) -> None:
        super().__init__()
        self.redraw = redraw
        self._retain_answers: Sequence[str] = ()

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        super().setup(backbone, task)
        assert task is not None
        data: Any = task.datasets["retain"]
        self._retain_answers = data.texts["answer"]

    def answers(self, index: Tensor, visit: Tensor, seed: int) -> list[str]:
        draw = visit if self.redraw else 0
        rows = rng.integers(seed, index, draw, "other-answer", len(self._retain_answers))
        return [self._retain_answers[int(row)] for row in rows.tolist()]


class CyclingAnswers(Answer):
    """Base of substitutes with several answers to each question, used in turn.

    `setup` of a subclass fills `alternates`, the answers by the question's index.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alternates: dict[int, list[str]] = {}

    def answers(self, index: Tensor, visit: Tensor, seed: int) -> list[str]:
        alternates = [self.alternates[sample] for sample in index.tolist()]
        turns = zip(alternates, visit.tolist(), strict=True)
        return [answers[turn % len(answers)] for answers, turn in turns]


class AnswersFromFile(CyclingAnswers):
    """Alternate answers from a file, used in turn (AltPO: generated by the original).

    Args:
        file: JSON lines with `question` and `alternate`; a question may have several lines.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        super().setup(backbone, task)
        answers: dict[str, list[str]] = {}
        for row in read_json_lines(self.file, ("question", "alternate")):
            answers.setdefault(normalize("NFC", str(row["question"])), []).append(row["alternate"])
        questions = {
            index: normalize("NFC", question) for index, question in self._questions.items()
        }
        missing = [question for question in questions.values() if question not in answers]
        if missing:
            raise InputError(
                f"{self.file} has no alternate answer to {len(missing)} of {len(self._questions)} "
                f"forget questions, {missing[0]!r} among them."
            )
        self.alternates = {index: answers[question] for index, question in questions.items()}


class PerturbedAnswers(CyclingAnswers):
    """Wrong answers that the task has for each forget question (`perturbed_answer`), in turn."""

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        super().setup(backbone, task)
        questions: Any = getattr(task, "sets", {}).get("forget")
        if questions is None:
            raise InputError(
                "PerturbedAnswers needs a set of forget questions with wrong answers, which "
                f"{type(task).__name__} does not give."
            )
        self.alternates = dict(
            zip(questions.indices.tolist(), questions.column("perturbed_answer"), strict=True)
        )


def refusals(file: str | None = None) -> list[str]:
    """Sentences that refuse to answer.

    Args:
        file: plain text, one sentence in a line; None takes mu's sentences.

    Raises:
        InputError: the file is missing or empty.

    Example:
        >>> len(refusals())
        100
    """
    path = Path(file) if file else Path(__file__).parent / "refusals.txt"
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise InputError(f"there is no text file of refusals at {path}.") from error
    if not any(lines):
        raise InputError(f"{path} has no sentence; write one refusal in a line.")
    return [line for line in lines if line]
