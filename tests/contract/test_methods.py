"""Contract of every method: training, seeds, checkpoints, allowed weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

import mu
from mu.backbones import Classifier
from mu.core.module import UnlearningModule
from mu.data.plan import DataPlan
from mu.data.questions import TokenRows
from mu.data.sequences import Pair
from mu.methods.components.masks import ByName
from mu.utils.errors import InputError
from tests.contract.catalogue import (
    BACKBONES,
    DIFFUSION,
    FIRST,
    METHODS,
    OWN_WORDS,
    PAIRS,
    TEXT,
    WORDS,
    Case,
    admitted_backbones,
    constructor,
    setting,
)
from tests.contract.conftest import Baseline
from tests.support.helpers import Snapshot, State, Watch, different, predictions, trainer, weights
from tests.support.method_cases import Baselines, method_case, on_all, on_all_slow

on_all_and_diffusion = pytest.mark.parametrize(
    ("name", "backbone_name"),
    [
        method_case(p)
        if p in FIRST or p[1] in (*DIFFUSION, "causal_lm")
        else method_case(p, pytest.mark.slow)
        for p in PAIRS
    ],
)


IMAGES = [pair for pair in PAIRS if pair[1] == "classifier"]


on_images_slow = pytest.mark.parametrize(
    ("name", "backbone_name"), [method_case(pair, pytest.mark.slow) for pair in IMAGES]
)


class AtStart(Callback):
    """Remembers the module as it was right before the first batch: some methods initialise part of
    the backbone anew.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 0 and batch_idx == 0:
            assert isinstance(pl_module, UnlearningModule)
            self.state = weights(pl_module)


def moved(baseline: Baseline) -> list[str]:
    """Weights of the backbone (not statistics of batch norm) that are no longer what they were."""
    names = {name for name, _ in baseline.case.backbone().named_parameters()}
    return [
        name
        for name in different(baseline.before, weights(baseline.module.backbone))
        if name in names
    ]


def test_every_method_has_a_backbone_to_be_tested_on() -> None:
    """Fails when a method's annotation admits no tiny backbone, so that it would be tested by
    nothing.
    """
    assert METHODS
    assert [name for name in METHODS if not admitted_backbones(name)] == []


@on_all_and_diffusion
def test_method_changes_weights_with_finite_losses(
    name: str, backbone_name: str, baseline: Baselines
) -> None:
    """Fails when the fit makes no step, or moves no weight of what is served."""
    run = baseline(name, backbone_name)
    assert run.module.trainer.global_step > 0
    assert different(run.before, weights(run.module.served())) or moved(run)
    assert all(
        torch.isfinite(value).all() for value in run.after.values() if value.is_floating_point()
    )


@on_all
def test_the_reference_stays_bit_identical(
    name: str, backbone_name: str, baseline: Baselines
) -> None:
    """Fails when the frozen original is trained, or its statistics of batch norm move because it is
    put into train mode.
    """
    run = baseline(name, backbone_name)
    if run.module.needs_reference:
        assert run.module.reference is not None
        assert different(run.before, weights(run.module.reference)) == []
        assert not any(layer.training for layer in run.module.reference.modules())


@on_all
def test_the_same_seed_gives_the_same_weights(
    name: str, backbone_name: str, baseline: Baselines
) -> None:
    """Fails when a draw comes from a global generator, or when writing checkpoints changes the run
    (this one writes none).
    """
    torch.manual_seed(12345)
    assert (
        different(
            baseline(name, backbone_name).after, weights(baseline(name, backbone_name).case.run())
        )
        == []
    )


@on_all
def test_another_seed_gives_other_weights(
    name: str, backbone_name: str, baseline: Baselines
) -> None:
    """Fails when the seed does not reach the plan or the draws."""
    run = baseline(name, backbone_name)
    changed = different(weights(run.module.served()), weights(run.case.run(seed=1).served()))
    assert bool(changed) == (backbone_name not in setting(name).unseeded)


def test_settings_name_methods_that_exist() -> None:
    """Fails when a renamed method leaves its setting behind, and is tested with defaults that do
    not fit.
    """
    from tests.contract.catalogue import SETTINGS

    assert set(SETTINGS) <= set(METHODS)


