"""Other answers that the original itself makes up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mu.backbones.language.sampling import Sampling
from mu.methods.components.answers import CyclingAnswers
from mu.utils.errors import InputError
from mu.utils.files import write_text
from mu.utils.fingerprint import digest
from mu.utils.resumable import Ranks, map_chunks, packed, unpacked
from mu.utils.weights import weights_hash

if TYPE_CHECKING:
    from mu.backbones import Backbone
    from mu.data.datamodule import UnlearningDataModule

INSTRUCTION = "Invent an answer to this question. It should sound true, and every fact in it should differ from the real one.\n{question}"
"""What the original is asked; `{question}` stands for the forget question."""
_BATCH = 16
"""Questions of a piece of work."""


class GeneratedAnswers(CyclingAnswers):
    """Answers that the original makes up before the first step, shown one after the other (AltPO).

    What is empty, said twice, or the truth is left out. Ranks share the work, and the answers do
    not depend on their number.

    Args:
        count: answers that are drawn for each question.
        temperature: of the draws.
        max_new_tokens: of an answer, at most.
        instruction: the prompt, with `{question}`, as the task's template asks it. A small model
            that knows questions alone is asked by `{question}` at a higher temperature.
        stop: strings at which an answer ends, beside the end of the sequence.
        seed: of the draws.
        folder: where the answers are kept for another run (under the hash of weights, questions and
            settings), with a `.jsonl` to read them and for `AnswersFromFile`; None keeps nothing.
            Look at them: left-overs of the prompt become what is learnt.
    """

    generates = True

    def __init__(
        self,
        count: int = 5,
        temperature: float = 1.0,
        max_new_tokens: int = 200,
        instruction: str = INSTRUCTION,
        stop: Sequence[str] = ("Question:", "Q:"),
        seed: int = 0,
        folder: str | None = None,
    ) -> None:
        super().__init__()
        if count < 1:
            raise InputError(f"count is {count}; a question needs at least one alternate answer.")
        if "{question}" not in instruction:
            raise InputError(
                f"the instruction {instruction[:60]!r} does not hold {{question}}, so the model "
                "would not be asked anything."
            )
        self.count = count
        self.max_new_tokens = max_new_tokens
        self.instruction = instruction
        self.stop = tuple(stop)
        self.sampling = Sampling(temperature, seed)
        self.folder = Path(folder) if folder else None

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        super().setup(backbone, task)
        assert task is not None and self._encoder is not None
        data: Any = task.datasets["forget"]
        truth = dict(zip(data.indices.tolist(), data.texts["answer"], strict=True))
        said = self._made(backbone, task)
        for number, index in enumerate(self._questions):
            heard = said[self.count * number : self.count * (number + 1)]
            self.alternates[index] = [
                one
                for one in dict.fromkeys(text.strip() for text in heard)
                if one and not _same(one, truth[index])
            ]
        lacking = [
            self._questions[index] for index, answers in self.alternates.items() if not answers
        ]
        if lacking:
            raise InputError(
                f"the model made up no other answer than the truth to {len(lacking)} of "
                f"{len(self._questions)} forget questions, {lacking[0][:60]!r} among them; give a "
                "higher temperature, another instruction, or a file of answers by "
                "mu.methods.AnswersFromFile."
            )

    @torch.no_grad()
    def _made(self, backbone: Any, task: UnlearningDataModule) -> list[str]:
        """`count` answers to every question, one question after the other."""
        assert self._encoder is not None
        trainer: Any = task.trainer
        before = next(backbone.parameters()).device
        training = backbone.training
        prompts = [
            self._encoder.prompt(self.instruction.replace("{question}", question))
            for question in self._questions.values()
        ]
        keys = [
            index * self.count + turn for index in self._questions for turn in range(self.count)
        ]
        asked = [prompt for prompt in prompts for _ in range(self.count)]
        size = _BATCH * self.count

        def work(number: int) -> dict[str, Tensor]:
            rows = slice(number * size, (number + 1) * size)
            sampling = Sampling(self.sampling.temperature, self.sampling.seed, keys[rows])
            return dict(
                packed(
                    backbone.generate(
                        asked[rows],
                        self.max_new_tokens,
                        self.stop,
                        batch_size=size,
                        sampling=sampling,
                    )
                )
            )

        key = digest(
            [
                weights_hash(backbone),
                prompts,
                keys,
                self.sampling.temperature,
                self.sampling.seed,
                self.max_new_tokens,
                self.stop,
            ]
        )
        if trainer is not None:  # the strategy moves the weights only later
            backbone.to(trainer.strategy.root_device)
        backbone.eval()
        try:
            ranks = Ranks() if trainer is None else Ranks(trainer.global_rank, trainer.world_size)
            found = map_chunks(
                -(-len(asked) // size),
                work,
                key=key,
                folder=self.folder,
                ranks=ranks,
                what="alternates",
            )
        finally:
            backbone.train(training)
            backbone.to(before)
        texts = [text for piece in found for text in unpacked(piece)]
        if self.folder is not None and ranks.rank == 0:
            questions = [
                question for question in self._questions.values() for _ in range(self.count)
            ]
            rows = [
                {"question": question, "alternate": text}
                for question, text in zip(questions, texts, strict=True)
                if text.strip()
            ]
            write_text(
                self.folder / f"{key}.jsonl",
                "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows),
            )
        return texts


def _same(one: str, other: str) -> bool:
    """Equal but for case and the marks at the end."""
    return one.casefold().rstrip(" .!") == other.casefold().rstrip(" .!")
