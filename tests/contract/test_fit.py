"""What the base promises to every method: the whole plan is shown, faults stop the run with one
sentence, evaluation changes nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from mu.backbones import Backbone, Classifier
from mu.core.batch_norm import recalibrate
from mu.core.edit import Edit
from mu.core.fit_loop import planned_steps
from mu.core.lr import OneCycle
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.datamodule import UnlearningDataModule
from mu.data.plan import DataPlan, Everything, Forget, Paired, Phases, Retain, Union, plan_steps
from mu.data.split import Split
from mu.methods import SSD, FineTune, RandomLabel, Retrain, Train
from mu.methods.components.answers import AnswerOfAnotherQuestion
from mu.methods.components.substitutes import GivenByTask, UniformLabel
from mu.utils.errors import InputError, RunError
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import (
    State,
    Watch,
    classifier,
    diabetes,
    different,
    digits,
    distance,
    fit,
    regressor,
    trainer,
    weights,
)


class Sees(UnlearningModule):
    """Fits whatever the schedule shows."""

    def __init__(self, backbone: Backbone, plan: DataPlan, lr: float = 0.01, **kwargs: Any) -> None:
        super().__init__(
            backbone, optimizer=lambda params: torch.optim.SGD(params, lr=lr), **kwargs
        )
        self.plan = plan

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        parts = {"forget": forget, "retain": retain}
        return {
            name: self.reduce(self.backbone.loss(part), part)
            for name, part in parts.items()
            if part is not None
        }


class Breaks(FineTune):
    """Its loss is not a number from step 6 on."""

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        terms = super().objective(forget, retain)
        return (
            {"retain": terms["retain"] * float("nan")} if self.trainer.global_step >= 6 else terms
        )


class NeedsReferenceByProperty(FineTune):
    """Whether a reference is needed is known after `__init__` only."""

    def __init__(self, backbone: Backbone, anchored: bool = True, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.anchored = anchored

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        return self.anchored


class Bare(UnlearningDataModule):
    """A task with whatever parts and entries a test wants."""

    def __init__(
        self,
        like: Any,
        provides: frozenset[str] = frozenset({"labels"}),
        keep: tuple[str, ...] = ("forget", "retain"),
        extra: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.like = like
        self.provides = provides
        self.keep = keep
        self.extra = extra

    def make(self) -> None:
        self.like.setup()
        self.split = Split(
            "bare",
            {name: self.like.split.parts[name] for name in ("forget", "retain")},
            {"of": "bare"},
            0,
        )
        self.datasets = {name: self.like.datasets[name] for name in self.keep}
        if self.extra:
            self.datasets["forget"] = WithAnswer(self.datasets["forget"])


class WithAnswer(torch.utils.data.Dataset):
    """Adds a `substitute` to every sample."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.indices = data.indices

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return self.data[position] | {"substitute": torch.tensor(3)}


# ---- the plan is shown whole ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [
        Retain(),
        Paired(),
        Union(),
        Phases(Forget(epochs=1), Retain()),
        Phases(Forget(after=1), Retain()),
        Phases(Retain(epochs=1), Forget()),
    ],
    ids=repr,
)
def test_every_batch_of_the_plan_is_shown(plan: DataPlan) -> None:
    """Fails when Lightning's first measure of the loader cuts longer epochs short."""
    seen: list[tuple[int, list[int]]] = []

    def look(module: UnlearningModule, batch: Any, batch_idx: int) -> None:
        seen.append(
            (
                module.current_epoch,
                sorted(
                    int(i)
                    for part in ("forget", "retain")
                    if part in batch
                    for i in batch[part]["index"]
                ),
            )
        )

    task = digits()
    fit(Sees(classifier(), plan), task, 3, callbacks=[Watch(look)])
    sizes = {name: len(ids) for name, ids in task.split.parts.items()}
    parts = task.parts(plan.reads())
    expected = [
        (
            epoch,
            sorted(
                int(i)
                for name, rows in step.parts.items()
                for i in np.asarray(parts[name].indices)[rows.positions]
            ),
        )  # type: ignore[attr-defined]
        for epoch in range(3)
        for step in plan_steps(plan, epoch, sizes, {"forget": 10, "retain": 10}, 0)
    ]
    assert seen == expected


