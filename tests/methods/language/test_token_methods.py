"""Methods on tokens and hidden states of language models: each step as its equation says, and what
each method promises beside it.

The general promises (resume, ranks, checkpoints) are tests/contract's.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

import mu
from mu.backbones import CausalLM, LoRA
from mu.backbones.export import export
from mu.data.plan import Forget, Paired
from mu.methods.bases.forget_retain import ForgetRetainMethod
from mu.methods.compat.pdu_reference import PDUReference
from mu.methods.compat.undial_reference import UNDIALReference
from mu.methods.components.retain_terms import KL
from mu.methods.general.task_vector import TaskVector
from mu.methods.general.train import Train
from mu.methods.language.ce_u import CEU
from mu.methods.language.pdu import PDU
from mu.methods.language.rmu import RMU, steered_layer
from mu.methods.language.sat_imp import SatImp
from mu.methods.language.uld import ULD, Variants
from mu.methods.language.undial import UNDIAL
from mu.methods.language.wga import WGA
from mu.methods.language.whp import WHP, WHPInference
from mu.utils.errors import InputError, RunError
from tests.contract.test_fit import Sees
from tests.support.doubles_text import causal_lm, folder, mixture, people
from tests.support.helpers import (
    Snapshot,
    State,
    Watch,
    classifier,
    different,
    distance,
    fit,
    weights,
)

PLAIN = functools.partial(torch.optim.SGD, lr=1.0)
ADAM = functools.partial(torch.optim.AdamW, lr=5e-3)
NO_DROPOUT = LoRA(rank=8, alpha=16)


@functools.cache
def _trained() -> State:
    """The tiny Llama after it has learnt the people's answers."""
    return weights(
        fit(
            Train(causal_lm(init_seed=1), optimizer=functools.partial(torch.optim.AdamW, lr=0.02)),
            people(),
            40,
        ).backbone
    )


def original() -> CausalLM:
    return causal_lm(_trained())


def parts(task: Any, batch: int = 5) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plan's first pair of batches, without totals."""
    task.setup()
    loader = task.plan_loader(Paired(length="forget"), 0, batch_size=batch)
    step = next(iter(loader))
    return tuple(
        {
            name: value
            for name, value in step[part].items()
            if name not in ("total", "count", "step")
        }  # type: ignore[return-value]
        for part in ("forget", "retain")
    )


