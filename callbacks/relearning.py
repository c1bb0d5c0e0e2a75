"""Relearning attack: accuracy on the forget set after fine-tuning on a few forget samples."""

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
from callbacks.oracle_commands import oracle_commands
from callbacks.scores import Scores
from mu.attacks.relearning import Relearn
from mu.core.module import UnlearningModule
from mu.core.run_files import check_results
from mu.evaluation.text.graph import Metric
from mu.evaluation.text.session import questions_of
from mu.metrics.results import Result, compute_result
from mu.metrics.run_results import RunResults
from mu.utils.errors import InputError

OF_ORACLE = ("examples", "steps", "batch_size", "optimizer", "attack_seed", "relearnt_from")
"""Details in which the oracle's attack must be this one."""


class Relearning(Suite):
    """Scores of the forget part before and after fine-tuning a copy on k forget samples.

    The suite works for every backbone. Used and withheld rows are scored separately.

    `relearning` is the score on the *withheld* rows before or after the attack, whichever shows
    more knowledge (accuracy in percent; the loss where a domain has no accuracy). It is a level
    instead of a gain, because a model before unlearning gains nothing from the attack, and may even
    lose knowledge. A model that never saw the data gains what k examples teach about similar ones;
    this is the result of the oracle, and the goal. Parts:

    - `relearning/SCORE/withheld` and `relearning/SCORE/used`: every score after the attack, and
      every metric of `metrics` on those rows of the set `forget` alone; the detail has the value
      before;
    - `relearning/returned`: (after - before) / (original - before) on the withheld rows, in
      percent. Only where the original's scores are known (saved when the fit began with this
      suite, or those of the reference) and knowledge was lost;
    - `relearning/excess`: difference of `relearning` to that of the oracle, larger for more
      knowledge, and `relearning/robustness`: min(r, 1), r the oracle's gain over this model's
      (OpenUnlearning, 2025, arXiv 2506.12618). Only where the oracle's run folder is given.

    Every rank makes the same attack, with draws keyed by seeds; scoring is divided among ranks.

    Args:
        examples: number k of samples.
        steps: number n of optimizer steps.
        optimizer: optimizer of the attack; see `mu.attacks.Relearn` for its rate.
        seed: seed of the choice of samples, their order, and the draws of `prepare`.
        batch_size: samples in a step; None takes all k in each.
        metrics: further metrics of a language model, of the set `forget`
            (`mu.evaluation.ExtractionStrength(set="forget")`).
        part: part of the samples; another one than `forget` (such as `retain`) measures the effect
            of any fine-tuning, and then every forget row is withheld.
        oracle: run folder of the oracle, tested with this suite and the same budget; the folder of
            the run itself marks the run as the oracle.
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

    def check_run(self, module: UnlearningModule) -> None:
        """Check, before a test, that the oracle was tested, where it is another run."""
        trainer = module.trainer
        if self.oracle is None or not trainer.testing:
            return
        is_own = Path(self.oracle).resolve() == run_folder(trainer).resolve()
        if not is_own and not (Path(self.oracle) / "results.json").is_file():
            commands = oracle_commands(
                self.oracle, fine_tuned=hasattr(module.backbone, "tokenizer")
            )
            raise InputError(
                f"there is no tested oracle at {self.oracle}; {commands} make one, with this suite."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the original model before the fit."""
        module = module_of(pl_module)
        with module.stopwatch("evaluation"):
            scores.save_original_scores(run_folder(trainer), module, ["forget"], "Relearning")

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Results `relearning` and its parts."""
        forget, _ = (scores.task_part(module, name, "Relearning") for name in ("forget", self.part))
        assert module.task is not None
        learnt: Any = module.task.datasets[self.part]
        if self.part == "forget" and self.attack.examples >= len(forget):
            raise InputError(
                f"Relearning takes {self.attack.examples} of {len(forget)} forget samples, so "
                "none is withheld; take fewer."
            )
        # scores before and after the attack, and of the original
        served = module.served()
        before = scores.score_samples(served, module, forget)
        began = time.monotonic()
        attacked = self.attack(served, learnt, module.precision)
        seconds = time.monotonic() - began
        after = scores.score_samples(attacked.backbone, module, forget)
        original = scores.original_scores(
            run_folder(module.trainer), module, "forget", before, "Relearning"
        )
        # samples that the attack was trained on do not count as withheld
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
        # headline: the main score on withheld samples
        main = scores.main_score(before)
        levels = {
            **_levels(main, before, original, ~used),
            "after": scores.mean_score(main, after[main][~used]),
        }
        highest = scores.highest_level(main, (levels["before"], levels["after"]))
        results = [
            compute_result(
                "relearning",
                lambda: scores.as_rate(main, highest, int((~used).sum())),
                None,
                "forget",
                scores.score_unit(main),
                {**detail, **levels, "score": main},
            )
        ]
        # every score, on withheld samples and on those that were used
        for rows, name in ((~used, "withheld"), (used, "used")):
            for score in (score for score in before if score != "index" and bool(rows.any())):
                results.append(
                    scores.score_result(
                        f"relearning/{score}/{name}",
                        score,
                        after[score][rows],
                        "forget",
                        _levels(score, before, original, rows),
                    )
                )
        # recovery, and the gap to the oracle
        results += scores.recovery("relearning", main, levels)
        compared = (
            self.oracle is not None
            and Path(self.oracle).resolve() != run_folder(module.trainer).resolve()
        )
        return [*results, *(self._against_oracle(results[0], module) if compared else [])]

    def _metrics(
        self, attacked: Any, index: Tensor, used: Tensor, module: UnlearningModule
    ) -> list[Result]:
        """Metrics after the attack, on the withheld and on the used rows as sets of their own."""
        (sets, _), results = questions_of(module), []
        forget_set = sets["forget"]
        for rows, name in ((~used, "withheld"), (used, "used")):
            positions = np.flatnonzero(np.isin(forget_set.indices, index[rows].numpy()))
            if len(positions):
                graph = scores.metric_graph(
                    module.served(),
                    module,
                    {**sets, "forget": forget_set.select(positions.tolist())},
                )
                after = graph.for_model(attacked)
                results += [
                    compute_result(
                        f"relearning/{metric.name}/{name}",
                        scores.value_of(after, metric),
                        None,
                        "forget",
                        detail=scores.level_before(graph, metric),
                    )
                    for metric in self.metrics
                ]
        return results

    def _against_oracle(self, result: Result, module: UnlearningModule) -> list[Result]:
        """Results `relearning/excess` and `relearning/robustness`, against the oracle."""
        assert self.oracle is not None
        oracle_result = self._oracle_result(result, module)
        score = result.detail["score"]
        gain, oracle_gain = (
            scores.gain(score, attacked.detail["before"], attacked.detail["after"])
            for attacked in (result, oracle_result)
        )
        robustness = 1.0 if gain <= 0 else min(max(oracle_gain, 0.0) / gain, 1.0)
        detail = {
            "oracle": self.oracle,
            "oracle_before": oracle_result.detail["before"],
            "oracle_after": oracle_result.detail["after"],
        }
        excess = Result(
            "relearning/excess",
            scores.gain(score, oracle_result.number, result.number),
            None,
            "forget",
            "pp" if result.unit == "%" else "",
            detail,
        )
        return [excess, Result("relearning/robustness", robustness, True, "forget", "", detail)]

    def _oracle_result(self, result: Result, module: UnlearningModule) -> Result:
        """Result `relearning` of the oracle, on the same split with the same budget."""
        assert self.oracle is not None
        record = RunResults.load(self.oracle)
        check_results(self.oracle, record.hashes)
        measured = {entry.metric: entry for entry in record.results}
        oracle_result = measured.get("relearning")
        split = module.task.split.hash if module.task is not None else ""
        if oracle_result is None or record.hashes["split"] != split:
            fault = (
                "was not tested with Relearning"
                if oracle_result is None
                else "was made on another split"
            )
            raise InputError(
                f"the oracle in {self.oracle} {fault}; test it with this suite on this split."
            )
        for name in OF_ORACLE:
            value = oracle_result.detail.get(name)
            if value != result.detail[name]:
                raise InputError(
                    f"the oracle in {self.oracle} was attacked with {name} {value}, and this "
                    f"model with {result.detail[name]}; attack both alike."
                )
        return oracle_result


def _levels(score: str, before: Scores, original: Scores | None, rows: Tensor) -> dict[str, float]:
    """Details: levels of a score before the attack and of the original."""
    levels = {"before": scores.mean_score(score, before[score][rows])}
    return (
        levels
        if original is None
        else {**levels, "original": scores.mean_score(score, original[score][rows])}
    )
