"""Checkpoints: plain data, read by `mu.load` into the same predictions, refused when they do not
fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

import mu
from mu.backbones import Backbone, Classifier, Ensemble
from mu.core.lr import Steps
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Forget, Phases, Retain, Union
from mu.methods import SSD, FineTune, RandomLabel, Retrain, SalUn
from mu.methods.components.masks import Saliency
from mu.methods.components.substitutes import UniformLabel
from mu.utils.errors import InputError
from tests.contract.doubles import NeedsReferenceByProperty
from tests.support.helpers import State, classifier, digits, fit, predictions, trainer, weights


class Averaged(UnlearningModule):
    """Serves an ensemble of the fine-tuned model and the original: inference-time methods serve
    more than one model.
    """

    plan = Retain()
    needs_forget = False

    def __init__(self, backbone: Classifier, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)

    def configure_model(self) -> None:
        """The original is part of the answer, so it is part of the checkpoint."""
        if not self.original_hash:
            from mu.core.reference import frozen_copy

            self.original = frozen_copy(self.backbone)
        super().configure_model()

    def served(self) -> Backbone:
        return Ensemble([self.backbone, self.original])

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert retain is not None
        return {"retain": self.reduce(self.backbone.loss(retain), retain)}


def saved(module: UnlearningModule, folder: Path, **changes: Any) -> Path:
    """Fit, and the last checkpoint."""
    fit(module, callbacks=[ModelCheckpoint(folder, save_last=True, save_top_k=0)], **changes)
    return folder / "last.ckpt"


@pytest.mark.parametrize(
    "make",
    [
        lambda b: FineTune(
            b, scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1)
        ),
        lambda b: FineTune(
            b,
            scheduler=Steps(at=(0.5,)),
            optimizer=lambda params: torch.optim.AdamW(params, lr=0.01),
            norm="eval",
        ),
        lambda b: RandomLabel(
            b, plan=Phases(Forget(epochs=1), Retain()), substitute=UniformLabel(exclude_true=True)
        ),
        lambda b: RandomLabel(b, plan=Union(retain_fraction=0.5), seed=4),
        lambda b: SalUn(b, mask=Saliency(keep=0.25)),
        lambda b: Retrain(b),
        lambda b: SSD(b, alpha=1.0),
        lambda b: NeedsReferenceByProperty(b),
        lambda b: Averaged(b),
    ],
    ids=[
        "scheduler",
        "schedule of the rate",
        "phases",
        "union",
        "mask",
        "oracle",
        "edit",
        "property",
        "composed",
    ],
)
def test_a_checkpoint_loads_into_the_same_predictions(
    make: Any, originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when an argument cannot be stored, or the stored weights are not those that are
    served.
    """
    module = make(classifier(originals["classifier"]))
    file = saved(module, tmp_path)
    loaded = mu.load(file)
    assert type(loaded) is type(module)
    assert loaded.seed == module.seed
    assert not loaded.training
    assert torch.equal(
        predictions(loaded.served(), digits()), predictions(module.served(), digits())
    )
    assert loaded.original_hash == module.original_hash