def sequences(part: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels, without the padding."""
    found = []
    for ids, mask, labels in zip(
        part["input_ids"].tolist(),
        part["attention_mask"].tolist(),
        part["labels"].tolist(),
        strict=True,
    ):
        length = sum(mask)
        found.append((ids[:length], labels[:length]))
    return found


@torch.no_grad()
def logits_of(model: CausalLM, ids: list[int]) -> Tensor:
    """`[L, V]` in double precision, of one sequence alone."""
    tokens = torch.tensor([ids])
    return (
        model.eval()
        .predict({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})[0]
        .double()
    )


def by_token(model: CausalLM, part: dict[str, Any], value: Any) -> list[list[float]]:
    """`value(logits that predict the label, label, sequence, place)` of each labelled token,
    sequence by sequence.
    """
    found = []
    for number, (ids, labels) in enumerate(sequences(part)):
        logits = logits_of(model, ids)
        found.append(
            [
                float(value(logits[t - 1], labels[t], number, t))
                for t in range(1, len(ids))
                if labels[t] != -100
            ]
        )
    return found


def token_mean(values: list[list[float]]) -> float:
    return sum(map(sum, values)) / sum(map(len, values))


def terms_of(module: Any, forget: Any, retain: Any) -> dict[str, float]:
    """The objective's terms, of a module that no trainer knows."""
    module.configure_model()
    module.backbone.eval()
    return {name: float(value) for name, value in module.objective(forget, retain).items()}


def nll(z: Tensor, y: int, *_: Any) -> Tensor:
    return -z.log_softmax(-1)[y]


# ---------------------------------------------------------------- the equations


def test_wga_and_sat_imp_follow_their_equations() -> None:
    """Mutations: the weight is not detached; the mean is over sequences; the retain term takes the
    forget part.
    """
    forget, retain = parts(people())
    model = original()
    likely = lambda z, y: z.softmax(-1)[y]  # noqa: E731
    kept = token_mean(by_token(model, retain, nll))
    ascent = token_mean(
        by_token(model, forget, lambda z, y, *_: likely(z, y) ** 2 * likely(z, y).log())
    )
    found = terms_of(
        WGA(original(), beta=2.0, forget_weight=0.5, retain_weight=2.0), forget, retain
    )
    assert found == pytest.approx({"forget": 0.5 * ascent, "retain": 2 * kept}, rel=1e-4)
    ascent = token_mean(
        by_token(
            model,
            forget,
            lambda z, y, *_: likely(z, y) ** 5 * (1 - likely(z, y)) * likely(z, y).log(),
        )
    )
    found = terms_of(SatImp(original()), forget, retain)
    assert found == pytest.approx({"forget": ascent, "retain": 0.1 * kept}, rel=1e-4)


def test_undial_follows_its_equation() -> None:
    """Mutations: β is added; the target is the student's own; prompt or padding is counted."""
    forget, _ = parts(people())
    model = original()
    moved = causal_lm()
    module = UNDIAL(original(), beta=3.0)
    module.configure_model()
    module.backbone.load_state_dict(weights(moved))
    taught = [logits_of(model, ids) for ids, _ in sequences(forget)]

    def value(z: Tensor, y: int, number: int, t: int) -> Tensor:
        target = taught[number][t - 1].clone()
        target[y] -= 3.0
        return -(target.softmax(-1) * z.log_softmax(-1)).sum()

    wanted = token_mean(by_token(moved, forget, value))
    assert terms_of(module, forget, None) == pytest.approx({"forget": wanted}, rel=1e-4)
    assert isinstance(module.plan, Forget) and not module.needs_retain


def test_undial_of_the_original_without_strength_is_at_rest() -> None:
    """Cross-entropy to the model itself has no gradient."""
    forget, _ = parts(people())
    module = UNDIAL(original().double(), beta=0.0)
    module.configure_model()
    module.backbone.eval()
    module.objective(forget, None)["forget"].backward()
    assert (
        max(float(p.grad.abs().max()) for p in module.backbone.parameters() if p.grad is not None)
        < 1e-12
    )


def test_undial_as_its_port_has_it() -> None:
    """All positions count, padding too, and −100 is an index: V − 100, which is 14 of 57 after
    another turn.
    """
    forget, _ = parts(people())
    model = original().double().eval()
    student = causal_lm().double().eval()
    module = UNDIALReference(original().double(), beta=3.0)
    module.configure_model()
    module.backbone.load_state_dict(
        {name: value.double() for name, value in weights(causal_lm()).items()}
    )
    total = 0.0
    count = 0
    with torch.no_grad():
        taught = model.predict(forget)
        said = student.predict(forget)
    for b, labels in enumerate(forget["labels"].tolist()):
        for t in range(1, len(labels)):
            target = taught[b, t - 1].clone()
            target[labels[t] if labels[t] != -100 else 14] -= 3.0
            total -= float((target.softmax(-1) * said[b, t - 1].log_softmax(-1)).sum())
            count += 1
    assert terms_of(module, forget, None) == pytest.approx({"forget": total / count})


def test_ce_u_ignores_the_first_token_of_each_answer() -> None:
    """Mutations: all first tokens are counted; the true token keeps a probability in the target."""
    forget, _ = parts(people())

    def value(z: Tensor, y: int, *_: Any) -> Tensor:
        q = z.clone()
        q[y] = -torch.inf
        q = q.softmax(-1)
        return -(q * z.log_softmax(-1)).sum()

    for skip in (0, 1, 3):
        tokens = [values[skip:] for values in by_token(original(), forget, value)]
        assert terms_of(CEU(original(), skip=skip), forget, None) == pytest.approx(
            {"forget": token_mean(tokens)}, rel=1e-4
        )


def test_ce_u_takes_the_mean_of_what_it_counts() -> None:
    """Fails when a fit divides by all labelled tokens, those that are ignored too."""
    seen: list[tuple[float, float]] = []

    def look(module: Any, batch: Any, batch_idx: int) -> None:
        counted = sum(
            max(sum(y != -100 for y in labels) - 4, 0) for _, labels in sequences(batch["forget"])
        )
        seen.append((float(module.forget_total(batch["forget"])["total"]), counted))

    fit(CEU(original(), skip=4), people(), 1, callbacks=[Watch(look)])
    assert len(seen) == 3 and all(total == counted > 0 for total, counted in seen)


class _Accumulating:
    accumulate_grad_batches = 1
    world_size = 1
    current_epoch = 0


def test_pdu_follows_its_equation() -> None:
    """Mutations: ε is left out; the margin is taken of other positions; the dual variable weighs
    the forget term.
    """
    forget, retain = parts(people())
    model = original()
    kept = token_mean(by_token(model, retain, nll))
    flat = token_mean(by_token(model, forget, lambda z, *_: (z.max() - z.mean()) ** 2))
    module = PDU(original(), epsilon=0.2, dual=7.0)
    module._trainer = _Accumulating()  # type: ignore[assignment]
    assert terms_of(module, forget, retain) == pytest.approx(
        {"forget": flat, "retain": 7 * (kept - 0.2)}, rel=1e-4
    )
    assert float(module.retain_loss) == pytest.approx(kept, rel=1e-4)
    unshifted = []
    for ids, labels in sequences(forget):
        logits = logits_of(model, ids)
        unshifted += [
            float((logits[t].max() - logits[t].mean()) ** 2)
            for t, label in enumerate(labels)
            if label != -100
        ]
    other = PDUReference(original(), epsilon=0.2, dual=7.0)
    other._trainer = _Accumulating()  # type: ignore[assignment]
    assert terms_of(other, forget, retain)["forget"] == pytest.approx(
        sum(unshifted) / len(unshifted), rel=1e-4
    )


@pytest.mark.parametrize("positions", ["attention", "labels", "all"])
def test_rmu_follows_its_equation(positions: Any) -> None:
    """Mutations: padding counts where it must not; the mean is over tokens and not over texts; the
    retain states are compared with c.
    """
    forget, retain = parts(people())
    reference = original().eval()
    module = RMU(original(), layer=1, scale=3.0, alpha=5.0, positions=positions)
    module.configure_model()
    with torch.no_grad():
        for _, p in module.trainable():
            p.mul_(1.5)
    moved = causal_lm(weights(module.backbone)).eval()
    c = module.control.double()

    def mean(part: dict[str, Any], target: Any) -> float:
        values = []
        with torch.no_grad():
            states = moved.hidden(part, 1).double()
        for b, (ids, labels) in enumerate(sequences(part)):
            places = {
                "attention": list(range(len(ids))),
                "labels": [t for t, y in enumerate(labels) if y != -100],
                "all": list(range(part["input_ids"].shape[1])),
            }[positions]
            values.append(
                sum(float(((states[b, t] - target(b, t)) ** 2).mean()) for t in places)
                / len(places)
            )
        return sum(values) / len(values)

    with torch.no_grad():
        kept = reference.hidden(retain, 1).double()
    wanted = {
        "misdirect": mean(forget, lambda b, t: c),
        "retain": 5 * mean(retain, lambda b, t: kept[b, t]),
    }
    assert terms_of(module, forget, retain) == pytest.approx(wanted, rel=1e-4)


def test_uld_follows_its_equation() -> None:
    """Mutations: the terms are swapped; the retain and the wrong answers are averaged apart; the
    original is trained.
    """
    task = people()
    module = ULD(original(), uniform_weight=2.0, lora=NO_DROPOUT, optimizer=ADAM)
    forget, retain = parts(task)
    task._encoder = None
    rows = task.sets["forget"]
    data: Any = task.datasets["forget"]
    module.known = Variants.paraphrased(rows, task.encoder, data)
    module.wrong = Variants.perturbed(rows, task.encoder)
    assert module.known is not None and module.wrong is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, p in module.trainable():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.5)
    assistant = module.assistant.eval()
    remembered = module.known.drawn(forget, 0)
    unknown = module.wrong.drawn(forget, 0)
    uniform = lambda z, *_: (1 / 57 * (-torch.log(torch.tensor(57.0)) - z.log_softmax(-1))).sum()  # noqa: E731
    together = by_token(assistant, retain, uniform) + by_token(assistant, unknown, uniform)
    wanted = {
        "remember": token_mean(by_token(assistant, remembered, nll)),
        "uniform": 2 * token_mean(together),
    }
    assert terms_of(module, forget, retain) == pytest.approx(wanted, rel=1e-4)


