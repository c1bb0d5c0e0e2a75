"""Memorisation and membership scores of a language model, from values of its labelled tokens.

Tensors of tokens are `[N, T]` with a `mask` `[N, T]` (True = a token of that item; rows may begin
anywhere and have any lengths). The reference (OpenUnlearning, "OpenUnlearning: accelerating LLM
unlearning via unified benchmarking of methods and metrics", 2025, arXiv 2506.12618, and its code)
leaves the end-of-sequence token out of everything but average losses; masks must leave it out as
well.

Membership scores are large for texts that look unseen, like a loss. Everything is computed in
float64. `mu.metrics.aggregates` has the means over these values.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mu.metrics.checks import check_number
from mu.metrics.membership import loss_threshold_auc
from mu.utils.errors import InputError, UndefinedError

MIN_VARIANCE = 1e-6
"""Smallest variance by whose root min-k++ divides."""

# ---------------------------------------------------------------- memorisation


def exact_memorisation(hits: Tensor, mask: Tensor) -> Tensor:
    """Exact memorisation: share of tokens that are the model's first choice, teacher forced.

    Source: Tirumala et al., "Memorization without overfitting", NeurIPS 2022, arXiv 2205.10770;
    OpenUnlearning `exact_memorization`.

    Args:
        hits: `[N, T]` bool, whether the token is the argmax.
        mask: `[N, T]` bool.

    Returns:
        `[N]` in [0, 1]; NaN, undefined, for an item without a token.

    Example: the first two of three tokens count, one of them is the argmax.

        >>> hits, mask = torch.tensor([[1, 0, 1]]), torch.tensor([[1, 1, 0]])
        >>> exact_memorisation(hits, mask)
        tensor([0.5000], dtype=torch.float64)
    """
    hits, mask = _tokens(hits, mask)
    return (hits & mask).sum(1) / mask.sum(1).to(torch.float64)


def extraction_strength(hits: Tensor, mask: Tensor, floor: bool = True) -> Tensor:
    """Extraction strength `1 - k/N`, k the shortest prefix from which the rest can be extracted.

    After the prefix every token is the model's first choice, teacher forced.

    Source: Carlini et al., "Extracting training data from large language models", USENIX Security
    2021, arXiv 2012.07805; OpenUnlearning `extraction_strength`. Quirk: the released loop ends at k
    = N - 1, so an item whose last token is missed gets 1/N like one of which the last token alone
    is right, and an item of one token always gets 1. The default does the same, because published
    numbers do.

    Args:
        hits: `[N, T]` bool, whether the token is the argmax.
        mask: `[N, T]` bool.
        floor: False gives 0 to an item whose last token is missed.

    Returns:
        `[N]` in [0, 1]; NaN, undefined, for an item without a token.

    Example: the last two of four tokens.

        >>> hits = torch.tensor([[1, 0, 1, 1]])
        >>> extraction_strength(hits, torch.ones(1, 4))
        tensor([0.5000], dtype=torch.float64)
    """
    hits, mask = _tokens(hits, mask)
    count = mask.sum(1)
    missed_later = ((~hits & mask).flip(1).cumsum(1) > 0).flip(1)
    suffix = (mask & ~missed_later).sum(1)
    if floor:
        suffix = suffix.clamp_min(1)
    return torch.where(count > 0, suffix / count.clamp_min(1).to(torch.float64), math.nan)


# ---------------------------------------------------------------- membership scores


def min_k(log_prob: Tensor, mask: Tensor, share: float = 0.4) -> Tensor:
    """Min-K% score: minus the mean of the lowest `max(1, floor(share N))` log-probabilities.

    Source: Shi et al., "Detecting pretraining data from large language models", ICLR 2024, arXiv
    2310.16789. Default: 0.4 (MUSE, OpenUnlearning; the paper's is 0.2).

    Args:
        log_prob: `[N, T]` of the tokens.
        mask: `[N, T]` bool; every row needs a token.
        share: share of the tokens, in (0, 1].

    Returns:
        `[N]`, in nats.

    Example: the lowest two of four.

        >>> log_prob = torch.tensor([[-1.0, -4.0, -2.0, 0.0]])
        >>> min_k(log_prob, torch.ones(1, 4), share=0.5)
        tensor([3.], dtype=torch.float64)
    """
    return _lowest(log_prob, mask, share)


def min_k_plus_plus(
    log_prob: Tensor, mean: Tensor, variance: Tensor, mask: Tensor, share: float = 0.4
) -> Tensor:
    """Min-K%++ score: `min_k` of standardised log-probabilities.

    z = (log p - μ) / √max(σ², 1e-6), where μ = Σ p log p and σ² = Σ p (log p - μ)² over the
    vocabulary.

    Source: Zhang et al., "Min-K%++", ICLR 2025, arXiv 2404.02936.

    Args:
        log_prob: `[N, T]` of the tokens.
        mean: `[N, T]`, μ at each token.
        variance: `[N, T]`, σ² at each token.
        mask: `[N, T]` bool; every row needs a token.
        share: share of the tokens, in (0, 1].

    Returns:
        `[N]`.

    Example: z = (-4 + 2) / 2 at the lower of two tokens.

        >>> log_prob, mean = torch.tensor([[-2.0, -4.0]]), torch.tensor([[-2.0, -2.0]])
        >>> min_k_plus_plus(log_prob, mean, torch.tensor([[1.0, 4.0]]), torch.ones(1, 2), share=0.5)
        tensor([1.], dtype=torch.float64)
    """
    z = (log_prob.to(torch.float64) - mean.to(torch.float64)) / variance.to(
        torch.float64
    ).clamp_min(MIN_VARIANCE).sqrt()
    return _lowest(z, mask, share)


def zlib_score(nll: Tensor, texts: Sequence[str]) -> Tensor:
    """Zlib score: average loss A over the bytes of the text compressed by zlib.

    It corrects a loss for texts that are easy anyway. Source: Carlini et al., 2021 (see
    `extraction_strength`).

    Args:
        nll: average losses `[N]`.
        texts: answers, N strings.

    Returns:
        `[N]`.

    Raises:
        InputError: the numbers of losses and texts differ.

    Example: zlib writes 11 bytes for "abc".

        >>> zlib_score(torch.tensor([22.0]), ["abc"])
        tensor([2.], dtype=torch.float64)
    """
    if len(nll) != len(texts):
        raise InputError(
            f"the zlib score needs a text for each of {len(nll)} losses, not {len(texts)}."
        )
    return nll.to(torch.float64) / torch.tensor(
        [len(zlib.compress(text.encode("utf-8"))) for text in texts], device=nll.device
    )


def reference_score(nll: Tensor, reference: Tensor) -> Tensor:
    """Reference score: average loss minus that of a reference model, the oracle.

    The reference model never saw the forget set.

    Args:
        nll: average losses `[N]`.
        reference: the reference model's on the same items, `[N]`.

    Returns:
        `[N]`, in nats.

    Raises:
        InputError: the numbers of losses differ.

    Example:
        >>> reference_score(torch.tensor([3.0]), torch.tensor([1.0]))
        tensor([2.], dtype=torch.float64)
    """
    if nll.shape != reference.shape:
        raise InputError(
            f"the reference attack compares losses of the same items, but there are {len(nll)} "
            f"and {len(reference)}."
        )
    return nll.to(torch.float64) - reference.to(torch.float64)


def gradient_norm(gradients: Iterable[Tensor | None], p: float = 2.0) -> float:
    """Gradient norm of one item: mean over weight tensors of the p-norm of its gradient.

    Tensors without a gradient do not count.

    Source: OpenUnlearning `mia_gradnorm`, which takes it in train mode; the suites here take it in
    eval mode, like everything else. The score of an item is this number for its average loss.

    Args:
        gradients: gradients of one item by weight; None where a weight has none.
        p: order of the norm.

    Raises:
        InputError: no weight has a gradient.

    Example: norms 5 and 1.

        >>> gradient_norm([torch.tensor([3.0, 4.0]), None, torch.tensor([1.0])])
        3.0
    """
    norms = [
        torch.linalg.vector_norm(gradient.detach().to(torch.float64), p).item()
        for gradient in gradients
        if gradient is not None
    ]
    if not norms:
        raise InputError("the gradient-norm attack needs a weight with a gradient; unfreeze some.")
    return sum(norms) / len(norms)


def membership_auc(forget: Tensor, holdout: Tensor) -> float:
    """Membership AUC: share of (forget, holdout) pairs where the forget item looks more like a
    member.

    In [0, 1], ties count half. 1 = memorised; the goal is the oracle's value (about 0.5); below it
    the forget set's losses are unusually large.

    Args:
        forget: scores that are large for non-members, `[F]`.
        holdout: scores of items that no model was trained on, `[H]`.

    Example: the forget item has the smaller score in one of two pairs.

        >>> membership_auc(torch.tensor([1.0]), torch.tensor([2.0, 0.0]))
        0.5
    """
    return loss_threshold_auc(forget, holdout)


def privleak(auc: float, oracle_auc: float = 0.5) -> float:
    """PrivLeak: relative difference of 1 - AUC to the oracle's, in percent; 0 = as the oracle.

    `100 ((1 - AUC) - (1 - AUC of the oracle)) / (1 - AUC of the oracle)`. Negative, down to -100 =
    under-unlearned; positive without bound = over-unlearned. MUSE (Shi et al., 2024, arXiv
    2407.06460) states the AUC the other way round, which the 1 - undoes. Defined on Min-40 %.

    Args:
        auc: value of `membership_auc`.
        oracle_auc: the oracle's; 0.5 without an oracle.

    Raises:
        UndefinedError: the oracle's AUC is 1.

    Example: 100 (0.25 - 0.5) / 0.5.

        >>> privleak(0.75, 0.5)
        -50.0
    """
    return _relative(1 - auc, 1 - oracle_auc)


def rel_diff(auc: float, oracle_auc: float = 0.5) -> float:
    """Relative difference of the AUC to the oracle's, in percent; 0 = as the oracle.

    `100 (AUC - AUC of the oracle) / AUC of the oracle`; positive = under-unlearned.

    Args:
        auc: value of `membership_auc`.
        oracle_auc: the oracle's; 0.5 without an oracle.

    Raises:
        UndefinedError: the oracle's AUC is 0.

    Example: 100 (0.75 - 0.5) / 0.5.

        >>> rel_diff(0.75, 0.5)
        50.0
    """
    return _relative(auc, oracle_auc)


def _relative(value: float, oracle: float) -> float:
    for auc in (value, oracle):
        check_number(auc, "an area under a curve")
    if oracle <= 0:
        raise UndefinedError(
            "the oracle's membership AUC lies at the end of the scale, so no relative difference "
            "to it exists."
        )
    return 100 * (value - oracle) / oracle


# ---------------------------------------------------------------- checks


def _tokens(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    _check_shapes(values, mask)
    return values.to(torch.bool), mask.to(torch.bool)


def _check_shapes(values: Tensor, mask: Tensor) -> None:
    if values.ndim != 2 or values.shape != mask.shape:
        raise InputError(
            f"tokens and their mask are [N, T], but have the shapes {list(values.shape)} and "
            f"{list(mask.shape)}."
        )


def _lowest(values: Tensor, mask: Tensor, share: float) -> Tensor:
    """Minus the mean of the lowest share of every row."""
    if not 0 < share <= 1:
        raise InputError(f"the share of the tokens is {share}; it lies in (0, 1].")
    _check_shapes(values, mask)
    mask = mask.to(torch.bool)
    count = mask.sum(1)
    if bool((count == 0).any()):
        raise UndefinedError(f"item {int((count == 0).nonzero()[0])} has no token to score.")
    if bool((values.isnan() & mask).any()):
        raise UndefinedError(
            "a log-probability is NaN: the model that was tested has diverged, so nothing can be "
            "measured on it."
        )
    # as the references: share and count are multiplied in floating point and cut
    lowest = torch.tensor(
        [max(1, math.floor(share * size)) for size in count.tolist()], device=values.device
    )
    ordered = values.detach().to(torch.float64).masked_fill(~mask, math.inf).sort(1).values
    inside = torch.arange(values.shape[1], device=values.device) < lowest[:, None]
    return -torch.where(inside, ordered, 0.0).sum(1) / lowest
