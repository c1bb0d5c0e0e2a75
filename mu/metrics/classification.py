"""Accuracy, confidence, loss, entropy and margin of a classifier's predictions.

Per-example values, and accuracies over them. All functions are pure and take logits `[N, K]` of any
floating type; they compute in float64 from log-probabilities, so that saturated predictions neither
overflow nor become NaN nor lose their distance to 1. Entropies are in nats, accuracies in percent.
Labels are int64 `[N]` in `[0, K)`. Wrong shapes and labels out of range raise `InputError`; an
empty batch, NaN and +infinity raise `UndefinedError`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mu.utils.errors import InputError, UndefinedError


def check_logits(logits: Tensor, label: Tensor | None = None) -> Tensor:
    """Logits as detached float64 `[N, K]`, checked together with their labels.

    Args:
        logits: `[N, K]` of any floating type, K >= 2; -infinity is allowed.
        label: `[N]` in `[0, K)`, or None.

    Raises:
        InputError: a shape does not fit, or a label is out of range.
        UndefinedError: a logit is NaN or +infinity, or the batch is empty.

    Example:
        >>> check_logits(torch.zeros(1, 2), torch.tensor([1])).dtype
        torch.float64
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise InputError(
            f"logits must be [N, K] with at least two classes, but have shape "
            f"{tuple(logits.shape)}."
        )
    if len(logits) == 0:
        raise UndefinedError("there is no sample, so nothing can be measured on this part.")
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
    # also false for NaN; a row without a finite logit has no probabilities
    if not bool((logits < torch.inf).all()) or not bool((logits.amax(1) > -torch.inf).all()):
        raise UndefinedError(
            "the logits hold NaN or infinity: the model that was tested has diverged, so nothing "
            "can be measured on it."
        )
    return logits.detach().to(torch.float64)


def _at_label(values: Tensor, label: Tensor) -> Tensor:
    return values.gather(1, label.to(torch.int64)[:, None])[:, 0]


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax that keeps the digits of log p near p = 1.

    `torch.log_softmax` loses them to the size of the logits.

    Args:
        logits: float64 `[N, K]`.

    Returns:
        float64 `[N, K]`, at most 0.

    Example: p = 1 / (1 + e^-40).

        >>> log_probabilities(torch.tensor([[40.0, 0.0]]).double())[0, 0].item()
        -4.248354255291589e-18
    """
    top = logits.argmax(dim=1, keepdim=True)
    below = logits - logits.gather(1, top)
    rest = below.exp().scatter(1, top, 0.0).sum(dim=1, keepdim=True)
    return below - torch.log1p(rest)


def log_complement(log_prob: Tensor) -> Tensor:
    """Log-probabilities of the complement, `log(1 - p)`, exact for a p that rounds to 1.

    1 - p loses all digits where p is near 1, which can only be the largest entry of a row; there,
    the other entries are summed.

    Args:
        log_prob: float64 `[N, K]`.

    Returns:
        float64 `[N, K]`, at most 0.

    Example: probabilities (3/4, 1/4).

        >>> log_complement(torch.tensor([[0.75, 0.25]]).double().log()).exp()
        tensor([[0.2500, 0.7500]], dtype=torch.float64)
    """
    prob = log_prob.exp()
    top = prob.argmax(dim=1, keepdim=True)
    log_others = log_prob.scatter(1, top, float("-inf")).logsumexp(dim=1, keepdim=True)
    return torch.log1p(-prob.scatter(1, top, 0.0)).scatter(1, top, log_others)


def correctness(logits: Tensor, label: Tensor) -> Tensor:
    """Correctness of the prediction: 1 where the largest logit is the label's, else 0.

    Ties go to the smaller class, as in `argmax`.

    Args:
        logits: `[N, K]`.
        label: `[N]`.

    Returns:
        float64 `[N]`, 0 or 1.

    Example:
        >>> correctness(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])).tolist()
        [1.0, 0.0]
    """
    return (check_logits(logits, label).argmax(dim=1) == label).to(torch.float64)


def accuracy(logits: Tensor, label: Tensor) -> float:
    """Top-1 accuracy in percent; RA, TA and the forget accuracy are its values on their splits.

    Args:
        logits: `[N, K]`.
        label: `[N]`.

    Example: one of two.

        >>> accuracy(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))
        50.0
    """
    return 100.0 * correctness(logits, label).mean().item()


def unlearning_accuracy(logits: Tensor, label: Tensor) -> float:
    """Unlearning accuracy: UA = 100 - accuracy on the forget split, in percent.

    The goal is the oracle's UA, not 100.

    Args:
        logits: `[N, K]` of the forget samples.
        label: `[N]`.

    Example: both are wrong.

        >>> unlearning_accuracy(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([1, 1]))
        100.0
    """
    return 100.0 - accuracy(logits, label)


def confidence(logits: Tensor, label: Tensor) -> Tensor:
    """Probability of the true class.

    Args:
        logits: `[N, K]`.
        label: `[N]`.

    Returns:
        float64 `[N]` in [0, 1].

    Example: logits (log 3, 0).

        >>> confidence(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([0]))
        tensor([0.7500], dtype=torch.float64)
    """
    return _at_label(log_probabilities(check_logits(logits, label)), label).exp()


def nll(logits: Tensor, label: Tensor) -> Tensor:
    """Negative log-likelihood (cross-entropy) of every example, in nats.

    Args:
        logits: `[N, K]`.
        label: `[N]`.

    Returns:
        float64 `[N]`, never negative.

    Example: probability 1/4: log 4.

        >>> nll(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([1]))
        tensor([1.3863], dtype=torch.float64)
    """
    return -_at_label(log_probabilities(check_logits(logits, label)), label)


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of the prediction, in nats, with p log p = 0 at p = 0.

    Args:
        logits: `[N, K]`.

    Returns:
        float64 `[N]` in [0, log K].

    Example: a uniform prediction: log 2.

        >>> entropy(torch.zeros(1, 2))
        tensor([0.6931], dtype=torch.float64)
    """
    log_prob = log_probabilities(check_logits(logits))
    prob = log_prob.exp()
    return -torch.where(prob > 0, prob * log_prob, 0.0).sum(dim=1)


