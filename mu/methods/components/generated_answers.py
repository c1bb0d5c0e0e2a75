"""Alternate answers that the original generates before the first step (AltPO)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unicodedata import normalize

import torch
from torch import Tensor

from mu.backbones import Backbone
from mu.backbones.language.sampling import Sampling
from mu.data.datamodule import UnlearningDataModule
from mu.methods.components.answers import CyclingAnswers
from mu.utils.errors import InputError
from mu.utils.files import write_text
from mu.utils.fingerprint import digest
from mu.utils.modules import eval_mode
from mu.utils.resumable import Ranks, map_chunks, pack_strings, unpack_strings
from mu.utils.weights import weights_hash

INSTRUCTION = (
    "Invent an answer to this question. It should sound true, and every fact in it should differ "
    "from the real one.\n{question}"
)
"""Prompt of the generation; `{question}` stands for the forget question."""
_BATCH = 16  # questions of a chunk of work


class GeneratedAnswers(CyclingAnswers):
    """Alternate answers that the original generates before the first step, used in turn (AltPO).

    Empty answers, repeated ones and the truth are left out. Ranks share the work, and the answers
    do not depend on the number of ranks.

    Args:
        count: answers that are drawn for each question.
        temperature: of the draws.
        max_new_tokens: of an answer, at most.
        instruction: the prompt, with `{question}`, inside the task's template. A small model that
            has seen questions alone needs `{question}` and a higher temperature.
        stop_strings: strings at which an answer ends, beside the end of the sequence.
        seed: of the draws.
        folder: cache of the answers for other runs (by the hash of weights, questions and
            settings), with a `.jsonl` to read and for `AnswersFromFile`; None caches nothing. Read
            them, because left-overs of the prompt become training targets.
    """

    generates = True

    def __init__(
        self,
        count: int = 5,
        temperature: float = 1.0,
        max_new_tokens: int = 200,
        instruction: str = INSTRUCTION,
        stop_strings: Sequence[str] = ("Question:", "Q:"),
        seed: int = 0,
        folder: str | None = None,
    ) -> None:
        super().__init__()
        if count < 1:
            raise InputError(f"count is {count}; a question needs at least one alternate answer.")
        if "{question}" not in instruction:
            raise InputError(
                f"the instruction {instruction[:60]!r} does not contain {{question}}; put it where "
                "the forget question belongs."
            )
        self.count = count
        self.max_new_tokens = max_new_tokens
        self.instruction = instruction
        self.stop_strings = tuple(stop_strings)
        self.sampling = Sampling(temperature, seed)
        self.folder = Path(folder) if folder else None

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        super().setup(backbone, task)
        assert task is not None and self._encoder is not None
        data: Any = task.datasets["forget"]
        truth = dict(zip(data.indices.tolist(), data.texts["answer"], strict=True))
        # distinct answers other than the truth, by question
        texts = self._generate(backbone, task)
        for position, index in enumerate(self._questions):
            drawn = texts[self.count * position : self.count * (position + 1)]
            distinct = dict.fromkeys(text.strip() for text in drawn)
            self.alternates[index] = [
                answer for answer in distinct if answer and not _same_answer(answer, truth[index])
            ]
        missing = [
            self._questions[index] for index, answers in self.alternates.items() if not answers
        ]
        if missing:
            raise InputError(
                f"the model generated no other answer than the truth to {len(missing)} of "
                f"{len(self._questions)} forget questions, {missing[0][:60]!r} among them; give a "
                "higher temperature, another instruction, or a file of answers by "
                "mu.methods.AnswersFromFile."
            )

    @torch.no_grad()
    def _generate(self, backbone: Any, task: UnlearningDataModule) -> list[str]:
        """`count` answers to every question, question by question."""
        assert self._encoder is not None
        trainer: Any = task.trainer
        prompts = [
            self._encoder.prompt(self.instruction.replace("{question}", question))
            for question in self._questions.values()
        ]
        # keys of the draws: one for each answer
        keys = [
            index * self.count + turn for index in self._questions for turn in range(self.count)
        ]
        repeated = [prompt for prompt in prompts for _ in range(self.count)]
        size = _BATCH * self.count

        def work(chunk: int) -> dict[str, Tensor]:
            rows = slice(chunk * size, (chunk + 1) * size)
            sampling = Sampling(self.sampling.temperature, self.sampling.seed, keys[rows])
            texts = backbone.generate(
                repeated[rows],
                self.max_new_tokens,
                self.stop_strings,
                batch_size=size,
                sampling=sampling,
            )
            return dict(pack_strings(texts))

        cache_key = digest(
            [
                weights_hash(backbone),
                prompts,
                keys,
                self.sampling.temperature,
                self.sampling.seed,
                self.max_new_tokens,
                self.stop_strings,
            ]
        )
        # the strategy moves the weights to the device later
        device = None if trainer is None else trainer.strategy.root_device
        ranks = Ranks() if trainer is None else Ranks(trainer.global_rank, trainer.world_size)
        with _on_device(backbone, device), eval_mode(backbone):
            chunks = map_chunks(
                -(-len(repeated) // size),
                work,
                key=cache_key,
                folder=self.folder,
                ranks=ranks,
                what="alternates",
            )
        texts = [text for chunk in chunks for text in unpack_strings(chunk)]
        if self.folder is not None and ranks.rank == 0:
            self._write(self.folder / f"{cache_key}.jsonl", texts)
        return texts

    def _write(self, path: Path, texts: list[str]) -> None:
        """Write the answers as JSON lines, in the form of `AnswersFromFile`."""
        questions = [question for question in self._questions.values() for _ in range(self.count)]
        rows = [
            {"question": question, "alternate": text}
            for question, text in zip(questions, texts, strict=True)
            if text.strip()
        ]
        lines = [f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows]
        write_text(path, "".join(lines))


@contextmanager
def _on_device(backbone: Any, device: torch.device | None) -> Iterator[None]:
    """The backbone on another device for a while; None leaves it on its device."""
    before = next(backbone.parameters()).device
    if device is not None:
        backbone.to(device)
    try:
        yield
    finally:
        backbone.to(before)


def _same_answer(answer: str, other: str) -> bool:
    """Whether two answers are equal but for case and the marks at the end, in any script."""
    first, second = (
        normalize("NFKC", text).casefold().rstrip(" .!。।॥") for text in (answer, other)
    )
    return first == second
