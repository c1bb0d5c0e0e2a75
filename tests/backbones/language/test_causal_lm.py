"""CausalLM: the loss is transformers' own, the mask alone says what is padding, and generation does
not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.backbones import CausalLM
from mu.data.batch import concatenate
from mu.functional.tokens import IGNORED
from mu.methods import FineTune
from mu.utils.errors import InputError
from tests.data.test_encoding import byte_tokenizer
from tests.support.doubles_text import causal_lm, folder, mixture, people

END = 2
KINDS = {"llama": causal_lm, "mixtral": mixture}


def part(rows: list[int] | None = None, name: str = "forget") -> dict[str, Any]:
    """Some of the people's rows: sequences of unequal lengths."""
    task = people()
    task.setup()
    data: Any = task.datasets[name]
    return data.__getitems__(rows or [0, 1, 2, 3])


def alone(batch: Mapping[str, Any], row: int) -> dict[str, Tensor]:
    """One row, without its padding."""
    length = int(batch["attention_mask"][row].sum())
    return {
        name: batch[name][row : row + 1, :length]
        for name in ("input_ids", "attention_mask", "labels")
    }


def by_hand(backbone: CausalLM, batch: Mapping[str, Any]) -> list[list[float]]:
    """−log p of every labelled token of every row, in double precision, one row at a time."""
    losses = []
    for row in range(len(batch["labels"])):
        single = alone(batch, row)
        logs = backbone.predict(single)[0].double().log_softmax(-1)
        labels = single["labels"][0].tolist()
        losses.append(
            [
                -logs[position - 1, label].item()
                for position, label in enumerate(labels)
                if position and label != IGNORED
            ]
        )
    return losses


# ---- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
@torch.no_grad()
def test_the_token_mean_is_that_of_transformers(kind: str) -> None:
    """Mutations: labels are not shifted; padding counts; the mean is over sequences."""
    backbone = KINDS[kind]().eval()
    batch = part()
    assert len(set(batch["attention_mask"].sum(1).tolist())) > 1
    summed, count = backbone.loss(batch)
    network: Any = backbone.network
    expected = network(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]
    ).loss
    assert summed.sum() / count.sum() == pytest.approx(expected.item(), rel=1e-5)


@torch.no_grad()
def test_every_row_has_the_loss_that_it_has_alone() -> None:
    backbone = causal_lm().eval()
    batch = part()
    hand = by_hand(backbone, batch)
    summed, count = backbone.loss(batch)
    assert summed.tolist() == pytest.approx([sum(row) for row in hand], rel=1e-5)
    assert count.tolist() == [len(row) for row in hand]
    assert torch.equal(backbone.nll(batch), summed)
    nll, mask = backbone.token_nll(batch)
    assert nll.shape == mask.shape == batch["labels"].shape
    assert (nll[:, 0] == 0).all() and (mask[:, 0] == 0).all()
    assert nll[mask.bool()].tolist() == pytest.approx(
        [value for row in hand for value in row], rel=1e-4
    )
    assert torch.equal(mask[:, 1:].bool(), batch["labels"][:, 1:] != IGNORED)


@torch.no_grad()
def test_reductions() -> None:
    """Against double precision, with unequal lengths. Mutation: `sequence_mean` divides by the
    longest sequence.
    """
    batch = part()
    batch |= {
        "count": torch.tensor(4.0),
        "total": (batch["labels"][:, 1:] != IGNORED).sum().float(),
    }
    hand = by_hand(causal_lm().eval(), batch)
    expected = {
        "token_mean": sum(map(sum, hand)) / sum(map(len, hand)),
        "sequence_sum": sum(map(sum, hand)) / 4,
        "sequence_mean": sum(sum(row) / len(row) for row in hand) / 4,
    }
    expected["micro"] = expected["token_mean"]
    for name, value in expected.items():
        module = FineTune(causal_lm().eval(), reduction=name)
        assert module.reduce(module.backbone.loss(batch), batch).item() == pytest.approx(
            value, rel=1e-5
        ), name
    assert len({round(value, 4) for value in expected.values()}) == 3


