"""Suites measure what they say, on the model that is served, and write it down whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from callbacks import (
    Accuracy,
    Cost,
    Curves,
    Errors,
    Membership,
    RegressionMembership,
    ResultsWriter,
    RetrainGap,
)
from mu.attacks import FGSM, Misclassified
from mu.core.lr import OneCycle
from mu.data.split import Split
from mu.methods import FineTune, Retrain, Train
from mu.metrics.results import Result
from mu.metrics.run_outputs import load_outputs
from mu.metrics.run_results import RunResults
from mu.utils.errors import InputError, RunError
from tests.support.helpers import State, classifier, diabetes, digits, regressor, trainer, weights


def measured(module, task, folder: Path, *suites: Callback, epochs: int = 0, **changes):
    """Fit for some epochs, then test with the suites and a recorder."""
    run_trainer = trainer(
        max(epochs, 1),
        callbacks=[*suites, ResultsWriter()],
        default_root_dir=str(folder),
        **changes,
    )
    if epochs:
        run_trainer.fit(module, datamodule=task)
    run_trainer.test(module, datamodule=task, verbose=False)
    return {result.metric: result.value for result in module.results}


def sgd(params):
    return torch.optim.SGD(params, lr=0.05, momentum=0.9)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    measured(
        Retrain(classifier(), optimizer=sgd, scheduler=OneCycle()),
        digits(),
        folder,
        Accuracy(),
        Membership(),
        epochs=3,
    )
    return folder


@torch.no_grad()
def logits_of(module, task, split: str) -> tuple[Tensor, Tensor]:
    batches = list(task.eval_loaders([split])[0])
    return torch.cat([module.served().eval().predict(batch) for batch in batches]), torch.cat(
        [batch["label"] for batch in batches]
    )


def test_accuracies_are_those_of_the_served_model(
    originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when UA and RA change places, or accuracy is a share instead of percent."""
    module = FineTune(classifier(originals["classifier"]))
    task = digits()
    results = measured(module, task, tmp_path, Accuracy())
    for metric, split, sign in (("UA", "forget", -1), ("RA", "retain", 1), ("TA", "test", 1)):
        logits, label = logits_of(module, task, split)
        share = (
            np.mean([int(row.argmax()) == int(y) for row, y in zip(logits, label, strict=True)])
            * 100
        )
        assert results[metric] == pytest.approx(share if sign > 0 else 100 - share, abs=1e-4)
    assert {"accuracy/validation"} <= set(results)


def test_membership_equals_scikit_learns_svc(originals: dict[str, State], tmp_path: Path) -> None:
    """Fails when members and non-members change places, or another feature is reported as MIA."""
    from sklearn.svm import SVC

    module = FineTune(classifier(originals["classifier"]))
    task = digits(train_size=161)
    results = measured(module, task, tmp_path, Membership())
    confidence = {}
    for split in ("forget", "retain", "test"):
        logits, label = logits_of(module, task, split)
        confidence[split] = logits.double().softmax(1).gather(1, label[:, None]).numpy()
    size = min(len(confidence["retain"]), len(confidence["test"]))
    test_rows = np.arange(size) * len(confidence["test"]) // size
    svc = SVC(C=3, kernel="rbf", gamma="auto").fit(
        np.concatenate([confidence["retain"][:size], confidence["test"][test_rows]]),
        np.r_[np.ones(size), np.zeros(size)],
    )
    assert results["MIA"] == pytest.approx(
        100 * np.mean(svc.predict(confidence["forget"]) == 0), abs=2.0
    )
    assert 0 <= results["MIA/loss_auc"] <= 1


def test_the_gap_of_the_oracle_to_itself_is_zero(oracle: Path, tmp_path: Path) -> None:
    module = Retrain(classifier(), optimizer=sgd, scheduler=OneCycle())
    results = measured(
        module, digits(), tmp_path, Accuracy(), Membership(), RetrainGap(str(oracle)), epochs=3
    )
    assert results["avg_gap"] == 0
    assert results["ToW"] == 1
    assert results["activation_distance"] == pytest.approx(0, abs=1e-6)
    assert results["completeness"] == 100


