"""Quantisation attack: accuracy on the forget set after the weights are rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer

from callbacks import scores
from callbacks.base import Evaluated, Suite, module_of, run_folder
from callbacks.scores import Scores
from mu.attacks.quantisation import Quantised, check, quantised
from mu.core.module import UnlearningModule
from mu.evaluation.text.graph import Graph, Metric
from mu.metrics.results import Result, compute_result
from mu.utils.errors import InputError, UndefinedError


class Quantisation(Suite):
    """Scores after rounding the linear weights to nearest, with those of the served model.

    The suite works for every backbone with a linear layer.

    `quantisation` is the score on the forget part for the number of bits, or without rounding, that
    shows the most knowledge (accuracy in percent; the loss where a domain has no accuracy). It is a
    level, so it is highest before unlearning. Parts:

    - `quantisation/intB/SCORE/PART`: every score with B bits on every part, and every metric of
      `metrics`; the detail has the value before;
    - `quantisation/returned`: (after - before) / (original - before) on forget, in percent, for the
      bits that recover the most. Only where the original's scores are known (saved when the fit
      began with this suite, or those of the reference) and knowledge was lost;
    - `quantisation/robustness`: min(q, 1), q = accuracy before / after with the fewest bits
      (OpenUnlearning, 2025, arXiv 2506.12618).

    Every rank makes the same copies, without random draws; scoring is divided among ranks.

    Args:
        bits: bits of each copy.
        group: weights that share a scale, below 8 bits; from 8 bits on, the whole output channel
            shares one.
        embeddings: round token embeddings too.
        head: round the output matrix of a language model too.
        parts: parts of the split, with `forget` among them.
        metrics: further metrics of a language model, on the sets that they name.
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "quantisation": "Accuracy on the forget set, in percent, after the weights were rounded to "
        "the number of bits at which most of the knowledge returns; the oracle's value is the "
        "goal.",
        "quantisation/": "As quantisation, with that number of bits and on that part.",
    }

    def __init__(
        self,
        bits: Sequence[int] = (8, 4),
        group: int = 128,
        embeddings: bool = False,
        head: bool = False,
        parts: Sequence[str] = ("forget", "retain"),
        metrics: list[Metric] | None = None,
    ) -> None:
        if not bits or len(set(bits)) < len(bits):
            raise InputError(
                f"Quantisation takes different numbers of bits, at least one, not {list(bits)}."
            )
        if "forget" not in parts:
            raise InputError(
                "Quantisation measures what returns of the forget part, so `forget` must be among "
                "its parts."
            )
        for count in bits:
            check(count, group)
        self.bits = list(bits)
        self.group = group
        self.embeddings = embeddings
        self.head = head
        self.parts = list(parts)
        self.metrics = metrics or []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the original model before the fit."""
        module = module_of(pl_module)
        with module.stopwatch("evaluation"):
            scores.save_original_scores(run_folder(trainer), module, ["forget"], "Quantisation")

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Results `quantisation` and its parts."""
        served = module.served()
        before = self._scores(served, module)
        original = scores.original_scores(
            run_folder(module.trainer), module, "forget", before["forget"], "Quantisation"
        )
        graph = scores.metric_graph(served, module) if self.metrics else None
        # scores of a rounded copy for each number of bits
        forget = {}
        results = []
        details = {}
        for bits in self.bits:
            copy = quantised(served, bits, self.group, self.embeddings, self.head)
            details[bits] = self._budget(bits, copy)
            after = self._scores(copy.backbone, module)
            forget[bits] = after["forget"]
            results += _score_results(bits, before, after, details[bits])
            if graph is not None:
                results += self._metric_results(bits, graph, copy.backbone, details[bits])
        # the copy that brings back the most
        try:
            headline = self._headline(before["forget"], forget, original, details)
        except UndefinedError as reason:
            headline = [Result("quantisation", None, split="forget", undefined=str(reason))]
        return [*headline, *results]

    def _metric_results(
        self, bits: int, graph: Graph, copy: Any, detail: dict[str, Any]
    ) -> list[Result]:
        """Metrics of the arguments on a rounded copy."""
        copy_graph = graph.for_model(copy)
        return [
            compute_result(
                f"quantisation/int{bits}/{metric.name}",
                scores.value_of(copy_graph, metric),
                detail={**scores.level_before(graph, metric), **detail},
            )
            for metric in self.metrics
        ]

    def _headline(
        self,
        before: Scores,
        after: dict[int, Scores],
        original: Scores | None,
        details: dict[int, dict[str, Any]],
    ) -> list[Result]:
        main = scores.main_score(before)
        lower = main in scores.LOWER
        levels = {bits: scores.mean_score(main, copy[main]) for bits, copy in after.items()}
        worst = next(
            bits
            for bits in self.bits
            if levels[bits] == scores.highest_level(main, levels.values())
        )
        before_level = scores.mean_score(main, before[main])
        levels_before = {
            "before": before_level,
            **({} if original is None else {"original": scores.mean_score(main, original[main])}),
        }
        detail = {
            **levels_before,
            "score": main,
            **details[worst],
            **{f"int{bits}": level for bits, level in levels.items()},
        }
        highest = scores.highest_level(main, (before_level, levels[worst]))
        results = [
            compute_result(
                "quantisation",
                lambda: scores.as_rate(main, highest, len(before["index"])),
                lower,
                "forget",
                scores.score_unit(main),
                detail,
            ),
            *scores.recovery("quantisation", main, {**levels_before, "after": levels[worst]}),
        ]
        if not lower:
            results.append(_robustness(before_level, levels))
        return results

    def _scores(self, backbone: Any, module: UnlearningModule) -> dict[str, Scores]:
        return {
            part: scores.score_samples(
                backbone, module, scores.task_part(module, part, "Quantisation")
            )
            for part in self.parts
        }

    def _budget(self, bits: int, copy: Quantised) -> dict[str, Any]:
        """Details of the rounding of the weights."""
        grid = {
            "bits": bits,
            "scale_over": "output channel" if bits >= 8 else f"{self.group} weights",
            "rounding": "to nearest",
        }
        return {
            **grid,
            "rounded_weights": copy.weights,
            "of_weights": copy.total,
            "mean_move": copy.moved,
            "embeddings": self.embeddings,
            "head": self.head,
        }


def _score_results(
    bits: int,
    before: Mapping[str, Scores],
    after: Mapping[str, Scores],
    detail: Mapping[str, Any],
) -> list[Result]:
    """Every score of every part of a rounded copy."""
    return [
        scores.score_result(
            f"quantisation/int{bits}/{score}/{part}",
            score,
            after[part][score],
            part,
            {"before": scores.mean_score(score, part_scores[score]), **detail},
        )
        for part, part_scores in before.items()
        for score in part_scores
        if score != "index"
    ]


def _robustness(before: float, levels: Mapping[int, float]) -> Result:
    """Accuracy before over that of the copy with the fewest bits, at most 1."""
    fewest = min(levels)
    after = levels[fewest]
    return Result(
        "quantisation/robustness",
        1.0 if after <= before else before / after,
        True,
        "forget",
        "",
        {"before": before, "after": after, "bits": fewest},
    )
