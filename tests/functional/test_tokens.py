"""Losses on tokens and hidden states against the published equations, stated again in Python floats
and loops, with unequal lengths.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import mu.functional.tokens as tl
from mu.utils.errors import InputError

SHAPES = [(1, 2, 2), (3, 7, 11), (4, 5, 23)]


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def labels_of(batch: int, length: int, vocabulary: int, seed: int = 0) -> Tensor:
    """Sequence b has a prompt of b % 2 + (b > 0) positions and ends b positions early: all lengths
    differ, none is empty.
    """
    labels = torch.randint(
        0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed)
    )
    for b in range(batch):
        start = min(b % 2 + (b > 0), length - 1)
        labels[b, :start] = -100
        labels[b, max(length - b, start + 1) :] = -100
    assert ((labels != -100).sum(1) > 0).all()
    return labels


def softmax(z: list[float]) -> list[float]:
    top = max(z)
    parts = [math.exp(x - top) for x in z]
    return [part / sum(parts) for part in parts]


def same(sums_and_weights: tuple[Tensor, Tensor], sums: list[float], weights: list[float]) -> None:
    for values, expected in zip(sums_and_weights, (sums, weights), strict=True):
        torch.testing.assert_close(
            values, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
        )


def by_token(labels: Tensor, *tensors: Tensor, value) -> tuple[list[float], list[float]]:
    """Sum over the labelled positions of `value(label, *rows)`, and their number, sequence by
    sequence.
    """
    sums = []
    weights = []
    for b, row in enumerate(labels.tolist()):
        values = [
            value(y, *(tensor[b, t].tolist() for tensor in tensors))
            for t, y in enumerate(row)
            if y != -100
        ]
        sums.append(sum(values))
        weights.append(float(len(values)))
    return sums, weights


# ---------------------------------------------------------------- weighted ascent


def nll_of(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    mask = labels != -100
    nll = -logits.log_softmax(-1).gather(-1, labels.where(mask, torch.tensor(0))[..., None])[..., 0]
    return nll, mask.double()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.0), (1.0, 0.0), (5.0, 1.0), (0.5, 2.0)])
def test_sat_imp_is_its_equation(shape, beta1, beta2):
    """arXiv 2505.11953: w = p^beta1 (1 - p)^beta2."""
    logits = draw(*shape)
    labels = labels_of(*shape)
    nll, mask = nll_of(logits, labels)

    def value(y, z):
        p = softmax(z)[y]
        return p**beta1 * (1 - p) ** beta2 * math.log(p)

    same(tl.sat_imp(nll, mask, beta1, beta2), *by_token(labels, logits, value=value))
    if beta2 == 0:
        same(tl.weighted_ascent(nll, mask, beta1), *by_token(labels, logits, value=value))


def test_the_weight_of_a_token_takes_no_gradient():
    """d/dl of -w(l) l is -w alone."""
    nll = torch.tensor([[0.0, 0.3, 2.0, 40.0]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[0.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(tl.sat_imp(nll, mask, 2.0, 1.0)[0].sum(), nll)
    expected = [0.0] + [-math.exp(-2 * x) * (1 - math.exp(-x)) for x in (0.3, 2.0, 40.0)]
    torch.testing.assert_close(gradient, torch.tensor([expected], dtype=torch.float64))


def test_with_exponent_zero_it_is_gradient_ascent():
    nll = draw(3, 5).abs()
    mask = (draw(3, 5, seed=1) > 0).double()
    value, weight = tl.weighted_ascent(nll, mask, 0.0)
    torch.testing.assert_close(value, -(nll * mask).sum(1))
    torch.testing.assert_close(weight, mask.sum(1))


def test_a_token_that_is_certain_or_impossible_adds_nothing():
    nll = torch.tensor([[0.0, 800.0]], dtype=torch.float64)
    value, weight = tl.sat_imp(nll, torch.ones_like(nll), 5.0, 1.0)
    assert value.item() == 0 and weight.item() == 2
    with pytest.raises(InputError, match="at least 0"):
        tl.sat_imp(nll, torch.ones_like(nll), -1.0)


# --- distributions to be learned instead


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("beta", [0.0, 3.0, 10.0])
def test_undial_is_its_equation(shape, beta):
    """arXiv 2402.10052: cross-entropy of softmax(z_ref - beta e_y) and p."""
    student = draw(*shape)
    teacher = draw(*shape, seed=1, scale=3.0)
    labels = labels_of(*shape)

    def value(y, z, reference):
        target = softmax([x - beta * (v == y) for v, x in enumerate(reference)])
        return -sum(q * math.log(p) for q, p in zip(target, softmax(z), strict=True))

    expected = by_token(labels, student, teacher, value=value)
    same(tl.undial(student, teacher, labels, beta), *expected)
    same(tl.soft_target_loss(student, tl.undial_target(teacher, labels, beta), labels), *expected)


def test_the_target_leaves_prompt_and_padding_alone():
    teacher = draw(3, 7, 11)
    labels = labels_of(3, 7, 11)
    changed = (tl.undial_target(teacher, labels, 10.0) != teacher).any(-1)
    assert torch.equal(changed, labels != -100)
    assert torch.equal(tl.undial_target(teacher, labels, 0.0), teacher)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("skip", [0, 1, 2])
def test_ce_u_is_its_equation(shape, skip):
    """arXiv 2503.01224: q is p over the other tokens; the first tokens of an answer are ignored."""
    logits = draw(*shape, scale=2.0)
    labels = labels_of(*shape, seed=3)
    counted = labels.clone()
    for row in counted:
        for t in [t for t, y in enumerate(row.tolist()) if y != -100][:skip]:
            row[t] = -100
    assert torch.equal(tl.without_first(labels, skip), counted)

    def value(y, z):
        p = softmax(z)
        rest = sum(x for v, x in enumerate(p) if v != y)
        return -sum(x / rest * math.log(x) for v, x in enumerate(p) if v != y)

    same(tl.ce_u(logits, labels, skip), *by_token(counted, logits, value=value))


def test_the_gradient_of_ce_u_is_p_minus_q():
    """Bounded, and 0 at ignored positions."""
    logits = draw(3, 7, 11, scale=4.0).requires_grad_()
    labels = labels_of(3, 7, 11)
    (gradient,) = torch.autograd.grad(tl.ce_u(logits, labels, 0)[0].sum(), logits)
    expected = torch.zeros_like(logits)
    for b, t in (labels != -100).nonzero().tolist():
        p = softmax(logits[b, t].tolist())
        y = int(labels[b, t])
        expected[b, t] = torch.tensor(
            [x - (0.0 if v == y else x / (1 - p[y])) for v, x in enumerate(p)]
        )
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() <= 1


def test_ce_u_with_tokens_that_cannot_be():
    """Fails when -inf times a probability of zero is not a number: a grammar may forbid tokens, as
    long as two are left.
    """
    logits = torch.tensor([[[1.0, 2.0, 0.5, -math.inf]]], dtype=torch.float64, requires_grad=True)
    value, _ = tl.ce_u(logits, torch.tensor([[1]]), 0)
    short = tl.ce_u(logits.detach()[..., :3], torch.tensor([[1]]), 0)[0]
    torch.testing.assert_close(value.detach(), short)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(gradient).all()
    with pytest.raises(InputError, match="two tokens"):
        tl.ce_u(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.int64))


# ---------------------------------------------------------------- flatness


@pytest.mark.parametrize("shape", SHAPES)
def test_logit_margin(shape):
    """arXiv 2506.05314: (max z - mean z)^2."""
    logits = draw(*shape)
    labels = labels_of(*shape)
    same(
        tl.logit_margin(logits, labels),
        *by_token(labels, logits, value=lambda y, z: (max(z) - sum(z) / len(z)) ** 2),
    )


def test_the_code_of_pdu_counts_other_positions():
    """The unshifted pair leaves out the last prompt position, which predicts the first answer
    token, and takes the one after the answer.
    """
    logits = draw(1, 6, 5)
    labels = torch.tensor([[-100, -100, 3, 4, -100, -100]])  # an answer at positions 2 and 3
    margin = [(max(z) - sum(z) / 5) ** 2 for z in logits[0].tolist()]
    same(tl.logit_margin(logits, labels), [margin[2] + margin[3]], [2.0])
    same(tl.logit_margin(logits[:, :-1], labels[:, 1:]), [margin[1] + margin[2]], [2.0])


@pytest.mark.parametrize("shape", SHAPES)
def test_uniform_divergence(shape):
    """arXiv 2406.08607: sum_v 1/V (-log V - log p_v)."""
    logits = draw(*shape, scale=3.0)
    labels = labels_of(*shape)

    def value(y, z):
        size = len(z)
        return sum(1 / size * (-math.log(size) - math.log(p)) for p in softmax(z))

    same(tl.uniform_divergence(logits, labels), *by_token(labels, logits, value=value))
    torch.testing.assert_close(
        tl.uniform_divergence(torch.full(shape, 3.5).double(), labels)[0],
        torch.zeros(shape[0]).double(),
    )


# ---------------------------------------------------------------- hidden states


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("target_kind", ["vector", "states"])
def test_hidden_distance(shape, target_kind):
    """arXiv 2403.03218: mean over the dimensions, summed over the positions of the mask."""
    hidden = draw(*shape)
    labels = labels_of(*shape)
    target = draw(shape[-1], seed=1) if target_kind == "vector" else draw(*shape, seed=1)
    wide = target.expand(shape)

    def value(y, h, c):
        return sum((a - b) ** 2 for a, b in zip(h, c, strict=True)) / len(h)

    same(
        tl.hidden_distance(hidden, target, labels != -100),
        *by_token(labels, hidden, wide, value=value),
    )
    everywhere = torch.zeros_like(labels)
    same(tl.hidden_distance(hidden, target), *by_token(everywhere, hidden, wide, value=value))


def test_sum_over_weight_is_the_mean_of_the_paper():
    """1/L_f of each text; the released code's mean over batch, positions and dimensions is the same
    without a mask.
    """
    hidden = draw(3, 7, 4)
    target = draw(4, seed=1)
    value, weight = tl.hidden_distance(hidden, target)
    torch.testing.assert_close((value / weight).mean(), (hidden - target).square().mean())


# ---------------------------------------------------------------- all of them


LOSSES = {
    "undial": lambda z, y: tl.undial(z, draw(*z.shape, seed=5).to(z.dtype), y),
    "ce_u": lambda z, y: tl.ce_u(z, y, 0),
    "logit_margin": tl.logit_margin,
    "uniform_divergence": tl.uniform_divergence,
    "weighted_ascent": lambda z, y: tl.weighted_ascent(*nll_of(z, y)),
    "sat_imp": lambda z, y: tl.sat_imp(*nll_of(z, y)),
    "hidden_distance": lambda z, y: tl.hidden_distance(
        z, torch.zeros(z.shape[-1]).to(z.dtype), y != -100
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_positions_without_label_do_not_matter(name):
    """Fails when padding or prompt enters a sum, a weight or a gradient; even where it is not
    finite.
    """
    logits = draw(3, 7, 11)
    labels = labels_of(3, 7, 11)
    other = logits.clone()
    other[labels == -100] = 1e4
    other.requires_grad_()
    computed = LOSSES[name](other, labels)
    expected = LOSSES[name](logits, labels)
    for a, b in zip(computed, expected, strict=True):
        torch.testing.assert_close(a, b)
    (gradient,) = torch.autograd.grad(computed[0].sum(), other)
    assert not gradient[labels == -100].any() and gradient[labels != -100].abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_padded_sequence_adds_nothing(name):
    """Fails when a sequence without a label is not a number."""
    logits = draw(2, 4, 5).requires_grad_()
    labels = labels_of(2, 4, 5)
    labels[1] = -100
    value, weight = LOSSES[name](logits, labels)
    assert value[1] == 0 and weight[1] == 0 and torch.isfinite(value).all()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_single(name):
    logits = draw(3, 7, 11).to(torch.bfloat16)
    labels = labels_of(3, 7, 11)
    value, weight = LOSSES[name](logits, labels)
    assert value.dtype == weight.dtype == torch.float32 or name in ("weighted_ascent", "sat_imp")
    torch.testing.assert_close(
        value.double(), LOSSES[name](logits.double(), labels)[0], rtol=2e-2, atol=5e-2
    )


def test_shapes_are_checked():
    labels = torch.zeros(2, 3, dtype=torch.int64)
    for call in (
        lambda: tl.ce_u(torch.zeros(2, 4, 5), labels),
        lambda: tl.undial(torch.zeros(2, 3, 5), torch.zeros(2, 3, 6), labels),
        lambda: tl.hidden_distance(torch.zeros(2, 3, 5), torch.zeros(3, 5)),
        lambda: tl.weighted_ascent(torch.zeros(2, 5), torch.zeros(2, 4)),
    ):
        with pytest.raises(InputError, match="needs"):
            call()
