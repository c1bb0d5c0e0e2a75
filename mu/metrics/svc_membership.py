"""Membership inference by a support vector classifier on a model's outputs (SVC-MIA).

The attacker learns members against non-members from values of *one* model; no shadow models are
trained. Percentages are of the forget set. The polarity differs between papers and is stated in
each function. All values are judged by their distance to the oracle's.

Rows of logits and errors are expected in the order of the samples' indices, which makes every pool
reproducible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mu.metrics import classification
from mu.metrics.checks import as_vector
from mu.metrics.fast_svc import SVCFit, fit_svc
from mu.metrics.low_rank_kernel import Array
from mu.utils.errors import InputError, UndefinedError

ATTACKS = ("correctness", "confidence", "entropy", "m_entropy", "prob")
"""Features of the SVC attack; `m_entropy_ref`, a sixth, is the released code's `m_entropy`."""


def attack_features(attack: str, logits: Tensor, label: Tensor) -> Array:
    """Features of an SVC attack, float64 `[N, 1]`, or `[N, K]` for `prob`.

    Args:
        attack: one of `ATTACKS`, or `m_entropy_ref`.
        logits: `[N, K]`.
        label: `[N]` int64.

    Raises:
        InputError: there is no such attack.

    Example: the first prediction is right.

        >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
        >>> attack_features("correctness", logits, torch.tensor([0, 1])).tolist()
        [[1.0], [0.0]]
    """
    if attack == "correctness":
        feature = classification.correctness(logits, label)
    elif attack == "confidence":
        feature = classification.confidence(logits, label)
    elif attack == "entropy":
        feature = classification.entropy(logits)
    elif attack == "m_entropy":
        feature = classification.modified_entropy(logits, label)
    elif attack == "m_entropy_ref":
        feature = classification.modified_entropy_reference(logits, label)
    elif attack == "prob":
        feature = classification.log_probabilities(classification.check_logits(logits, label)).exp()
    else:
        raise InputError(
            f"there is no attack {attack}; the attacks are {', '.join(ATTACKS)} and m_entropy_ref."
        )
    return feature.cpu().numpy().reshape(len(logits), -1)


class SVCMembership(dict[str, float]):
    """Percent of the forget set predicted as *non-member*, by attack, with sizes and fits.

    Attributes:
        members: number of members that the attackers were trained on.
        nonmembers: number of non-members that they were trained on.
        forget: number of forget samples.
        fits: fitted classifier of each attack.
    """

    def __init__(self, members: int, nonmembers: int, forget: int) -> None:
        super().__init__()
        self.members = members
        self.nonmembers = nonmembers
        self.forget = forget
        self.fits: dict[str, SVCFit] = {}

    @property
    def non_member(self) -> dict[str, float]:
        """Percentages by attack as a dict."""
        return dict(self)

    def detail(self, attack: str) -> dict[str, Any]:
        """Sizes, solver and tolerance of one attack, for a results file."""
        sizes = {"members": self.members, "nonmembers": self.nonmembers, "forget": self.forget}
        return {**sizes, **self.fits[attack].summary()}


