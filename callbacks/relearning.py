"""Relearning: how much of what was forgotten comes back when the model is fine-tuned on a few
forget samples.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from callbacks import scores
from callbacks.base import Evaluated, Suite, module_of, run_folder
from callbacks.scores import Scores
from mu.attacks.relearning import Relearn
from mu.core.module import UnlearningModule
from mu.evaluation.text.graph import Metric
from mu.evaluation.text.session import questions_of
from mu.metrics.results import Result, RunResults
from mu.utils.errors import InputError

OF_ORACLE = ("examples", "steps", "batch_size", "optimizer", "attack_seed", "relearnt_from")
"""Details in which the oracle's attack must be this one."""


class Relearning(Suite):
    """Fine-tunes a copy of the served model on k forget samples for n steps, and scores the forget
    part before and after: the rows that were used apart from those that were withheld. Works for
    every backbone.

    `relearning` is the score on the *withheld* rows before or after the attack, whichever knows
    more (accuracy in percent; the loss where a domain has no accuracy). It is a level and no gain
    on purpose: an untouched model gains nothing, and may even lose what the examples do not repeat,
    but what it knew was there before. A model that never saw the data gains what k examples teach
    about others like them; that is the oracle's own number, and the goal. Parts:

    - `relearning/SCORE/withheld` and `relearning/SCORE/used`: every score after the attack; the
      detail has it before. So for every metric
      of `metrics`, taken on those rows of the set `forget` alone;
    - `relearning/returned`: (after - before) / (original - before) on the withheld rows, in
      percent: the share of the way back. Only where
      the original's scores are known (kept when the fit began with this suite, or the reference's)
      and something had been lost;
    - `relearning/excess`: how much more `relearning` says is known than it says of the oracle, and
      `relearning/robustness`: min(r, 1), r
      the oracle's gain over this model's (OpenUnlearning, 2025, arXiv 2506.12618): where the
      oracle's run folder is given.

    The attack is made on every rank alike, and nothing is drawn but by seeds; scores are shared out
    and gathered.

    Args:
        examples: k.
        steps: n, optimizer steps.
        optimizer: of the attack; see `mu.attacks.Relearn` for its rate.
        seed: decides which samples, their order, and what `prepare` draws for them.
        batch_size: samples in a step; None shows all k in each.
        metrics: further metrics of a language model, of the set `forget`
            (`mu.evaluation.ExtractionStrength(set="forget")`).
        part: where the samples come from; another part than `forget` (say `retain`) shows what any
            fine-tuning brings back, and then every forget row is withheld.
        oracle: run folder of the oracle, tested with this suite and the same budget; a run's own
            folder says that it is the oracle.
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "relearning": "Accuracy on withheld forget samples (share of likeliest tokens, for "
        "language models), in percent, after the model was fine-tuned on a few others; the "
        "oracle's own is the goal.",
        "relearning/": "As relearning, of that score or on those rows.",
    }

    def __init__(
        self,
        examples: int = 10,
        steps: int = 20,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-4),
        seed: int = 0,
        batch_size: int | None = None,
        metrics: list[Metric] | None = None,
        part: str = "forget",
        oracle: str | None = None,
    ) -> None:
        self.attack = Relearn(examples, steps, optimizer, batch_size, seed)
        self.metrics = metrics or []
        self.part = part
        self.oracle = oracle

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the original while it is there."""
        module = module_of(pl_module)
        with module.stopwatch("evaluation"):
            scores.keep_original(run_folder(trainer), module, ["forget"], "Relearning")

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """See the class."""
        forget, source = (
            scores.part_of(module, name, "Relearning") for name in ("forget", self.part)
        )
        if self.part == "forget" and self.attack.examples >= len(forget):
            raise InputError(
                f"Relearning takes {self.attack.examples} of {len(forget)} forget samples, so "
                "none is withheld; take fewer."
            )
        served = module.served()
        before = scores.scored(served, module, forget)
        began = time.monotonic()
        attacked = self.attack(served, source, module.precision)
        seconds = time.monotonic() - began
        after = scores.scored(attacked.backbone, module, forget)
        original = scores.original(
            run_folder(module.trainer), module, "forget", before, "Relearning"
        )
        used = torch.zeros(len(before["index"]), dtype=torch.bool)
        if self.part == "forget":
            used = torch.isin(before["index"], torch.tensor(forget.indices[attacked.positions]))
        detail = {
            **self.attack.budget(),
            "relearnt_from": self.part,
            "trained_weights": attacked.weights,
            "used": int(used.sum()),
            "withheld": int((~used).sum()),
            "seconds": round(seconds, 1),
            "loss_of_first_step": attacked.losses[0],
            "loss_of_last_step": attacked.losses[-1],
        }
        metrics = (
            self._metrics(attacked.backbone, before["index"], used, module) if self.metrics else []
        )
        return [*self._results(before, after, original, used, detail, module), *metrics]

    def _results(
        self,
        before: Scores,
        after: Scores,
        original: Scores | None,
        used: Tensor,
        detail: dict[str, Any],
        module: UnlearningModule,
    ) -> list[Result]:
        main = scores.headline(before)
        levels = {
            **_levels(main, before, original, ~used),
            "after": scores.shown(main, after[main][~used]),
        }
        found = [
            Result(
                "relearning",
                scores.most(main, (levels["before"], levels["after"])),
                None,
                "forget",
                scores.unit(main),
                {**detail, **levels, "score": main},
            )
        ]
        for rows, name in ((~used, "withheld"), (used, "used")):
            for score in (score for score in before if score != "index" and bool(rows.any())):
                found.append(
                    Result(
                        f"relearning/{score}/{name}",
                        scores.shown(score, after[score][rows]),
                        None,
                        "forget",
                        scores.unit(score),
                        _levels(score, before, original, rows),
                    )
                )
        found += scores.returned("relearning", main, levels)
        compared = (
            self.oracle is not None
            and Path(self.oracle).resolve() != run_folder(module.trainer).resolve()
        )
        return [*found, *(self._against_oracle(found[0], module) if compared else [])]

    def _metrics(
        self, attacked: Any, index: Tensor, used: Tensor, module: UnlearningModule
    ) -> list[Result]:
        """Metrics of the graph after the attack, on the withheld and on the used rows as if these
        were the whole set.
        """
        (sets, _), found = questions_of(module), []
        whole = sets["forget"]
        for rows, name in ((~used, "withheld"), (used, "used")):
            chosen = np.flatnonzero(np.isin(whole.indices, index[rows].numpy()))
            if len(chosen):
                graph = scores.graph_of(
                    module.served(), module, {**sets, "forget": whole.at(chosen.tolist())}
                )
                after = graph.for_model(attacked)
                found += [
                    Result(
                        f"relearning/{metric.name}/{name}",
                        after.value(metric).value,
                        None,
                        "forget",
                        "",
                        {"before": graph.value(metric).value},
                    )
                    for metric in self.metrics
                ]
        return found

    def _against_oracle(self, own: Result, module: UnlearningModule) -> list[Result]:
        """How much further back this model goes than one that never saw the data."""
        assert self.oracle is not None
        record = RunResults.load(self.oracle)
        theirs = next((result for result in record.results if result.metric == "relearning"), None)
        split = module.task.split.hash if module.task is not None else ""
        if theirs is None or record.hashes["split"] != split:
            fault = (
                "was not tested with Relearning" if theirs is None else "was made on another split"
            )
            raise InputError(
                f"the oracle in {self.oracle} {fault}; test it with this suite on this split."
            )
        other = next(
            (name for name in OF_ORACLE if theirs.detail.get(name) != own.detail[name]), None
        )
        if other is not None:
            raise InputError(
                f"the oracle in {self.oracle} was attacked with {other} "
                f"{theirs.detail.get(other)}, and this model with {own.detail[other]}; attack "
                "both alike."
            )
        score = own.detail["score"]
        mine, its = (
            scores.gain(score, result.detail["before"], result.detail["after"])
            for result in (own, theirs)
        )
        robustness = 1.0 if mine <= 0 else min(max(its, 0.0) / mine, 1.0)
        detail = {
            "oracle": self.oracle,
            "oracle_before": theirs.detail["before"],
            "oracle_after": theirs.detail["after"],
        }
        excess = Result(
            "relearning/excess",
            scores.gain(score, theirs.value, own.value),
            None,
            "forget",
            "pp" if own.unit == "%" else "",
            detail,
        )
        return [excess, Result("relearning/robustness", robustness, True, "forget", "", detail)]


def _levels(score: str, before: Scores, original: Scores | None, rows: Tensor) -> dict[str, float]:
    """What stands beside a score after the attack."""
    found = {"before": scores.shown(score, before[score][rows])}
    return (
        found
        if original is None
        else {**found, "original": scores.shown(score, original[score][rows])}
    )
