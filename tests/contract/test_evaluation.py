"""Contract of test and predict: each sample once, weights unchanged, substitutes from the task."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mu.methods import FineTune, RandomLabel
from mu.methods.components.substitutes import GivenByTask, UniformLabel
from mu.utils.errors import InputError
from tests.contract.doubles import Bare
from tests.support.helpers import (
    classifier,
    different,
    digits,
    fit,
    trainer,
    weights,
)


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