def test_a_run_folder_is_named_by_its_path(originals: dict[str, State], tmp_path: Path) -> None:
    """Fails when only a file can be loaded, or a folder without a checkpoint ends in a
    traceback.
    """
    saved(FineTune(classifier(originals["classifier"])), tmp_path / "checkpoints")
    assert isinstance(mu.load(tmp_path), FineTune)
    for path in (tmp_path / "nothing.ckpt", tmp_path.parent):
        with pytest.raises(InputError, match=r"last\.ckpt|no checkpoint"):
            mu.load(path)
    (tmp_path / "other.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"other\.ckpt"):
        mu.load(tmp_path / "other.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    with pytest.raises(InputError, match="not a checkpoint written by mu"):
        mu.load(tmp_path / "plain.ckpt")


def test_the_file_the_weights_came_from_may_be_gone(
    originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when loading a run reads the original's file, which may have been moved, also inside an
    ensemble.
    """
    original = tmp_path / "original.pt"
    body = {
        name.removeprefix("network.body."): v
        for name, v in originals["classifier"].items()
        if name.startswith("network.body.")
    }
    torch.save(body, original)
    first = FineTune(classifier(weights=str(original)))
    two = FineTune(Ensemble([classifier(weights=str(original)), classifier()]))
    files = [saved(first, tmp_path / "one"), saved(two, tmp_path / "two")]
    original.unlink()
    for module, file in zip((first, two), files, strict=True):
        assert torch.equal(
            predictions(mu.load(file).served(), digits()), predictions(module.served(), digits())
        )


def test_a_live_network_is_given_again(tmp_path: Path) -> None:
    """Fails when what no file can hold is left out in silence, or cannot be given by name."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    module = FineTune(Classifier(network=network))
    file = saved(module, tmp_path)
    with pytest.raises(InputError, match="network"):
        mu.load(file)
    twin = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    loaded = mu.load(file, backbone=Classifier(network=twin))
    assert torch.equal(
        predictions(loaded.served(), digits()), predictions(module.served(), digits())
    )


def broken(file: Path, change: Any) -> Path:
    """A copy of a checkpoint with a changed state dict."""
    checkpoint = torch.load(file, weights_only=True)
    change(checkpoint["state_dict"])
    torch.save(checkpoint, file.with_name("broken.ckpt"))
    return file.with_name("broken.ckpt")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda state: state.pop("backbone.network.body.linear.bias"), "lacks"),
        (lambda state: state.update({"backbone.network.body.extra": torch.zeros(1)}), "unknown"),
        (
            lambda state: state.update({"backbone.network.body.linear.bias": torch.zeros(11)}),
            "linear.bias",
        ),
        (lambda state: state.pop("mask.of_network__body__linear__bias"), "lacks"),
    ],
    ids=["missing", "extra", "misshaped", "mask"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    change: Any, word: str, originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when a key may be missing, extra or of another shape: part of the model would be left
    as it was.
    """
    file = broken(saved(SalUn(classifier(originals["classifier"])), tmp_path), change)
    for attempt in (
        lambda: mu.load(file),
        lambda: fit(SalUn(classifier(originals["classifier"])), ckpt_path=file, epochs=3),
        lambda: trainer().test(SalUn(classifier()), digits(), ckpt_path=str(file), verbose=False),
    ):
        with pytest.raises(InputError, match=word):
            attempt()


def test_only_the_reference_may_be_absent(originals: dict[str, State], tmp_path: Path) -> None:
    """Fails when checkpoints hold the reference, twice the size for nothing, or a resumed run goes
    on without one.
    """
    module = NeedsReferenceByProperty(classifier(originals["classifier"]))
    file = saved(module, tmp_path)
    stored = torch.load(file, weights_only=True)["state_dict"]
    assert not [name for name in stored if name.startswith("reference.")]
    resumed = NeedsReferenceByProperty(classifier(originals["classifier"]))
    fit(resumed, epochs=3, ckpt_path=file)
    assert resumed.reference is not None
    assert all(
        torch.equal(value, originals["classifier"][name])
        for name, value in weights(resumed.reference).items()
    )
    assert not any(weight.requires_grad for weight in resumed.reference.parameters())


def test_a_checkpoint_holds_plain_data(originals: dict[str, State], tmp_path: Path) -> None:
    """Fails when a pickled object makes a checkpoint dangerous to read, or the record misses what a
    report needs.
    """
    import numpy as np

    file = saved(SSD(classifier(originals["classifier"]), alpha=np.float64(1.0)), tmp_path)  # type: ignore[arg-type]
    record = torch.load(file, weights_only=True)["mu"]
    assert record["spec"]["class_path"] == "mu.methods.SSD"
    assert record["spec"]["init_args"]["alpha"] == 1.0
    assert record["split"] == digits().split.hash
    assert record["seconds"]["training"] > 0


def test_a_checkpoint_may_be_tested_with_other_weights_in_the_backbone(
    originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when evaluation refuses a checkpoint because the configured backbone is new: only
    resuming needs the original.
    """
    module = FineTune(classifier(originals["classifier"]))
    file = saved(module, tmp_path)
    again = FineTune(classifier())
    again.declared.add("logits")
    trainer().test(again, digits(), ckpt_path=str(file), verbose=False)
    assert torch.allclose(
        again.evaluated()["forget"]["logits"], predictions(module.served(), digits()), atol=1e-5
    )


def test_a_composed_backbone_is_what_suites_see(originals: dict[str, State]) -> None:
    """Fails when a part of the machinery asks `backbone` where it should ask `served()`."""
    module = Averaged(classifier(originals["classifier"]))
    task = digits(curves=["forget"])
    fit(module, task, limit_val_batches=1.0)
    module.declared.update({"logits", "nll"})
    trainer().test(module, task, verbose=False)
    outputs = module.evaluated()["forget"]
    expected = predictions(Ensemble([module.backbone, module.original]), task)
    assert torch.allclose(outputs["logits"], expected, atol=1e-5)
    assert torch.allclose(outputs["logits"].exp().sum(1), torch.ones(len(expected)), atol=1e-5)
    assert module.trainer.logged_metrics == {} or "forget/loss" in module.trainer.logged_metrics
    assert not torch.allclose(
        outputs["logits"], predictions(module.backbone, task).log_softmax(1), atol=1e-3
    )
