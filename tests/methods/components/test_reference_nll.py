"""Log-likelihoods under the original: computed once before the first step, kept in checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import mu
from mu.backbones import CausalLM
from mu.core.module import UnlearningModule
from mu.methods.components.answers import AnswerOfAnotherQuestion
from mu.methods.components.reference_nll import ReferenceNLL, sequences
from mu.methods.language.dpo import DPO, IdkDPO
from mu.methods.language.npo import NPO
from mu.utils.errors import InputError, RunError
from tests.support.doubles_text import causal_lm, people
from tests.support.equations_text import sequence_nlls
from tests.support.helpers import Snapshot, different, fit, trainer, weights
from tests.support.preference_methods import Forwards, build, fast_sgd

TO_REFERENCE = [NPO, IdkDPO]


def table(module: UnlearningModule) -> ReferenceNLL:
    assert isinstance(module.reference_nll, ReferenceNLL)
    return module.reference_nll


def test_the_table_holds_the_originals_values_whatever_the_weights_became() -> None:
    module = fit(build(IdkDPO), people(), 2)
    task = people()
    task.setup()
    part = task.datasets["forget"].__getitems__(list(range(13)))  # type: ignore[attr-defined]
    assert table(module).value(part).tolist() == pytest.approx(
        sequence_nlls(causal_lm(), part), rel=1e-5
    )
    assert isinstance(module.backbone, CausalLM)
    assert sequence_nlls(module.backbone, part) != pytest.approx(
        sequence_nlls(causal_lm(), part), rel=1e-3
    )


def test_every_answer_of_all_epochs_is_in_the_table_once() -> None:
    """Refusals are drawn anew in each epoch; a law that draws once, and NPO, need no more for a
    longer run.
    """
    for cls, changes, epochs, most in (
        (IdkDPO, {}, 5, 13 * 6),
        (DPO, {"substitute": AnswerOfAnotherQuestion(redraw=False)}, 5, 26),
        (NPO, {}, 5, 13),
    ):
        module = fit(build(cls, **changes), people(), epochs)
        keys = table(module).keys
        assert torch.equal(keys, keys.unique()) and 13 <= len(keys) <= most
        assert len(keys) > 39 or cls is not IdkDPO
        assert set(sequences(module, module.needs_substitute)) == set(keys.tolist())


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"max_steps": 1}, 5),
        ({"limit_train_batches": 2}, 10),
        ({"limit_train_batches": 0.34}, 5),
        ({"max_steps": 2, "epochs": -1}, 13),
        ({}, 13),
    ],
)
def test_only_sequences_of_the_run_are_computed(changes: dict[str, Any], rows: int) -> None:
    """A corpus of which 80 steps are taken is not gone through as a whole. (By whole epochs where
    steps are counted.)
    """
    epochs = changes.pop("epochs", 1)
    module = fit(build(NPO), people(), epochs, **changes)
    assert len(table(module)) == (13 if "max_steps" in changes else rows)


def test_run_without_an_end_is_refused() -> None:
    """NPO asks about every answer; DPO could not know which refusals it will draw."""
    module = fit(build(NPO), people(), -1, max_time={"seconds": 1})
    assert len(table(module)) == 13
    with pytest.raises(InputError, match="needs an end"):
        fit(build(IdkDPO), people(), -1, max_time={"seconds": 1})


@pytest.mark.parametrize("cls", TO_REFERENCE)
def test_a_resumed_run_computes_no_likelihoods_and_ends_the_same(cls: Any, tmp_path: Path) -> None:
    uninterrupted = fit(build(cls), people(), 2, callbacks=[Snapshot(tmp_path / "x.ckpt", 0, 1)])
    count = Forwards()
    resumed = fit(build(cls), people(), 2, ckpt_path=tmp_path / "x.ckpt", callbacks=[count])
    assert count.before == 0 and count.steps == [1] * 4
    assert different(weights(uninterrupted), weights(resumed)) == []


def test_a_longer_run_is_resumed_without_new_sequences(tmp_path: Path) -> None:
    fit(build(NPO), people(), 1, callbacks=[Snapshot(tmp_path / "npo.ckpt", 0, 1)])
    assert fit(build(NPO), people(), 3, ckpt_path=tmp_path / "npo.ckpt").trainer.global_step == 9
    fit(build(IdkDPO), people(), 1, callbacks=[Snapshot(tmp_path / "dpo.ckpt", 0, 1)])
    with pytest.raises(InputError, match=r"lacks the original.s log-likelihoods"):
        fit(build(IdkDPO), people(), 3, ckpt_path=tmp_path / "dpo.ckpt")


def test_another_precision_or_another_original_is_refused(tmp_path: Path) -> None:
    fit(build(NPO), people(), 2, callbacks=[Snapshot(tmp_path / "x.ckpt", 0, 1)])
    with pytest.raises(InputError, match="another precision"):
        fit(build(NPO), people(), 2, ckpt_path=tmp_path / "x.ckpt", precision="bf16-true")
    with pytest.raises(InputError, match="original weights"):
        fit(
            NPO(causal_lm(init_seed=5), optimizer=fast_sgd),
            people(),
            2,
            ckpt_path=tmp_path / "x.ckpt",
        )


def test_sequence_outside_the_table_is_refused() -> None:
    module = fit(build(NPO), people(), 1)
    with pytest.raises(RunError, match="1 sequences of a batch have no log-likelihood"):
        table(module).value({"key": torch.tensor([int(table(module).keys[3]), 12345])})
    with pytest.raises(RunError, match="were not computed"):
        ReferenceNLL().value({"key": torch.tensor([3])})


def test_the_table_keeps_its_precision(tmp_path: Path) -> None:
    """Fails when `bf16-true`, which turns a module over after its checkpoint was loaded, rounds
    sums of many tokens to two digits.
    """
    uninterrupted = fit(
        build(NPO),
        people(),
        2,
        precision="bf16-true",
        callbacks=[Snapshot(tmp_path / "x.ckpt", 0, 1)],
    )
    values = table(uninterrupted).values
    assert uninterrupted.backbone.dtype == torch.bfloat16 and values.dtype == torch.float32
    assert not torch.equal(values, values.bfloat16().float())
    resumed = fit(build(NPO), people(), 2, precision="bf16-true", ckpt_path=tmp_path / "x.ckpt")
    assert different(weights(uninterrupted), weights(resumed)) == []


@pytest.mark.parametrize("cls", TO_REFERENCE)
def test_a_checkpoint_of_a_table_is_loaded_into_an_empty_one(cls: Any, tmp_path: Path) -> None:
    module = fit(
        build(cls), people(), 1, callbacks=[ModelCheckpoint(tmp_path, save_last=True, save_top_k=0)]
    )
    loaded: Any = mu.load(tmp_path / "last.ckpt")
    assert torch.equal(loaded.reference_nll.keys, table(module).keys) and torch.equal(
        loaded.reference_nll.values, table(module).values
    )


def test_likelihood_table_needs_a_task() -> None:
    task = people()
    task.setup()
    with pytest.raises(InputError, match="fit it with a mu task"):
        trainer(1).fit(build(NPO), train_dataloaders=task.plan_loader(build(NPO).plan, 0))