# ---------------------------------------------------------------- every one of them


MAKERS: dict[str, Any] = {
    "RMU": lambda b, **k: RMU(b, **k),
    "RMU all": lambda b, **k: RMU(b, layer=1, weights=None, positions="labels", **k),
    "UNDIAL": lambda b, **k: UNDIAL(b, **k),
    "UNDIAL retain": lambda b, **k: UNDIAL(b, retain_weight=1.0, retain=KL(), **k),
    "UNDIALReference": lambda b, **k: UNDIALReference(b, **k),
    "WGA": lambda b, **k: WGA(b, **k),
    "SatImp": lambda b, **k: SatImp(b, **k),
    "CEU": lambda b, **k: CEU(b, skip=2, **k),
    "PDU": lambda b, **k: PDU(b, dual=2.0, dual_warmup_epochs=0, **k),
    "WHP": lambda b, **k: WHP(b, **{"reinforce_epochs": 1, "reinforce_lr": 0.02, **k}),
    "WHPInference": lambda b, **k: WHPInference(b, **k),
    "ULD": lambda b, **k: ULD(b, lora=NO_DROPOUT, **k),
    "TaskVector": lambda b, **k: TaskVector(b, **k),
}
on_all = pytest.mark.parametrize("name", MAKERS)


@on_all
def test_one_big_batch_or_several_small_ones(name: str) -> None:
    """Fails when a normaliser is that of a micro-batch: what is ignored, drawn or padded must be
    counted over the whole step.
    """

    def run(batch: int, accumulate: int) -> Any:
        module = MAKERS[name](
            original().double(), optimizer=functools.partial(torch.optim.SGD, lr=0.01)
        )
        # the third batch is short, and has whole batches of retain beside it
        fit(
            module,
            people(batch_size=batch),
            2 if name == "WHP" else 1,
            accumulate_grad_batches=accumulate,
            precision="64-true",
            limit_train_batches=2 * accumulate,
        )
        return module

    one = run(6, 1)
    other = run(3, 2)
    assert distance(weights(one.served()), weights(other.served())) < 1e-10
    if name == "PDU":
        assert float(one.multiplier) == pytest.approx(float(other.multiplier), rel=1e-12)
        assert float(one.multiplier) != 2.0


