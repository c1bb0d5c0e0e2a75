"""Corpus task: documents in chunks of tokens."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from mu.data.arrow_files import ArrowFile
from mu.data.encoding import Encoder
from mu.data.questions import QuestionSet, TokenRows
from mu.data.sequences import Pair, count_labelled
from mu.data.split import Split
from mu.data.stored_rows import TextDigest
from mu.data.token_files import TokenFile, store_tokens
from mu.utils.cache import content_hash
from mu.utils.errors import InputError
from mu.utils.fingerprint import source_hash
from tasks.text.base import TextTask
from tasks.text.files import Overlap, read_texts, retain_mask, text_files
from tasks.text.question_files import LARGE, evaluation_sets, file_size, reader_sources

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
        """Read the files and cut them into chunks, or open the chunks in the cache."""
        file = self._stored_chunks()
        facts: dict[str, Any] = {} if file is None else file.facts
        pairs = list(self._chunks(facts)) if file is None else []
        for message in facts["warnings"]:
            rank_zero_warn(message)
        ends = np.cumsum([0, *facts["chunks"].values()])
        indices = {
            name: np.arange(ends[position], ends[position + 1])
            for position, name in enumerate(facts["chunks"])
        }
        self.split = Split(
            f"corpus-{facts['digest']}",
            indices,
            {"selector": "files", "documents": facts["documents"], "chunk": self.chunk},
            0,
        )
        self.datasets = {  # type: ignore[assignment]
            name: _part_rows(file, pairs, rows) for name, rows in indices.items()
        }
        self._sets = self.read()[1]
        for question_set in self._sets.values():
            self._check_system_messages(question_set)

    def _chunks(self, facts: dict[str, Any]) -> Iterator[Pair]:
        """Chunks of all parts, one after the other; facts about them when all were read."""
        texts = {name: read_texts(files) for name, files in self.files.items() if files is not None}
        with warnings.catch_warnings(record=True) as overlap_warnings:
            warnings.simplefilter("always")
            stays = retain_mask(texts["forget"], texts["retain"], self.overlap, "documents")
        messages = [str(warning.message) for warning in overlap_warnings]
        texts["retain"] = [text for text, keep in zip(texts["retain"], stays, strict=True) if keep]
        if not texts["retain"]:
            for message in messages:
                rank_zero_warn(message)
            raise InputError("every retain document is also a forget document, so retain is empty.")
        counts: dict[str, int] = {}
        digests = TextDigest()
        for name, documents in texts.items():
            part = chunks(self.encoder, documents, self.chunk)
            counts[name] = len(part)
            for pair in part:
                digests.add(pair[0])
                yield pair
        facts |= {
            "documents": {name: len(documents) for name, documents in texts.items()},
            "chunks": counts,
            "digest": digests.value,
            "warnings": messages,
        }

    def _stored_chunks(self) -> ArrowFile | None:
        """Chunks in the cache; None where they are made in memory."""
        paths = {
            name: text_files([files] if isinstance(files, str) else files)
            for name, files in self.files.items()
            if files is not None
        }
        size = sum(file_size(path) for files in paths.values() for path in files)
        if self.in_memory is True or (self.in_memory == "auto" and size <= LARGE):
            return None
        hashes = {
            name: [[content_hash(path), path.suffix.lower()] for path in files]
            for name, files in paths.items()
        }
        content = [hashes, self.chunk, self.overlap, source_hash(type(self)), reader_sources()]
        return store_tokens(self.encoder, content, self._chunks, "the documents")

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        """Split, and question sets for evaluation."""
        return self.split, evaluation_sets(self.further, in_memory=self.in_memory)


def _part_rows(file: ArrowFile | None, pairs: Sequence[Pair], rows: np.ndarray) -> TokenRows:
    """Dataset of the chunks of a part."""
    if file is None:
        part = pairs[rows[0] : rows[-1] + 1]
        return TokenRows(part.__getitem__, rows)
    token_file = TokenFile(file, int(rows[0]), len(rows))
    return TokenRows(token_file.pair, rows, stored=lambda: token_file)


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