def test_the_gap_is_two_sided_and_comes_after_the_other_suites(
    oracle: Path, originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when RetrainGap measures before Accuracy has, or drops a sign. It stands first in the
    list on purpose.
    """
    module = FineTune(classifier(originals["classifier"]))
    results = measured(
        module,
        digits(),
        tmp_path,
        RetrainGap(str(oracle), recipe="unchecked"),
        Accuracy(),
        Membership(),
    )
    oracle_results = RunResults.load(oracle)
    by_hand = [
        abs(results[name] - oracle_results.value(name)) for name in ("UA", "RA", "TA", "MIA")
    ]
    assert results["avg_gap"] == pytest.approx(np.mean(by_hand))
    assert [results[f"gap/{name}"] for name in ("UA", "RA", "TA", "MIA")] == pytest.approx(by_hand)


def test_an_oracle_of_another_split_is_refused(
    oracle: Path, originals: dict[str, State], tmp_path: Path
) -> None:
    module = FineTune(classifier(originals["classifier"]))
    with pytest.raises(InputError, match="was made on split"):
        measured(
            module,
            digits(split_seed=1),
            tmp_path,
            Accuracy(),
            Membership(),
            RetrainGap(str(oracle), recipe="unchecked"),
        )
    assert not (tmp_path / "results.json").exists()


def test_an_oracle_of_another_recipe_is_refused(oracle: Path, tmp_path: Path) -> None:
    """Fails when the recipe leaves out the optimizer's settings."""
    module = Train(
        classifier(),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.04, momentum=0.9),
        scheduler=OneCycle(),
    )
    with pytest.raises(InputError, match="by recipe"):
        measured(
            module, digits(), tmp_path, Accuracy(), Membership(), RetrainGap(str(oracle)), epochs=3
        )


def test_a_gap_without_its_metric_is_refused(
    oracle: Path, originals: dict[str, State], tmp_path: Path
) -> None:
    module = FineTune(classifier(originals["classifier"]))
    with pytest.raises(InputError, match="compares MIA"):
        measured(
            module, digits(), tmp_path, Accuracy(), RetrainGap(str(oracle), recipe="unchecked")
        )


def test_an_oracle_of_another_recipe_is_refused_before_a_batch(
    oracle: Path, originals: dict[str, State], tmp_path: Path
) -> None:
    module = FineTune(classifier(originals["classifier"]))
    with pytest.raises(InputError, match=r"made by recipe .*add --trainer\.callbacks\.recipe"):
        measured(module, digits(), tmp_path, Accuracy(), RetrainGap(str(oracle)))
    assert module.outputs is None


def test_a_missing_oracle_is_named_with_the_commands_that_make_one(tmp_path: Path) -> None:
    gap = RetrainGap(str(tmp_path / "oracle"))
    with pytest.raises(InputError, match=r"no tested oracle at .*`mu fit .*retrain.*` and `mu t"):
        measured(FineTune(classifier()), digits(), tmp_path, Accuracy(), gap)


def test_an_untouched_model_fails_every_verdict_of_forgetting(tmp_path: Path) -> None:
    """A model that remembers its training set must look so: no error on forget, few called
    non-members, an AUC above one half.
    """
    task = digits(train_size=161)
    module = Train(classifier(options={"width": 8}), optimizer=sgd, scheduler=OneCycle())
    results = measured(module, task, tmp_path, Accuracy(), Membership(), epochs=40)
    assert results["UA"] <= 1
    assert results["MIA"] <= 10
    assert results["MIA/loss_auc"] > 0.55


def test_the_run_folder_holds_numbers_outputs_and_split(
    originals: dict[str, State], tmp_path: Path
) -> None:
    module = FineTune(classifier(originals["classifier"]))
    task = digits()
    results = measured(module, task, tmp_path, Accuracy(), Cost(), epochs=1)
    record = RunResults.load(tmp_path)
    outputs = load_outputs(tmp_path)
    assert {r.metric: r.value for r in record.results} == results
    assert record.hashes["split"] == task.split.hash == Split.load(tmp_path / "split.json").hash
    assert record.method == "FineTune"
    assert record.task == "Digits"
    for split, indices in task.split.parts.items():
        assert outputs[split]["index"].tolist() == indices.tolist()
        assert outputs[split]["logits"].shape == (len(indices), 10)
    json.loads((tmp_path / "results.json").read_text())


def test_cost_counts_seconds_and_moved_weights(originals: dict[str, State], tmp_path: Path) -> None:
    module = FineTune(classifier(originals["classifier"]))
    for name, parameter in module.backbone.named_parameters():
        parameter.requires_grad_("linear" in name)
    results = measured(module, digits(), tmp_path, Cost(), epochs=1)
    head = sum(p.numel() for n, p in module.backbone.named_parameters() if "linear" in n)
    assert results["trainable"] == head
    assert head * 0.9 < results["moved"] <= head
    assert results["seconds"] == pytest.approx(
        sum(v for k, v in results.items() if k.startswith("seconds/"))
    )
    assert results["peak_memory"] > 0


