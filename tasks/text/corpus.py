"""Corpus task: documents in chunks of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from mu.data.encoding import Encoder
from mu.data.questions import QuestionSet, TokenRows
from mu.data.sequences import Pair, count_labelled
from mu.data.split import Split
from mu.utils.errors import InputError
from tasks.text.base import TextTask
from tasks.text.files import Overlap, digest, evaluation_sets, read_texts, retain_mask

Files = str | list[str]


class Corpus(TextTask):
    """Documents to forget and to retain, in chunks of tokens (MUSE, WMDP, RWKU's passages).

    The split has the parts `forget`, `retain` and, where files are given, `validation` and `test`.
    The documents of a part are joined by a blank line and tokenised as one text, without special
    tokens; the tokens are cut into stretches of `chunk` − 1, the last of which may be shorter, each
    with the begin-of-sequence token in front (without such a token, stretches of `chunk`). Every
    token but the first of a chunk is a target; there is no end-of-sequence token. MUSE's own code
    fills the last chunk up with the first one's tokens; OpenUnlearning's decodes every chunk and
    tokenises it again, which may change its length. Neither is done in this task.

    Chunks are numbered through forget, retain, validation and test. As a chunk depends on the
    tokenizer, so do the split and its hash.

    Args:
        forget: files or folders of documents to forget: `.txt` (a document each), JSON lines or
            JSON arrays of texts or of `{"text": ...}`, Parquet with a column `text`.
        retain: files or folders of documents to retain.
        validation: documents that no model is trained on, for searches.
        test: documents that no model is trained on, for tests.
        chunk: tokens of a sequence, at least 2.
        overlap: `refuse` documents that are in forget and in retain, `keep` them in both, or `drop`
            them from retain.
        further: files of question sets for evaluation only, by name (`mu.data.QuestionSet`).
        **kwargs: tokenizer, template of the questions and batch sizes, see TextTask.

    Example: `Corpus(forget="books/forget", retain="books/retain", chunk=512)`.
    """

    def __init__(
        self,
        forget: Files,
        retain: Files,
        validation: Files | None = None,
        test: Files | None = None,
        chunk: int = 2048,
        overlap: Overlap = "refuse",
        further: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        if chunk < 2:
            raise InputError(f"chunk is {chunk}; a sequence has at least 2 tokens.")
        super().__init__(max_length=chunk, **kwargs)
        self.files = {"forget": forget, "retain": retain, "validation": validation, "test": test}
        self.chunk = chunk
        self.further = further
        self.overlap: Overlap = overlap

    def make(self) -> None:
        """Read the files and cut them into chunks."""
        texts = {name: read_texts(files) for name, files in self.files.items() if files is not None}
        stays = retain_mask(texts["forget"], texts["retain"], self.overlap, "documents")
        texts["retain"] = [text for text, keep in zip(texts["retain"], stays, strict=True) if keep]
        if not texts["retain"]:
            raise InputError("every retain document is also a forget document, so retain is empty.")
        sequences = {
            name: chunks(self.encoder, documents, self.chunk) for name, documents in texts.items()
        }
        ends = np.cumsum([0, *(len(pairs) for pairs in sequences.values())])
        indices = {
            name: np.arange(ends[position], ends[position + 1])
            for position, name in enumerate(sequences)
        }
        counts = {name: len(documents) for name, documents in texts.items()}
        self.split = Split(
            f"corpus-{digest(pair[0] for pairs in sequences.values() for pair in pairs)}",
            indices,
            {"selector": "files", "documents": counts, "chunk": self.chunk},
            0,
        )
        self.datasets = {  # type: ignore[assignment]
            name: TokenRows(pairs.__getitem__, indices[name]) for name, pairs in sequences.items()
        }
        self._sets = self.read()[1]
        for question_set in self._sets.values():
            self._check_system_messages(question_set)

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        """Split, and question sets for evaluation."""
        return self.split, evaluation_sets(self.further)


def chunks(encoder: Encoder, documents: list[str], length: int) -> list[Pair]:
    """Sequences of at most `length` tokens from documents joined by a blank line.

    Raises:
        InputError: when no token has a label.
    """
    tokenizer = encoder.tokenizer
    ids = list(
        tokenizer("\n\n".join(documents), add_special_tokens=False, verbose=False)["input_ids"]
    )
    begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    step = length - len(begin)
    pairs = [
        encoder.text([*begin, *ids[start : start + step]]) for start in range(0, len(ids), step)
    ]
    pairs = [pair for pair in pairs if count_labelled(pair)]
    if not pairs:
        raise InputError(
            f"{len(documents)} documents have {len(ids)} tokens, too few for a sequence."
        )
    return pairs
