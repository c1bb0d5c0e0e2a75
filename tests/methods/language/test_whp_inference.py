"""WHP at inference: the two served models, and the checks of methods on tokens."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.callbacks import ModelCheckpoint

import mu
from mu.methods.language.whp_inference import WHPInference
from tests.support.doubles_text import people
from tests.support.helpers import different, fit, weights
from tests.support.token_methods import (
    ADAM,
    check_accumulated_batches,
    check_forgets_first,
    trained_model,
    trained_state,
)


def test_the_inference_form_serves_both_models(tmp_path: Path) -> None:
    """Fails when the original is not in the checkpoint."""
    module = WHPInference(trained_model(), alpha=3.0, optimizer=ADAM)
    fit(module, people(), 2, callbacks=[ModelCheckpoint(tmp_path, save_last=True, save_top_k=0)])
    loaded = mu.load(tmp_path / "last.ckpt").served()
    assert type(loaded).__name__ == "GenericLogits" and loaded.alpha == 3.0  # type: ignore[union-attr]
    assert not different(weights(loaded.base), trained_state())  # type: ignore[arg-type]
    assert different(weights(loaded.other), trained_state())  # type: ignore[arg-type]
    assert loaded.generate([[1, 5]], max_new_tokens=3) == module.served().eval().generate(
        [[1, 5]], max_new_tokens=3
    )  # type: ignore[operator]


def test_one_big_batch_or_several_small_ones() -> None:
    check_accumulated_batches(WHPInference)


def test_the_forget_set_is_lost_first() -> None:
    check_forgets_first(WHPInference, 2e-3, 8)
