"""Token losses, targets and hidden-state distances of language-model unlearning.

Pure functions on tensors. *Shifted* logits `[B, T, V]` and labels `[B, T]` belong together:
`logits[:, t]` predicts `labels[:, t]`; -100 is ignored (`CausalLM.token_logits` gives the pair).
`nll` and `mask`, `[B, L]`, are the negative log-probabilities of the labelled tokens and where they
stand (`CausalLM.token_nll`). A loss returns `(sum [B], weight [B])`, the sum over the tokens that
count and their number, and never reduces: the method decides how (`UnlearningModule.reduce`). A
*target* or *teacher* is data: pass it without gradient.

Half-precision inputs are computed in float32. Only labelled positions are computed: the vocabulary
is large, and prompts and padding are many. Logarithms are natural. No function reads a model or
draws.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mu.functional.checks import at_least_float32, check_same_shape, check_token_logits
from mu.utils.errors import InputError

IGNORED = -100
"""Label of a token that no loss counts."""

WeightedSum = tuple[Tensor, Tensor]
"""Sum over the tokens that count and their number, both `[B]`."""

# ---------------------------------------------------------------- weighted gradient ascent


def weighted_ascent(nll: Tensor, mask: Tensor, beta: float = 1.0) -> WeightedSum:
    """Weighted gradient ascent (WGA), `-sum_t sg[p_t^beta] l_t` with `p_t = exp(-l_t)`.

    Ascent on the tokens that the model still predicts. The weight takes no gradient (sg), so that a
    token's gradient is `p^beta` times gradient ascent's; beta = 0 is gradient ascent.

    Source: Wang et al., "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go
    Beyond" (ICLR 2025, arXiv 2502.19301). The released code takes the mean over the valid tokens of
    the batch, as `token_mean` does.

    Args:
        nll: l, `[B, L]`, at least 0; any finite value where the mask is 0.
        mask: `[B, L]`, 1 at labelled tokens, 0 elsewhere.
        beta: >= 0.

    Returns:
        `(sum [B], weight [B])`; the sum is at most 0.

    Example: a token of probability 1/2 weighs 1/2.

        >>> nll, mask = torch.tensor([[0.0, math.log(2)]]), torch.tensor([[0.0, 1.0]])
        >>> value, weight = weighted_ascent(nll, mask)
        >>> round(value.item(), 4), weight.item()
        (-0.3466, 1.0)
    """
    return sat_imp(nll, mask, beta, 0.0)


def sat_imp(nll: Tensor, mask: Tensor, beta1: float = 5.0, beta2: float = 1.0) -> WeightedSum:
    """SatImp's loss, `-sum_t sg[p_t^beta1 (1 - p_t)^beta2] l_t`, a weighted gradient ascent.

    The first factor is the saturation (the model predicts the token), the second the importance
    (it is not certain of it).

    Source: Yang et al., "Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning" (ICML
    2025, arXiv 2505.11953). The released code takes the mean over the valid tokens of the batch.

    Args:
        nll: l, `[B, L]`, at least 0.
        mask: `[B, L]`, 1 at labelled tokens.
        beta1: >= 0.
        beta2: >= 0; 0 is `weighted_ascent`.

    Returns:
        `(sum [B], weight [B])`; the sum is at most 0.

    Raises:
        InputError: the shapes differ, or an exponent is negative.

    Example: a token of probability 1/2 with both exponents 1 weighs 1/4.

        >>> value, weight = sat_imp(torch.tensor([[math.log(2)]]), torch.ones(1, 1), 1.0, 1.0)
        >>> round(value.item(), 4), weight.item()
        (-0.1733, 1.0)
    """
    check_same_shape("sat_imp", nll, mask)
    if beta1 < 0 or beta2 < 0:
        raise InputError(
            f"the exponents of the weight of a token are at least 0, not {beta1} and {beta2}."
        )
    labelled = mask != 0
    values = at_least_float32(nll).masked_fill(~labelled, 0.0)
    with torch.no_grad():
        weight = (-beta1 * values).exp()
        if beta2:
            weight = weight * (-torch.expm1(-values)) ** beta2  # 1 - p, exact where p is close to 1
    return -(weight * values).sum(1), labelled.sum(1).to(values.dtype)


# ---------------------------------------------------------------- substitute distributions


def soft_target_loss(logits: Tensor, target: Tensor, labels: Tensor) -> WeightedSum:
    """Cross-entropy to a distribution at every labelled token, `-sum_t sum_v q_tv log p_tv`.

    q is `softmax(target)`, p `softmax(logits)`.

    Args:
        logits: the student's, `[B, T, V]`, shifted.
        target: logits of q, `[B, T, V]`; -inf is probability 0.
        labels: `[B, T]`; positions count where the label is not -100.

    Returns:
        `(sum [B], weight [B])`; the sum is at least the entropy of q.

    Example: (log 3, 0) are the probabilities (3/4, 1/4); towards (1, 0) that costs log(4/3).

        >>> certain = torch.tensor([[[0.0, -math.inf]]])
        >>> logits = torch.tensor([[[math.log(3), 0.0]]])
        >>> value, _ = soft_target_loss(logits, certain, torch.tensor([[0]]))
        >>> round(value.item(), 4)
        0.2877
    """
    check_token_logits("soft_target_loss", logits, labels, target)
    at = labels != IGNORED
    loss = _soft_cross_entropy(at_least_float32(logits[at]), at_least_float32(target[at]))
    return _sum_by_sequence(loss, at)


def undial_target(teacher: Tensor, labels: Tensor, beta: float = 10.0) -> Tensor:
    """UNDIAL's target: the original's logits with the true token lowered, `z_ref - beta onehot(y)`.

    Positions whose label is -100 are left as they are. Source: Dong et al., "UNDIAL:
    Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language Models" (NAACL
    2025, arXiv 2402.10052). The port in OpenUnlearning masks nothing: it takes the mean over *all*
    positions, where prompt and padding distil the original, and its label -100, used as an index,
    lowers vocabulary entry V - 100 there (`mu.methods.compat.UNDIALReference`).

    Args:
        teacher: z_ref, `[B, T, V]`, shifted.
        labels: y, `[B, T]`.
        beta: strength; 0 is plain distillation.

    Returns:
        `[B, T, V]`, logits.

    Example: the true token's logit, 12 - 10.

        >>> undial_target(torch.tensor([[[12.0, 3.0]]]), torch.tensor([[0]])).tolist()
        [[[2.0, 3.0]]]
    """
    check_token_logits("undial_target", teacher, labels)
    at = labels != IGNORED
    change = torch.where(at, -beta, 0.0).to(teacher.dtype)
    return teacher.scatter_add(-1, labels.where(at, 0)[..., None], change[..., None])


def undial(student: Tensor, teacher: Tensor, labels: Tensor, beta: float = 10.0) -> WeightedSum:
    """UNDIAL's loss: cross-entropy to `undial_target` at the labelled positions.

    Args:
        student: `[B, T, V]`, shifted.
        teacher: z_ref, the same shape, without gradient.
        labels: `[B, T]`.
        beta: strength.

    Returns:
        `(sum [B], weight [B])`.

    Raises:
        InputError: a shape does not fit.

    Example: lowered by log 3, the teacher's (3/4, 1/4) becomes (1/2, 1/2), as the student's: log 2.

        >>> teacher, labels = torch.tensor([[[math.log(3), 0.0]]]), torch.tensor([[0]])
        >>> value, _ = undial(torch.zeros(1, 1, 2), teacher, labels, beta=math.log(3))
        >>> round(value.item(), 4)
        0.6931
    """
    check_token_logits("undial", student, labels, teacher)
    at = labels != IGNORED
    target = undial_target(at_least_float32(teacher[at])[None], labels[at][None], beta)[0]
    return _sum_by_sequence(_soft_cross_entropy(at_least_float32(student[at]), target), at)


def ce_u(logits: Tensor, labels: Tensor, skip: int = 1) -> WeightedSum:
    """CE-U's loss: cross-entropy to the model's own distribution without the true token.

    The target is `q = softmax(sg[z] with z_y = -inf)`. The gradient with respect to the logits is
    `p - q`, which is bounded, and 0 but for what p gives to the true token.

    Source: Yang, "CE-U: Cross Entropy Unlearning" (arXiv 2503.01224). In the released code the
    first `skip` = 1 tokens of each answer are ignored, as here: they tell no more than the
    question does.

    Args:
        logits: z, `[B, T, V]`, shifted; at least one other token than the true one is finite.
        labels: y, `[B, T]`.
        skip: labelled tokens at the beginning of each sequence that are ignored.

    Returns:
        `(sum [B], weight [B])`, without the tokens that are ignored.

    Raises:
        InputError: there is one token only.

    Example: the other two tokens are equally likely, and p is uniform: log 3.

        >>> value, _ = ce_u(torch.zeros(1, 1, 3), torch.tensor([[0]]), skip=0)
        >>> round(value.item(), 4)
        1.0986
    """
    check_token_logits("ce_u", logits, labels)
    if logits.shape[-1] < 2:
        raise InputError(
            "CE-U needs a vocabulary of at least two tokens: there must be another one than the "
            "true token."
        )
    labels = without_first(labels, skip)
    at = labels != IGNORED
    student = at_least_float32(logits[at])
    target = student.detach().scatter(-1, labels[at][:, None], -math.inf)
    return _sum_by_sequence(_soft_cross_entropy(student, target), at)


def without_first(labels: Tensor, count: int) -> Tensor:
    """Labels with the first `count` labelled tokens of every sequence ignored (-100).

    Args:
        labels: `[B, T]`.
        count: >= 0.

    Returns:
        `[B, T]`.

    Example: 5 is the first labelled token.

        >>> without_first(torch.tensor([[-100, 5, 6, 7]]), 1).tolist()
        [[-100, -100, 6, 7]]
    """
    at = labels != IGNORED
    return labels.masked_fill(at & (at.cumsum(1) <= count), IGNORED)


# ---------------------------------------------------------------- flatness


def logit_margin(logits: Tensor, labels: Tensor) -> WeightedSum:
    """PDU's flattening loss, `sum_t (max_v z_tv - mean_v z_tv)^2`; 0 for a uniform prediction.

    Source: Entesari et al., "Constrained Entropic Unlearning: A Primal-Dual Framework for Large
    Language Models" (arXiv 2506.05314). Its code lays the mask of the *unshifted* labels on
    unshifted logits, so that position t counts where label t does although its logits predict t +
    1: the last prompt position is left out, and the position after the answer comes in. Given the
    unshifted pair, this function does that.

    Args:
        logits: z, `[B, T, V]`, finite.
        labels: `[B, T]`; where they are not -100, positions count.

    Returns:
        `(sum [B], weight [B])`, at least 0.

    Example: the largest of (3, 1, 2) is one above their mean.

        >>> logit_margin(torch.tensor([[[3.0, 1.0, 2.0]]]), torch.tensor([[0]]))[0]
        tensor([1.])
    """
    check_token_logits("logit_margin", logits, labels)
    at = labels != IGNORED
    selected = at_least_float32(logits[at])
    return _sum_by_sequence((selected.amax(-1) - selected.mean(-1)).square(), at)


def uniform_divergence(logits: Tensor, labels: Tensor) -> WeightedSum:
    """KL divergence from the uniform distribution at every labelled token, `sum_t KL(uniform ||
    p_t)`.

    It is `sum_t (logsumexp z_t - mean_v z_tv - log V)`: ULD's term on retain data.

    Source: Ji et al., "Reversing the Forget-Retain Objectives: An Efficient LLM Unlearning
    Framework from Logit Difference" (NeurIPS 2024, arXiv 2406.08607). The released code averages
    over all positions, prompt and padding too; here over what the labels mark.

    Args:
        logits: z, `[B, T, V]`, finite.
        labels: `[B, T]`; where they are not -100, positions count.

    Returns:
        `(sum [B], weight [B])`, at least 0 up to rounding.

    Example: probabilities (3/4, 1/4): log(4 / 3) / 2.

        >>> logits = torch.tensor([[[math.log(3), 0.0]]])
        >>> round(uniform_divergence(logits, torch.tensor([[0]]))[0].item(), 4)
        0.1438
    """
    check_token_logits("uniform_divergence", logits, labels)
    at = labels != IGNORED
    selected = at_least_float32(logits[at])
    divergence = selected.logsumexp(-1) - selected.mean(-1) - math.log(logits.shape[-1])
    return _sum_by_sequence(divergence, at)


# ---------------------------------------------------------------- hidden states


def hidden_distance(hidden: Tensor, target: Tensor, mask: Tensor | None = None) -> WeightedSum:
    """RMU's distance of hidden states, `sum_t mean_d (h_td - c_td)^2` over the masked positions.

    Source: Li et al., "The WMDP Benchmark" (ICML 2024, arXiv 2403.03218), which averages over the
    tokens of a text, then over texts: that is `sum / weight` and then the mean over samples. Its
    released code takes the mean over *all* positions, padding too (`mask=None`); OpenUnlearning
    masks by the labels, unshifted.

    Args:
        hidden: h, `[B, L, D]`.
        target: c, `[D]` for the control vector or `[B, L, D]` for the original's states; without
            gradient.
        mask: `[B, L]`, not 0 where a position counts; None counts all.

    Returns:
        `(sum [B], weight [B])`, at least 0.

    Example: only the first position counts; its squares are 4 and 0.

        >>> hidden = torch.tensor([[[2.0, 0.0], [9.0, 9.0]]])
        >>> hidden_distance(hidden, torch.zeros(2), torch.tensor([[1, 0]]))[0]
        tensor([2.])
    """
    if hidden.dim() != 3 or target.shape not in (hidden.shape, hidden.shape[-1:]):
        raise InputError(
            "hidden_distance needs states [B, L, D] and a target [D] or [B, L, D], not "
            f"{tuple(hidden.shape)} and {tuple(target.shape)}."
        )
    if mask is None:
        squares = (at_least_float32(hidden) - at_least_float32(target)).square().mean(-1)
        return squares.sum(1), torch.full_like(squares[:, 0], squares.shape[1])
    check_same_shape("hidden_distance", mask, hidden[..., 0])
    at = mask != 0
    expected = target if target.dim() == 1 else target[at]
    difference = at_least_float32(hidden[at]) - at_least_float32(expected)
    return _sum_by_sequence(difference.square().mean(-1), at)


# ---------------------------------------------------------------- helpers


def _soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy `logsumexp z - sum_v q_v z_v`, `[N]`; a token of q = 0 adds 0, even at -inf."""
    with torch.no_grad():
        probability = target.softmax(-1)
    return logits.logsumexp(-1) - (probability * logits.masked_fill(probability == 0, 0.0)).sum(-1)


def _sum_by_sequence(values: Tensor, at: Tensor) -> WeightedSum:
    """Sums by sequence of the values `[N]` at the true positions of `[B, T]`, and their counts."""
    tokens = values.new_zeros(at.shape).masked_scatter(at, values)
    return tokens.sum(1), at.sum(1).to(values.dtype)
