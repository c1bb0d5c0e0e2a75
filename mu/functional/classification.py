"""Cross-entropies, divergences and teacher targets of classifier unlearning.

Pure functions on tensors. A loss returns one value per example, `[B]`, and never reduces: the
method decides how (`UnlearningModule.reduce`). No function reads a model, a random generator or
global state. Every function keeps the dtype and device of its inputs; logarithms are natural.

A *teacher* or *target* argument is data: pass it without gradient (a frozen `reference` gives it
so). Weights of loss terms are in `mu.functional.balancing`, weight selection in
`mu.functional.selection`, closed-form edits in `mu.functional.curvature`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mu.functional.checks import check_positive, check_same_shape
from mu.utils.errors import InputError

# ---------------------------------------------------------------- cross-entropy and divergences


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy to a label, `l_b = -log softmax(z_b)[y_b]`.

    Args:
        logits: `[B, K]`, any finite values.
        label: `[B]` int64 in `[0, K)`.

    Returns:
        `[B]`, in `[0, inf)`.

    Example: logits (log 3, 0) are the probabilities (3/4, 1/4), so label 1 costs log 4.

        >>> round(cross_entropy(torch.tensor([[math.log(3), 0.0]]), torch.tensor([1])).item(), 4)
        1.3863
    """
    return F.cross_entropy(logits, label, reduction="none")


def soft_cross_entropy(logits: Tensor, target_probs: Tensor) -> Tensor:
    """Cross-entropy to a distribution, `-sum_k q_k log softmax(z)_k = KL(q || p) + H(q)`.

    Args:
        logits: `[B, K]`, finite.
        target_probs: `[B, K]`, each row a distribution.

    Returns:
        `[B]`, at least the entropy of the target.

    Raises:
        InputError: the shapes differ.

    Example: probabilities (3/4, 1/4), target (1/2, 1/2): -(log 3/4 + log 1/4) / 2.

        >>> logits = torch.tensor([[math.log(3), 0.0]])
        >>> round(soft_cross_entropy(logits, torch.tensor([[0.5, 0.5]])).item(), 4)
        0.837
    """
    check_same_shape("soft_cross_entropy", logits, target_probs)
    return -(target_probs * logits.log_softmax(-1)).sum(-1)


