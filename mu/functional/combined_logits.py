"""Combined logits of two language models: logit difference (ULD), generic prediction (WHP).

Pure functions on logits `[..., V]` of any leading shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mu.functional.checks import check_same_shape
from mu.utils.errors import InputError


def logit_difference(base: Tensor, assistant: Tensor, weight: float, top: float = 0.0) -> Tensor:
    """ULD's combined logits `z_base + weight z_assistant`, with the assistant on likely tokens
    only.

    Source: as `uniform_divergence`; weight -0.8 for TOFU (-1 by default), top 0.01 (0.1 by
    default).

    Args:
        base: `[..., V]`.
        assistant: the same shape; logits of a model that remembers the forget set.
        weight: negative, to subtract the assistant's knowledge.
        top: τ of `relative_top_filter`; 0 applies the assistant to every token.

    Returns:
        `[..., V]`, logits.

    Example: (3, 1) - (2, 0) / 2.

        >>> logit_difference(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0]), -0.5).tolist()
        [2.0, 1.0]
    """
    return base + weight * relative_top_filter(base, assistant, top)


def relative_top_filter(base: Tensor, assistant: Tensor, top: float) -> Tensor:
    """Assistant logits set to 0 on tokens that are unlikely under the base model.

    A token is unlikely where the base's log-probability lies under `min(k-th largest, largest + log
    τ)` with `k = max(1, ⌊τ V⌋)`, so at least k tokens are kept. A logit of 0 is no probability of
    0: unlikely tokens keep the base's logit, and the result depends on where the assistant's logits
    have their zero, as in the released code.

    Source: as `uniform_divergence`; after contrastive decoding (Li et al., ACL 2023), which fills
    with -inf.

    Args:
        base: `[..., V]`.
        assistant: the same shape.
        top: τ in [0, 1]; 0 filters nothing.

    Returns:
        `[..., V]`.

    Raises:
        InputError: the shapes differ, or τ is outside [0, 1].

    Example: k = 1; the threshold is min(2, 2 + log 1/2) = 1.31, so two of three tokens stay.

        >>> base = torch.tensor([2.0, 1.5, 0.0])
        >>> relative_top_filter(base, torch.tensor([7.0, 8.0, 9.0]), top=0.5)
        tensor([7., 8., 0.])
    """
    check_same_shape("relative_top_filter", base, assistant)
    if not 0 <= top <= 1:
        raise InputError(
            "the relative top filter keeps tokens by a share of the largest probability, in [0, "
            f"1], not {top}."
        )
    if not top:
        return assistant
    # differences of log-probabilities are differences of logits, so nothing need be normalised
    vocabulary = base.shape[-1]
    k = max(1, int(top * vocabulary))
    kth_logit = base.topk(k, dim=-1).values[..., -1:]
    threshold = torch.minimum(kth_logit, base.amax(-1, keepdim=True) + math.log(top))
    return assistant.masked_fill(base < threshold, 0.0)


def generic_logits(base: Tensor, reinforced: Tensor, alpha: float) -> Tensor:
    """WHP's generic prediction, `v_base - alpha relu(v_reinforced - v_base)`.

    Lower for tokens that more training on the forget set made likelier.

    Source: Eldan and Russinovich, "Who's Harry Potter? Approximate Unlearning in LLMs" (arXiv
    2310.02238), section 2.1; on raw logits.

    Args:
        base: `[..., V]`.
        reinforced: logits of the model trained further on the forget set, the same shape.
        alpha: >= 0; 0 is the base.

    Returns:
        `[..., V]`, logits.

    Example: 3 - 5 (4 - 3); the second token became less likely and stays.

        >>> generic_logits(torch.tensor([3.0, 1.0]), torch.tensor([4.0, 0.0]), 5.0).tolist()
        [-2.0, 1.0]
    """
    check_same_shape("generic_logits", base, reinforced)
    return base - alpha * (reinforced - base).relu()
