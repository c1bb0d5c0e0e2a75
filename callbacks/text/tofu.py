"""TOFU: forget quality and model utility of a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from callbacks.text.base import TextSuite, unique_names
from mu.backbones import Backbone
from mu.evaluation.text.graph import Graph, OracleLog
from mu.evaluation.text.metrics import ForgetQuality, ModelUtility, Probability, Rouge, TruthRatio
from mu.metrics.results import Result, TradeOff
from mu.utils.errors import InputError

KEPT = ("retain_perturbed", "real_authors", "world_facts")
CHOICES = ("real_authors", "world_facts")


class TOFU(TextSuite):
    """Forget quality and model utility of TOFU, on all rows of each set.

    Source: Maini et al., "TOFU", COLM 2024, arXiv 2401.06121.

    `MU`, model utility: harmonic mean of probability, ROUGE-L recall and truth ratio over the
    retained sets. `FQ`, forget quality: p-value of the Kolmogorov-Smirnov test between the
    truth ratios of model and oracle on the forget set, with its logarithm `log10_FQ`; 1 =
    indistinguishable from the oracle. It needs an oracle, as noted in the truth ratio's detail. By
    set, in [0, 1]: `P/SET`, `ROUGE/SET`, `TR/SET`. On the forget set, closeness to the oracle is
    the goal (a mean truth ratio of about 0.65 on TOFU, not 1).

    The values of the items are in `items.json` in the run folder, the oracle's log of other runs.

    Args:
        oracle: see TextSuite.
        forget: the forget set; its rows need `paraphrased_answer` and `perturbed_answer`.
        kept: sets of the model utility.
        choices: sets among them whose rows have wrong answers and no paraphrase.
        max_new_tokens: most tokens of an answer (200 as OpenUnlearning; TOFU's first code counts
            the prompt too).
        stop: strings at which an answer ends.
        **settings: store, every_n_epochs and sizes of batches, see TextSuite.
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "FQ": "Forget quality: p-value of the Kolmogorov–Smirnov test between the truth ratios of "
        "model and oracle on the forget set; near 1 the two cannot be told apart. The mean of "
        "p-values says little, so look at its logarithm too.",
        "log10_FQ": "Decimal logarithm of the forget quality; 0 is the best.",
        "MU": "Model utility: harmonic mean of probability, ROUGE-L recall and truth ratio over "
        "the sets that are to be kept, in [0, 1]; higher is better.",
        "P/": "Mean probability of the answers of that set (to the power of one over their "
        "tokens), in [0, 1].",
        "ROUGE/": "Mean ROUGE-L recall of greedy answers of that set, in [0, 1].",
        "TR/": "Truth ratio of that set, in [0, 1]: on the forget set min(R, 1/R), elsewhere "
        "max(0, 1 − R), R being the probability of wrong answers over that of the paraphrased "
        "right one.",
    }
    headline = ("log10_FQ", "MU")
    trade_offs = (
        TradeOff(
            "Forget quality and utility",
            ("log10_FQ",),
            ("MU",),
            "log10 of forget quality",
            "model utility",
        ),
    )

    def __init__(
        self,
        oracle: str | Backbone | None = None,
        forget: str = "forget",
        kept: list[str] | None = None,
        choices: list[str] | None = None,
        max_new_tokens: int = 200,
        stop: list[str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(oracle, **settings)
        self.forget = forget
        self.kept = unique_names("kept", kept, KEPT)
        self.choices = (
            tuple(name for name in CHOICES if name in self.kept)
            if choices is None
            else unique_names("choices", choices, ())
        )
        if not set(self.choices) <= set(self.kept):
            raise InputError(
                f"choices names {', '.join(sorted(set(self.choices) - set(self.kept)))}, which "
                "kept does not."
            )
        if forget in self.kept:
            raise InputError(f"{forget} is the forget set, so it cannot be kept.")
        self.max_new_tokens = max_new_tokens
        self.stop = tuple(stop or ())

    def results(self, graph: Graph, log: OracleLog | None) -> list[Result]:
        """`MU`, `FQ` and `log10_FQ`, then the parts."""
        utility = ModelUtility(self.kept, self.choices, self.max_new_tokens, self.stop)
        results = self._forgotten(graph, log)
        for name in self.kept:
            parts = utility.set_metrics(name)
            results += [
                Result(f"{short}/{name}", graph.value(parts[metric]).value, True, name)
                for short, metric in (
                    ("P", "probability"),
                    ("ROUGE", "rouge"),
                    ("TR", "truth_ratio"),
                )
            ]
        value = graph.value(utility).value
        return [
            Result(
                "MU",
                value,
                True,
                detail={"sets": list(self.kept), "max_new_tokens": self.max_new_tokens},
            ),
            *results,
        ]

    def _forgotten(self, graph: Graph, log: OracleLog | None) -> list[Result]:
        name = self.forget
        ratio = TruthRatio(self.forget)
        quality = []
        about = {"oracle": "none was given, so there is no forget quality"}
        if log is not None:
            measured = graph.value(ForgetQuality(name, log))
            about = {"oracle": log.label(graph), "TR_oracle": log.measure(ratio, graph).value}
            quality = [
                Result("FQ", measured.value, True, name, detail=measured.detail),
                Result("log10_FQ", measured.detail["log10"], True, name, detail=measured.detail),
            ]
        rouge = Rouge(name, max_new_tokens=self.max_new_tokens, stop=self.stop)
        return [
            *quality,
            Result(f"P/{name}", graph.value(Probability(name)).value, None, name),
            Result(f"ROUGE/{name}", graph.value(rouge).value, None, name),
            Result(f"TR/{name}", graph.value(ratio).value, None, name, detail=about),
        ]
