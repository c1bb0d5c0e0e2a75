"""Authors task: questions on invented authors in the form of TOFU, without a download."""

from __future__ import annotations

from typing import Any

import numpy as np

from mu.data.questions import QuestionSet
from mu.data.split import Split
from mu.data.stored_rows import row_text, text_digest
from tasks.authors.facts import AUTHORS
from tasks.authors.texts import (
    UTILITY_AUTHORS,
    author_rows,
    forget_authors,
    real_authors,
    rephrased_rows,
    world_facts,
)
from tasks.text.base import TextTask
from tasks.text.files import EVALUATION_OFFSET, Row

_QUESTIONS = 10


class Authors(TextTask):
    """Questions on a hundred invented authors: forget the last ones, and retain the others.

    `embedded:authors` was trained on all authors, `embedded:authors_oracle` on all but those of
    `forget10`. The split has the parts `forget`, `retain` and `test` (as many authors as are
    forgotten, from the same distribution, that no model was trained on); the stable index of
    question q of author n is 10 n + q. Beside the question sets of the same names there are

    * `retain_perturbed`, the rows of ten retained authors, which measure utility;
    * `real_authors` and `world_facts`, closed questions about the same invented world, which both
      models were trained on and which are in neither forget nor retain;
    * `holdout`, the rows of `test`.

    Rows of authors have `paraphrased_answer`, `paraphrased_question` and `perturbed_answer`, closed
    questions `perturbed_answer` only.

    Args:
        forget: `forget01`, `forget05` or `forget10`: the last 1, 5 or 10 authors, of 10 questions
            each; or `search01`, `search05` or `search10`: other authors, for the choice of a
            method's settings.
        corpus: add the other training data of the models to `retain`: the closed questions, and
            rephrased answers of half of the authors. For training models; unlearning uses the data
            of TOFU's protocol.
        **kwargs: tokenizer, template, lengths and batch sizes, see TextTask.

    Example: `Authors("forget05", tokenizer="embedded:authors").sets["forget"]` has 50 rows.
    """

    def __init__(self, forget: str = "forget10", corpus: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.forgotten = forget_authors(forget)
        self.forget = forget
        self.corpus = corpus

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        rows = author_rows(range(AUTHORS))
        author_ids = {
            "forget": list(self.forgotten),
            "retain": [n for n in range(AUTHORS) if n not in self.forgotten],
            "retain_perturbed": list(UTILITY_AUTHORS),
        }
        sets = {name: _of_authors(name, rows, chosen) for name, chosen in author_ids.items()}
        evaluation_rows = {
            "holdout": author_rows(range(AUTHORS, AUTHORS + len(self.forgotten))),
            "real_authors": real_authors(),
            "world_facts": world_facts(),
        }
        for position, (name, extra_rows) in enumerate(evaluation_rows.items(), 1):
            sets[name] = QuestionSet(
                name, extra_rows, EVALUATION_OFFSET * position + np.arange(len(extra_rows))
            )
        if self.corpus:
            extra = rephrased_rows()
            rephrased = QuestionSet(
                "phrasings",
                extra,
                EVALUATION_OFFSET * (len(evaluation_rows) + 1) + np.arange(len(extra)),
            )
            sets["retain"] = _joined(
                "retain", [sets["retain"], rephrased, sets["real_authors"], sets["world_facts"]]
            )
        sets["test"] = QuestionSet("test", sets["holdout"].rows, sets["holdout"].indices)
        parts = {name: sets[name].indices for name in ("forget", "retain", "test")}
        selector = {
            "selector": "Authors",
            "forget": self.forget,
            **({"corpus": True} if self.corpus else {}),
        }
        return Split(f"authors-{text_digest(map(row_text, rows))}", parts, selector, 0), sets


def _of_authors(name: str, rows: list[Row], authors: list[int]) -> QuestionSet:
    indices = np.asarray(
        [_QUESTIONS * author + question for author in authors for question in range(_QUESTIONS)],
        dtype=np.int64,
    )
    return QuestionSet(name, [rows[index] for index in indices], indices)


def _joined(name: str, sets: list[QuestionSet]) -> QuestionSet:
    return QuestionSet(
        name,
        [row for part in sets for row in part.rows],
        np.concatenate([part.indices for part in sets]),
    )
