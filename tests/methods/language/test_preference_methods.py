"""Preference methods of language models: their terms stated again one sequence at a time, and the
original's likelihoods, computed once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

import mu
from mu.backbones import CausalLM
from mu.core.module import UnlearningModule
from mu.data.batch import Batch, concatenate
from mu.methods.bases.joint import predictions
from mu.methods.components.answers import AnswerOfAnotherQuestion, AnswersFromFile, Refusal
from mu.methods.components.masks import Saliency
from mu.methods.components.reference_nll import ReferenceNLL, sequences
from mu.methods.components.retain_terms import KL, NLL
from mu.methods.general.grad_diff import GradDiff
from mu.methods.general.kl_min import KLMin
from mu.methods.language.alt_po import AltPO
from mu.methods.language.dpo import DPO, IdkDPO
from mu.methods.language.idk_nll import IdkNLL, IdkNLLSeparate
from mu.methods.language.npo import NPO
from mu.methods.language.simnpo import SimNPO
from mu.utils.errors import InputError, RunError
from mu.utils.files import write_text
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import Snapshot, classifier, different, digits, fit, trainer, weights

Make = Callable[..., UnlearningModule]
TO_REFERENCE = [NPO, IdkDPO]
EVERY = [NPO, SimNPO, IdkDPO, IdkNLL, IdkNLLSeparate, GradDiff, KLMin]


def fast(params: Any) -> torch.optim.Optimizer:
    """A rate at which a few steps lead away from the original."""
    return torch.optim.SGD(params, lr=0.1)


def made(cls: Any, **changes: Any) -> UnlearningModule:
    return cls(causal_lm(), **{"optimizer": fast, **changes})


# ---------------------------------------------------------------- the published terms, one sequence and one token at a time


def texts(part: Batch) -> Iterator[tuple[list[int], list[int]]]:
    """Ids and labels of each sequence, without its padding."""
    for ids, labels, mask in zip(
        part["input_ids"].tolist(),
        part["labels"].tolist(),
        part["attention_mask"].tolist(),
        strict=True,
    ):
        yield ids[: sum(mask)], labels[: sum(mask)]


def log_softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = top + math.log(sum(math.exp(z - top) for z in row))
    return [z - total for z in row]


@torch.no_grad()
def rows(model: CausalLM, ids: list[int]) -> list[list[float]]:
    """Log-probabilities of the next token after each one of a single sequence."""
    logits = model.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return [log_softmax(row) for row in logits.double().tolist()]


def token_nlls(model: CausalLM, part: Batch) -> list[list[float]]:
    """−log p of each labelled token of each sequence."""
    return [
        [
            -row[label]
            for row, label in zip(rows(model, ids), labels[1:], strict=False)
            if label != -100
        ]
        for ids, labels in texts(part)
    ]


def token_mean(lists: list[list[float]]) -> float:
    every = [value for one in lists for value in one]
    return sum(every) / len(every)


def sums(model: CausalLM, part: Batch) -> list[float]:
    return [sum(one) for one in token_nlls(model, part)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def kl(model: CausalLM, original: CausalLM, part: Batch) -> float:
    """Mean over the positions that predict a labelled token of Σ_v p_ref (log p_ref − log p)."""
    found = []
    for ids, labels in texts(part):
        for p, q, label in zip(rows(original, ids), rows(model, ids), labels[1:], strict=False):
            if label != -100:
                found.append(sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
    return mean(found)


def published_npo(now: CausalLM, original: CausalLM, forget: Batch, beta: float) -> float:
    pairs = zip(sums(now, forget), sums(original, forget), strict=True)
    return mean([2 / beta * math.log(1 + math.exp(s_ref - s) ** beta) for s, s_ref in pairs])


def published_dpo(now: CausalLM, original: CausalLM, forget: Batch, beta: float) -> float:
    win = forget["substitute"]
    found = []
    for w, wr, x, xr in zip(
        sums(now, win), sums(original, win), sums(now, forget), sums(original, forget), strict=True
    ):
        found.append(-2 / beta * math.log(sigmoid(beta * ((wr - w) - (xr - x)))))
    return mean(found)


def published_simnpo(
    now: CausalLM, original: CausalLM, forget: Batch, beta: float, delta: float
) -> float:
    return mean(
        [
            -2 / beta * math.log(sigmoid(beta * (mean(one) - delta)))
            for one in token_nlls(now, forget)
        ]
    )


Terms = dict[str, float]
Case = tuple[Make, Callable[[CausalLM, CausalLM, Batch, Batch], Terms]]
CASES: dict[str, Case] = {
    "NPO": (
        lambda: made(NPO, beta=0.3),
        lambda m, o, f, r: {
            "forget": published_npo(m, o, f, 0.3),
            "retain": token_mean(token_nlls(m, r)),
        },
    ),
    "NPO with weights": (
        lambda: made(NPO, forget_weight=0.4, retain_weight=2.5),
        lambda m, o, f, r: {
            "forget": 0.4 * published_npo(m, o, f, 0.1),
            "retain": 2.5 * token_mean(token_nlls(m, r)),
        },
    ),
    "NPO with KL": (
        lambda: made(NPO, retain=KL()),
        lambda m, o, f, r: {"forget": published_npo(m, o, f, 0.1), "retain": kl(m, o, r)},
    ),
    "SimNPO": (
        lambda: made(SimNPO, beta=0.7, delta=0.2),
        lambda m, o, f, r: {
            "forget": 0.125 * published_simnpo(m, o, f, 0.7, 0.2),
            "retain": token_mean(token_nlls(m, r)),
        },
    ),
    "IdkDPO": (
        lambda: made(IdkDPO, beta=0.2),
        lambda m, o, f, r: {
            "forget": published_dpo(m, o, f, 0.2),
            "retain": token_mean(token_nlls(m, r)),
        },
    ),
    "DPO with another answer and KL": (
        lambda: made(DPO, substitute=AnswerOfAnotherQuestion(), retain=KL()),
        lambda m, o, f, r: {"forget": published_dpo(m, o, f, 0.1), "retain": kl(m, o, r)},
    ),
    "IdkNLL": (
        lambda: made(IdkNLL),
        lambda m, o, f, r: {
            "refuse_and_retain": token_mean(token_nlls(m, f["substitute"]) + token_nlls(m, r))
        },
    ),
    "IdkNLL separate": (
        lambda: made(IdkNLLSeparate, retain_weight=0.6),
        lambda m, o, f, r: {
            "refuse": token_mean(token_nlls(m, f["substitute"])),
            "retain": 0.6 * token_mean(token_nlls(m, r)),
        },
    ),
    "GradDiff": (
        lambda: made(GradDiff, retain_weight=1.5),
        lambda m, o, f, r: {
            "forget": -token_mean(token_nlls(m, f)),
            "retain": 1.5 * token_mean(token_nlls(m, r)),
        },
    ),
    "KLMin": (
        lambda: made(KLMin),
        lambda m, o, f, r: {"forget": -token_mean(token_nlls(m, f)), "retain": kl(m, o, r)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_terms_are_the_published_ones(name: str) -> None:
    """In double precision, in every step of an epoch whose last batch is smaller, on answers of
    unequal lengths.
    """
    make, published = CASES[name]
    module = make()
    original = causal_lm().double()
    steps: list[tuple[Terms, Terms]] = []
    objective = module.objective

    def look(forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        found = objective(forget, retain)
        assert forget is not None and retain is not None and isinstance(module.backbone, CausalLM)
        steps.append(
            (
                {key: value.item() for key, value in found.items()},
                published(module.backbone, original, forget, retain),
            )
        )
        return found

    module.objective = look  # type: ignore[method-assign]
    fit(module, people(), 1, precision="64-true")
    assert len(steps) == 3
    for found, wanted in steps:
        assert found == pytest.approx(wanted, rel=1e-9)
    assert {*steps[0][0].values()} != {*steps[2][0].values()}


@pytest.mark.parametrize("cls", TO_REFERENCE)
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_the_first_loss_is_two_over_beta_log_two(cls: Any, beta: float) -> None:
    """In single precision too, where the table was made in other batches than the step's."""
    seen: list[float] = []
    module = made(cls, beta=beta)
    objective = module.objective
    module.objective = lambda f, r: (found := objective(f, r), seen.append(found["forget"].item()))[
        0
    ]  # type: ignore[method-assign]
    fit(module, people(), 1)
    assert seen[0] == pytest.approx(2 / beta * math.log(2), abs=1e-5)
    assert abs(seen[-1] - seen[0]) > 1e-3