def svc_mia(
    member_logits: Tensor,
    member_label: Tensor,
    nonmember_logits: Tensor,
    nonmember_label: Tensor,
    forget_logits: Tensor,
    forget_label: Tensor,
    attacks: Sequence[str] = ATTACKS,
) -> SVCMembership:
    """MIA-efficacy of Unlearn-Sparse and SalUn: percent of forget samples predicted as non-member.

    `confidence` is the papers' "MIA". The attacker learns members against non-members from one
    feature of the unlearned model's own outputs, by SVC(C=3, RBF, gamma = 1 / number of features)
    without scaling. The member pool is the first |non-members| samples of retain; where retain is
    the smaller side, the non-members are evenly thinned to its size (the released code stops with
    an error there). Source: OPTML-Group/Unlearn-Saliency, Classification/evaluation/SVC_MIA.py and
    main_forget.py.

    Args:
        member_logits: `[M, K]` of the retain set in index order.
        member_label: `[M]`.
        nonmember_logits: `[T, K]` of the test set (without the forgotten class in class-wise
            forgetting).
        nonmember_label: `[T]`.
        forget_logits: `[F, K]`.
        forget_label: `[F]`.
        attacks: names from `ATTACKS`, or `m_entropy_ref`.

    Returns:
        Percentages in [0, 100] by attack, with sizes and solvers. An untouched model gives about 0;
        the oracle gives the goal.

    Example: members are classified rightly, non-members wrongly, and one of two forget samples is.

        >>> logits, right, wrong = torch.tensor([[2.0, 0.0]] * 2), torch.zeros(2), torch.ones(2)
        >>> label = torch.tensor([0, 1])
        >>> svc_mia(logits, right, logits, wrong, logits, label, attacks=["correctness"])
        {'correctness': 50.0}
    """
    size = min(len(member_logits), len(nonmember_logits))
    thinned = torch.from_numpy(evenly(len(nonmember_logits), size)).to(nonmember_logits.device)
    membership = SVCMembership(members=size, nonmembers=size, forget=len(forget_logits))
    for attack in attacks:
        member = attack_features(attack, member_logits[:size], member_label[:size])
        nonmember = attack_features(attack, nonmember_logits[thinned], nonmember_label[thinned])
        fit = _fit(member, nonmember)
        membership[attack] = 100.0 * float(
            np.mean(~fit.predict(attack_features(attack, forget_logits, forget_label)))
        )
        membership.fits[attack] = fit
    return membership


def evenly(count: int, size: int) -> np.ndarray:
    """Evenly spaced positions in 0..count-1, a deterministic thinning.

    The classes of a sorted set stay in proportion.

    Args:
        count: number of positions.
        size: number of those to take, at most `count`.

    Returns:
        int64 `[size]`, increasing.

    Example:
        >>> evenly(6, 3).tolist()
        [0, 2, 4]
    """
    return np.arange(size, dtype=np.int64) * count // max(size, 1)


def training_privacy_mia(
    retain_logits: Tensor,
    retain_label: Tensor,
    test_logits: Tensor,
    test_label: Tensor,
    attacks: Sequence[str] = ATTACKS,
) -> dict[str, float]:
    """Training-privacy attack of Unlearn-Sparse: accuracy of an SVC on unseen retain and test
    samples.

    It learns from the first n = T // 2 samples of either set and is judged on the rest of both.

    Args:
        retain_logits: `[R, K]` in index order, R > n.
        retain_label: `[R]`.
        test_logits: `[T, K]`, T >= 2.
        test_label: `[T]`.
        attacks: names of the features.

    Returns:
        Mean of the accuracy on the remaining retain samples and that on the remaining test samples,
        in percent, by attack; 50 is chance.

    Raises:
        UndefinedError: there are too few samples to learn from and to judge.

    Example: every retain sample is classified rightly, every test sample wrongly.

        >>> logits, right, wrong = torch.tensor([[2.0, 0.0]] * 2), torch.zeros(2), torch.ones(2)
        >>> training_privacy_mia(logits, right, logits, wrong, attacks=["correctness"])
        {'correctness': 100.0}
    """
    n = len(test_logits) // 2
    if n == 0 or len(retain_logits) <= n:
        raise UndefinedError(
            f"the training-privacy attack learns from {max(n, 1)} samples of either set and is "
            f"judged on the rest, but there are {len(retain_logits)} of retain and "
            f"{len(test_logits)} of test; give more."
        )
    accuracies: dict[str, float] = {}
    for attack in attacks:
        retain = [
            attack_features(attack, retain_logits[part], retain_label[part])
            for part in (slice(n), slice(n, None))
        ]
        test = [
            attack_features(attack, test_logits[part], test_label[part])
            for part in (slice(n), slice(n, None))
        ]
        fit = _fit(retain[0], test[0])
        hits = fit.predict(retain[1]).mean() + (~fit.predict(test[1])).mean()
        accuracies[attack] = 50.0 * float(hits)
    return accuracies


