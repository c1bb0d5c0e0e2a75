"""Preference losses of language-model unlearning: pure functions of whole sequences' values.

Of a sequence b with N_b labelled tokens, S_b is the *sum* of their negative log-likelihoods, so
that `log pi(b) = -S_b`, and A_b = S_b / N_b their *mean*. A loss is a nonlinearity of these, one
value a sequence, `[B]`, and its mean over sequences is the objective (`UnlearningModule.mean`).
Half-precision values are computed in float32; logarithms are natural.

A *reference* value is data, the same quantity under the frozen original: pass it without gradient.
Nothing here looks at a model or draws.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mu.utils.errors import InputError


def npo(nll: Tensor, reference_nll: Tensor, beta: float) -> Tensor:
    """NPO: `-(2/beta) log sigma(beta (S - S_ref))`, which is `(2/beta) log(1 + (pi /
    pi_ref)^beta)`.

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
    _alike("npo", nll, reference_nll)
    return _softplus(_wide(reference_nll) - _wide(nll), beta)


def npo_weight(nll: Tensor, reference_nll: Tensor, beta: float) -> Tensor:
    """How much NPO's gradient weighs against that of gradient ascent: `2 pi^beta / (pi^beta +
    pi_ref^beta)`.

    1 where the model still is the original, and towards 0 as the sequence becomes unlikely: what is
    forgotten is let alone.

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
    _alike("npo_weight", nll, reference_nll)
    _positive(beta)
    return 2 * torch.sigmoid(beta * (_wide(reference_nll) - _wide(nll)))


def simnpo(mean_nll: Tensor, beta: float, delta: float = 0.0) -> Tensor:
    """SimNPO: `-(2/beta) log sigma(beta (A - delta))`: no reference, and long answers count like
    short ones.

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
    return _softplus(delta - _wide(mean_nll), beta)


def dpo(
    win: Tensor, reference_win: Tensor, lose: Tensor, reference_lose: Tensor, beta: float
) -> Tensor:
    """DPO in the scale of NPO: `-(2/beta) log sigma(beta ((S_lose - S_lose,ref) - (S_win -
    S_win,ref)))`.

    Rafailov et al. have no factor `2/beta`. With it the gradient keeps its size as beta becomes
    small, and DPO without a winner is `npo`. Where the model still is the original, the loss is
    exactly `(2/beta) log 2`.

    Source: Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a
    Reward Model" (NeurIPS 2023, arXiv 2305.18290), equation 7; as a method of unlearning Zhang et
    al., arXiv 2404.05868, whose code has the factor.

    Args:
        win: S of what the model should say, `[B]`.
        reference_win: the same under the original, `[B]`.
        lose: S of what it should say no more, `[B]`.
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
    _alike("dpo", win, reference_win, lose, reference_lose)
    return _softplus(
        (_wide(win) - _wide(reference_win)) - (_wide(lose) - _wide(reference_lose)), beta
    )


# ---------------------------------------------------------------- helpers


def _softplus(x: Tensor, beta: float) -> Tensor:
    """`(2/beta) log(1 + exp(beta x))`. By `logsigmoid`, which has no threshold from which on it is
    taken for linear.
    """
    _positive(beta)
    return -2 / beta * F.logsigmoid(-beta * x)


def _wide(x: Tensor) -> Tensor:
    """At least single precision: a sum of a hundred tokens has few digits left in bfloat16."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _positive(beta: float) -> None:
    if not beta > 0:
        raise InputError(f"beta is {beta}; an inverse temperature is above 0.")


def _alike(name: str, first: Tensor, *others: Tensor) -> None:
    for other in others:
        if other.shape != first.shape:
            raise InputError(
                f"{name} needs values of the same sequences, but got shapes {tuple(first.shape)} "
                f"and {tuple(other.shape)}."
            )
