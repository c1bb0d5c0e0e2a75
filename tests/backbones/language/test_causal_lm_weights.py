"""CausalLM: which weights are trained, where they come from, how they are kept, and which tasks fit
them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mu.backbones import CausalLM
from mu.backbones.export import export
from mu.backbones.lora import LoRA
from mu.core.reference import frozen_copy
from mu.functional.tokens import IGNORED
from mu.methods import FineTune, GradientAscent
from mu.utils.errors import InputError
from tests.backbones.language.test_causal_lm import by_hand, part, prompts
from tests.support import doubles_text
from tests.support.doubles_text import causal_lm, folder, mixture, people
from tests.support.helpers import different, digits, distance, fit, weights

Make = Callable[..., CausalLM]


# ---- what is trained -----------------------------------------------------------------------------


def trained(backbone: CausalLM) -> set[str]:
    return {name for name, weight in backbone.network.named_parameters() if weight.requires_grad}


def test_parts_are_regular_expressions() -> None:
    """Mutation: the expression must match the whole name."""
    assert trained(causal_lm()) == {name for name, _ in causal_lm().network.named_parameters()}
    chosen = causal_lm(part=[r"layers\.1\.mlp", "norm.weight$"])
    assert trained(chosen) == {
        "model.norm.weight",
        *(f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
        *(
            f"model.layers.{n}.{name}_layernorm.weight"
            for n in (0, 1)
            for name in ("input", "post_attention")
        ),
    }
    for wrong in ("attn2", ["mlp2", "nothing"]):
        with pytest.raises(
            InputError,
            match=r"names no weight of the model; names are like model\.embed_tokens\.weight",
        ):
            causal_lm(part=wrong)
    with pytest.raises(InputError, match="is not a regular expression"):
        causal_lm(part="layers.[")


def test_only_the_part_moves() -> None:
    module = GradientAscent(
        causal_lm(part=r"layers\.1\."),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1, weight_decay=0.1),
    )
    before = weights(module.backbone)
    fit(module, people(), 1)
    assert {name.split(".")[3] for name in different(before, weights(module.backbone))} == {"1"}
    assert all(".layers.1." in name for name in different(before, weights(module.backbone)))


def adapted(**changes: Any) -> CausalLM:
    return causal_lm(**{"lora": LoRA(r=2, lora_alpha=4), "part": "self_attn", **changes})


@torch.no_grad()
def test_adapters_begin_as_the_original() -> None:
    """The names are those of peft's own. Mutations: the base is trained too; A depends on the
    global seed.
    """
    backbone = adapted().eval()
    batch = part()
    names = {
        f"model.layers.{n}.self_attn.{name}_proj.lora_{side}.default.weight"
        for n in (0, 1)
        for name in "qkvo"
        for side in "AB"
    }
    assert trained(backbone) == names
    assert set(backbone.network.state_dict()) >= names
    assert torch.equal(backbone.predict(batch), causal_lm().eval().predict(batch))
    torch.manual_seed(3)
    assert different(weights(adapted()), weights(backbone)) == []
    assert different(weights(adapted(lora=LoRA(r=2, lora_alpha=4, init_seed=1))), weights(backbone))
    assert all("mlp" in name for name in trained(adapted(part=["mlp"])))
    with pytest.raises(InputError, match="no linear or convolution layer in the part"):
        adapted(part="norm")


def test_with_adapters_the_reference_is_the_base() -> None:
    """Mutations: the reference follows the adapters; the base moves; the base is held twice."""

    class WithReference(GradientAscent):
        needs_reference = True  # type: ignore[assignment]

    module = WithReference(adapted(), optimizer=lambda params: torch.optim.SGD(params, lr=0.5))
    before = weights(module.backbone)
    batch = part()
    fit(module, people(), 2)
    moved = different(before, weights(module.backbone))
    assert moved and all(".lora_" in name for name in moved)
    assert module.reference is not None
    with torch.no_grad():
        assert torch.equal(module.reference.predict(batch), causal_lm().eval().predict(batch))
        assert not torch.allclose(
            module.backbone.eval().predict(batch), module.reference.predict(batch), atol=1e-3
        )
    copy = frozen_copy(module.backbone)
    shared = {
        weight.data_ptr()
        for name, weight in module.backbone.named_parameters()
        if ".lora_" not in name
    }
    assert shared <= {weight.data_ptr() for weight in copy.parameters()}


# ---- weights -------------------------------------------------------------------------------------


@functools.cache
def other(**changes: Any) -> str:
    """A model of other weights, or of another shape, in a folder, with its tokenizer."""
    import tempfile

    from transformers import AutoConfig, AutoModelForCausalLM

    model_folder = tempfile.mkdtemp(prefix="mu-test-")
    config = AutoConfig.from_pretrained(folder())
    config.update(changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        AutoModelForCausalLM.from_config(config).save_pretrained(model_folder)
    doubles_text.tokenizer().save_pretrained(model_folder)
    return model_folder


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Make], tuple[str, dict[str, Tensor]]]:
    """A checkpoint of a fit of a model, and the weights at its end."""

    def made(make: Make) -> tuple[str, dict[str, Tensor]]:
        folder = tmp_path_factory.mktemp("run")
        module = GradientAscent(make(), optimizer=lambda params: torch.optim.SGD(params, lr=0.1))
        fit(
            module, people(), 1, callbacks=[ModelCheckpoint(folder / "checkpoints", save_last=True)]
        )
        return str(folder), weights(module.backbone)

    return made


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("form", ["folder", "file"])
def test_weights_come_from_another_model(tied: bool, form: str) -> None:
    """Mutation: of a model whose output matrix is its embedding, the file has one name, and the
    other is taken as missing.
    """
    folder = other(tie_word_embeddings=tied)
    other_model = CausalLM(folder)
    source = folder if form == "folder" else f"{folder}/model.safetensors"
    twin = CausalLM(other(tie_word_embeddings=tied, initializer_range=0.3), weights=source)
    assert different(weights(twin), weights(other_model)) == []
    assert (twin.network.lm_head.weight is twin.network.model.embed_tokens.weight) == tied  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "make",
    [causal_lm, mixture, adapted, functools.partial(causal_lm, model=None)],
    ids=["llama", "mixtral", "lora", "tied"],
)
def test_weights_come_from_a_run(run: Any, make: Any) -> None:
    if isinstance(make, functools.partial):
        make = functools.partial(causal_lm, model=other(tie_word_embeddings=True))
    folder, end = run(make)
    assert different(weights(make(weights=folder)), end) == []
    assert different(weights(make()), end)


def test_adapters_are_put_on_the_weights_of_a_run(run: Any) -> None:
    """Mutation: a layer that has an adapter keeps its old weights, because they stand one level
    deeper.
    """
    folder, end = run(causal_lm)
    backbone = adapted(weights=folder).eval()
    with torch.no_grad():
        assert torch.equal(backbone.predict(part()), causal_lm(end).eval().predict(part()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"intermediate_size": 32},
            r"holds model\.layers\.0\.mlp\..* of shape .* where .* has .*; it was saved for "
            r"another model",
        ),
        (
            {"num_hidden_layers": 3},
            r"it has model\.layers\.2\..*, which the model has not; it was saved for another model",
        ),
        ({"num_hidden_layers": 1}, r"it lacks model\.layers\.1\."),
    ],
)
def test_weights_of_another_shape_are_refused(changes: dict[str, int], message: str) -> None:
    before = weights(causal_lm())
    with pytest.raises(InputError, match=message):
        causal_lm(weights=other(**changes))
    assert different(weights(causal_lm()), before) == []


def test_adapters_of_another_base_are_refused(run: Any, tmp_path: Path) -> None:
    """Those of a run carry their base with them, so its shape tells; those in PEFT's form the hash
    of their base.
    """
    wide, _ = run(functools.partial(adapted, model=other(intermediate_size=32)))
    with pytest.raises(InputError, match=r"on a base model of hash .*, but that of the backbone"):
        adapted(weights=wide)
    narrow, _ = run(adapted)
    with pytest.raises(InputError, match=r"lora_A.* of shape \[2, 16\] where .* has \[3, 16\]"):
        adapted(weights=narrow, lora=LoRA(r=3))
    with pytest.raises(InputError, match="with other adapters"):
        causal_lm(weights=narrow)
    trained_ones = adapted(weights=narrow)
    shared = str(export(trained_ones, tmp_path / "adapter", "adapter"))
    assert different(weights(adapted(weights=shared)), weights(trained_ones)) == []
    with pytest.raises(
        InputError, match=r"were made for .*, whose weights are not those of .*; load that model"
    ):
        adapted(model=other(), weights=shared)
    with pytest.raises(InputError, match="do not fit those of the backbone"):
        adapted(weights=shared, part="mlp")


def test_models_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json, so it is not a transformers model"):
        CausalLM(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "no such model"}')
    with pytest.raises(InputError, match="cannot be read"):
        CausalLM(str(tmp_path))
    with pytest.raises(InputError, match="there is no dtype 'float33'"):
        causal_lm(dtype="float33")
    with pytest.raises(
        InputError, match="divergence_mask is 'labelled'; it is labels, attention or all"
    ):
        causal_lm(divergence_mask="labelled")


# ---- new weights ---------------------------------------------------------------------------------


def test_new_weights_follow_their_seed() -> None:
    """Mutations: the global generator is used, or moved; `fresh` keeps the old weights."""
    state = torch.get_rng_state()
    first = causal_lm(init_seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(11)
    assert different(weights(first), weights(causal_lm(init_seed=3))) == []
    assert len(different(weights(first), weights(causal_lm(init_seed=4)))) > 10
    again = causal_lm(weights=other(), part="mlp").fresh(3)
    assert different(weights(again), weights(first)) == []
    assert trained(again) == trained(causal_lm(part="mlp"))
    assert different(weights(adapted().fresh(3)), weights(adapted(init_seed=3))) == []


def test_a_live_network_is_made_anew_too() -> None:
    network = causal_lm().network
    backbone = CausalLM(network=network, tokenizer=doubles_text.tokenizer())
    twin = backbone.fresh(3)
    assert twin.network is not network
    assert twin.tokenizer is backbone.tokenizer
    assert different(weights(twin), weights(backbone.fresh(3))) == []
    assert len(different(weights(twin), weights(backbone))) > 10
    assert distance(weights(backbone), weights(causal_lm())) == 0


@pytest.mark.parametrize("make", [lambda: deepcopy(causal_lm()), lambda: frozen_copy(causal_lm())])
def test_copies_share_the_tokenizer(make: Any) -> None:
    backbone = causal_lm()
    assert backbone.tokenizer is not None
    copy = deepcopy(backbone)
    assert copy.tokenizer is backbone.tokenizer
    assert frozen_copy(backbone).tokenizer is backbone.tokenizer
    assert different(weights(make()), weights(backbone)) == []
    assert copy.network is not backbone.network


# ---- memory and precision ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora": LoRA(r=2), "part": "mlp"}, {"part": r"layers\.1"}],
    ids=["full", "lora", "part"],
)
def test_gradient_checkpointing_gives_the_same_gradients(changes: dict[str, Any]) -> None:
    """Layers run twice. Mutation: with a frozen embedding, nothing that is recomputed gets a
    gradient.
    """
    gradients = []
    for saving in (False, True):
        backbone = causal_lm(gradient_checkpointing=saving, **changes).train()
        with torch.no_grad():
            for name, weight in backbone.network.named_parameters():
                if "lora_B" in name:
                    weight.fill_(0.01)  # else A has no gradient
        ran: list[int] = []
        decoder: Any = backbone.network.model
        decoder.layers[1].mlp.register_forward_pre_hook(lambda *_, ran=ran: ran.append(1))
        summed, count = backbone.loss(part())
        (summed.sum() / count.sum()).backward()
        assert len(ran) == 1 + saving
        gradients.append(
            {
                name: weight.grad
                for name, weight in backbone.network.named_parameters()
                if weight.grad is not None
            }
        )
    assert gradients[0].keys() == gradients[1].keys() == trained(causal_lm(**changes))
    assert all(gradient.abs().max() > 0 for gradient in gradients[1].values())
    assert distance(*gradients) < 1e-6


@torch.no_grad()
def test_half_precision() -> None:
    """Weights are of the type that is named, losses of single precision. Mutation:
    log-probabilities in bfloat16 (three digits).
    """
    half = causal_lm(dtype="bfloat16").eval()
    batch = part()
    assert (
        {weight.dtype for weight in half.network.parameters()} == {half.dtype} == {torch.bfloat16}
    )
    summed, _ = half.loss(batch)
    assert summed.dtype == torch.float32
    logits = half.predict(batch)
    assert summed.tolist() == pytest.approx([sum(row) for row in by_hand(half, batch)], rel=2e-2)
    exact, labels = half.token_logits(batch, logits.double())
    expected = torch.nn.functional.cross_entropy(
        exact.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    assert torch.allclose(summed.double(), expected.view(labels.shape).sum(1), rtol=1e-5)
    assert summed.tolist() == pytest.approx(causal_lm().eval().loss(batch)[0].tolist(), rel=0.05)
    assert half.fresh(1).dtype == torch.bfloat16
    assert causal_lm(dtype="bfloat16", weights=other()).dtype == torch.bfloat16
    assert len(half.generate(prompts()[:2], 3)) == 2


# ---- tasks that do not fit -----------------------------------------------------------------------


def test_tasks_that_do_not_fit_are_refused() -> None:
    """Before the first step. Mutation: ids beyond the embedding end in an error of indices."""
    with pytest.raises(
        InputError, match="CausalLM reads token sequences, which Digits does not give"
    ):
        fit(FineTune(causal_lm()), digits())
    small = other(vocab_size=30)
    with pytest.raises(
        InputError,
        match=r"the tokenizer has \d+ tokens and the model .* 30; they belong to two models",
    ):
        fit(FineTune(CausalLM(small)), people())
    with pytest.raises(InputError, match=r"max_length is 65, but the context of .* has 64 places"):
        fit(FineTune(causal_lm()), people(max_length=65))
    causal_lm().check_task(people(max_length=64))


def test_the_task_takes_the_tokenizer_of_the_model() -> None:
    task = people(tokenizer=None)
    fit(FineTune(causal_lm()), task, 1)
    assert task.encoder.pair("who is ada ?", "ada") == people().encoder.pair("who is ada ?", "ada")
