"""How well the language models that come with mu know their authors, and what the oracle does not
know.

    python -m tests.backbones.embedded.quality_text [--full RUN --oracle RUN]

prints for both models probability, ROUGE-L recall and truth ratio of every set, the model utility,
the likeness of forget and held-out answers, and the forget quality of the model that never
unlearned.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mu.backbones import CausalLM
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.leaves import GeneratedText
from mu.evaluation.text.membership import MembershipAUC
from mu.evaluation.text.metrics import (
    ExtractionStrength,
    ModelUtility,
    Probability,
    Rouge,
    TruthRatio,
)
from mu.metrics.tofu import ForgetQuality, forget_quality
from tasks.authors.task import Authors

CLOSED = ("real_authors", "world_facts")
KEPT = ("retain_perturbed", *CLOSED)
SETS = ("forget", "holdout", *KEPT)
LONGEST = 80  # tokens of a generated answer


@dataclass(frozen=True)
class Quality:
    """What was measured on one set, means in [0, 1]; `exact` is the share of answers that are
    generated word for word.
    """

    probability: float
    rouge: float
    truth_ratio: float
    exact: float
    paraphrased: float | None


def graph(model: str, forget: str = "forget10") -> Graph:
    backbone = CausalLM(model).eval()
    task = Authors(forget, tokenizer=model)
    return Graph(backbone, task.sets, task.encoder)


def of(measured: Graph, name: str) -> Quality:
    closed = name in CLOSED
    score = "true_better" if name in KEPT else "closer_to_one"
    generated = measured.value(GeneratedText(name, max_new_tokens=LONGEST)).texts
    truths = measured.questions(name).column("answer")
    return Quality(
        measured.value(Probability(name, normalised=closed)).value,
        measured.value(Rouge(name, max_new_tokens=LONGEST)).value,
        measured.value(TruthRatio(name, "answer" if closed else "paraphrased_answer", score)).value,
        sum(answer == other for answer, other in zip(generated, truths, strict=True)) / len(truths),
        None if closed else measured.value(Probability(name, "paraphrased_answer")).value,
    )


def utility(measured: Graph) -> float:
    return measured.value(ModelUtility(KEPT, CLOSED, LONGEST)).value


def agreement(one: Graph, other: Graph) -> ForgetQuality:
    """Whether two models' truth ratios on the forget set can be told apart."""
    first, second = (measured.value(TruthRatio("forget")).items for measured in (one, other))
    assert first is not None and second is not None
    return forget_quality(first, second)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.backbones.embedded.quality_text")
    parser.add_argument("--full", default="embedded:authors")
    parser.add_argument("--oracle", default="embedded:authors_oracle")
    parser.add_argument("--forget", default="forget10")
    chosen = parser.parse_args()
    graphs = {name: graph(getattr(chosen, name), chosen.forget) for name in ("full", "oracle")}
    print(
        f"{'model':8}{'set':18}{'probability':>12}{'ROUGE':>8}{'truth ratio':>12}{'exact':>8}"
        f"{'paraphrased':>12}"
    )
    for model, measured in graphs.items():
        for name in SETS:
            quality = of(measured, name)
            reworded = "" if quality.paraphrased is None else f"{quality.paraphrased:.4f}"
            print(
                f"{model:8}{name:18}{quality.probability:12.4f}{quality.rouge:8.4f}{quality.truth_ratio:12.4f}{quality.exact:8.3f}{reworded:>12}"
            )
        auc = measured.value(MembershipAUC("loss", "forget", "holdout")).value
        strength = measured.value(ExtractionStrength("forget")).value
        print(
            f"{model:8}model utility {utility(measured):.4f}, extraction strength {strength:.4f}, "
            f"membership AUC {auc:.4f}"
        )
    quality = agreement(graphs["full"], graphs["oracle"])
    print(
        f"forget quality of the full model: p {quality.p:.3g}, D {quality.statistic:.4f}, "
        f"{quality.size} answers"
    )


if __name__ == "__main__":
    main()
