"""Losses of classifier and regression unlearning: pure functions on tensors.

A loss returns one value per example, `[B]`, and never reduces: the method decides how
(`UnlearningModule.reduce`). Nothing here looks at a model, a random generator or global state.
Every function keeps the dtype and device of its inputs; logarithms are natural.

A *teacher* or *target* argument is data: pass it without gradient (a frozen `reference` gives it
so). What weighs the terms of a loss is in `mu.functional.balancing`, what selects weights in
`mu.functional.selection`, closed-form edits in `mu.functional.curvature`; what a training step
needs of them can be imported from here too.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mu.functional.balancing import munba_weights as munba_weights
from mu.functional.balancing import nash_weights as nash_weights
from mu.functional.balancing import sfr_adaptive_weights as sfr_adaptive_weights
from mu.functional.penalties import l1_sparse_weight as l1_sparse_weight
from mu.functional.selection import salun_soft_count as salun_soft_count
from mu.functional.selection import soft_threshold as soft_threshold
from mu.utils.errors import InputError

# ---------------------------------------------------------------- cross-entropy and divergences


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy to a label: `l_b = -log softmax(z_b)[y_b]`.

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
    """Cross-entropy to a distribution: `-sum_k q_k log softmax(z)_k`, which is `KL(q || p) + H(q)`.

    Args:
        logits: `[B, K]`, finite.
        target_probs: `[B, K]`, each row a distribution.

    Returns:
        `[B]`, at least the entropy of the target.
    """
    _same_shape("soft_cross_entropy", logits, target_probs)
    return -(target_probs * logits.log_softmax(-1)).sum(-1)


def kl_divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    """Distillation divergence `T^2 KL(softmax(t / T) || softmax(s / T))`: SCRUB's, without its
    division by B.

    The factor `T^2` (Hinton et al., arXiv 1503.02531) keeps the gradient's size as T grows: it
    tends to `(s - t - mean(s - t)) / K`. It stands here and in no other function of this file.

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
    _same_shape("kl_divergence", student_logits, teacher_logits)
    _positive("temperature", temperature)
    log_student = (student_logits / temperature).log_softmax(-1)
    log_teacher = (teacher_logits / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(
        log_student, log_teacher, reduction="none", log_target=True
    ).sum(-1)


def kl_from_probabilities(student_logits: Tensor, target_probs: Tensor) -> Tensor:
    """`KL(q || softmax(s))` for a target given as probabilities; `0 log 0 = 0`.

    Args:
        student_logits: `[B, K]`, finite.
        target_probs: `[B, K]`, each row a distribution; zeros are allowed.

    Returns:
        `[B]`, in `[0, inf)` up to rounding.
    """
    _same_shape("kl_from_probabilities", student_logits, target_probs)
    return F.kl_div(student_logits.log_softmax(-1), target_probs, reduction="none").sum(-1)


def uniform_kl(logits: Tensor) -> Tensor:
    """`KL(uniform || softmax(z)) = -log K - mean_k log softmax(z)_k`: how far a prediction is from
    knowing nothing.

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
    """What the student should say: what the incompetent teacher says of forget samples, the
    competent one of others.

    `q_b = u_b softmax(bad_b / T) + (1 - u_b) softmax(good_b / T)` with `u_b` 0 or 1.

    Source: Chundawat et al., "Can Bad Teaching Induce Forgetting?" (AAAI 2023, arXiv 2205.08096).

    Args:
        good_teacher: `[B, K]` logits of the original model.
        bad_teacher: `[B, K]` logits of a randomly initialised model.
        is_forget: `[B]` bool (or 0/1).
        temperature: T > 0.

    Returns:
        `[B, K]`, each row a distribution.
    """
    _same_shape("bad_teacher_target", good_teacher, bad_teacher)
    _positive("temperature", temperature)
    logits = torch.where(is_forget.bool()[:, None], bad_teacher, good_teacher)
    return (logits / temperature).softmax(-1)


def bad_teacher_loss(
    student: Tensor,
    good_teacher: Tensor,
    bad_teacher: Tensor,
    is_forget: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """Bad Teacher: `KL(q_b || softmax(student_b / T))` with `q` of `bad_teacher_target`; no factor
    `T^2`.

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
    """
    target = bad_teacher_target(good_teacher, bad_teacher, is_forget, temperature)
    return kl_from_probabilities(student / temperature, target)


def delete_target(teacher_logits: Tensor, label: Tensor) -> Tensor:
    """DELETE's target: the teacher's distribution over the *other* classes; the true class has
    probability exactly 0.

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


# ---------------------------------------------------------------- regression


# ---------------------------------------------------------------- sparsity


# ---------------------------------------------------------------- adversarial images


# ---------------------------------------------------------------- helpers


def _same_shape(name: str, first: Tensor, *others: Tensor) -> None:
    for other in others:
        if other.shape != first.shape:
            shapes = f"{tuple(first.shape)} and {tuple(other.shape)}"
            raise InputError(f"{name} needs tensors of one shape, but got {shapes}.")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"The {name} must be greater than 0, not {value}.")