def gradient(module: UnlearningModule, part: Batch, ascent: bool = False) -> Tensor:
    """Of the forget term alone, or of gradient ascent on the sum of the tokens, over all
    weights.
    """
    loss = -module.backbone.nll(part).mean() if ascent else module.objective(part, None)["forget"]
    found = torch.autograd.grad(loss, [p for _, p in module.trainable()], allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def test_npos_gradient_tends_to_gradient_ascents() -> None:
    """Away from the original too: the distance falls as β does."""
    task = people()
    gaps = []
    for beta in (1.0, 0.1, 0.01, 0.001):
        module = made(NPO, beta=beta, retain_weight=0.0)
        fit(module, task, 1, precision="64-true")
        batch = next(module.iterate_batches(module.plan, augment=False))
        ascent = gradient(module, batch["forget"], ascent=True)
        gaps.append(float((gradient(module, batch["forget"]) - ascent).norm() / ascent.norm()))
    assert gaps[0] > 0.05
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[2] / gaps[3] == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize("cls", [NPO, SimNPO, IdkDPO])
@pytest.mark.parametrize("reduction", ["sequence_mean", "sequence_sum", "micro"])
def test_the_forget_term_is_a_mean_over_sequences_under_every_reduction(
    cls: Any, reduction: str
) -> None:
    """Fails when a nonlinearity of sequences is averaged over tokens."""
    first: list[Terms] = []
    for how in ("token_mean", reduction):
        module = made(cls, reduction=how)
        objective = module.objective
        seen = []
        module.objective = lambda f, r, o=objective, s=seen: (found := o(f, r), s.append(found))[0]  # type: ignore[method-assign]
        fit(module, people(), 1, precision="64-true")
        first.append({key: value.item() for key, value in seen[0].items()})
    assert first[0]["forget"] == pytest.approx(first[1]["forget"], rel=1e-12)
    if reduction != "micro":
        assert first[0]["retain"] != pytest.approx(first[1]["retain"], rel=1e-3)


@pytest.mark.parametrize("cls", EVERY)
def test_accumulated_batches_give_the_step_of_a_large_one(cls: Any) -> None:
    """Fails when a normaliser (of refusals, of sequences) is that of one of the batches."""
    large = fit(made(cls), people(batch_size=10), 1, max_steps=1, precision="64-true")
    small = fit(
        made(cls),
        people(batch_size=5),
        1,
        max_steps=1,
        precision="64-true",
        accumulate_grad_batches=2,
    )
    a = weights(large.backbone)
    b = weights(small.backbone)
    assert different(a, weights(causal_lm().double()))
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-12


# ---------------------------------------------------------------- one forward pass


def test_unequal_sequences_in_one_pass_are_what_they_are_alone() -> None:
    model = causal_lm().double().eval()
    task = people()
    task.setup()
    forget, retain = (task.datasets[name].__getitems__([0, 4, 5]) for name in ("forget", "retain"))  # type: ignore[attr-defined]
    short = task.datasets["retain"].__getitems__([1])  # type: ignore[attr-defined]
    assert len({part["input_ids"].shape[1] for part in (forget, retain, short)}) > 1
    with torch.no_grad():
        for part, joint in zip(
            (forget, retain, short), predictions(model, forget, None, retain, short), strict=True
        ):
            assert model.nll(part, prediction=joint).tolist() == pytest.approx(
                sums(model, part), rel=1e-10
            )


def test_batch_norm_in_train_mode_sees_each_part_alone() -> None:
    model = classifier()
    task = digits()
    task.setup()
    a, b = (task.datasets[name].__getitems__(list(range(8))) for name in ("forget", "retain"))  # type: ignore[attr-defined]
    alone = [model.train().predict(part) for part in (a, b)]
    assert all(
        torch.equal(one, two) for one, two in zip(predictions(model, a, b), alone, strict=True)
    )
    mixed = model.predict(concatenate(a, b)).split([8, 8])
    assert not torch.allclose(mixed[0], alone[0])
    model.eval()
    assert torch.allclose(predictions(model, a, b)[1], model.predict(b), atol=1e-5)


class Forwards(Callback):
    """Counts forward passes of the trained model: before the first batch, and in each step."""

    def __init__(self) -> None:
        self.before, self.steps, self.modes = 0, [], []  # type: ignore[var-annotated]

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        pl_module.backbone.network.register_forward_pre_hook(self.count)

    def count(self, network: torch.nn.Module, *_: Any) -> None:
        if self.steps:
            self.steps[-1] += 1
        else:
            self.before += 1
            self.modes.append((network.training, torch.is_grad_enabled()))

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps.append(0)


@pytest.mark.parametrize("cls", EVERY)
def test_a_step_is_one_forward_pass(cls: Any) -> None:
    """Whatever the parts; the original is asked before the first step, in eval mode, and by no
    second model unless for KL.
    """
    count = Forwards()
    module = fit(made(cls), people(), 2, callbacks=[count])
    assert count.steps == [1] * 6
    # 13 answers, and 26 refusals or fewer, ten at a time
    assert count.before == {"NPO": 2, "IdkDPO": 4}.get(cls.__name__, 0)
    assert set(count.modes) <= {(False, False)}
    assert (module.reference is not None) == (cls is KLMin)
    assert ("cache" in module.stopwatch.seconds()) == (cls in TO_REFERENCE)


@pytest.mark.parametrize("cls", [NPO, SimNPO, IdkDPO, GradDiff])
def test_without_its_weight_the_retain_part_is_not_read(cls: Any) -> None:
    module = made(cls, retain_weight=0.0, retain=KL())
    assert (
        not module.needs_retain and not module.needs_reference and module.plan.reads() == {"forget"}
    )
    seen: list[Any] = []
    objective = module.objective
    module.objective = lambda f, r: (seen.append(r), objective(f, r))[1]  # type: ignore[method-assign]
    fit(module, people(), 1)
    assert seen == [None] * 3


# ---------------------------------------------------------------- the original's likelihoods


def table(module: UnlearningModule) -> ReferenceNLL:
    assert isinstance(module.reference_nll, ReferenceNLL)
    return module.reference_nll


def test_the_table_holds_the_originals_values_whatever_the_weights_became() -> None:
    module = fit(made(IdkDPO), people(), 2)
    task = people()
    task.setup()
    part = task.datasets["forget"].__getitems__(list(range(13)))  # type: ignore[attr-defined]
    assert table(module).of(part).tolist() == pytest.approx(sums(causal_lm(), part), rel=1e-5)
    assert isinstance(module.backbone, CausalLM)
    assert sums(module.backbone, part) != pytest.approx(sums(causal_lm(), part), rel=1e-3)


def test_every_answer_of_all_epochs_is_in_the_table_once() -> None:
    """Refusals are drawn anew in each epoch; a law that draws once, and NPO, need no more for a
    longer run.
    """
    for cls, changes, epochs, most in (
        (IdkDPO, {}, 5, 13 * 6),
        (DPO, {"substitute": AnswerOfAnotherQuestion(redraw=False)}, 5, 26),
        (NPO, {}, 5, 13),
    ):
        module = fit(made(cls, **changes), people(), epochs)
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
def test_only_what_the_run_shows_is_asked(changes: dict[str, Any], rows: int) -> None:
    """A corpus of which 80 steps are taken is not gone through as a whole. (By whole epochs where
    steps are counted.)
    """
    epochs = changes.pop("epochs", 1)
    module = fit(made(NPO), people(), epochs, **changes)
    assert len(table(module)) == (13 if "max_steps" in changes else rows)


def test_a_run_without_end() -> None:
    """NPO asks about every answer; DPO could not know which refusals it will draw."""
    module = fit(made(NPO), people(), -1, max_time={"seconds": 1})
    assert len(table(module)) == 13
    with pytest.raises(InputError, match="needs an end"):
        fit(made(IdkDPO), people(), -1, max_time={"seconds": 1})


@pytest.mark.parametrize("cls", TO_REFERENCE)
def test_a_resumed_run_asks_nobody_and_ends_alike(cls: Any, tmp_path: Path) -> None:
    whole = fit(made(cls), people(), 2, callbacks=[Snapshot(tmp_path / "x.ckpt", 0, 1)])
    count = Forwards()
    again = fit(made(cls), people(), 2, ckpt_path=tmp_path / "x.ckpt", callbacks=[count])
    assert count.before == 0 and count.steps == [1] * 4
    assert different(weights(whole), weights(again)) == []


def test_a_longer_run_is_resumed_where_nothing_new_is_shown(tmp_path: Path) -> None:
    fit(made(NPO), people(), 1, callbacks=[Snapshot(tmp_path / "npo.ckpt", 0, 1)])
    assert fit(made(NPO), people(), 3, ckpt_path=tmp_path / "npo.ckpt").trainer.global_step == 9
    fit(made(IdkDPO), people(), 1, callbacks=[Snapshot(tmp_path / "dpo.ckpt", 0, 1)])
    with pytest.raises(InputError, match="was not asked about before the first step"):
        fit(made(IdkDPO), people(), 3, ckpt_path=tmp_path / "dpo.ckpt")


def test_another_precision_or_another_original_is_refused(tmp_path: Path) -> None:
    fit(made(NPO), people(), 2, callbacks=[Snapshot(tmp_path / "x.ckpt", 0, 1)])
    with pytest.raises(InputError, match="another precision"):
        fit(made(NPO), people(), 2, ckpt_path=tmp_path / "x.ckpt", precision="bf16-true")
    with pytest.raises(InputError, match="original weights"):
        fit(NPO(causal_lm(init_seed=5), optimizer=fast), people(), 2, ckpt_path=tmp_path / "x.ckpt")


def test_a_sequence_that_is_not_in_the_table() -> None:
    module = fit(made(NPO), people(), 1)
    with pytest.raises(RunError, match="1 sequences of a batch have no log-likelihood"):
        table(module).of({"key": torch.tensor([int(table(module).keys[3]), 12345])})
    with pytest.raises(RunError, match="were not computed"):
        ReferenceNLL().of({"key": torch.tensor([3])})


def test_the_table_keeps_its_precision(tmp_path: Path) -> None:
    """Fails when `bf16-true`, which turns a module over after its checkpoint was loaded, rounds
    sums of many tokens to two digits.
    """
    whole = fit(
        made(NPO),
        people(),
        2,
        precision="bf16-true",
        callbacks=[Snapshot(tmp_path / "x.ckpt", 0, 1)],
    )
    values = table(whole).values
    assert whole.backbone.dtype == torch.bfloat16 and values.dtype == torch.float32
    assert not torch.equal(values, values.bfloat16().float())
    again = fit(made(NPO), people(), 2, precision="bf16-true", ckpt_path=tmp_path / "x.ckpt")
    assert different(weights(whole), weights(again)) == []


@pytest.mark.parametrize("cls", TO_REFERENCE)
def test_a_checkpoint_of_a_table_is_loaded_into_an_empty_one(cls: Any, tmp_path: Path) -> None:
    module = fit(
        made(cls), people(), 1, callbacks=[ModelCheckpoint(tmp_path, save_last=True, save_top_k=0)]
    )
    loaded: Any = mu.load(tmp_path / "last.ckpt")
    assert torch.equal(loaded.reference_nll.keys, table(module).keys) and torch.equal(
        loaded.reference_nll.values, table(module).values
    )


def test_it_needs_a_task() -> None:
    task = people()
    task.setup()
    with pytest.raises(InputError, match="fit it with a mu task"):
        trainer(1).fit(made(NPO), train_dataloaders=task.plan_loader(made(NPO).plan, 0))


def test_a_saliency_mask_is_computed_before_the_first_step() -> None:
    module = fit(made(NPO, mask=Saliency(keep=0.2)), people(), 1)
    assert module.mask is not None and module.mask.share() == pytest.approx(0.2, abs=1e-3)
    assert different(weights(causal_lm()), weights(module.backbone))


# ---------------------------------------------------------------- what is read


def other_forget(**changes: Any) -> Any:
    """The task with other forget questions and answers."""
    task = people(**changes)
    task.setup()
    kept = task.datasets["retain"]
    data: Any = copy.copy(task.datasets["forget"])
    data.make, data._known = (lambda place, of=kept: of.pair(place)), {}  # type: ignore[union-attr]
    data.texts = {name: values[:13] for name, values in kept.texts.items()}  # type: ignore[union-attr]
    task.datasets["forget"] = data
    return task


@pytest.mark.parametrize("cls", EVERY)
def test_it_changes_with_what_is_forgotten(cls: Any) -> None:
    # an untrained model has A = 4, where the loss with 4.5 is flat
    changes = {"beta": 0.1} if cls is SimNPO else {}
    one, two = (
        weights(fit(made(cls, **changes), task, 1).backbone) for task in (people(), other_forget())
    )
    assert different(one, two)


@pytest.mark.parametrize("cls", [DPO, IdkNLL])
def test_it_changes_with_the_law_of_substitutes(cls: Any) -> None:
    one, two = (
        weights(fit(made(cls, substitute=law), people(), 1).backbone)
        for law in (Refusal(), AnswerOfAnotherQuestion())
    )
    assert different(one, two)


def test_alternates_are_shown_in_turn(tmp_path: Path) -> None:
    """Five a question there; two here: ten epochs of one are the code's two epochs of five."""
    import json

    task = people()
    task.setup()
    asked = task.datasets["forget"].texts["question"]  # type: ignore[attr-defined]
    lines = [
        json.dumps({"question": question, "alternate": f"{name} lives in lima"})
        for question in asked
        for name in ("ada", "gus")
    ]
    write_text(tmp_path / "alternates.jsonl", "\n".join(lines))
    seen: list[tuple[int, int]] = []
    module = made(AltPO, substitute=AnswersFromFile(str(tmp_path / "alternates.jsonl")))
    objective = module.objective

    def look(forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        seen.extend(
            zip(forget["index"].tolist(), forget["substitute"]["key"].tolist(), strict=True)
        )
        return objective(forget, retain)

    module.objective = look  # type: ignore[method-assign]
    fit(module, task, 2)
    assert len(seen) == 26 and {index for index, _ in seen} == set(range(13))
    assert all(len({key for index, key in seen if index == row}) == 2 for row in range(13))


def test_klmin_is_graddiff_with_kl() -> None:
    assert isinstance(made(KLMin).retain, KL) and isinstance(made(GradDiff).retain, NLL)
    one, two = (
        weights(fit(make, people(), 1).backbone)
        for make in (made(KLMin), made(GradDiff, retain=KL()))
    )
    assert different(one, two) == []


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: made(NPO, beta=0.0), "beta above 0"),
        (lambda: made(SimNPO, beta=-1.0), "beta above 0"),
        (lambda: made(DPO, substitute=Refusal(), beta=math.nan), "beta above 0"),
        (lambda: made(NPO, retain_weight=-1.0), "at least 0"),
        (lambda: made(IdkNLLSeparate, retain_weight=-1.0), "at least 0"),
        (lambda: KL(0.0), "above 0"),
        (lambda: NPO(classifier()), "defined for a CausalLM"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_dpo_without_a_law() -> None:
    with pytest.raises(InputError, match="law of substitutes"):
        fit(made(DPO), people(), 1)
