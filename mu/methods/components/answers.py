"""Laws that draw what a language model should answer instead of the truth."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mu.core.substitutes import Substitute
from mu.data.encoding import Encoder, Pair, collate, count_labelled
from mu.utils import rng
from mu.utils.errors import InputError
from mu.utils.files import read_json_lines

if TYPE_CHECKING:
    from mu.backbones import Backbone
    from mu.data.datamodule import UnlearningDataModule


class Answer(Substitute):
    """Base of these laws: the forget question with another answer, as a nested part of tokens."""

    def __init__(self) -> None:
        self._encoder: Encoder | None = None
        self._questions: dict[int, str] = {}
        self._pairs: dict[tuple[int, str], Pair] = {}

    @abstractmethod
    def answers(self, index: Tensor, visit: Tensor, seed: int) -> list[str]:
        """The answers of the samples `index` `[B]`, shown for the `visit`-th time."""

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
        count = sum(count_labelled(self._pair(place, answer)) for place, answer in pairs)
        return torch.tensor(count / step.accumulate, device=part["index"].device)

    def _pair(self, index: int, answer: str) -> Pair:
        assert self._encoder is not None
        if (index, answer) not in self._pairs:
            self._pairs[index, answer] = self._encoder.pair(
                self._questions[index], answer, f"the substitute of sample {index}"
            )
        return self._pairs[index, answer]


class Refusal(Answer):
    """A sentence that does not answer, drawn anew each time a question is shown (IdkNLL, IdkDPO).

    Args:
        file: plain text, one sentence in a line; None takes those that come with mu.
    """

    def __init__(self, file: str | None = None) -> None:
        super().__init__()
        self.file = file
        self._lines: list[str] = []

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        super().setup(backbone, task)
        self._lines = refusals(self.file)

    def answers(self, index: Tensor, visit: Tensor, seed: int) -> list[str]:
        drawn = rng.integers(seed, index, visit, "refusal", len(self._lines))
        return [self._lines[place] for place in drawn.tolist()]


class AnswerOfAnotherQuestion(Answer):
    """The answer of a random retain sample: SalUn's random labels, for language models (SOUL,
    WAGLE).

    Args:
        redraw: anew each time the question is shown; False draws once.
    """

    def __init__(self, redraw: bool = True) -> None:
        super().__init__()
        self.redraw = redraw
        self._others: list[str] = []

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        super().setup(backbone, task)
        assert task is not None
        data: Any = task.datasets["retain"]
        self._others = list(data.texts["answer"])

    def answers(self, index: Tensor, visit: Tensor, seed: int) -> list[str]:
        drawn = rng.integers(
            seed, index, visit if self.redraw else 0, "other-answer", len(self._others)
        )
        return [self._others[place] for place in drawn.tolist()]


class CyclingAnswers(Answer):
    """Base of laws that have several answers to each question, shown one after the other; `setup`
    fills `alternates`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alternates: dict[int, list[str]] = {}

    def answers(self, index: Tensor, visit: Tensor, seed: int) -> list[str]:
        rows = [self.alternates[place] for place in index.tolist()]
        return [row[int(turn) % len(row)] for row, turn in zip(rows, visit.tolist(), strict=True)]


class AnswersFromFile(CyclingAnswers):
    """Other answers from a file, one after the other (AltPO: what the model itself made up).

    Args:
        file: JSON lines with `question` and `alternate`; a question may stand in several.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        super().setup(backbone, task)
        known: dict[str, list[str]] = {}
        for row in read_json_lines(self.file, ("question", "alternate")):
            known.setdefault(row["question"], []).append(row["alternate"])
        lacking = [question for question in self._questions.values() if question not in known]
        if lacking:
            raise InputError(
                f"{self.file} has no alternate answer to {len(lacking)} of {len(self._questions)} "
                f"forget questions, {lacking[0]!r} among them."
            )
        self.alternates = {index: known[question] for index, question in self._questions.items()}


class PerturbedAnswers(CyclingAnswers):
    """The task's own wrong answers to each forget question (`perturbed_answer`), one after the
    other: alternates without a file.
    """

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
    """Sentences that do not answer; those that come with mu when no file is named.

    Raises:
        InputError: when the file is missing or empty.
    """
    place = Path(file) if file else Path(__file__).parent / "refusals.txt"
    try:
        lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines()]
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise InputError(f"there is no text file of refusals at {place}.") from error
    if not any(lines):
        raise InputError(f"{place} has no sentence.")
    return [line for line in lines if line]
