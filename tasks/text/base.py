"""Base class of text tasks: tokenizer, template, and question sets for evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import Dataset

from mu.backbones.language.tokenizer import load_tokenizer
from mu.data.datamodule import UnlearningDataModule
from mu.data.encoding import Encoder
from mu.data.loader import EvalLoader
from mu.data.questions import InMemory, QuestionSet, TokenRows
from mu.data.split import Split
from mu.data.templates import Plain, Template
from mu.utils.errors import InputError, MissingMethodError
from mu.utils.spec import to_spec


class TextTask(UnlearningDataModule):
    """Base of tasks of questions and answers as token sequences; a subclass overrides `read()`.

    What is learnt is the answer with all that the template writes after it; what is evaluated is
    the answer alone (see `mu.data.Encoder`).

    Args:
        tokenizer: folder, hub id or `embedded:NAME`; None uses the model's tokenizer.
        template: joins question and answer into one sequence; `Plain()` when None.
        max_length: most tokens of a sequence.
        too_long: `refuse` a longer sequence, or `cut` off its end.
        in_memory: `true` reads and tokenises texts into memory at each start, `false` once into
            files of the cache folder (`mu.utils.cache`), which take no memory for a row; `auto`
            does so with files of more than 4 MB and sets of 10,000 rows and more. Samples are the
            same.
        batch_size: global batch size in fit.
        eval_batch_size: batch size of one rank in test.
        **kwargs: see UnlearningDataModule.
    """

    provides = frozenset({"labels"})

    def __init__(
        self,
        tokenizer: str | None = None,
        template: Template | None = None,
        max_length: int = 256,
        too_long: Literal["refuse", "cut"] = "refuse",
        in_memory: InMemory = "auto",
        batch_size: int = 32,
        eval_batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, **kwargs)
        self.tokenizer = tokenizer
        self.template = template or Plain()
        self.max_length: int = max_length
        self.too_long: Literal["refuse", "cut"] = too_long
        self.in_memory: InMemory = in_memory
        self._encoder: Encoder | None = None
        self._sets: dict[str, QuestionSet] | None = None
        self._evaluated: dict[str, TokenRows] = {}

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        """Split and question sets by name: one for each part, and further sets for evaluation."""
        raise MissingMethodError(f"{type(self).__name__} does not override read().")

    def make(self) -> None:
        """Read the files; sequences are encoded on first use, when the tokenizer is known."""
        split, sets = self.read()
        lacking = [name for name in split.parts if name not in sets]
        if lacking:
            raise InputError(f"{type(self).__name__} read no rows for the part {lacking[0]!r}.")
        self.split = split
        self._sets = sets
        for question_set in sets.values():
            self._check_system_messages(question_set)
        rows = {name: self._rows(name, ids) for name, ids in split.parts.items() if len(ids)}
        self.datasets = {  # type: ignore[assignment]
            name: TokenRows.from_questions(part, lambda: self.encoder, in_memory=self.in_memory)
            for name, part in rows.items()
        }
        self._evaluated = {
            name: TokenRows.from_questions(
                part, lambda: self.encoder, scored=True, in_memory=self.in_memory
            )
            for name, part in rows.items()
        }

    def _check_system_messages(self, question_set: QuestionSet) -> None:
        """Check that the template writes the system messages of rows of chat messages."""
        written = getattr(self.template, "system", None)
        for message in question_set.system_messages():
            if message is not None and message != written:
                raise InputError(
                    f"a chat of the set {question_set.name} has the system message "
                    f"{message[:60]!r}, and the template writes {written or 'none'!r}; take "
                    "template: mu.data.Chat with that message as its `system`, the same for all "
                    "rows, or leave the messages out."
                )

    def parts(self, reads: frozenset[str]) -> dict[str, Dataset]:
        names = {
            name
            for part in reads
            for name in (("forget", "retain") if part == "train" else (part,))
        }
        self._make_sequences({name: data for name, data in self.datasets.items() if name in names})
        return super().parts(reads)

    def eval_loaders(self, names: list[str]) -> list[EvalLoader]:
        self._make_sequences({name: self.evaluated_dataset(name) for name in names})
        return super().eval_loaders(names)

    def evaluated_dataset(self, name: str) -> Dataset:
        return self._evaluated.get(name, self.datasets[name])  # type: ignore[return-value]

    def _make_sequences(self, datasets: Mapping[str, Any]) -> None:
        """Tokenise whole parts in the main process, and warn about truncated sequences."""
        for name, data in sorted(datasets.items()):
            before = self._encoder.cuts if self._encoder else 0
            count = len(data.weights)
            cut = (self._encoder.cuts if self._encoder else 0) - before
            if data.file is not None:
                cut = data.file.cuts
            if cut:
                rank_zero_warn(
                    f"{cut} of {count} sequences of {name} have more than {self.max_length} "
                    "tokens, so their ends were cut off; max_length decides."
                )

    def _rows(self, name: str, indices: np.ndarray) -> QuestionSet:
        """Rows of a part, in the order of its indices."""
        questions = self.sets[name]
        order = np.argsort(questions.indices, kind="stable")
        ranks = np.searchsorted(questions.indices, indices, sorter=order)
        positions = order[ranks[ranks < len(order)]]
        if not np.array_equal(questions.indices[positions], indices):
            raise InputError(f"the question set {name!r} has not all rows of the part {name!r}.")
        return questions.select(positions)

    @property
    def sets(self) -> Mapping[str, QuestionSet]:
        """Question sets by name."""
        if self._sets is None:
            self.setup()
        assert self._sets is not None
        return self._sets

    @property
    def encoder(self) -> Encoder:
        """Tokenizer and template."""
        if self._encoder is None:
            self._encoder = Encoder(
                self._load_tokenizer(), self.template, self.max_length, self.too_long
            )
        return self._encoder

    def _load_tokenizer(self) -> Any:
        if self.tokenizer is not None:
            return load_tokenizer(self.tokenizer)
        module: Any = self.trainer.lightning_module if self.trainer is not None else None
        tokenizer = getattr(getattr(module, "backbone", None), "tokenizer", None)
        if tokenizer is None:
            raise InputError(
                f"{type(self).__name__} uses the tokenizer of the model, but has no trainer with a "
                "CausalLM; give tokenizer=FOLDER."
            )
        return tokenizer

    def recipe(self) -> dict[str, Any]:
        return {
            **super().recipe(),
            "template": to_spec(self.template),
            "max_length": self.max_length,
            "too_long": self.too_long,
        }