def svc_mia_regression(
    train_error: Tensor, test_error: Tensor, forget_error: Tensor, size: int = 2000
) -> float:
    """Percent of the forget set that an SVC on the absolute error predicts as *member*.

    Lower = forgotten: the opposite polarity of `svc_mia`.

    Source: Tarun et al., "Deep regression unlearning", ICML 2023;
    vikram2000b/deep-regression-unlearning.

    Args:
        train_error: `[R]` prediction minus target on retain, signed or absolute.
        test_error: `[T]` on held-out samples.
        forget_error: `[F]` on the forget set.
        size: the attacker learns from the first `size` samples of either set, and from all where
            there are fewer.

    Returns:
        In [0, 100].

    Example: retain errors are small, test errors large; one of two forget samples has a small one.

        >>> small, large = torch.tensor([0.0, 0.1, 0.2]), torch.tensor([0.8, 0.9, 1.0])
        >>> svc_mia_regression(small, large, torch.tensor([-0.1, 0.9]))
        50.0
    """
    train, test, forget = (
        as_vector(error, name).abs()
        for error, name in (
            (train_error, "train_error"),
            (test_error, "test_error"),
            (forget_error, "forget_error"),
        )
    )
    fit = _fit(train[:size].cpu().numpy(), test[:size].cpu().numpy())
    return 100.0 * float(fit.predict(forget.cpu().numpy()).mean())


def entropy_lr_mia(
    retain_logits: Tensor, test_logits: Tensor, forget_logits: Tensor, classifier: str = "logistic"
) -> float:
    """Percent of the forget set that a classifier on the entropy predicts as *member*.

    Lower = forgotten: the opposite polarity of `svc_mia`. Members are the whole retain set,
    non-members the whole test set. Sources: Chundawat et al., "Can bad teaching induce
    forgetting?", AAAI 2023 (SVC); Foster et al., "Fast machine unlearning without retraining
    through selective synaptic dampening", AAAI 2024 (logistic regression with balanced class
    weights).

    Args:
        retain_logits: `[R, K]`.
        test_logits: `[T, K]`.
        forget_logits: `[F, K]`.
        classifier: `logistic` or `svc`.

    Returns:
        In [0, 100].

    Raises:
        InputError: there is no such classifier.

    Example: retain predictions are certain, test predictions uniform; one of two forget samples is.

        >>> certain, uniform = torch.tensor([[9.0, 0.0]]), torch.zeros(1, 2)
        >>> forget = torch.cat([certain, uniform])
        >>> entropy_lr_mia(certain.repeat(9, 1), uniform.repeat(9, 1), forget)
        50.0
    """
    retain, test, forget = (
        classification.entropy(logits).cpu().numpy()[:, None]
        for logits in (retain_logits, test_logits, forget_logits)
    )
    if classifier == "svc":
        return 100.0 * float(_fit(retain, test).predict(forget).mean())
    if classifier != "logistic":
        raise InputError(f"the entropy attack has no classifier {classifier}; use logistic or svc.")
    from sklearn.linear_model import LogisticRegression

    _check_sides(retain, test)
    model = LogisticRegression(class_weight="balanced", solver="lbfgs", max_iter=1000)
    model.fit(np.concatenate([retain, test]), np.repeat([1, 0], [len(retain), len(test)]))
    return 100.0 * float(np.mean(model.predict(forget)))


def _fit(member: Array, nonmember: Array) -> SVCFit:
    """Support vector classifier of members against non-members.

    Raises:
        UndefinedError: a side is empty, or all samples have the same feature, so that no classifier
            can tell them apart.
    """
    sides = [side.reshape(len(side), -1) for side in (member, nonmember)]
    _check_sides(*sides)
    return fit_svc(np.concatenate(sides), np.repeat([True, False], [len(side) for side in sides]))


def _check_sides(member: Array, nonmember: Array) -> None:
    if not len(member) or not len(nonmember):
        raise UndefinedError(
            "a membership attack learns from members and non-members, but there are "
            f"{len(member)} and {len(nonmember)}."
        )
    features = np.concatenate([member, nonmember])
    if bool((features == features[:1]).all()):
        raise UndefinedError(
            "every member and non-member has the same feature, so no attack can tell them apart."
        )