LENGTHS: dict[str, tuple[float, int, dict[str, Any]]] = {  # learning rate, epochs, arguments
    "RMU": (0.05, 24, {"layer": 1, "scale": 50.0, "alpha": 20.0}),
    "RMU all": (0.01, 8, {"scale": 20.0, "alpha": 20.0}),
    "UNDIAL": (1e-3, 8, {}),
    "UNDIAL retain": (3e-3, 8, {}),
    "UNDIALReference": (1e-3, 8, {}),
    "WGA": (2e-3, 8, {}),
    "SatImp": (5e-3, 8, {}),
    "CEU": (1e-3, 8, {}),
    "PDU": (2e-3, 8, {}),
    "WHP": (2e-3, 8, {"reinforce_epochs": 3, "reinforce_lr": 0.01}),
    "WHPInference": (2e-3, 8, {}),
    "ULD": (0.01, 40, {"layers": 2, "uniform_weight": 0.5}),
    "TaskVector": (3e-3, 8, {}),
}


@on_all
def test_the_forgotten_goes_first(name: str) -> None:
    """Behaviour: of a model that knows the answers, those to be forgotten lose more than the
    others, which have the same names in them.
    """
    lr, epochs, arguments = LENGTHS[name]
    module = MAKERS[name](
        original(), optimizer=functools.partial(torch.optim.AdamW, lr=lr), **arguments
    )
    fit(module, people(), epochs)
    served = module.served().eval()
    task = people()
    task.setup()
    lost = {}
    for part in ("forget", "retain"):
        data: Any = task.datasets[part]
        rows = data.__getitems__(list(range(len(data))))
        with torch.no_grad():
            now, before = (
                model.outputs(rows, ["mean_nll"])["mean_nll"].mean()
                for model in (served, original().eval())
            )
        lost[part] = float(now - before)
    assert lost["forget"] > 0.1 and lost["forget"] > lost["retain"] + 0.02, lost


# ---------------------------------------------------------------- RMU


def test_rmu_computes_and_trains_no_more_than_it_needs() -> None:
    """Fails when the forward pass goes on after the steered layer, or weights that are not trained
    get a gradient.
    """
    model = CausalLM(model=folder("llama", 5))
    module = RMU(model, layer=3)
    module.configure_model()
    assert [name for name, _ in module.trainable()] == [
        f"network.model.layers.{k}.mlp.down_proj.weight" for k in (1, 2, 3)
    ]
    calls: list[int] = []
    for k, layer in enumerate(model.decoder_layers):
        layer.register_forward_hook(lambda *_, k=k: calls.append(k))
    network: Any = model.network
    network.lm_head.register_forward_hook(lambda *_: calls.append(99))
    sum(module.objective(*parts(people())).values()).backward()  # type: ignore[union-attr]
    assert calls == [0, 1, 2, 3]
    assert {name for name, p in module.backbone.named_parameters() if p.grad is not None} == {
        name for name, _ in module.trainable()
    }
    assert isinstance(module.reference, CausalLM)
    own = {id(p) for p in model.parameters()}
    assert len([p for p in module.reference.parameters() if id(p) not in own]) == 3


