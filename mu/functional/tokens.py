"""Losses and targets of language-model unlearning on tokens and hidden states: pure functions on
tensors.

*Shifted* logits `[B, T, V]` and labels `[B, T]` belong together: `logits[:, t]` predicts `labels[:,
t]`; -100 is ignored (`CausalLM.token_logits` gives the pair). `nll` and `mask`, `[B, L]`, are the
negative log-probabilities of the labelled tokens and where they stand (`CausalLM.token_nll`). A
loss returns `(sum [B], weight [B])`, the sum over the tokens that count and their number, and never
reduces: the method decides how (`UnlearningModule.reduce`). A *target* or *teacher* is data: pass
it without gradient.

Half-precision inputs are computed in float32. Only labelled positions are computed: the vocabulary
is large, and prompts and padding are many. Logarithms are natural. Nothing here looks at a model or
draws.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mu.utils.errors import InputError

IGNORED = -100
"""The label of a token that is not learnt."""

WeightedSum = tuple[Tensor, Tensor]

# ---------------------------------------------------------------- ascent that looks at the token's probability


def weighted_ascent(nll: Tensor, mask: Tensor, beta: float = 1.0) -> WeightedSum:
    """WGA: ascent on the tokens that the model still knows, `-sum_t sg[p_t^beta] l_t` with `p_t =
    exp(-l_t)`.

    The weight takes no gradient (sg), so that of a token is `p^beta` times gradient ascent's; beta
    = 0 is gradient ascent.

    Source: Wang et al., "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go
    Beyond" (ICLR 2025, arXiv 2502.19301). The released code takes the mean over the valid tokens of
    the batch, as `token_mean` does.

    Args:
        nll: l, `[B, L]`, at least 0; what stands where the mask is 0 does not matter, if finite.
        mask: `[B, L]`, 1 at labelled tokens, 0 elsewhere.
        beta: >= 0.

    Returns:
        `(sum [B], weight [B])`; the sum is at most 0.

    Example: a token of probability 1/2 weighs 1/2.

        >>> value, weight = weighted_ascent(torch.tensor([[0.0, math.log(2)]]), torch.tensor([[0.0, 1.0]]))
        >>> round(value.item(), 4), weight.item()
        (-0.3466, 1.0)
    """
    return sat_imp(nll, mask, beta, 0.0)


def sat_imp(nll: Tensor, mask: Tensor, beta1: float = 5.0, beta2: float = 1.0) -> WeightedSum:
    """SatImp: `-sum_t sg[p_t^beta1 (1 - p_t)^beta2] l_t`, ascent on what is known (saturation) but
    not for certain (importance).

    Source: Yang et al., "Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning" (ICML
    2025, arXiv 2505.11953). The released code takes the mean over the valid tokens of the batch.

    Args:
        nll: l, `[B, L]`, at least 0.
        mask: `[B, L]`, 1 at labelled tokens.
        beta1: >= 0.
        beta2: >= 0; 0 is `weighted_ascent`.

    Returns:
        `(sum [B], weight [B])`; the sum is at most 0.
    """
    _same_shape("sat_imp", nll, mask)
    if beta1 < 0 or beta2 < 0:
        raise InputError(
            f"the exponents of the weight of a token are at least 0, not {beta1} and {beta2}."
        )
    known = mask != 0
    values = _wide(nll).masked_fill(~known, 0.0)
    with torch.no_grad():
        weight = (-beta1 * values).exp()
        if beta2:
            weight = weight * (-torch.expm1(-values)) ** beta2  # 1 - p, exact where p is close to 1
    return -(weight * values).sum(1), known.sum(1).to(values.dtype)


# ---------------------------------------------------------------- distributions to be learned instead


def soft_target_loss(logits: Tensor, target: Tensor, labels: Tensor) -> WeightedSum:
    """Cross-entropy to a distribution at each labelled token, `-sum_t sum_v q_tv log p_tv` with `q
    = softmax(target)`.

    Args:
        logits: the student's, `[B, T, V]`, shifted.
        target: logits of q, `[B, T, V]`; -inf is probability 0.
        labels: `[B, T]`; only where they are not -100 is anything counted.

    Returns:
        `(sum [B], weight [B])`; the sum is at least the entropy of q.

    Example: (log 3, 0) are the probabilities (3/4, 1/4); towards (1, 0) that costs log(4/3).

        >>> certain = torch.tensor([[[0.0, -math.inf]]])
        >>> value, _ = soft_target_loss(torch.tensor([[[math.log(3), 0.0]]]), certain, torch.tensor([[0]]))
        >>> round(value.item(), 4)
        0.2877
    """
    _fits("soft_target_loss", logits, labels, target)
    at = labels != IGNORED
    return _summed(_soft_cross_entropy(_wide(logits[at]), _wide(target[at])), at)


def undial_target(teacher: Tensor, labels: Tensor, beta: float = 10.0) -> Tensor:
    """UNDIAL's target, the frozen original's logits with the true token's lowered: `z_ref - beta
    onehot(y)`.

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

    Example:
        >>> undial_target(torch.tensor([[[12.0, 3.0]]]), torch.tensor([[0]])).tolist()
        [[[2.0, 3.0]]]
    """
    _fits("undial_target", teacher, labels)
    at = labels != IGNORED
    change = torch.where(at, -beta, 0.0).to(teacher.dtype)
    return teacher.scatter_add(-1, labels.where(at, 0)[..., None], change[..., None])


def undial(student: Tensor, teacher: Tensor, labels: Tensor, beta: float = 10.0) -> WeightedSum:
    """UNDIAL's loss: `soft_target_loss` towards `undial_target`, of which only the labelled
    positions are made.

    Args:
        student: `[B, T, V]`, shifted.
        teacher: z_ref, the same shape, without gradient.
        labels: `[B, T]`.
        beta: strength.

    Returns:
        `(sum [B], weight [B])`.
    """
    _fits("undial", student, labels, teacher)
    at = labels != IGNORED
    target = undial_target(_wide(teacher[at])[None], labels[at][None], beta)[0]
    return _summed(_soft_cross_entropy(_wide(student[at]), target), at)


def ce_u(logits: Tensor, labels: Tensor, skip: int = 1) -> WeightedSum:
    """CE-U: cross-entropy to the model's own distribution over the *other* tokens, `q =
    softmax(sg[z] with z_y = -inf)`.

    Its gradient with respect to the logits is `p - q`, which is bounded, and 0 but for what p gives
    to the true token.

    Source: Yang, "CE-U: Cross Entropy Unlearning" (arXiv 2503.01224). In the released code the
    first `skip` = 1 tokens of each answer are ignored, which this does too: they say nothing that
    the question does not.

    Args:
        logits: z, `[B, T, V]`, shifted; at least one other token than the true one is finite.
        labels: y, `[B, T]`.
        skip: labelled tokens at the beginning of each sequence that are ignored.

    Returns:
        `(sum [B], weight [B])`, without the tokens that are ignored.

    Raises:
        InputError: there is one token only.
    """
    _fits("ce_u", logits, labels)
    if logits.shape[-1] < 2:
        raise InputError(
            "CE-U needs a vocabulary of at least two tokens: there must be another one than the "
            "true token."
        )
    labels = without_first(labels, skip)
    at = labels != IGNORED
    own = _wide(logits[at])
    target = own.detach().scatter(-1, labels[at][:, None], -math.inf)
    return _summed(_soft_cross_entropy(own, target), at)


def without_first(labels: Tensor, count: int) -> Tensor:
    """Labels `[B, T]` with the first `count` of each sequence ignored.

    Example:
        >>> without_first(torch.tensor([[-100, 5, 6, 7]]), 1).tolist()
        [[-100, -100, 6, 7]]
    """
    at = labels != IGNORED
    return labels.masked_fill(at & (at.cumsum(1) <= count), IGNORED)


# ---------------------------------------------------------------- flatness


def logit_margin(logits: Tensor, labels: Tensor) -> WeightedSum:
    """PDU's flattening: `sum_t (max_v z_tv - mean_v z_tv)^2`; 0 where all tokens are as likely.

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
    _fits("logit_margin", logits, labels)
    at = labels != IGNORED
    chosen = _wide(logits[at])
    return _summed((chosen.amax(-1) - chosen.mean(-1)).square(), at)


def uniform_divergence(logits: Tensor, labels: Tensor) -> WeightedSum:
    """ULD's term that lets the assistant know nothing: `sum_t KL(uniform || p_t) = sum_t (logsumexp
    z_t - mean_v z_tv - log V)`.

    Source: Ji et al., "Reversing the Forget-Retain Objectives: An Efficient LLM Unlearning
    Framework from Logit Difference" (NeurIPS 2024, arXiv 2406.08607). The released code averages
    over all positions, prompt and padding too; here over what the labels mark.

    Args:
        logits: z, `[B, T, V]`, finite.
        labels: `[B, T]`; where they are not -100, positions count.

    Returns:
        `(sum [B], weight [B])`, at least 0 up to rounding.
    """
    _fits("uniform_divergence", logits, labels)
    at = labels != IGNORED
    chosen = _wide(logits[at])
    return _summed(chosen.logsumexp(-1) - chosen.mean(-1) - math.log(logits.shape[-1]), at)


# ---------------------------------------------------------------- hidden states


def hidden_distance(hidden: Tensor, target: Tensor, mask: Tensor | None = None) -> WeightedSum:
    """RMU's distance: `sum_t mean_d (h_td - c_td)^2`, over the positions of the mask.

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

    Example: only the first position counts, 4 and 0 are the squares.

        >>> hidden_distance(torch.tensor([[[2.0, 0.0], [9.0, 9.0]]]), torch.zeros(2), torch.tensor([[1, 0]]))[0]
        tensor([2.])
    """
    if hidden.dim() != 3 or target.shape not in (hidden.shape, hidden.shape[-1:]):
        raise InputError(
            "hidden_distance needs states [B, L, D] and a target [D] or [B, L, D], not "
            f"{tuple(hidden.shape)} and {tuple(target.shape)}."
        )
    if mask is None:
        squares = (_wide(hidden) - _wide(target)).square().mean(-1)
        return squares.sum(1), torch.full_like(squares[:, 0], squares.shape[1])
    _same_shape("hidden_distance", mask, hidden[..., 0])
    at = mask != 0
    wanted = target if target.dim() == 1 else target[at]
    return _summed((_wide(hidden[at]) - _wide(wanted)).square().mean(-1), at)


# ---------------------------------------------------------------- two models' logits as one's


def logit_difference(base: Tensor, assistant: Tensor, weight: float, top: float = 0.0) -> Tensor:
    """ULD's answer: `z_base + weight z_assistant`, where the assistant speaks on the tokens that
    the base holds for likely.

    Source: as `uniform_divergence`; weight -0.8 for TOFU (-1 by default), top 0.01 (0.1 by
    default).

    Args:
        base: `[..., V]`.
        assistant: the same shape; of a model that remembers what is to be forgotten.
        weight: negative, to take away what the assistant says.
        top: τ of `relative_top_filter`; 0 lets the assistant speak on every token.

    Returns:
        `[..., V]`, logits.

    Example:
        >>> logit_difference(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0]), -0.5).tolist()
        [2.0, 1.0]
    """
    return base + weight * relative_top_filter(base, assistant, top)


def relative_top_filter(base: Tensor, assistant: Tensor, top: float) -> Tensor:
    """The assistant's logits, 0 where the base's log-probability lies under `min(k-th largest,
    largest + log τ)`, `k = max(1, ⌊τ V⌋)`.

    So at least k tokens are kept. A logit of 0 is no probability of 0: unlikely tokens keep the
    base's logit, and the result depends on where the assistant's logits have their zero, as in the
    released code.

    Source: as `uniform_divergence`; after contrastive decoding (Li et al., ACL 2023), which fills
    with -inf.

    Args:
        base: `[..., V]`.
        assistant: the same shape.
        top: τ in [0, 1]; 0 filters nothing.

    Returns:
        `[..., V]`.
    """
    _same_shape("relative_top_filter", base, assistant)
    if not 0 <= top <= 1:
        raise InputError(
            "the relative top filter keeps tokens by a share of the largest probability, in [0, "
            f"1], not {top}."
        )
    if not top:
        return assistant
    # differences of log-probabilities are differences of logits, so nothing need be normalised
    vocabulary = base.shape[-1]
    kept = max(1, int(top * vocabulary))
    smallest_kept = base.topk(kept, dim=-1).values[..., -1:]
    threshold = torch.minimum(smallest_kept, base.amax(-1, keepdim=True) + math.log(top))
    return assistant.masked_fill(base < threshold, 0.0)


def generic_logits(base: Tensor, reinforced: Tensor, alpha: float) -> Tensor:
    """WHP's generic prediction: `v_base - alpha relu(v_reinforced - v_base)`, lower where more
    training made a token likelier.

    Source: Eldan and Russinovich, "Who's Harry Potter? Approximate Unlearning in LLMs" (arXiv
    2310.02238), section 2.1; on raw logits.

    Args:
        base: `[..., V]`.
        reinforced: of the model trained further on what is to be forgotten, the same shape.
        alpha: >= 0; 0 is the base.

    Returns:
        `[..., V]`, logits.

    Example:
        >>> generic_logits(torch.tensor([3.0, 1.0]), torch.tensor([4.0, 0.0]), 5.0).tolist()
        [-2.0, 1.0]
    """
    _same_shape("generic_logits", base, reinforced)
    return base - alpha * (reinforced - base).relu()


# ---------------------------------------------------------------- helpers


def _soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """`[N]` of `[N, V]`: `logsumexp z - sum_v q_v z_v`; what has no probability adds nothing, even
    at -inf.
    """
    with torch.no_grad():
        probability = target.softmax(-1)
    return logits.logsumexp(-1) - (probability * logits.masked_fill(probability == 0, 0.0)).sum(-1)


def _summed(values: Tensor, at: Tensor) -> WeightedSum:
    """Values `[N]` of the positions where `at [B, T]` is true, added up by sequence, and their
    numbers.
    """
    tokens = values.new_zeros(at.shape).masked_scatter(at, values)
    return tokens.sum(1), at.sum(1).to(values.dtype)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _fits(name: str, logits: Tensor, labels: Tensor, *others: Tensor) -> None:
    if logits.dim() != 3 or logits.shape[:2] != labels.shape:
        raise InputError(
            f"{name} needs logits [B, T, V] and labels [B, T], not {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    _same_shape(name, logits, *others)


def _same_shape(name: str, first: Tensor, *others: Tensor) -> None:
    for other in others:
        if other.shape != first.shape:
            raise InputError(
                f"{name} needs tensors of one shape, but got {tuple(first.shape)} and "
                f"{tuple(other.shape)}."
            )
