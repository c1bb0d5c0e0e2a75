"""ULD: its equation, the assistant, the served difference, variants of answers, shared checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import mu
from mu.backbones import CausalLM, LoRA
from mu.backbones.export import export
from mu.methods.components.question_variants import Variants
from mu.methods.language.uld import ULD
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, folder, people
from tests.support.equations_text import by_token, nll, token_mean, unpadded
from tests.support.helpers import different, fit, weights
from tests.support.token_methods import (
    ADAM,
    NO_DROPOUT,
    check_accumulated_batches,
    check_forgets_first,
    first_pair,
    terms_of,
    trained_model,
    trained_state,
)


def test_uld_follows_its_equation() -> None:
    """Mutations: the terms are swapped; the retain and the wrong answers are averaged apart; the
    original is trained.
    """
    task = people()
    module = ULD(trained_model(), uniform_weight=2.0, lora=NO_DROPOUT, optimizer=ADAM)
    forget, retain = first_pair(task)
    task._encoder = None
    rows = task.sets["forget"]
    data: Any = task.datasets["forget"]
    module.paraphrase_variants = Variants.paraphrased(rows, task.encoder, data)
    module.wrong_variants = Variants.perturbed(rows, task.encoder)
    assert module.paraphrase_variants is not None and module.wrong_variants is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, p in module.trainable():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.5)
    assistant = module.assistant.eval()
    remembered = module.paraphrase_variants.draw(forget, 0)
    unknown = module.wrong_variants.draw(forget, 0)
    uniform = lambda z, *_: (1 / 57 * (-torch.log(torch.tensor(57.0)) - z.log_softmax(-1))).sum()  # noqa: E731
    together = by_token(assistant, retain, uniform) + by_token(assistant, unknown, uniform)
    expected = {
        "remember": token_mean(by_token(assistant, remembered, nll)),
        "uniform": 2 * token_mean(together),
    }
    assert terms_of(module, forget, retain) == pytest.approx(expected, rel=1e-4)


def test_uld_leaves_the_original_alone_and_serves_the_difference(tmp_path: Path) -> None:
    """Fails when the original moves, the served model is not loaded, or the checkpoint holds the
    shared weights twice.
    """
    module = ULD(trained_model(), lora=NO_DROPOUT, optimizer=ADAM, weight=-0.5, top=0.1)
    fit(module, people(), 2, callbacks=[ModelCheckpoint(tmp_path, save_last=True, save_top_k=0)])
    assert not different(weights(module.backbone), trained_state())
    loaded = mu.load(tmp_path / "last.ckpt").served()
    forget, _ = first_pair(people())
    with torch.no_grad():
        base = trained_model().eval().predict(forget)
        assistant = module.assistant.eval().predict(forget)
        assert (module.served().eval().predict(forget) - base).abs().max() > 1e-3
        torch.testing.assert_close(
            loaded.predict(forget),
            mu.functional.combined_logits.logit_difference(base, assistant, -0.5, 0.1),
        )
    with pytest.raises(InputError, match="two models at once"):
        export(loaded, tmp_path / "exported")
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    sizes = {value.untyped_storage().data_ptr(): value.numel() for value in stored.values()}
    assert sum(sizes.values()) == sum(p.numel() for p in module.backbone.parameters()) + sum(
        p.numel() for _, p in module.trainable()
    )


def test_variants_are_drawn_for_each_visit() -> None:
    """Fails when one variant is shown for ever, a draw depends on the batch, or a variant's tokens
    are counted as the original's.
    """
    task = people()
    task.setup()
    rows = task.sets["forget"]
    data: Any = task.datasets["forget"]
    paraphrases = Variants.paraphrased(rows, task.encoder, data)
    wrong = Variants.perturbed(rows, task.encoder)
    assert paraphrases is not None and wrong is not None
    part = data.__getitems__(list(range(13)))
    drawn_ids = []
    for visit in range(20):
        batch = paraphrases.draw({**part, "visit": torch.full((13,), visit)}, 0)
        alone = paraphrases.draw({"index": part["index"][4:5], "visit": torch.tensor([visit])}, 0)
        drawn_ids.append([tuple(ids) for ids, _ in unpadded(batch)])
        assert [tuple(ids) for ids, _ in unpadded(alone)] == drawn_ids[-1][4:5]
    assert {len({row[k] for row in drawn_ids}) for k in range(13)} == {3}
    texts = {task.encoder.decode([t for t in ids]) for row in drawn_ids for ids in row}
    assert any("it is" in text for text in texts) and any("makes what" in text for text in texts)
    untrue = wrong.draw({**part, "visit": torch.zeros(13, dtype=torch.int64)}, 0)
    assert not {tuple(ids) for ids, _ in unpadded(untrue)} & {
        tuple(ids) for ids, _ in unpadded(part)
    }
    assert torch.equal(untrue["index"], part["index"])


def test_uld_runs_on_a_task_without_variants() -> None:
    """Fails when a task without paraphrases or wrong answers is refused."""
    task = people()
    task.setup()
    for row in (row for questions in task.sets.values() for row in questions.rows):
        for name in ("paraphrased_question", "paraphrased_answer", "perturbed_answer"):
            row.pop(name, None)  # type: ignore[attr-defined]
    module = fit(ULD(trained_model(), lora=NO_DROPOUT), task, 1)
    assert module.paraphrase_variants is None and module.wrong_variants is None  # type: ignore[attr-defined]
    other = fit(
        ULD(trained_model(), paraphrases=False, perturbed=False, lora=NO_DROPOUT), people(), 1
    )
    assert not different(weights(module), weights(other))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="weight below 0"):
        ULD(trained_model(), weight=0.5)
    with pytest.raises(InputError, match="without adapters"):
        ULD(causal_lm(lora=LoRA(r=2)))
    with pytest.raises(InputError, match="9 layers"):
        ULD(trained_model(), layers=9)
    assert ULD(CausalLM(model=folder("llama", 9))).assistant.layers == 2  # a quarter


def without_dropout(backbone: CausalLM, **changes: Any) -> ULD:
    """ULD whose adapters drop nothing out."""
    return ULD(backbone, lora=NO_DROPOUT, **changes)


def test_one_big_batch_or_several_small_ones() -> None:
    check_accumulated_batches(without_dropout)


def test_the_forget_set_is_lost_first() -> None:
    check_forgets_first(without_dropout, 0.01, 40, layers=2, uniform_weight=0.5)