@pytest.mark.parametrize(
    ("kind", "lora"), [("llama", None), ("mixtral", None), ("llama", LoRA(rank=2))]
)
def test_rmu_finds_its_weights(kind: str, lora: Any) -> None:
    """Fails when a mixture of experts or adapters have other names than those that are looked
    for.
    """
    model = CausalLM(model=folder(kind, 3), lora=lora, attention="eager")
    names = [name for name, _ in RMU(model, layer=2, layers=[1, 2]).trainable()]
    assert names and all(
        "down_proj" in name and ("layers.1." in name or "layers.2." in name) for name in names
    )
    assert all("lora_" in name for name in names) == (lora is not None)


def test_rmu_trains_everything_before_the_exit_where_asked() -> None:
    """Fails when weights after the exit are left to wait for a gradient that never comes."""
    module = RMU(CausalLM(model=folder("llama", 3)), layer=1, weights=None)
    names = [name for name, _ in module.trainable()]
    assert (
        "network.model.embed_tokens.weight" in names
        and "network.model.layers.0.self_attn.q_proj.weight" in names
    )
    assert not [
        name
        for name in names
        if "layers.2." in name or "lm_head" in name or name == "network.model.norm.weight"
    ]
    fit(module, people(), 1)


def test_the_control_vector() -> None:
    """Fails when u has negative entries (a normal draw), the norm is not s, or the seed does not
    reach it.
    """
    first = RMU(original(), scale=6.5)
    again = RMU(original(), scale=6.5)
    other = RMU(original(), scale=6.5, seed=1)
    assert float(first.control.norm()) == pytest.approx(6.5, rel=1e-6) and bool(
        (first.control >= 0).all()
    )
    assert torch.equal(first.control, again.control) and not torch.equal(
        first.control, other.control
    )
    assert "control" in first.state_dict()


@pytest.mark.parametrize(
    ("count", "layer"), [(32, 7), (16, 7), (15, 7), (12, 5), (4, 1), (2, 0), (1, 0)]
)
def test_the_steered_layer_of_shallow_models(count: int, layer: int) -> None:
    assert steered_layer(count, None) == layer