@torch.no_grad()
def test_rows_that_are_padded_count_for_nothing() -> None:
    backbone = causal_lm().eval()
    batch = part()
    real = backbone.loss(batch)
    padded = {**batch, "padded": torch.tensor([False, True, False, False])}
    for computed, expected in zip(backbone.loss(padded), real, strict=True):
        assert computed.tolist() == [
            0.0 if row == 1 else value for row, value in enumerate(expected.tolist())
        ]
    other = backbone.predict(batch).roll(1, -1)
    assert backbone.divergence(other, backbone.predict(batch), padded)[0][1] == 0


@torch.no_grad()
def test_a_wider_prediction_is_cut_to_the_batch() -> None:
    """One forward over forget and retain, of other lengths. Mutation: logits of another width are
    compared as they are.
    """
    backbone = causal_lm().eval()
    short = part([0, 6], "forget")
    long = part([0, 2, 4], "retain")
    assert short["labels"].shape[1] < long["labels"].shape[1]
    joint = backbone.predict(concatenate(short, long)).split(
        [len(short["index"]), len(long["index"])]
    )
    for batch, logits in zip((short, long), joint, strict=True):
        prediction = backbone.predict(batch)
        for value, expected in (
            (backbone.loss(batch, logits), backbone.loss(batch)),
            (backbone.token_nll(batch, logits), backbone.token_nll(batch)),
            (
                backbone.divergence(logits.roll(1, -1), logits, batch),
                backbone.divergence(prediction.roll(1, -1), prediction, batch),
            ),
        ):
            for a, b in zip(value, expected, strict=True):
                assert torch.allclose(a, b, atol=1e-4)
        scores = backbone.scores(batch, logits)
        assert torch.allclose(scores["loss"], backbone.scores(batch)["loss"], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("where", ["labels", "attention", "all"])
def test_the_divergence_is_summed_over_the_named_positions(where: Any) -> None:
    """KL(teacher ‖ student), in loops. Mutations: the direction; the positions are shifted by
    one.
    """
    backbone = causal_lm(divergence_mask=where).eval()
    batch = part()
    teacher = backbone.predict(batch)
    student = backbone.predict(batch).roll(1, -1)
    summed, count = backbone.divergence(student, teacher, batch)
    p = teacher.double().log_softmax(-1)
    q = student.double().log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)
    width = batch["labels"].shape[1]
    chosen = {
        "labels": lambda row, t: t + 1 < width and batch["labels"][row, t + 1] != IGNORED,
        "attention": lambda row, t: batch["attention_mask"][row, t] == 1,
        "all": lambda row, t: True,
    }[where]
    for row in range(4):
        positions = [t for t in range(width) if chosen(row, t)]
        assert summed[row].item() == pytest.approx(
            sum(kl[row, t].item() for t in positions), rel=1e-4
        )
        assert count[row] == len(positions)
    assert backbone.divergence(teacher, teacher, batch)[0].abs().max() < 1e-5


@torch.no_grad()
def test_an_end_token_within_a_sequence_hides_nothing() -> None:
    """The pad token is the end token, as in many models. Mutation: the mask is `ids != pad`."""
    backbone = causal_lm().eval()
    backbone.tokenizer.pad_token = backbone.tokenizer.eos_token
    ids = torch.tensor([[1, 7, END, 9, 11, END]])
    labels = torch.tensor([[IGNORED, IGNORED, END, 9, 11, END]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    unmasked = backbone.network(input_ids=ids).logits
    assert torch.allclose(backbone.predict(batch), unmasked, atol=1e-6)
    assert backbone.loss(batch)[1] == 4
    hidden_end = backbone.predict({**batch, "attention_mask": (ids != END).long()})
    assert not torch.allclose(hidden_end[:, 3], unmasked[:, 3], atol=1e-4)
    task = people()
    task.setup()
    pair = task.encoder.pair("who is it </s> ada ?", "it is ada </s> and bert")
    assert pair[0].count(END) == 3 and pair[1].count(END) == 2


# ---- inside --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
@torch.no_grad()
def test_hidden_states_are_those_of_transformers(kind: str) -> None:
    """Mutations: the state before a layer; layers after it are computed; the model stays cut
    off.
    """
    backbone = causal_lm(model=folder(kind, 3)).eval()
    batch = part()
    network: Any = backbone.network
    expected = network(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        output_hidden_states=True,
    ).hidden_states
    before = backbone.predict(batch)
    ran: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, n=n: ran.append(n))
        for n, layer in enumerate(network.model.layers)
    ]
    for layer in (0, 1, -2):
        assert torch.allclose(backbone.hidden(batch, layer), expected[layer % 3 + 1], atol=1e-6)
    assert ran == [0, 0, 1, 0, 1]
    for hook in hooks:
        hook.remove()
    assert torch.allclose(network.model.norm(backbone.hidden(batch, -1)), expected[3], atol=1e-6)
    assert backbone.layers == 3
    assert torch.equal(backbone.predict(batch), before)
    for layer in (3, -4):
        with pytest.raises(InputError, match=f"there is no layer {layer}; the model has 3"):
            backbone.hidden(batch, layer)