def test_validation_runs_in_epochs_of_every_length() -> None:
    """Fails when an epoch that is shorter than the first one ends before its validation."""
    counts: list[int] = []

    class Counts(Sees):
        def on_validation_epoch_end(self) -> None:
            super().on_validation_epoch_end()
            counts.append(self.current_epoch)

    for plan in (Phases(Forget(epochs=1), Retain()), Phases(Forget(after=1), Retain())):
        counts.clear()
        fit(Counts(classifier(), plan), digits(curves=["forget"]), 3, limit_val_batches=1.0)
        assert counts == [0, 1, 2]


def test_the_length_of_a_run_is_that_of_its_plan() -> None:
    """Fails when a learning-rate schedule ends before the run or after it, because epochs differ in
    length.
    """
    for changes in (
        {},
        {"limit_train_batches": 3},
        {"accumulate_grad_batches": 2},
        {"max_steps": 5},
    ):
        module = Sees(
            classifier(), Phases(Forget(epochs=1), Retain()), scheduler=OneCycle(end=0.25)
        )
        fit(module, digits(), 3, **changes)
        assert planned_steps(module) == module.trainer.global_step
        assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.25)


def test_a_schedule_that_shows_nothing_is_an_error() -> None:
    """Fails when a run without a batch ends as if it had unlearned something."""
    with pytest.raises(RunError, match="no batch"):
        fit(Sees(classifier(), Forget(after=5)), epochs=2)


def test_plain_loaders_can_be_fitted_too() -> None:
    """Fails when a method works with a mu task only."""
    task = digits()
    task.setup()
    data: Any = task.datasets["retain"]
    batches = [{"retain": data.__getitems__(list(range(k, k + 10)))} for k in (0, 10, 20)]
    module = FineTune(classifier())
    before = weights(module)
    trainer(2).fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    assert module.trainer.global_step == 6
    assert different(before, weights(module))


def test_one_big_batch_or_several_small_ones() -> None:
    """Fails when accumulated gradients are averaged over micro-batches and not over samples (the
    last batch is smaller).
    """

    def run(batch: int, accumulate: int, make: Any) -> State:
        module = fit(make(), digits(batch_size=batch), epochs=2, accumulate_grad_batches=accumulate)
        return weights(module.backbone)

    for plan in (Retain(), Forget(), Union()):
        make = lambda: Sees(classifier(), plan, lr=0.05, norm="eval")  # noqa: B023, E731
        assert distance(run(20, 1, make), run(10, 2, make)) < 1e-5, plan
        assert distance(run(15, 1, make), run(5, 3, make)) < 1e-5, plan


def test_one_big_batch_of_drawn_answers_or_several_small_ones() -> None:
    """Fails when the answers that were drawn are averaged over the tokens of the true ones, or over
    one micro-batch.
    """

    def run(batch: int, accumulate: int) -> State:
        module = RandomLabel(
            causal_lm(),
            substitute=AnswerOfAnotherQuestion(),
            plan=Forget(),
            optimizer=lambda p: torch.optim.SGD(p, lr=0.5),
        )
        return weights(
            fit(
                module, people(batch_size=batch), epochs=2, accumulate_grad_batches=accumulate
            ).backbone
        )

    assert distance(run(12, 1), run(4, 3)) < 1e-5


def test_drawn_answers_weigh_what_they_have_of_tokens() -> None:
    """Fails when the total of a part's substitutes is that of its true answers; every step shows
    the law's own draws.
    """
    seen: list[tuple[float, float]] = []

    def see(module: UnlearningModule, batch: Any, number: int) -> None:
        part = module.prepare(batch["forget"], substitute=True)
        seen.append(
            (float(part["substitute_total"]), float((part["substitute"]["labels"] != -100).sum()))
        )

    module = RandomLabel(
        causal_lm(),
        substitute=AnswerOfAnotherQuestion(),
        plan=Forget(),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
    )
    fit(module, people(), epochs=1, callbacks=[Watch(see)])
    assert len(seen) == 3 and all(total == counted for total, counted in seen)


# ---- reduction -----------------------------------------------------------------------------------


