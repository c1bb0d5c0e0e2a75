"""TOFU: forget quality and model utility of a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from callbacks.text.base import (
    TextSuite,
    detail_of,
    metric_result,
    retained_sets,
    unique_names,
)
from mu.backbones import Backbone
from mu.evaluation.text.graph import Graph, OracleLog
from mu.evaluation.text.metrics import ForgetQuality, ModelUtility, Probability, Rouge, TruthRatio
from mu.metrics.results import Result, TradeOff, compute_result
from mu.utils.errors import InputError, UndefinedError


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
        forget: the forget set; without `paraphrased_answer` and `perturbed_answer` its truth ratio
            and the forget quality are undefined.
        kept: sets of the model utility, which is undefined where they have no wrong answers; when
            None, those of TOFU that the task has, else `retain`.
        choices: sets among them whose rows have wrong answers and no paraphrase; TOFU's when None.
        max_new_tokens: most tokens of an answer (200 as OpenUnlearning; TOFU's first code counts
            the prompt too).
        stop_strings: strings at which an answer ends.
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
        "ROUGE/": "Mean ROUGE-L recall of greedy answers of that set, in [0, 1]; words are those "
        "of the published rule in ASCII texts, and Unicode words in others.",
        "TR/": "Truth ratio of that set, in [0, 1]: on the forget set min(R, 1/R), elsewhere "
        "max(0, 1 − R), R being the probability of wrong answers over that of the paraphrased "
        "right one; undefined there where both are below 1e-10.",
    }
    needs_oracle = "forget quality"
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
        stop_strings: list[str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(oracle, **settings)
        self.forget = forget
        self.kept = None if kept is None else unique_names(kept, "kept")
        self.choices = None if choices is None else unique_names(choices, "choices")
        unused = set(self.choices or ()) - set(self.kept or self.choices or ())
        if unused:
            raise InputError(f"choices names {', '.join(sorted(unused))}, which kept does not.")
        if self.kept is not None and forget in self.kept:
            raise InputError(f"{forget} is the forget set, so it cannot be kept.")
        self.max_new_tokens = max_new_tokens
        self.stop_strings = tuple(stop_strings or ())

    def results(self, graph: Graph, log: OracleLog | None) -> list[Result]:
        """`MU`, `FQ` and `log10_FQ`, then the parts."""
        sets, choices = retained_sets(graph, self.kept, self.choices)
        utility = ModelUtility(sets, choices, self.max_new_tokens, self.stop_strings)
        parts = [
            metric_result(graph, f"{short}/{name}", node, True, name)
            for name in sets
            for short, node in zip(
                ("P", "ROUGE", "TR"), utility.set_metrics(name).values(), strict=True
            )
        ]
        detail = {"sets": list(sets), "max_new_tokens": self.max_new_tokens}
        return [
            metric_result(graph, "MU", utility, True, detail=detail),
            *self._forget_quality(graph, log),
            *self._forgotten(graph, log),
            *parts,
        ]

    def _forget_quality(self, graph: Graph, log: OracleLog | None) -> list[Result]:
        """Results `FQ` and `log10_FQ`; none without an oracle."""
        if log is None:
            return []
        node = ForgetQuality(self.forget, log)
        return [
            metric_result(graph, "FQ", node, True, self.forget),
            compute_result(
                "log10_FQ",
                lambda: graph.value(node).detail["log10"],
                True,
                self.forget,
                detail=detail_of(graph, node),
            ),
        ]

    def _forgotten(self, graph: Graph, log: OracleLog | None) -> list[Result]:
        """Results of the forget set by name of the set."""
        name = self.forget
        ratio = TruthRatio(name)
        about: dict[str, Any] = {"oracle": "none was given, so there is no forget quality"}
        if log is not None:
            about = {"oracle": log.label(graph), **_oracle_ratio(graph, log, ratio)}
        rouge = Rouge(name, max_new_tokens=self.max_new_tokens, stop_strings=self.stop_strings)
        return [
            metric_result(graph, f"P/{name}", Probability(name), None, name),
            metric_result(graph, f"ROUGE/{name}", rouge, None, name),
            metric_result(graph, f"TR/{name}", ratio, None, name, detail=about),
        ]


def _oracle_ratio(graph: Graph, log: OracleLog, ratio: TruthRatio) -> dict[str, float]:
    """Detail: the oracle's truth ratio, where it has one."""
    try:
        return {"TR_oracle": log.measure(ratio, graph).value}
    except UndefinedError:
        return {}
