"""Per-example quantities of a classifier, and the accuracies made of them.

All functions are pure and take logits `[N, K]` of any floating type; they compute in float64 from
log-probabilities, so that saturated predictions neither overflow nor become NaN nor lose their
distance to 1. Entropies are in nats, accuracies in percent. Labels are int64 `[N]` in `[0, K)`.
Wrong shapes, an empty batch and labels out of range raise `InputError`, NaN and +infinity
`RunError`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mu.utils.errors import InputError, RunError


def check_logits(logits: Tensor, label: Tensor | None = None) -> Tensor:
    """`logits` as detached float64 `[N, K]`, after the checks that every function of this file
    shares.
    """
    if logits.ndim != 2 or len(logits) == 0 or logits.shape[1] < 2:
        raise InputError(
            "logits must be [N, K] with at least one example and two classes, but have shape "
            f"{tuple(logits.shape)}."
        )
    if label is not None:
        if label.shape != logits.shape[:1]:
            raise InputError(
                f"there are {len(logits)} rows of logits but the labels have shape "
                f"{tuple(label.shape)}; give one per row."
            )
        if bool((label < 0).any()) or bool((label >= logits.shape[1]).any()):
            raise InputError(
                f"a label lies outside the {logits.shape[1]} classes of the logits; labels count "
                "from 0."
            )
    if not bool((logits < torch.inf).all()):  # also false for NaN
        raise RunError(
            "the logits hold NaN or infinity: the model that was tested has diverged, so nothing "
            "can be measured on it."
        )
    return logits.detach().to(torch.float64)


def _at_label(values: Tensor, label: Tensor) -> Tensor:
    return values.gather(1, label.to(torch.int64)[:, None])[:, 0]


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax of float64 `[N, K]` that keeps the digits of log p near p = 1, which log-softmax
    loses to the size of the logits.
    """
    top = logits.argmax(dim=1, keepdim=True)
    below = logits - logits.gather(1, top)
    rest = below.exp().scatter(1, top, 0.0).sum(dim=1, keepdim=True)
    return below - torch.log1p(rest)


def log_complement(log_prob: Tensor) -> Tensor:
    """`log(1 - p)` for every entry of log-probabilities `[N, K]`, exact for a p that rounds to 1 in
    its row.

    1 - p loses all digits where p is near 1, which can only be the largest entry of a row; there,
    the other entries are summed.
    """
    prob = log_prob.exp()
    top = prob.argmax(dim=1, keepdim=True)
    others = log_prob.scatter(1, top, float("-inf")).logsumexp(dim=1, keepdim=True)
    return torch.log1p(-prob.scatter(1, top, 0.0)).scatter(1, top, others)


def correctness(logits: Tensor, label: Tensor) -> Tensor:
    """1 where the largest logit is the label's, else 0: float64 `[N]`; ties go to the smaller
    class, as `argmax` breaks them.
    """
    return (check_logits(logits, label).argmax(dim=1) == label).to(torch.float64)


def accuracy(logits: Tensor, label: Tensor) -> float:
    """Top-1 accuracy in percent, every example with the same weight. RA, TA and the forget accuracy
    are this on their split.
    """
    return 100.0 * correctness(logits, label).mean().item()


def unlearning_accuracy(logits: Tensor, label: Tensor) -> float:
    """UA = 100 - accuracy on the forget split, in percent; the goal is the oracle's UA, not 100."""
    return 100.0 - accuracy(logits, label)


def confidence(logits: Tensor, label: Tensor) -> Tensor:
    """Probability of the true class: float64 `[N]` in [0, 1]."""
    return _at_label(log_probabilities(check_logits(logits, label)), label).exp()


def nll(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of each example in nats: float64 `[N]`, never negative."""
    return -_at_label(log_probabilities(check_logits(logits, label)), label)


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of the prediction in nats: float64 `[N]` in [0, log K], with p log p = 0 at p
    = 0.
    """
    log_prob = log_probabilities(check_logits(logits))
    prob = log_prob.exp()
    return -torch.where(prob > 0, prob * log_prob, 0.0).sum(dim=1)


def modified_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Modified entropy: -(1 - p_y) log p_y - sum over j != y of p_j log(1 - p_j), in nats: float64
    `[N]`, never negative.

    It is 0 for a confident right prediction and large for a confident wrong one, where the plain
    entropy is 0 for both. Source: Song and Mittal, "Systematic evaluation of privacy risks of
    machine learning models", USENIX Security 2021.
    """
    log_prob = log_probabilities(check_logits(logits, label))
    prob = log_prob.exp()
    complement = log_complement(log_prob)
    wrong = torch.where(prob > 0, prob * complement, 0.0).scatter(
        1, label.to(torch.int64)[:, None], 0.0
    )
    # 1 - p_y as exp(log(1 - p_y)): a p_y that rounds to 1 keeps its distance to 1
    right = _at_label(complement, label).exp() * _at_label(log_prob, label)
    return -(right + wrong.sum(dim=1))


def modified_entropy_reference(logits: Tensor, label: Tensor) -> Tensor:
    """What the released SVC-MIA code computes instead of the modified entropy, for comparison with
    published `m_entropy` numbers.

    It exchanges p and 1 - p in *all* rows for every class that occurs anywhere in `label`, and
    takes log p for both logarithms. A row becomes -sum over the classes present of (1 - p_j) log
    p_j - sum over the classes absent of p_j log p_j. As there, p is taken in the logits' own type,
    and log 0 is log(1e-30). Source: OPTML-Group/Unlearn-Saliency,
    Classification/evaluation/SVC_MIA.py, function `m_entropy`.

    Returns:
        float64 `[N]`, never negative; it depends on which labels the whole set has.
    """
    check_logits(logits, label)
    prob = logits.detach().softmax(dim=1).to(torch.float64)
    log_prob = torch.where(prob > 0, prob, 1e-30).log()
    present = torch.zeros(prob.shape[1], dtype=torch.bool, device=prob.device)
    present[label.to(torch.int64)] = True
    return -(torch.where(present, 1 - prob, prob) * log_prob).sum(dim=1)


def margin(logits: Tensor, label: Tensor) -> Tensor:
    """The label's logit minus the log-sum-exp of the other logits: float64 `[N]`, unbounded; this
    is log(p_y / (1 - p_y)).

    KLoM and the challenge score of NeurIPS 2023 are built on it (arXiv:2410.23232;
    google-deepmind/unlearning_evaluation).
    """
    logits = check_logits(logits, label)
    others = logits.scatter(1, label.to(torch.int64)[:, None], float("-inf"))
    return _at_label(logits, label) - others.logsumexp(dim=1)


def logit_scaled_confidence(logits: Tensor, label: Tensor) -> Tensor:
    """log(p_y / (1 - p_y)) of LiRA and U-LiRA, computed without ever forming 1 - p_y: the same
    number as `margin`, float64 `[N]`.
    """
    return margin(logits, label)


def hard_margin(logits: Tensor, label: Tensor) -> Tensor:
    """The label's logit minus the largest other logit: float64 `[N]`; negative where the prediction
    is wrong.
    """
    logits = check_logits(logits, label)
    others = logits.scatter(1, label.to(torch.int64)[:, None], float("-inf"))
    return _at_label(logits, label) - others.amax(dim=1)