def test_reductions_are_what_they_are_called() -> None:
    """Fails when two reductions are mixed up; by hand on two samples of 1 and 3 tokens."""
    part = {"count": torch.tensor(2.0), "total": torch.tensor(4.0)}
    summed = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 3.0])
    expected = {
        "token_mean": 5 / 4,
        "sequence_mean": (2 + 1) / 2,
        "sequence_sum": 5 / 2,
        "micro": 5 / 4,
    }
    for how, value in expected.items():
        assert FineTune(classifier(), reduction=how).reduce(summed, part).item() == pytest.approx(
            value
        )
    padded = {**part, "padded": torch.tensor([False, True])}
    values, weight = Backbone.count(padded, torch.tensor([2.0, 3.0]), torch.tensor([1.0, 3.0]))
    assert (values.tolist(), weight.tolist()) == ([2, 0], [1, 0])
    assert FineTune(classifier()).mean(torch.tensor([4.0, 9.0]), padded).item() == pytest.approx(
        4 / 2
    )


# ---- faults stop the run -------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["train", "eval"])
def test_a_fit_that_moves_no_weight_is_an_error(norm: Any) -> None:
    """Fails when moving statistics of batch norm pass for moving weights."""
    with pytest.raises(RunError, match="moved no weight"):
        fit(
            FineTune(
                classifier(), optimizer=lambda params: torch.optim.SGD(params, lr=0.0), norm=norm
            )
        )


def test_an_edit_that_edits_nothing_is_an_error() -> None:
    """Fails when a threshold that selects no weight ends as a success."""
    with pytest.raises(RunError, match="moved no weight"):
        fit(SSD(classifier(), alpha=1e9), epochs=1)


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    """Fails when the run goes on, does not name the step, or writes its broken weights over the
    last good ones.
    """
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_last=True)
    with pytest.raises(RunError, match="nan at step 6"):
        fit(Breaks(classifier()), epochs=3, callbacks=[saver])
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 6
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """Fails when the step after a finite loss overflows and its weights are written as the last
    checkpoint.
    """

    def overflow(module: UnlearningModule, batch: Any, batch_idx: int) -> None:
        if module.trainer.global_step == 3:
            with torch.no_grad():
                module.trainable()[0][1].mul_(float("inf"))

    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_last=True)
    with pytest.raises(RunError, match="not finite"):
        fit(FineTune(classifier()), callbacks=[Watch(overflow), saver])
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize(
    ("make", "task", "word"),
    [
        (lambda: FineTune(classifier()), lambda: Bare(digits(), provides=frozenset()), "labels"),
        (lambda: FineTune(classifier()), lambda: Bare(digits(), keep=("forget",)), "retain"),
        (lambda: Sees(classifier(), Forget()), lambda: Bare(digits(), keep=("retain",)), "forget"),
        (lambda: RandomLabel(regressor()), diabetes, "classes"),
        (lambda: RandomLabel(classifier(), substitute=GivenByTask()), digits, "substitute"),
    ],
    ids=["labels", "retain", "forget", "classes", "substitute"],
)
def test_what_the_task_does_not_give_is_named_before_the_first_step(
    make: Any, task: Any, word: str
) -> None:
    """Fails when a missing need shows as a KeyError in the middle of an epoch."""
    module = make()
    with pytest.raises(InputError, match=word):
        fit(module, task())
    assert module.trainer.global_step == 0


