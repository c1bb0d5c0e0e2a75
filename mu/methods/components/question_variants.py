"""Variants of forget questions and answers: a task's paraphrases and wrong answers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mu.data.batch import Batch
from mu.data.encoding import Encoder
from mu.data.questions import QuestionSet, TokenRows
from mu.data.sequences import Pair, collate, count_labelled
from mu.utils import rng


class Variants:
    """Several variants of each forget sample, of which one is drawn each time it is shown.

    Args:
        pairs: question and answer of each variant, by the sample's index.
        encoder: makes token sequences of them.
        stream: name of the random draws.
        data: the samples themselves as one more variant; None leaves them out.
    """

    def __init__(
        self,
        pairs: Mapping[int, list[tuple[str, str]]],
        encoder: Encoder,
        stream: str,
        data: TokenRows | None = None,
    ) -> None:
        self.pairs = dict(pairs)
        self.encoder = encoder
        self.stream = stream
        self.data = data
        indices = [] if data is None else data.indices.tolist()
        self._positions = {index: position for position, index in enumerate(indices)}
        self._encoded: dict[tuple[str, str], Pair] = {}

    @classmethod
    def paraphrased(cls, rows: QuestionSet, encoder: Encoder, data: TokenRows) -> Variants | None:
        """Every sample and its paraphrases; None where no row has any."""
        variants = {}
        for index, row in zip(rows.indices.tolist(), rows.rows, strict=True):
            candidates = [
                (row["question"], row.get("paraphrased_answer")),
                (row.get("paraphrased_question"), row["answer"]),
            ]
            variants[index] = [
                (question, answer) for question, answer in candidates if question and answer
            ]
        if not any(variants.values()):
            return None
        return cls(variants, encoder, "uld-paraphrased", data)

    @classmethod
    def perturbed(cls, rows: QuestionSet, encoder: Encoder) -> Variants | None:
        """Every sample's question with its wrong answers; None where a row has none."""
        variants = {
            index: [(row["question"], answer) for answer in row.get("perturbed_answer") or ()]
            for index, row in zip(rows.indices.tolist(), rows.rows, strict=True)
        }
        return cls(variants, encoder, "uld-perturbed") if all(variants.values()) else None

    def draw(self, part: Batch, seed: int) -> Batch:
        """The part with a variant of each sample in place of its tokens.

        Args:
            part: forget samples; a part of the training loop gets the `total` of its whole
                optimizer step for the drawn variants.
            seed: of the run.
        """
        device = part["index"].device
        pairs = self._choose(part["index"].cpu(), part["visit"].cpu(), seed)
        drawn = {name: part[name] for name in ("index", "visit", "padded", "count") if name in part}
        drawn |= {name: value.to(device) for name, value in collate(pairs).items()}
        if "step" in part:
            step = part["step"]
            all_pairs = self._choose(torch.as_tensor(step.index), torch.as_tensor(step.visit), seed)
            tokens = sum(count_labelled(pair) for pair in all_pairs)
            drawn["total"] = torch.tensor(tokens / step.accumulate, device=device)
        return drawn

    def _choose(self, index: Tensor, visit: Tensor, seed: int) -> list[Pair]:
        draws = rng.integers(seed, index, visit, self.stream, 2**31)
        return [
            self._pair(sample, draw)
            for sample, draw in zip(index.tolist(), draws.tolist(), strict=True)
        ]

    def _pair(self, index: int, draw: int) -> Pair:
        variants = self.pairs[index]
        choice = draw % (len(variants) + (self.data is not None))
        if choice == len(variants):
            assert self.data is not None
            return self.data.pair(self._positions[index])
        question, answer = variants[choice]
        if (question, answer) not in self._encoded:
            pair = self.encoder.pair(question, answer, f"a variant of sample {index}")
            self._encoded[question, answer] = pair
        return self._encoded[question, answer]