@on_all
def test_a_checkpoint_serves_what_was_trained(
    name: str, backbone_name: str, baseline: Baselines
) -> None:
    """Fails when `mu.load` builds another model, or part of the answer is not in the checkpoint."""
    run = baseline(name, backbone_name)
    loaded = mu.load(run.ends[-1])
    assert type(loaded) is METHODS[name]
    task = run.case.task()
    expected = predictions(run.module.served(), task)
    assert torch.equal(predictions(loaded.served(), task), expected)
    assert torch.isfinite(expected).all()


@on_all
def test_a_checkpoint_is_plain_data(name: str, backbone_name: str, baseline: Baselines) -> None:
    """Fails when something in a checkpoint needs a pickle, or the reference is stored."""
    for file in (baseline(name, backbone_name).steps[0], baseline(name, backbone_name).ends[-1]):
        stored = torch.load(file, weights_only=True)
        assert not [key for key in stored["state_dict"] if key.startswith("reference.")]


@on_all
def test_unknown_arguments_are_refused(
    name: str, backbone_name: str, originals: dict[str, State]
) -> None:
    """Fails when `**kwargs` swallows a misspelt hyperparameter."""
    with pytest.raises(TypeError, match="hyperparametre"):
        Case(name, backbone_name, originals[backbone_name]).make(hyperparametre=1)


@on_all_slow
def test_only_the_weights_that_are_allowed_move(
    name: str, backbone_name: str, originals: dict[str, State]
) -> None:
    """Fails when a step goes round the mask: a second optimizer, an edit in place, a proximal
    step.
    """
    assert "mask" in constructor(name)
    case = Case(name, backbone_name, originals[backbone_name])
    word = OWN_WORDS.get(name, WORDS[backbone_name])
    start = AtStart()
    module = case.run(arguments={"mask": ByName([word])}, callbacks=[start])
    # what is trained may be another model
    masked = {id(p) for p in (*module.backbone.parameters(), *(p for _, p in module.trainable()))}
    names = {name for name, p in module.named_parameters() if id(p) in masked}
    changed = [name for name in different(start.state, weights(module)) if name in names]
    assert changed
    assert all(word in name for name in changed)


@on_all_slow
def test_a_method_that_reads_the_forget_part_changes_with_it(
    name: str, backbone_name: str, baseline: Baselines
) -> None:
    """Fails when the forget part is read and has no effect; or has one although the method says
    that it does not need it.
    """
    run = baseline(name, backbone_name)
    task = run.case.task()
    task.setup()
    task.datasets["forget"] = _noise(task.datasets["forget"], conditions=backbone_name in DIFFUSION)
    changed = different(weights(run.module.served()), weights(run.case.run(task=task).served()))
    assert bool(changed) == _reads(run.module.plan, "forget")


@on_all_slow
def test_shuffled_labels_change_what_uses_labels(
    name: str, backbone_name: str, baseline: Baselines
) -> None:
    """Fails when labels are taken from elsewhere than the sample, or a method that says it needs
    none looks at them.
    """
    run = baseline(name, backbone_name)
    task = run.case.task()
    task.setup()
    for part in ("forget", "retain"):
        task.datasets[part] = _shuffle_labels(task.datasets[part])
    changed = different(weights(run.module.served()), weights(run.case.run(task=task).served()))
    # an answer's tokens and a condition are inputs too
    assert bool(changed) == (run.module.needs_labels or backbone_name in (*TEXT, *DIFFUSION))


@on_images_slow
def test_frozen_statistics_stay_frozen(
    name: str, backbone_name: str, originals: dict[str, State]
) -> None:
    """Fails when `norm="eval"` is undone by a hook that sets the mode by itself, or an edit moves
    statistics.
    """
    case = Case(name, backbone_name, originals[backbone_name])
    frozen = {"norm": "eval"} if "norm" in constructor(name) else {}
    start = AtStart()
    seen: list[list[str]] = []

    def look(module: Any, batch: Any, batch_idx: int) -> None:
        seen.append(
            [
                name
                for name in different(start.state, weights(module))
                if "running" in name and name.startswith("backbone.")
            ]
        )

    case.run(arguments=frozen, callbacks=[start, Watch(look)])
    assert seen
    assert not any(seen)


