"""The suites of the diffusion wing on two ranks: `python -m torch.distributed.run --nproc-per-node
2 -m tests.callbacks.two_ranks OUT`.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from callbacks import ConceptErasure, Grids, ImageQuality, ResultsWriter, Robustness
from mu.backbones import Classifier
from mu.evaluation.images.classifier_judge import ClassifierJudge
from mu.evaluation.images.features import ClassifierFeatures
from mu.evaluation.images.sets import ImageSet
from mu.methods import FineTune
from tests.callbacks.images.test_robustness import Bright, attack
from tests.support.doubles import pictures, pipeline_folder, text_to_image
from tests.support.helpers import trainer
from tests.support.painters import ColourJudge, Colours, LightJudge, Painter


def features() -> ClassifierFeatures:
    classifier = Classifier("resnet8_cifar", num_classes=3, options={"width": 1}, init_seed=0)
    return ClassifierFeatures(ClassifierJudge(classifier=classifier, labels=["a", "b", "c"]))


def run_all(folder: Path, **distributed: Any) -> dict[str, Any]:
    """Numbers and details of two tests: a painter, and a tiny Stable Diffusion under attack. Five
    batches leave the second rank fewer.
    """
    retain_images = ImageSet("retain", num_images_per_prompt=5, batch_size=4)
    stored = ImageSet(
        "forget", num_images_per_prompt=3, batch_size=4, folder=str(folder / "images")
    )
    painted = FineTune(Painter(noise=0.2))
    # one batch of the forget part: the second rank draws none
    suites = [
        ConceptErasure(
            ColourJudge(),
            cross=[LightJudge()],
            erased=ImageSet("forget", batch_size=4),
            kept=retain_images,
        ),
        ImageQuality(
            features(),
            kept=retain_images,
            metrics=["FID", "KID"],
            subset_size=12,
            subsets=3,
            batch_size=5,
        ),
        ConceptErasure(LightJudge(), concept="dark", erased=stored, metrics=["UA"]),
        Grids(before=False),
        ResultsWriter(),
    ]
    trainer(1, callbacks=suites, default_root_dir=str(folder / "painted"), **distributed).test(
        painted, Colours(), verbose=False
    )
    drawn = FineTune(text_to_image(part="xattn"))
    suite = Robustness(Bright(0.43), attack(), ImageSet("forget"), concept="circle", batch_size=2)
    run = trainer(
        1,
        callbacks=[suite, ResultsWriter()],
        default_root_dir=str(folder / "attacked"),
        **distributed,
    )
    run.test(drawn, pictures(), verbose=False)
    results = [result for module in (painted, drawn) for result in module.results]
    per_rank = ("seconds", "evaluations")  # each rank reads the empty prompt once
    return {
        "values": [(result.metric, result.value) for result in results],
        "details": [
            {name: value for name, value in result.detail.items() if name not in per_rank}
            for result in results
        ],
    }


def main() -> None:
    """Run on this rank, and write what it found."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    pipeline_folder()  # transformers saves on the first rank alone once there is a process group
    folder = Path(sys.argv[1])
    results = run_all(folder / "two", strategy="ddp", devices=2, num_nodes=1)
    torch.save(results, folder / f"rank{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