def test_rmu_refuses_what_cannot_be() -> None:
    for arguments, word in (
        ({"layer": 2}, "no layer 2"),
        ({"layers": [1]}, "from 0 to the steered one, 0"),
        ({"layers": []}, "from 0"),
        ({"scale": 0.0}, "scale above 0"),
        ({"positions": "answers"}, "attention, labels or all"),
        ({"weights": "experts"}, "no weight"),
    ):
        with pytest.raises(InputError, match=word):
            RMU(causal_lm(), **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the backbone's part trains others"):
        RMU(causal_lm(part="layers.1"), layer=0)


# ---------------------------------------------------------------- PDU


def test_the_dual_variable_follows_the_constraint(tmp_path: Path) -> None:
    """Mutations: it moves in the warm-up, with every micro-batch, or below 0; it is not in the
    checkpoint.
    """
    seen: list[tuple[int, float, float]] = []

    def run(**changes: Any) -> PDU:
        module = PDU(
            original(), epsilon=1.5, dual=1.0, dual_step=0.5, dual_warmup_epochs=1, optimizer=ADAM
        )
        fit(module, people(), 3, **changes)
        return module

    class Constraint(Watch):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            seen.append(
                (pl_module.current_epoch, float(pl_module.retain_loss), float(pl_module.multiplier))
            )

    module = run(callbacks=[Constraint(lambda *_: None), Snapshot(tmp_path / "x.ckpt", 1, 1)])
    dual = 1.0
    for epoch, loss, before in seen:
        assert before == pytest.approx(dual, abs=1e-6)
        dual = max(0.0, dual + 0.5 * (loss - 1.5)) if epoch >= 1 else dual
    assert float(module.multiplier) == pytest.approx(dual, abs=1e-6)
    # the retain loss lies below ε, so the constraint weighs less and less
    assert 0.0 <= dual < 1.0 and seen[0][1] > 0
    resumed = run(ckpt_path=tmp_path / "x.ckpt")
    assert torch.equal(resumed.multiplier, module.multiplier) and not different(
        weights(resumed), weights(module)
    )


# ---------------------------------------------------------------- task vectors


def reinforced(**changes: Any) -> State:
    return weights(fit(Sees(original(), Forget(), lr=0.1), people(), 2, **changes).backbone)


@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_a_task_vector_is_subtracted(alpha: float, tmp_path: Path) -> None:
    """θ_o − α (θ_re − θ_o), in the last checkpoint too; before the last epoch ends it is θ_re.
    Mutation: α (θ_re − θ_o) is added.
    """
    start = _trained()
    end = reinforced()
    files = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    module = fit(
        TaskVector(original(), alpha=alpha, optimizer=functools.partial(torch.optim.SGD, lr=0.1)),
        people(),
        2,
        callbacks=[files],
    )
    wanted = {
        name: start[name].double() - alpha * (end[name].double() - start[name].double())
        for name in start
    }
    assert distance(weights(module.backbone), wanted) < 1e-6
    assert distance(weights(mu.load(tmp_path / "epoch=1.ckpt").served()), wanted) < 1e-6
    half = mu.load(tmp_path / "epoch=0.ckpt")
    assert not half.get_buffer("negated") and module.get_buffer("negated")
    with pytest.raises(InputError, match="finished and its task vector subtracted"):
        fit(TaskVector(original(), alpha=alpha), people(), 3, ckpt_path=tmp_path / "epoch=1.ckpt")


def test_the_arithmetic_is_in_single_precision() -> None:
    """Fails when bfloat16 weights are subtracted in bfloat16, where one part in 256 is lost
    twice.
    """
    module = TaskVector(causal_lm(dtype="bfloat16"), alpha=3.0)
    module.configure_model()
    start = weights(module.backbone)
    with torch.no_grad():
        for p in module.backbone.parameters():
            p.mul_(1.5)
    end = weights(module.backbone)
    module.negate()
    for name, value in weights(module.backbone).items():
        assert torch.equal(
            value, (start[name].float() - 3 * (end[name].float() - start[name].float())).bfloat16()
        ), name


def test_adapters_are_negated_as_the_product_that_they_are() -> None:
    """W_o − α s B A. Fails when both factors are negated (which changes nothing), or A is moved
    back.
    """
    make = lambda: causal_lm(_trained_with_adapters(), lora=LoRA(rank=2))  # noqa: E731
    rate = functools.partial(torch.optim.SGD, lr=0.5)
    ahead = fit(Sees(make(), Forget(), lr=0.5), people(), 2).backbone
    module = fit(TaskVector(make(), alpha=2.0, optimizer=rate), people(), 2)
    before, there, found = (products(model) for model in (make(), ahead, module.backbone))
    assert before and all(not delta.any() for delta in before.values())
    assert any(delta.abs().max() > 1e-3 for delta in there.values())
    for name, delta in there.items():
        torch.testing.assert_close(found[name], -2 * delta)
    used = make()
    with torch.no_grad():
        for name, p in used.named_parameters():
            if "lora_B" in name:
                p.fill_(0.1)
    with pytest.raises(InputError, match=r"adapter .* is not zero"):
        fit(TaskVector(used), people(), 1)


def products(model: Any) -> State:
    """s B A of each layer with adapters."""
    return {
        name: layer.get_delta_weight("default")
        for name, layer in model.named_modules()
        if hasattr(layer, "lora_A")
    }


def _trained_with_adapters() -> State:
    state = dict(weights(causal_lm(lora=LoRA(rank=2))))
    trained = _trained()
    return {
        name: trained.get(name.replace(".base_layer.", "."), value) for name, value in state.items()
    }


def test_statistics_of_batch_norm_stay_the_originals() -> None:
    """Fails when statistics are extrapolated, where a variance may become negative."""
    start = weights(classifier())
    module = fit(
        TaskVector(classifier(), optimizer=functools.partial(torch.optim.SGD, lr=0.1)), epochs=1
    )
    after = weights(module.backbone)
    assert not [name for name in different(start, after) if "running" in name]
    assert different(start, after)


def test_a_reinforced_model_does_not_pass_for_an_unlearned_one() -> None:
    """Fails when early stopping ends a run after the epoch's end, and the model that knows it best
    is served.
    """
    stop = EarlyStopping("forget/loss", patience=0, min_delta=1e9, check_on_train_epoch_end=True)
    module = TaskVector(original(), optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(RunError, match="too late to subtract"):
        fit(module, people(curves=["forget"]), 5, callbacks=[stop], limit_val_batches=1.0)
    stop = EarlyStopping("forget/loss", patience=0, min_delta=1e9, check_on_train_epoch_end=False)
    module = TaskVector(original(), optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    fit(module, people(curves=["forget"]), 5, callbacks=[stop], limit_val_batches=1.0)
    assert bool(module.negated) and module.current_epoch < 5


# ---------------------------------------------------------------- WHP


def test_generic_labels() -> None:
    """argmax [v_o − α relu(v_re − v_o)] for every labelled token, and the second phase fits them.
    Mutation: v_re is the original.
    """
    kept: list[dict[int, Tensor]] = []
    labels: list[Any] = []
    module = WHP(original(), alpha=5.0, reinforce_epochs=1, reinforce_lr=0.05, optimizer=PLAIN)

    def look(found: Any, batch: Any, batch_idx: int) -> None:
        if found.phase == 1 and not kept:
            kept.append(dict(found.generic))
        labels.append((found.phase, batch["forget"]))

    fit(module, people(), 2, callbacks=[Watch(look)])
    assert module.reinforced is not None
    base = original()
    copied = module.reinforced
    task = people()
    task.setup()
    data: Any = task.datasets["forget"]
    rows = data.__getitems__(list(range(len(data))))
    changed = []
    for number, (ids, truth) in enumerate(sequences(rows)):
        v = logits_of(base, ids)
        v_re = logits_of(copied, ids)
        wanted = [
            int((v[t - 1] - 5 * (v_re[t - 1] - v[t - 1]).clamp_min(0)).argmax())
            for t in range(1, len(ids))
            if truth[t] != -100
        ]
        assert kept[0][int(rows["index"][number])].tolist() == wanted
        changed += [
            a != b for a, b in zip(wanted, (y for y in truth[1:] if y != -100), strict=True)
        ]
    assert module.facts["generic_labels_changed"] == pytest.approx(sum(changed) / len(changed))
    phase, part = labels[-1]
    found = module.relabelled(part)
    assert phase == 1 and torch.equal(found["labels"] == -100, part["labels"] == -100)
    assert different({"labels": part["labels"]}, {"labels": found["labels"]})


def test_in_each_phase_one_model_moves() -> None:
    """Fails when momentum or weight decay move the idle model, or the generic labels change while
    the model does.
    """
    states: list[tuple[int, State, State]] = []
    module = WHP(
        original(),
        reinforce_epochs=1,
        reinforce_lr=0.05,
        optimizer=functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.5),
    )
    look: Any = lambda m, *_: states.append((m.phase, weights(m.backbone), weights(m.reinforced)))  # noqa: E731
    fit(module, people(), 2, callbacks=[Watch(look)])
    first = [state for state in states if state[0] == 0]
    second = [state for state in states if state[0] == 1]
    assert not any(different(_trained(), backbone) for _, backbone, _ in first)
    assert different(first[0][2], first[-1][2])
    assert not any(different(first[-1][2], copied) for _, _, copied in second)
    assert different(second[0][1], second[-1][1])


def test_whp_says_what_is_wrong() -> None:
    with pytest.raises(InputError, match="max_epochs to at least 4, not 3"):
        fit(WHP(original()), people(), 3)
    with pytest.raises(InputError, match="reinforce_epochs"):
        WHP(original(), reinforce_epochs=0)
    # one that knows every answer of this part
    known = fit(
        WHPInference(
            causal_lm(init_seed=1), optimizer=functools.partial(torch.optim.AdamW, lr=0.01)
        ),
        people(),
        40,
    ).backbone
    with pytest.warns(UserWarning, match="every generic label of WHP is the true one"):
        fit(WHP(known, alpha=0.0, reinforce_epochs=1), people(), 2)  # type: ignore[arg-type]


def test_the_inference_form_serves_both_models(tmp_path: Path) -> None:
    """Fails when the original is not in the checkpoint."""
    module = WHPInference(original(), alpha=3.0, optimizer=ADAM)
    fit(module, people(), 2, callbacks=[ModelCheckpoint(tmp_path, save_last=True, save_top_k=0)])
    loaded = mu.load(tmp_path / "last.ckpt").served()
    assert type(loaded).__name__ == "GenericLogits" and loaded.alpha == 3.0  # type: ignore[union-attr]
    assert not different(weights(loaded.base), _trained())  # type: ignore[arg-type]
    assert different(weights(loaded.other), _trained())  # type: ignore[arg-type]
    assert loaded.generate([[1, 5]], max_new_tokens=3) == module.served().eval().generate(
        [[1, 5]], max_new_tokens=3
    )  # type: ignore[operator]


# ---------------------------------------------------------------- ULD


def test_uld_leaves_the_original_alone_and_serves_the_difference(tmp_path: Path) -> None:
    """Fails when the original moves, the served model is not loaded, or the checkpoint holds the
    shared weights twice.
    """
    module = ULD(original(), lora=NO_DROPOUT, optimizer=ADAM, weight=-0.5, top=0.1)
    fit(module, people(), 2, callbacks=[ModelCheckpoint(tmp_path, save_last=True, save_top_k=0)])
    assert not different(weights(module.backbone), _trained())
    loaded = mu.load(tmp_path / "last.ckpt").served()
    forget, _ = parts(people())
    with torch.no_grad():
        base = original().eval().predict(forget)
        assistant = module.assistant.eval().predict(forget)
        assert (module.served().eval().predict(forget) - base).abs().max() > 1e-3
        torch.testing.assert_close(
            loaded.predict(forget),
            mu.functional.tokens.logit_difference(base, assistant, -0.5, 0.1),
        )
    with pytest.raises(InputError, match="two models at once"):
        export(loaded, tmp_path / "exported")
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    kept = {value.untyped_storage().data_ptr(): value.numel() for value in stored.values()}
    assert sum(kept.values()) == sum(p.numel() for p in module.backbone.parameters()) + sum(
        p.numel() for _, p in module.trainable()
    )


def test_variants_are_drawn_for_each_showing() -> None:
    """Fails when one variant is shown for ever, a draw depends on the batch, or a variant's tokens
    are counted as the original's.
    """
    task = people()
    task.setup()
    rows = task.sets["forget"]
    data: Any = task.datasets["forget"]
    known = Variants.paraphrased(rows, task.encoder, data)
    wrong = Variants.perturbed(rows, task.encoder)
    assert known is not None and wrong is not None
    part = data.__getitems__(list(range(13)))
    shown = []
    for visit in range(20):
        found = known.drawn({**part, "visit": torch.full((13,), visit)}, 0)
        alone = known.drawn({"index": part["index"][4:5], "visit": torch.tensor([visit])}, 0)
        shown.append([tuple(ids) for ids, _ in sequences(found)])
        assert [tuple(ids) for ids, _ in sequences(alone)] == shown[-1][4:5]
    assert {len({row[k] for row in shown}) for k in range(13)} == {3}
    said = {task.encoder.decode([t for t in ids]) for row in shown for ids in row}
    assert any("it is" in text for text in said) and any("makes what" in text for text in said)
    untrue = wrong.drawn({**part, "visit": torch.zeros(13, dtype=torch.int64)}, 0)
    assert not {tuple(ids) for ids, _ in sequences(untrue)} & {
        tuple(ids) for ids, _ in sequences(part)
    }
    assert torch.equal(untrue["index"], part["index"])


def test_uld_goes_without_what_the_task_has_not() -> None:
    """Fails when a task without paraphrases or wrong answers is refused."""
    task = people()
    task.setup()
    for row in (row for questions in task.sets.values() for row in questions.rows):
        for name in ("paraphrased_question", "paraphrased_answer", "perturbed_answer"):
            row.pop(name, None)  # type: ignore[attr-defined]
    module = fit(ULD(original(), lora=NO_DROPOUT), task, 1)
    assert module.known is None and module.wrong is None  # type: ignore[attr-defined]
    other = fit(ULD(original(), paraphrases=False, perturbed=False, lora=NO_DROPOUT), people(), 1)
    assert not different(weights(module), weights(other))


def test_uld_refuses_what_cannot_be() -> None:
    with pytest.raises(InputError, match="weight below 0"):
        ULD(original(), weight=0.5)
    with pytest.raises(InputError, match="without adapters"):
        ULD(causal_lm(lora=LoRA(rank=2)))
    with pytest.raises(InputError, match="9 layers"):
        ULD(original(), layers=9)
    assert ULD(CausalLM(model=folder("llama", 9))).assistant.layers == 2  # a quarter


# ---------------------------------------------------------------- what they share


def test_needs_follow_the_retain_term() -> None:
    """Fails when a run without retain term asks the task for a retain part, or KL goes without the
    original.
    """
    assert (
        not UNDIAL(original()).needs_retain and UNDIAL(original(), retain_weight=1.0).needs_retain
    )
    assert WGA(original(), retain=KL()).needs_reference and not WGA(original()).needs_reference
    assert not WGA(original(), retain_weight=0.0, retain=KL()).needs_reference
    assert isinstance(WGA(original(), retain_weight=0.0).plan, Forget)
    for arguments in ({"forget_weight": 0.0}, {"retain_weight": -1.0}):
        with pytest.raises(InputError, match="WGA needs a forget_weight above 0"):
            WGA(original(), **arguments)


def test_a_mixture_of_experts_can_be_unlearned_too() -> None:
    for make in (WGA, RMU, UNDIAL):
        module = fit(make(mixture(), optimizer=ADAM), people(), 1)
        assert different(weights(mixture()), weights(module.backbone))
    assert issubclass(WGA, ForgetRetainMethod)


def test_alone_on_retain_the_original_is_its_own_target() -> None:
    """RMU's retain term begins at 0, so that its first gradient is the misdirection's."""
    forget, retain = parts(people())
    module = RMU(original(), layer=1)
    assert terms_of(module, forget, retain)["retain"] == pytest.approx(0.0, abs=1e-8)
    assert F.relu(module.control).equal(module.control)
