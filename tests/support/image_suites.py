"""Metrics of suites of images on a painter whose pictures are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from callbacks import ResultsWriter
from mu.backbones import Classifier
from mu.core.module import UnlearningModule
from mu.evaluation.images.classifier_judge import ClassifierJudge
from mu.evaluation.images.features import ClassifierFeatures
from mu.metrics.results import Result
from tests.support.helpers import trainer
from tests.support.painters import Colours


def measured(
    module: UnlearningModule,
    *suites: Any,
    task: Any = None,
    folder: Path | None = None,
    **changes: Any,
) -> dict[str, Result]:
    more: dict[str, Any] = {} if folder is None else {"default_root_dir": str(folder)}
    trainer(1, callbacks=[*suites, *([ResultsWriter()] if folder else [])], **more, **changes).test(
        module, task or Colours(), verbose=False
    )
    return {result.metric: result for result in module.results}


def values(results: dict[str, Result]) -> dict[str, float]:
    return {name: result.value for name, result in results.items()}


def extractor() -> ClassifierFeatures:
    classifier = Classifier("resnet8_cifar", num_classes=3, options={"width": 1}, init_seed=0)
    return ClassifierFeatures(
        ClassifierJudge(classifier=classifier, labels=["a", "b", "c"], name="J")
    )