def test_a_resumed_run_counts_the_weights_that_moved_since_the_original(
    originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when a fit that was cut off after its last epoch has moved no weight."""

    def fit(resume: Path | None = None) -> dict[str, float | None]:
        module = FineTune(classifier(originals["classifier"]))
        suite = Cost()
        fitting = trainer(1, callbacks=[suite], default_root_dir=str(tmp_path))
        fitting.fit(module, datamodule=digits(), ckpt_path=resume, weights_only=True)
        if resume is None:
            fitting.save_checkpoint(tmp_path / "end.ckpt")
        fitting.test(module, datamodule=digits(), verbose=False)
        return {result.metric: result.value for result in module.results}

    complete = fit()
    resumed = fit(tmp_path / "end.ckpt")
    assert complete["moved"]
    assert {name: resumed[name] for name in ("moved", "trainable")} == {
        name: complete[name] for name in ("moved", "trainable")
    }


def test_curves_hold_every_epoch(originals: dict[str, State], tmp_path: Path) -> None:
    task = digits(curves=["forget", "retain"])
    module = FineTune(classifier(originals["classifier"]))
    curves = Curves()
    trainer(2, callbacks=[curves], default_root_dir=str(tmp_path), limit_val_batches=1.0).fit(
        module, datamodule=task
    )
    rows = json.loads((tmp_path / "curves.json").read_text())
    assert [row["epoch"] for row in rows] == [0, 1]
    assert {"forget/loss", "forget/accuracy", "retain/loss", "retain/accuracy"} <= set(rows[0])


def test_regression_suites_measure_errors_and_the_distance_to_the_oracle(
    originals: dict[str, State], tmp_path: Path
) -> None:
    task = diabetes()
    adam = lambda params: torch.optim.Adam(params, lr=0.01)  # noqa: E731
    oracle = Retrain(regressor(), optimizer=adam, scheduler=OneCycle())
    measured(oracle, task, tmp_path / "oracle", Errors(), RegressionMembership(), epochs=3)
    module = FineTune(regressor(originals["regressor"]), optimizer=adam)
    gap = RetrainGap(
        str(tmp_path / "oracle"), metrics=["MAE/forget", "MAE/test"], recipe="unchecked"
    )
    results = measured(module, task, tmp_path / "run", gap, Errors(), RegressionMembership())
    batch = next(iter(task.eval_loaders(["forget"])[0]))
    with torch.no_grad():
        error = module.served().predict(batch) - batch["target"]
    assert results["MAE/forget"] == pytest.approx(float(error.abs().mean()), rel=1e-5)
    assert results["RMSE/forget"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-5)
    oracle_prediction = load_outputs(tmp_path / "oracle")["forget"]["prediction"]
    ours = batch["target"] + error
    assert results["wasserstein"] == pytest.approx(
        float((ours.sort().values - oracle_prediction.sort().values).abs().mean()), rel=1e-4
    )


def test_a_classifier_suite_on_a_regressor_is_refused(
    originals: dict[str, State], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="does not give"):
        measured(FineTune(regressor(originals["regressor"])), diabetes(), tmp_path, Accuracy())


def test_a_nan_classifier_has_no_metric_and_keeps_the_run(oracle: Path, tmp_path: Path) -> None:
    """Fails when the largest of NaN is a class, or one suite's fault loses the others' numbers."""
    module = FineTune(classifier())
    with torch.no_grad():
        for weight in module.backbone.parameters():
            weight.fill_(float("nan"))
    suites = (Accuracy(), Membership(), RetrainGap(str(oracle), recipe="unchecked"), Cost())
    results = measured(module, digits(), tmp_path, *suites, ResultsWriter())
    assert {"UA", "RA", "MIA", "MIA/loss_auc", "gap/UA", "avg_gap", "ToW", "JS"} <= set(results)
    for metric, value in results.items():
        defined = metric.startswith(("seconds", "peak", "moved", "trainable"))
        assert (value is not None) == defined, metric
    reasons = [result.undefined for result in RunResults.load(tmp_path).results]
    assert sum("diverged" in reason for reason in reasons) > 8


def test_nan_metric_is_an_error() -> None:
    with pytest.raises(RunError, match="could not be measured"):
        Result("UA", float("nan"), None, "forget")


class _AttackInside(Callback):
    """A suite may attack with gradients inside a test epoch."""

    def __init__(self) -> None:
        self.success: list[Tensor] = []

    def on_test_batch_end(
        self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0
    ) -> None:
        part = {name: value for name, value in batch.items() if name != "split"}
        self.success.append(FGSM(epsilon=0.3)(pl_module.served(), part, Misclassified()).success)


def test_a_gradient_attack_runs_inside_a_test_and_leaves_the_weights(
    originals: dict[str, State], tmp_path: Path
) -> None:
    module = FineTune(classifier(originals["classifier"]))
    attack = _AttackInside()
    before = weights(module.backbone)
    measured(module, digits(), tmp_path, attack, Accuracy())
    assert torch.cat(attack.success).any()
    assert all(torch.equal(before[name], value) for name, value in weights(module.backbone).items())
    assert all(p.grad is None for p in module.backbone.parameters())
