"""Preference losses of language-model unlearning on the likelihood of whole sequences.

Pure functions. Of a sequence b with N_b labelled tokens, S_b is the *sum* of their negative
log-likelihoods, so that `log pi(b) = -S_b`, and A_b = S_b / N_b their *mean*. A loss is a
nonlinearity of these, one value a sequence, `[B]`, and its mean over sequences is the objective
(`UnlearningModule.mean`). Half-precision values are computed in float32; logarithms are natural.

A *reference* value is data, the same quantity under the frozen original: pass it without gradient.
No function reads a model or draws.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mu.functional.checks import at_least_float32, check_positive, check_same_shape


def npo(nll: Tensor, reference_nll: Tensor, beta: float) -> Tensor:
    """NPO's loss, `-(2/beta) log sigma(beta (S - S_ref)) = (2/beta) log(1 + (pi / pi_ref)^beta)`.

    Its gradient is that of gradient ascent, `-grad S`, times `npo_weight`. Where the model still is
    the original, the loss is exactly `(2/beta) log 2` (13.863 at beta = 0.1); less `(2/beta) log 2`
    it tends to `S_ref - S`, gradient ascent, as beta tends to 0.

    Source: Zhang et al., "Negative Preference Optimization: From Catastrophic Collapse to Effective
    Unlearning" (COLM 2024, arXiv 2404.05868), equation 3.

    Args:
        nll: S, `[B]`, at least 0.
        reference_nll: S_ref, `[B]`.
        beta: inverse temperature, > 0.

    Returns:
        `[B]`, above 0.

    Raises:
        InputError: the shapes differ, or beta is not positive.

    Example: the sequence has become three times less likely; beta = 1: 2 log(1 + 1/3).

        >>> round(npo(torch.tensor([3.0]).log(), torch.tensor([0.0]), 1.0).item(), 4)
        0.5754
    """
    check_same_shape("npo", nll, reference_nll)
    return _softplus(at_least_float32(reference_nll) - at_least_float32(nll), beta)


def npo_weight(nll: Tensor, reference_nll: Tensor, beta: float) -> Tensor:
    """Weight of NPO's gradient over gradient ascent's, `2 pi^beta / (pi^beta + pi_ref^beta)`.

    1 where the model still is the original; it tends to 0 as the sequence becomes unlikely, so that
    a forgotten sequence is pushed no further.

    Source: as `npo`, equation 5.

    Args:
        nll: S, `[B]`.
        reference_nll: S_ref, `[B]`.
        beta: > 0.

    Returns:
        `[B]`, in `(0, 2)`.

    Example: three times less likely, beta = 1: 2 (1/3) / (1/3 + 1).

        >>> round(npo_weight(torch.tensor([3.0]).log(), torch.tensor([0.0]), 1.0).item(), 4)
        0.5
    """
    check_same_shape("npo_weight", nll, reference_nll)
    check_positive("beta", beta)
    return 2 * torch.sigmoid(beta * (at_least_float32(reference_nll) - at_least_float32(nll)))


def simnpo(mean_nll: Tensor, beta: float, delta: float = 0.0) -> Tensor:
    """SimNPO's loss, `-(2/beta) log sigma(beta (A - delta))`, without a reference model.

    A is a mean, so that long answers count as much as short ones.

    Source: Fan et al., "Simplicity Prevails: Rethinking Negative Preference Optimization for LLM
    Unlearning" (arXiv 2410.07163). The paper calls the margin gamma and adds it after the
    multiplication by beta (gamma = beta delta); the authors' code and OpenUnlearning subtract it
    from A, as here. All use 0.

    Args:
        mean_nll: A, `[B]`, at least 0.
        beta: > 0.
        delta: the margin, in nats a token: the mean beyond which forgetting slows down.

    Returns:
        `[B]`, above 0.

    Raises:
        InputError: beta is not positive.

    Example: one token of probability 1/2, beta = 1: 2 log(1 + 1/2).

        >>> round(simnpo(torch.tensor([2.0]).log(), 1.0).item(), 4)
        0.8109
    """
    return _softplus(delta - at_least_float32(mean_nll), beta)


def dpo(
    win: Tensor, reference_win: Tensor, lose: Tensor, reference_lose: Tensor, beta: float
) -> Tensor:
    """DPO's loss in the scale of NPO.

    `-(2/beta) log sigma(beta ((S_lose - S_lose,ref) - (S_win - S_win,ref)))`.

    Rafailov et al. have no factor `2/beta`. With it the gradient keeps its size as beta becomes
    small, and DPO without a winner is `npo`. Where the model still is the original, the loss is
    exactly `(2/beta) log 2`.

    Source: Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a
    Reward Model" (NeurIPS 2023, arXiv 2305.18290), equation 7; as a method of unlearning Zhang et
    al., arXiv 2404.05868, whose code has the factor.

    Args:
        win: S of the preferred answer, `[B]`.
        reference_win: the same under the original, `[B]`.
        lose: S of the answer to be forgotten, `[B]`.
        reference_lose: the same under the original, `[B]`.
        beta: > 0.

    Returns:
        `[B]`, above 0.

    Raises:
        InputError: the shapes differ, or beta is not positive.

    Example: the winner twice as likely as before, the loser half as likely; beta = 1: 2 log(1 +
    1/4).

        >>> half, same = -torch.tensor([0.5]).log(), torch.tensor([0.0])
        >>> round(dpo(-half, same, half, same, 1.0).item(), 4)
        0.4463
    """
    check_same_shape("dpo", win, reference_win, lose, reference_lose)
    return _softplus(
        (at_least_float32(win) - at_least_float32(reference_win))
        - (at_least_float32(lose) - at_least_float32(reference_lose)),
        beta,
    )


def _softplus(x: Tensor, beta: float) -> Tensor:
    """`(2/beta) log(1 + exp(beta x))`. By `logsigmoid`, which has no threshold above
    which it turns linear.
    """
    check_positive("beta", beta)
    return -2 / beta * F.logsigmoid(-beta * x)