@on_images_slow
def test_dropout_is_seeded(
    name: str, backbone_name: str, tmp_path: Path, originals: dict[str, State]
) -> None:
    """Fails when a hook of the base that seeds each step is overridden without `super()`."""
    case = Case(name, backbone_name, originals[backbone_name])
    case.backbone = _with_dropout  # type: ignore[method-assign]
    runs = []
    for changes in (
        {"callbacks": [Snapshot(tmp_path / "x.ckpt", 0, 0)]},
        {},
        {"ckpt_path": tmp_path / "x.ckpt"},
    ):
        torch.seed()
        runs.append(weights(case.run(**changes)))
    assert different(runs[0], runs[1]) == []
    assert different(runs[0], runs[2]) == []


@on_all
def test_tests_and_exports_use_the_served_model(
    name: str, backbone_name: str, baseline: Baselines
) -> None:
    """Fails when evaluation of a fresh object needs what only a fit has set up."""
    run = baseline(name, backbone_name)
    again = run.case.make()
    again.declared.add("nll")
    task = run.case.task()
    trainer().test(again, task, ckpt_path=str(run.ends[-1]), verbose=False)
    outputs = again.evaluated()
    assert {split: len(values["index"]) for split, values in outputs.items()} == {
        split: len(ids) for split, ids in task.split.parts.items() if len(ids)
    }


@on_all
def test_a_wrong_backbone_is_refused(
    name: str, backbone_name: str, originals: dict[str, State]
) -> None:
    """Fails when a method that is narrowed to one domain trains on another, or ends there in an
    AttributeError.
    """
    admitted = admitted_backbones(name)
    for other in sorted(set(BACKBONES) - set(admitted)):
        case = Case(name, other, originals[other])
        with pytest.raises((InputError, TypeError)):
            case.run()


def _reads(plan: DataPlan, part: str) -> bool:
    return bool({part, "train"} & plan.reads())


def _noise(data: Any, conditions: bool) -> Any:
    """Data with the inputs of other samples, flipped.

    With other conditions too, which are all that a data-free method reads.
    """
    if isinstance(data, TokenRows):
        return _rewrite(data, questions=3, answers=0)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(3))
    fields = {
        name: data.stored(name)[order].flip(-1) for name in ("image", "input") if name in data.names
    }
    if "colour" in data.names:  # of captions
        fields["colour"] = (data.stored("colour") + 1) % 3
    if conditions:
        fields["label"] = (data.stored("label") + 2) % (3 if "colour" in data.names else 10)
    return data.replace(**fields)


def _rewrite(data: TokenRows, questions: int, answers: int) -> TokenRows:
    """Each sample with the question and the answer of samples so many positions further on."""
    pairs = [data.pair(position) for position in range(len(data))]
    starts = [sum(label == -100 for label in labels) for _, labels in pairs]

    def make(position: int) -> Pair:
        question, answer = ((position + offset) % len(data) for offset in (questions, answers))
        before = pairs[question][0][: starts[question]]
        after = pairs[answer][0][starts[answer] :]
        return before + after, [-100] * len(before) + after

    texts = dict(data.texts)
    for name, offset in (("question", questions), ("answer", answers)):
        texts[name] = data.texts[name][offset:] + data.texts[name][:offset]
    return TokenRows(make, data.indices, texts)


def _shuffle_labels(data: Any) -> Any:
    """Data with labels, targets and colours in another order."""
    if isinstance(data, TokenRows):
        return _rewrite(data, questions=0, answers=3)
    generator = torch.Generator().manual_seed(4)
    fields = {}
    # a set's order differs from process to process
    for name in [name for name in ("colour", "label", "target") if name in data.names]:
        order = torch.randperm(len(data), generator=generator)
        fields[name] = data.stored(name)[order]
    return data.replace(**fields)


def _with_dropout() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(72, 16),
            nn.ReLU(),
            nn.Linear(16, 10),
        )
    return Classifier(network=network)