def test_a_gradient_through_a_hidden_state_stays_below_it() -> None:
    backbone = causal_lm(model=folder("llama", 3))
    backbone.hidden(part(), 1).square().sum().backward()
    moved = {
        name.split(".")[2]
        for name, p in backbone.network.named_parameters()
        if p.grad is not None and "layers" in name
    }
    assert moved == {"0", "1"}


# ---- generation ----------------------------------------------------------------------------------


def prompts() -> list[list[int]]:
    task = people()
    task.setup()
    asked = [str(row["question"]) for row in task.sets["forget"].rows[:7]]
    return [
        task.encoder.prompt(question)
        for question in [*asked, "what ?", "where does ada live in that town named oslo ?"]
    ]


@pytest.mark.parametrize("kind", list(KINDS))
def test_generation_does_not_depend_on_the_batch(kind: str) -> None:
    """Mutations: padding on the right; answers in the order of lengths; padding that attention
    sees.
    """
    backbone = KINDS[kind]().eval()
    asked = prompts()
    assert len({len(ids) for ids in asked}) > 2
    single = [backbone.generate([ids], 12)[0] for ids in asked]
    for size in (2, 4, 32):
        assert backbone.generate(asked, 12, batch_size=size) == single
    assert len(set(single)) > 3
    assert all(single)


@torch.no_grad()
def test_generation_is_greedy() -> None:
    backbone = causal_lm().eval()
    ids = prompts()[0]
    grown = list(ids)
    for _ in range(12):
        tokens = torch.tensor([grown])
        grown.append(
            int(
                backbone.predict({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})[
                    0, -1
                ].argmax()
            )
        )
        if grown[-1] == END:
            break
    assert backbone.generate([ids], 12) == [
        backbone.tokenizer.decode(grown[len(ids) :], skip_special_tokens=True)
    ]


def test_answers_end_at_stop_strings_and_at_the_end_token() -> None:
    """Mutations: the stop string stays in the answer; a finished row's padding does."""
    from transformers import LlamaConfig, LlamaForCausalLM

    backbone = CausalLM(
        network=LlamaForCausalLM(LlamaConfig.from_pretrained(folder(), vocab_size=400)),
        tokenizer=byte_tokenizer(),
    )
    backbone = backbone.fresh(0).eval()
    asked = [
        backbone.tokenizer(text)["input_ids"]
        for text in ("Who?", "Where does Ada live?", "Eve makes")
    ]
    full_answers = backbone.generate(asked, 12)
    mark = full_answers[0][4:6]
    stopped = backbone.generate(asked, 12, stop_strings=[mark, "no such words"])
    assert stopped == [text.split(mark)[0] for text in full_answers]
    assert len(stopped[0]) < len(full_answers[0])
    ids = backbone.tokenizer("Eve makes", add_special_tokens=False)["input_ids"]
    assert backbone.decode_answer([*ids, backbone.tokenizer.eos_token_id, *ids]) == "Eve makes"
    assert backbone.decode_answer(ids, stop_strings=["makes", "e "]) == "Ev"


def test_no_pad_token_is_needed() -> None:
    backbone = causal_lm().eval()
    asked = prompts()
    expected = backbone.generate(asked, 6)
    bare = causal_lm().eval()
    bare.tokenizer.pad_token = None
    assert bare.generate(asked, 6) == expected
