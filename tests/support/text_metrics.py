"""A metric graph on a small language model, every metric, and scores one row at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch

from mu.backbones import CausalLM
from mu.evaluation.text.graph import Graph, Metric
from mu.evaluation.text.membership import (
    MEMBERSHIP_ATTACKS,
    MembershipAUC,
    PrivacyScore,
    PrivLeak,
)
from mu.evaluation.text.metrics import (
    ExactMemorisation,
    ExtractionStrength,
    ForgetQuality,
    Loss,
    MemorisationScore,
    ModelUtility,
    Probability,
    Rouge,
    TruthRatio,
)
from tests.support.doubles_text import causal_lm, folder, people

SHORT = 6


def make_graph(backbone: Any = None, **changes: Any) -> Graph:
    task = people()
    return Graph(
        causal_lm() if backbone is None else backbone,
        task.sets,
        task.encoder,
        **{"tokens_per_batch": 150, **changes},
    )


def every_metric(log: Any = None) -> list[Metric]:
    metrics: list[Metric] = [
        Loss("forget"),
        Probability("forget"),
        Probability("forget", "paraphrased_answer", "paraphrased_question"),
        Probability("facts", normalised=True),
        Rouge("forget", max_new_tokens=SHORT),
        TruthRatio("forget"),
        TruthRatio("facts", "answer", "true_better"),
        TruthRatio("forget", score="probability"),
        ExactMemorisation("forget"),
        ExtractionStrength("forget"),
        ModelUtility(("retain", "facts"), ("facts",), SHORT),
        MemorisationScore("forget"),
        *[
            MembershipAUC(attack, "forget", "holdout")
            for attack in MEMBERSHIP_ATTACKS
            if attack != "reference"
        ],
    ]
    if log is not None:
        metrics += [
            ForgetQuality("forget", log),
            PrivLeak("forget", "holdout", log),
            PrivacyScore("forget", "holdout", log),
            MembershipAUC("reference", "forget", "holdout", log=log),
        ]
    return metrics


class Watched(CausalLM):
    """Counts what the model is asked to do, and may stop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: Counter[str] = Counter()
        self.stop_after: int | None = None

    def token_logits(self, batch: Any, prediction: Any = None) -> Any:
        self._count("rows", len(batch["labels"]))
        assert not self.training, "measured in train mode"
        return super().token_logits(batch, prediction)

    def generate(
        self, ids: Any, max_new_tokens: int = 200, stop_strings: Any = (), batch_size: int = 32
    ) -> list[str]:
        self._count("prompts", len(ids))
        return super().generate(ids, max_new_tokens, stop_strings, batch_size)

    def _count(self, unit: str, count: int) -> None:
        if self.stop_after is not None and self.calls["batches"] >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.update({unit: count, "batches": 1})


def watched() -> Watched:
    return Watched(model=folder())


def by_hand(lm: CausalLM, question: str, answer: str) -> list[tuple[float, bool, float, float]]:
    """log p, hit, Σ p log p and Σ p log² p - (Σ p log p)² of each answer token and of the end, one
    row alone, in float64.
    """
    words = lm.tokenizer(f"Question: {question}\nAnswer: {answer}")["input_ids"] + [2]
    start = len(lm.tokenizer(f"Question: {question}\nAnswer: ")["input_ids"])
    with torch.no_grad():
        log_p = lm.network(torch.tensor([words])).logits[0].double().log_softmax(-1).numpy()
    scores = []
    for position in range(start, len(words)):
        row = log_p[position - 1]
        p = np.exp(row)
        mean = float((p * row).sum())
        scores.append(
            (
                float(row[words[position]]),
                int(row.argmax()) == words[position],
                mean,
                float((p * row**2).sum() - mean**2),
            )
        )
    return scores