def modified_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Modified entropy `-(1 - p_y) log p_y - sum_{j != y} p_j log(1 - p_j)`, in nats.

    It is 0 for a confident right prediction and large for a confident wrong one, where the plain
    entropy is 0 for both. Source: Song and Mittal, "Systematic evaluation of privacy risks of
    machine learning models", USENIX Security 2021.

    Args:
        logits: `[N, K]`.
        label: `[N]`.

    Returns:
        float64 `[N]`, never negative.

    Example: p_y = 3/4 of two classes: -1/4 log 3/4 twice.

        >>> modified_entropy(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([0]))
        tensor([0.1438], dtype=torch.float64)
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
    """Modified entropy as the released SVC-MIA code computes it.

    For comparison with published `m_entropy` numbers. It exchanges p and 1 - p in *all* rows for
    every class that occurs anywhere in `label`, and takes log p for both logarithms. A row becomes
    -sum over the classes present of (1 - p_j) log p_j - sum over the classes absent of p_j log p_j.
    As there, p is taken in the logits' own type, and log 0 is log(1e-30). Source:
    OPTML-Group/Unlearn-Saliency, Classification/evaluation/SVC_MIA.py, function `m_entropy`.

    Args:
        logits: `[N, K]`.
        label: `[N]`.

    Returns:
        float64 `[N]`, never negative; it depends on which labels the whole set has.

    Example: class 0 is present: -1/4 log 3/4 - 1/4 log 1/4.

        >>> modified_entropy_reference(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([0]))
        tensor([0.4185], dtype=torch.float64)
    """
    check_logits(logits, label)
    prob = logits.detach().softmax(dim=1).to(torch.float64)
    log_prob = torch.where(prob > 0, prob, 1e-30).log()
    present = torch.zeros(prob.shape[1], dtype=torch.bool, device=prob.device)
    present[label.to(torch.int64)] = True
    return -(torch.where(present, 1 - prob, prob) * log_prob).sum(dim=1)


def margin(logits: Tensor, label: Tensor) -> Tensor:
    """Margin: the label's logit minus the log-sum-exp of the others, `log(p_y / (1 - p_y))`.

    KLoM and the challenge score of NeurIPS 2023 are built on it (arXiv 2410.23232;
    google-deepmind/unlearning_evaluation).

    Args:
        logits: `[N, K]`.
        label: `[N]`.

    Returns:
        float64 `[N]`, unbounded.

    Example: p_y = 3/4: log 3.

        >>> margin(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([0]))
        tensor([1.0986], dtype=torch.float64)
    """
    logits = check_logits(logits, label)
    other_logits = logits.scatter(1, label.to(torch.int64)[:, None], float("-inf"))
    return _at_label(logits, label) - other_logits.logsumexp(dim=1)


def logit_scaled_confidence(logits: Tensor, label: Tensor) -> Tensor:
    """Logit-scaled confidence `log(p_y / (1 - p_y))` of LiRA and U-LiRA: the same as `margin`.

    1 - p_y, which would round, is never formed.

    Args:
        logits: `[N, K]`.
        label: `[N]`.

    Returns:
        float64 `[N]`, unbounded.

    Example: p_y = 1/4: -log 3.

        >>> logit_scaled_confidence(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([1]))
        tensor([-1.0986], dtype=torch.float64)
    """
    return margin(logits, label)


def hard_margin(logits: Tensor, label: Tensor) -> Tensor:
    """Hard margin: the label's logit minus the largest other logit.

    Args:
        logits: `[N, K]`.
        label: `[N]`.

    Returns:
        float64 `[N]`, negative where the prediction is wrong.

    Example:
        >>> hard_margin(torch.tensor([[5.0, 3.0, 4.0]]), torch.tensor([0]))
        tensor([1.], dtype=torch.float64)
    """
    logits = check_logits(logits, label)
    other_logits = logits.scatter(1, label.to(torch.int64)[:, None], float("-inf"))
    return _at_label(logits, label) - other_logits.amax(dim=1)