def test_what_is_no_backbone_is_refused() -> None:
    """Fails when a bare network is wrapped, and its first batch ends in an AttributeError."""
    with pytest.raises(InputError, match="Classifier"):
        FineTune(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_an_unknown_argument_is_refused() -> None:
    """Fails when a misspelt hyperparameter is swallowed."""
    with pytest.raises(TypeError, match="learning_rate"):
        FineTune(classifier(), learning_rate=0.1)


def test_a_method_without_an_objective_says_so() -> None:
    """Fails when a half-written method trains on nothing."""
    with pytest.raises(TypeError, match="objective"):
        fit(UnlearningModule(classifier()))


@pytest.mark.parametrize("when", ["validation", "epoch"])
def test_statistics_are_taken_anew_also_where_a_run_stops_early(
    when: str, originals: dict[str, State]
) -> None:
    """Fails when a run that stops early keeps the statistics of its training batches, or says
    nothing where it is too late.
    """
    stop = EarlyStopping(
        "retain/loss", patience=0, min_delta=1e9, check_on_train_epoch_end=when == "epoch"
    )
    module = FineTune(classifier(originals["classifier"]), norm="recalibrate")
    run = lambda: fit(module, digits(curves=["retain"]), 9, limit_val_batches=1.0, callbacks=[stop])  # noqa: E731
    if when == "epoch":
        with pytest.raises(RunError, match="check_on_train_epoch_end"):
            run()
        return
    run()
    assert module.current_epoch < 9
    final_weights = weights(module.backbone)
    recalibrate(module)
    assert distance(final_weights, weights(module.backbone)) < 1e-5


# ---- substitutes ---------------------------------------------------------------------------------


def test_substitutes_that_the_task_gives_are_read_where_they_are_needed() -> None:
    """Fails when the retain part must have substitutes too, or evaluation asks for them."""
    module = fit(
        RandomLabel(classifier(), substitute=GivenByTask()),
        Bare(digits(), extra=True, batch_size=10, curves=["retain"]),
        limit_val_batches=1.0,
    )
    assert module.trainer.global_step == 14


def test_a_method_with_substitutes_is_tested_without_a_fit() -> None:
    """Fails when evaluation draws substitutes by a law that only a fit sets up."""
    task = digits(curves=["forget"])
    for law in (UniformLabel(), GivenByTask()):
        module = RandomLabel(classifier(), substitute=law)
        module.declared.add("logits")
        trainer().validate(module, task, verbose=False)
        trainer(limit_val_batches=1.0).validate(module, task, verbose=False)
        trainer().test(module, task, verbose=False)
        assert module.evaluated()["test"]["logits"].shape[1] == 10


# ---- test and predict ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 500])
def test_evaluation_gives_every_sample_once(size: int) -> None:
    """Fails when a sample is missing, doubled, or evaluated in train mode or with augmentation."""
    import tasks

    task = digits(eval_batch_size=size, augmentation=tasks.HorizontalFlip())
    module = FineTune(classifier())
    module.train()
    module.declared.update({"logits", "label"})
    trainer().test(module, task, verbose=False)
    outputs = module.evaluated()
    assert {name: values["index"].tolist() for name, values in outputs.items()} == {
        name: ids.tolist() for name, ids in task.split.parts.items() if len(ids)
    }
    data: Any = task.datasets["retain"]
    with torch.no_grad():
        expected = classifier().eval().predict(data.__getitems__(list(range(len(data)))))
    assert torch.allclose(outputs["retain"]["logits"], expected, atol=1e-5)
    predicted: Any = trainer().predict(module, task)
    batches = [batch for loader in predicted for batch in loader]
    for split, values in outputs.items():
        assert (
            torch.cat([batch["index"] for batch in batches if batch["split"] == split]).tolist()
            == values["index"].tolist()
        )


def test_a_test_leaves_the_weights_alone() -> None:
    """Fails when evaluation moves statistics of batch norm."""
    module = FineTune(classifier())
    before = weights(module)
    trainer().test(module, digits(), verbose=False)
    assert different(before, weights(module)) == []


def test_an_unknown_output_is_refused() -> None:
    """Fails when a suite waits in vain for what the backbone does not compute."""
    module = FineTune(classifier())
    module.declared.add("hidden")
    with pytest.raises(InputError, match="hidden"):
        trainer().test(module, digits(), verbose=False)


# ---- original and oracle -------------------------------------------------------------------------


def test_new_weights_come_from_the_seed_of_the_run() -> None:
    """Fails when `init_seed` of the backbone decides an oracle's weights: all oracles would be
    one.
    """
    backbone = classifier(init_seed=0)
    first, again, two = (weights(backbone.fresh(seed)) for seed in (1, 1, 2))
    assert different(first, again) == []
    assert different(first, two)
    assert different(first, weights(backbone))
    assert (
        backbone.fresh(1).network.normalize.mean.tolist()
        == backbone.network.normalize.mean.tolist()
    )  # type: ignore[union-attr]


def test_the_oracle_keeps_the_normalisation_that_came_with_the_weights(tmp_path: Path) -> None:
    """Fails when retraining sees other pixels than the original did."""
    from safetensors.torch import save_file

    source = classifier()
    body: Any = source.network.body  # type: ignore[union-attr]
    save_file(
        body.state_dict(), tmp_path / "m.safetensors", metadata={"mean": "[0.3]", "std": "[0.4]"}
    )
    loaded = classifier(weights=str(tmp_path / "m.safetensors"), mean=None, std=None)
    network: Any = loaded.fresh(3).network
    assert network.normalize.mean.tolist() == pytest.approx([0.3])


def test_original_and_oracle_have_one_recipe() -> None:
    """Fails when seeds, weights or the forget set enter the recipe, or an option that matters does
    not.
    """

    def recipe(make: Any, **changes: Any) -> str:
        return fit(make(classifier(init_seed=3)), digits(**changes), epochs=1).recipe_hash()

    original_recipe = recipe(Train)
    assert (
        original_recipe
        == recipe(lambda b: Train(b, seed=9))
        == recipe(Retrain)
        == recipe(Train, split_seed=3)
    )
    assert original_recipe != recipe(Train, batch_size=20)
    assert original_recipe != recipe(
        lambda b: Train(b, optimizer=lambda params: torch.optim.SGD(params, lr=0.02))
    )
    assert original_recipe != recipe(lambda b: Train(b, norm="eval"))


def test_the_original_does_not_depend_on_what_will_be_forgotten() -> None:
    """Fails when the order of training shows the forget set."""
    import tasks

    models = [
        fit(
            Train(classifier()),
            tasks.Digits(selector, train_size=61, validation_size=11, batch_size=10),
            1,
        )
        for selector in (tasks.RandomFraction(0.4), tasks.ByClass(3))
    ]
    assert different(weights(models[0]), weights(models[1])) == []


# ---- edits ---------------------------------------------------------------------------------------


class Shift(Edit):
    """Adds the number of samples seen to every weight."""

    plan = Phases(Forget(), Retain())

    def __init__(self, backbone: Backbone, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.seen = 0
        self.modes: set[bool] = set()

    def observe(self, forget: Batch | None, retain: Batch | None) -> None:
        self.seen += sum(len(part["index"]) for part in (forget, retain) if part is not None)
        self.modes.add(any(module.training for module in self.backbone.modules()))

    def edited(self) -> dict[str, Tensor]:
        return {name: p + self.seen for name, p in self.trainable()}


@pytest.mark.parametrize(
    "changes", [{"epochs": 1}, {"epochs": 4}, {"epochs": 3, "min_epochs": 3}], ids=str
)
def test_an_edit_is_one_pass_and_one_step(changes: dict[str, Any]) -> None:
    """Fails when `max_epochs` or `min_epochs` makes it edit again, or a sample is seen twice."""
    backbone = classifier()
    before = weights(backbone)
    module = Shift(backbone)
    fit(module, **changes)
    assert module.trainer.global_step == 1
    assert module.modes == {False}
    for name, p in module.trainable():
        assert torch.equal(p.detach(), before[name] + 61)


def test_a_finished_edit_is_not_made_again(tmp_path: Path) -> None:
    """Fails when resuming a finished edit edits a second time."""
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    first = fit(Shift(classifier()), epochs=3, callbacks=[saver])
    (file,) = tmp_path.glob("*.ckpt")
    assert (
        different(weights(first), weights(fit(Shift(classifier()), epochs=3, ckpt_path=file))) == []
    )


def test_an_edit_assigns_exactly_in_half_precision() -> None:
    """Fails when the edit is a gradient step, which rounds."""
    from mu.core.edit import Assign

    weight = torch.nn.Parameter(torch.randn(100, dtype=torch.bfloat16))
    edited = torch.randn(100, dtype=torch.bfloat16)
    optimizer = Assign([weight])
    optimizer.edited = [edited]
    optimizer.step()
    assert torch.equal(weight.detach(), edited)


def test_only_classifiers_are_named_in_messages_of_shape() -> None:
    """Fails when images of other channels end in an error of the convolution."""
    with pytest.raises(InputError, match="in_channels"):
        fit(FineTune(Classifier("resnet8_cifar", in_channels=3, options={"width": 4})))


def test_errors_are_one_sentence() -> None:
    """Fails when a message runs over lines, which a terminal would tear apart."""
    with pytest.raises(RunError) as caught:
        fit(FineTune(classifier(), optimizer=lambda params: torch.optim.SGD(params, lr=0.0)))
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))


def test_everything_is_a_schedule_of_its_own() -> None:
    """Fails when training the original needs the forget part beside the joined one."""
    assert Everything().reads() == {"train"}