def kl_divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    """Distillation divergence of a student to a teacher, `T^2 KL(softmax(t / T) || softmax(s /
    T))`.

    The factor `T^2` (Hinton et al., arXiv 1503.02531) keeps the gradient's size as T grows: it
    tends to `(s - t - mean(s - t)) / K`. No other function of this file has it.

    Source: Kurmanji et al., "Towards Unbounded Machine Unlearning" (SCRUB, NeurIPS 2023, arXiv
    2302.09880), released code `KD_T`; the mean of these values over the batch is its number.

    Args:
        student_logits: `[B, K]`, finite.
        teacher_logits: `[B, K]`, finite.
        temperature: T > 0.

    Returns:
        `[B]`, in `[0, inf)` up to rounding; exactly 0 where both rows are equal.

    Raises:
        InputError: the shapes differ, or the temperature is not positive.

    Example: teacher (3/4, 1/4), student (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2) = 0.1308.

        >>> teacher = torch.tensor([[math.log(3), 0.0]])
        >>> round(kl_divergence(torch.zeros(1, 2), teacher).item(), 4)
        0.1308
    """
    check_same_shape("kl_divergence", student_logits, teacher_logits)
    check_positive("The temperature", temperature)
    log_student = (student_logits / temperature).log_softmax(-1)
    log_teacher = (teacher_logits / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(
        log_student, log_teacher, reduction="none", log_target=True
    ).sum(-1)


def kl_from_probabilities(student_logits: Tensor, target_probs: Tensor) -> Tensor:
    """KL divergence to target probabilities, `KL(q || softmax(s))` with `0 log 0 = 0`.

    Args:
        student_logits: `[B, K]`, finite.
        target_probs: `[B, K]`, each row a distribution; zeros are allowed.

    Returns:
        `[B]`, in `[0, inf)` up to rounding.

    Raises:
        InputError: the shapes differ.

    Example: target (1, 0), student (3/4, 1/4): log(4 / 3).

        >>> student = torch.tensor([[math.log(3), 0.0]])
        >>> round(kl_from_probabilities(student, torch.tensor([[1.0, 0.0]])).item(), 4)
        0.2877
    """
    check_same_shape("kl_from_probabilities", student_logits, target_probs)
    return F.kl_div(student_logits.log_softmax(-1), target_probs, reduction="none").sum(-1)


def uniform_kl(logits: Tensor) -> Tensor:
    """KL divergence from the uniform distribution to a prediction, `KL(uniform || softmax(z))`.

    It is `-log K - mean_k log softmax(z)_k`.

    Source: first stage of the winning entry of the NeurIPS 2023 machine unlearning challenge.

    Args:
        logits: `[B, K]`, finite.

    Returns:
        `[B]`, in `[0, inf)` up to rounding; 0 when all logits of a row are equal.

    Example: probabilities (3/4, 1/4): -log 2 - (log 3/4 + log 1/4) / 2 = log(4 / 3) / 2.

        >>> round(uniform_kl(torch.tensor([[math.log(3), 0.0]])).item(), 4)
        0.1438
    """
    return -logits.log_softmax(-1).mean(-1) - math.log(logits.shape[-1])


# ---------------------------------------------------------------- targets of teachers


def bad_teacher_target(
    good_teacher: Tensor, bad_teacher: Tensor, is_forget: Tensor, temperature: float = 1.0
) -> Tensor:
    """Bad Teacher's target: the incompetent teacher on forget samples, the competent one elsewhere.

    `q_b = u_b softmax(bad_b / T) + (1 - u_b) softmax(good_b / T)` with `u_b` 0 or 1.

    Source: Chundawat et al., "Can Bad Teaching Induce Forgetting?" (AAAI 2023, arXiv 2205.08096).

    Args:
        good_teacher: `[B, K]` logits of the original model.
        bad_teacher: `[B, K]` logits of a randomly initialised model.
        is_forget: `[B]` bool (or 0/1).
        temperature: T > 0.

    Returns:
        `[B, K]`, each row a distribution.

    Raises:
        InputError: the teachers' shapes differ, or the temperature is not positive.

    Example: the second sample is to be forgotten, so it gets the bad teacher's (1/2, 1/2).

        >>> good, bad = torch.tensor([[math.log(3), 0.0]]).repeat(2, 1), torch.zeros(2, 2)
        >>> bad_teacher_target(good, bad, torch.tensor([False, True]))
        tensor([[0.7500, 0.2500],
                [0.5000, 0.5000]])
    """
    check_same_shape("bad_teacher_target", good_teacher, bad_teacher)
    check_positive("The temperature", temperature)
    logits = torch.where(is_forget.bool()[:, None], bad_teacher, good_teacher)
    return (logits / temperature).softmax(-1)


def bad_teacher_loss(
    student: Tensor,
    good_teacher: Tensor,
    bad_teacher: Tensor,
    is_forget: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """Bad Teacher's loss, `KL(q_b || softmax(student_b / T))` with `q` of `bad_teacher_target`.

    There is no factor `T^2`.
    The released code reduces by the library's default, the mean over batch *and* classes: its
    scalar is this function's mean divided by K. Source: as `bad_teacher_target`.

    Args:
        student: `[B, K]` logits.
        good_teacher: `[B, K]` logits of the original model.
        bad_teacher: `[B, K]` logits of a randomly initialised model.
        is_forget: `[B]` bool (or 0/1).
        temperature: T > 0; the paper uses 1.

    Returns:
        `[B]`, in `[0, inf)` up to rounding.

    Raises:
        InputError: a shape differs, or the temperature is not positive.

    Example: the student still is the good teacher (3/4, 1/4), the target (1/2, 1/2): log(4 / 3) /
    2.

        >>> good, bad = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
        >>> round(bad_teacher_loss(good, good, bad, torch.tensor([True])).item(), 4)
        0.1438
    """
    target = bad_teacher_target(good_teacher, bad_teacher, is_forget, temperature)
    return kl_from_probabilities(student / temperature, target)


def delete_target(teacher_logits: Tensor, label: Tensor) -> Tensor:
    """DELETE's target: the teacher's distribution with the true class at probability exactly 0.

    `q = softmax(t')`, `t'` being `t` with the true class at -inf. Train with
    `kl_from_probabilities(student, q)`.

    Source: Zhou et al., DELETE (CVPR 2025). The released code writes -1e10 for -inf, which gives
    the same numbers for any logits that a network produces.

    Args:
        teacher_logits: `[B, K]`, K >= 2.
        label: `[B]` int64 in `[0, K)`.

    Returns:
        `[B, K]`, each row a distribution.

    Raises:
        InputError: there is one class only.

    Example:
        >>> delete_target(torch.zeros(1, 3), torch.tensor([0]))
        tensor([[0.0000, 0.5000, 0.5000]])
    """
    if teacher_logits.shape[-1] < 2:
        raise InputError(
            "delete_target needs at least two classes, since it takes the true one away."
        )
    return teacher_logits.scatter(-1, label[:, None], -math.inf).softmax(-1)
