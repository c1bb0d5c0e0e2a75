"""Metrics of plain questions and answers, without paraphrases and wrong answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from callbacks.text.base import TextSuite, metric_result, unique_names
from callbacks.text.membership_results import HOLDOUT, checked_attacks, membership_results
from callbacks.text.memorisation import Memorisation
from callbacks.text.tofu import TOFU
from mu.backbones import Backbone
from mu.evaluation.text.answers import ExactMatch, Perplexity
from mu.evaluation.text.graph import Graph, Metric, OracleLog
from mu.evaluation.text.membership import MembershipAttack
from mu.evaluation.text.metrics import (
    ExactMemorisation,
    ExtractionStrength,
    Probability,
    Rouge,
)
from mu.metrics.results import Result, TradeOff
from mu.utils.errors import InputError


class QuestionAnswering(TextSuite):
    """Metrics of a language model on rows that have a question and an answer, and nothing else.

    By set, `SET` being the forget set and each retained one: `P/SET`, mean length-normalised
    probability of the answers, exp(−A); `ROUGE/SET`, mean ROUGE-L recall of greedy answers;
    `exact_match/SET`, share of greedy answers that equal the true one (SQuAD's rule);
    `perplexity/SET`, exp(Σ nll / Σ tokens) of the answers.

    On the forget set: `ES`, extraction strength, `EM`, exact memorisation, and `AUC/ATTACK`, AUC of
    a membership attack that separates it from the holdout rows. With an oracle also `PrivLeak`.
    On the forget set, closeness to the oracle is the goal, on the retained ones the better value.

    Args:
        oracle: see TextSuite.
        forget: name of the forget set.
        retained: names of the retained sets; `retain` when None.
        holdout: rows that no model was trained on; None measures no attacks.
        attacks: names of membership attacks, see Memorisation.
        share: share of the tokens, for min-k and min-k++.
        max_new_tokens: most tokens of an answer.
        stop_strings: strings at which an answer ends.
        **settings: store, every_n_epochs and sizes of batches, see TextSuite.
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "ES": Memorisation.definitions["ES"],
        "EM": Memorisation.definitions["EM"],
        "PrivLeak": Memorisation.definitions["PrivLeak"],
        "P/": TOFU.definitions["P/"],
        "ROUGE/": TOFU.definitions["ROUGE/"],
        "exact_match/": "Share of greedy answers of that set that equal the true answer, in [0, "
        "1]; case, punctuation, articles and white space do not count.",
        "perplexity/": "Perplexity of the answers of that set: exponential of the mean negative "
        "log-likelihood of a token; at least 1, lower is better.",
        "AUC/": Memorisation.definitions["AUC/"],
    }
    headline = ("ROUGE/forget", "P/forget", "ES", "ROUGE/retain", "perplexity/retain")
    needs_oracle = "PrivLeak"
    trade_offs = (
        TradeOff(
            "Forgotten and retained answers",
            ("ROUGE/forget",),
            ("ROUGE/retain",),
            "ROUGE-L recall on the forget set",
            "ROUGE-L recall on the retain set",
        ),
    )

    def __init__(
        self,
        oracle: str | Backbone | None = None,
        forget: str = "forget",
        retained: list[str] | None = None,
        holdout: str | None = HOLDOUT,
        attacks: list[MembershipAttack] | None = None,
        share: float = 0.4,
        max_new_tokens: int = 200,
        stop_strings: list[str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(oracle, **settings)
        self.forget = forget
        self.retained = unique_names(["retain"] if retained is None else retained, "retained")
        if forget in self.retained:
            raise InputError(f"{forget} is the forget set, so it cannot be a retained one.")
        self.holdout = holdout
        if holdout is None:
            self.needs_oracle = ""
        self.attacks = checked_attacks(attacks)
        self.share = share
        self.max_new_tokens = max_new_tokens
        self.stop_strings = tuple(stop_strings or ())

    def results(self, graph: Graph, log: OracleLog | None) -> list[Result]:
        """Metrics of each set, memorisation of the forget set, and membership attacks."""
        name = self.forget
        return [
            *self._answers(graph, name, is_retained=False),
            metric_result(graph, "ES", ExtractionStrength(name), None, name),
            metric_result(graph, "EM", ExactMemorisation(name), None, name),
            *membership_results(
                graph,
                log,
                name,
                self.holdout,
                self.attacks,
                self.share,
                "none was given, so there is no PrivLeak",
            ),
            *(
                result
                for retained in self.retained
                for result in self._answers(graph, retained, is_retained=True)
            ),
        ]

    def _answers(self, graph: Graph, name: str, is_retained: bool) -> list[Result]:
        """Results of the answers of one set."""
        generated: dict[str, Any] = {"max_new_tokens": self.max_new_tokens}
        if self.stop_strings:
            generated["stop_strings"] = self.stop_strings
        nodes: dict[str, Metric] = {
            "P": Probability(name),
            "ROUGE": Rouge(name, **generated),
            "exact_match": ExactMatch(name, **generated),
            "perplexity": Perplexity(name),
        }
        return [
            metric_result(
                graph,
                f"{short}/{name}",
                node,
                short != "perplexity" if is_retained else None,
                name,
                detail=generated if short in ("ROUGE", "exact_match") else None,
            )
            for short, node in nodes.items()
        ]
