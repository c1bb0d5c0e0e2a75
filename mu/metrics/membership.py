"""Membership inference: can an attacker tell that the forget samples were trained on?

Every attack works on values of *one* model, cached per example; none trains shadow models. Shares
and accuracies of the classifier attacks are in percent; areas under the curve, rates and the SCRUB
accuracy are in [0, 1], as their sources print them. The polarity differs between papers and is
stated in each function. All numbers are judged by their distance to the oracle's.

Rows of logits and errors are expected in the order of the samples' indices, which makes every pool
here reproducible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mu.metrics import classification
from mu.metrics.svc import Array, SVCFit, fit_svc
from mu.utils.errors import InputError, RunError

ATTACKS = ("correctness", "confidence", "entropy", "m_entropy", "prob")
"""The five features of the SVC attack; `m_entropy_ref` is the sixth, the released code's variant of
`m_entropy`.
"""


def attack_features(attack: str, logits: Tensor, label: Tensor) -> Array:
    """What an SVC attack sees of each example: `[N, 1]`, or `[N, K]` for `prob`, as float64.

    Args:
        attack: one of `ATTACKS`, or `m_entropy_ref`.
        logits: `[N, K]`.
        label: `[N]` int64.
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
    """Percent of the forget set that each attack calls *non-member*, by attack, and how each number
    was made.

    Attributes:
        members: how many members the attackers learned from.
        nonmembers: how many non-members.
        forget: how many forget samples they judged.
        fits: the fitted classifier of each attack.
    """

    def __init__(self, members: int, nonmembers: int, forget: int) -> None:
        super().__init__()
        self.members = members
        self.nonmembers = nonmembers
        self.forget = forget
        self.fits: dict[str, SVCFit] = {}

    @property
    def non_member(self) -> dict[str, float]:
        """The percentages as a plain dict."""
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
    """MIA-efficacy of Unlearn-Sparse and SalUn: percent of the forget set that an SVC calls
    non-member; `confidence` is their "MIA".

    The attacker learns members against non-members from one feature of the unlearned model's own
    outputs, by SVC(C=3, RBF, gamma = 1 / number of features) without scaling. The member pool is
    the first |non-members| samples of retain; where retain is the smaller side, the non-members are
    evenly thinned to its size (the released code stops with an error there). Source:
    OPTML-Group/Unlearn-Saliency, Classification/evaluation/SVC_MIA.py and main_forget.py.

    Args:
        member_logits: `[M, K]` of the retain set in index order.
        member_label: `[M]`.
        nonmember_logits: `[T, K]` of the test set (without the forgotten class in class-wise
            forgetting).
        nonmember_label: `[T]`.
        forget_logits: `[F, K]`.
        forget_label: `[F]`.
        attacks: which of `ATTACKS` and `m_entropy_ref` to run.

    Returns:
        Percentages in [0, 100] by attack, with sizes and solvers. An untouched model gives about 0;
        the oracle gives the goal.
    """
    size = min(len(member_logits), len(nonmember_logits))
    kept = torch.from_numpy(evenly(len(nonmember_logits), size)).to(nonmember_logits.device)
    found = SVCMembership(members=size, nonmembers=size, forget=len(forget_logits))
    for attack in attacks:
        member = attack_features(attack, member_logits[:size], member_label[:size])
        nonmember = attack_features(attack, nonmember_logits[kept], nonmember_label[kept])
        fit = _fit(member, nonmember)
        found[attack] = 100.0 * float(
            np.mean(~fit.predict(attack_features(attack, forget_logits, forget_label)))
        )
        found.fits[attack] = fit
    return found


def evenly(count: int, size: int) -> np.ndarray:
    """`size` of the positions 0..count-1, evenly spaced: a deterministic thinning that keeps the
    classes of a sorted set in proportion.
    """
    return np.arange(size, dtype=np.int64) * count // max(size, 1)


def training_privacy_mia(
    retain_logits: Tensor,
    retain_label: Tensor,
    test_logits: Tensor,
    test_label: Tensor,
    attacks: Sequence[str] = ATTACKS,
) -> dict[str, float]:
    """Training-privacy attack of Unlearn-Sparse: how well an SVC tells retain from test samples
    that it has not seen.

    It learns from the first n = T // 2 samples of either set and is judged on the rest of both.

    Args:
        retain_logits: `[R, K]` in index order, R > n.
        retain_label: `[R]`.
        test_logits: `[T, K]`, T >= 2.
        test_label: `[T]`.
        attacks: which features to use.

    Returns:
        Mean of the accuracy on the remaining retain samples and that on the remaining test samples,
        in percent, by attack; 50 is chance.
    """
    n = len(test_logits) // 2
    if n == 0 or len(retain_logits) <= n:
        raise InputError(
            f"the training-privacy attack learns from {max(n, 1)} samples of either set and is "
            f"judged on the rest, but there are {len(retain_logits)} of retain and "
            f"{len(test_logits)} of test; give more."
        )
    found: dict[str, float] = {}
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
        found[attack] = 50.0 * float(fit.predict(retain[1]).mean() + (~fit.predict(test[1])).mean())
    return found


def svc_mia_regression(
    train_error: Tensor, test_error: Tensor, forget_error: Tensor, size: int = 2000
) -> float:
    """Percent of the forget set that an SVC on the absolute error calls *member* (lower =
    forgotten; the opposite polarity of `svc_mia`).

    Source: Tarun et al., "Deep regression unlearning", ICML 2023;
    vikram2000b/deep-regression-unlearning.

    Args:
        train_error: `[R]` prediction minus target on retain, signed or absolute.
        test_error: `[T]` on held-out samples.
        forget_error: `[F]` on the forget set.
        size: the attacker learns from the first `size` samples of either set, and from all where
            there are fewer.
    """
    train, test, forget = (
        _values(error, name).abs()
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
    """Percent of the forget set that a classifier on the entropy calls *member* (lower = forgotten;
    the opposite polarity of `svc_mia`).

    Members are the whole retain set, non-members the whole test set. Sources: Chundawat et al.,
    "Can bad teaching induce forgetting?", AAAI 2023 (SVC); Foster et al., "Fast machine unlearning
    without retraining through selective synaptic dampening", AAAI 2024 (logistic regression with
    balanced class weights).

    Args:
        retain_logits: `[R, K]`.
        test_logits: `[T, K]`.
        forget_logits: `[F, K]`.
        classifier: `logistic` or `svc`.
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

    model = LogisticRegression(class_weight="balanced", solver="lbfgs", max_iter=1000)
    model.fit(np.concatenate([retain, test]), np.repeat([1, 0], [len(retain), len(test)]))
    return 100.0 * float(np.mean(model.predict(forget)))


def scrub_mia(
    forget_nll: Tensor,
    forget_label: Tensor,
    test_nll: Tensor,
    test_label: Tensor,
    seed: int = 0,
    splits: int = 5,
) -> float:
    """Cross-validated accuracy in [0, 1] of telling forget from test samples of the same classes by
    their loss; 0.5 is ideal.

    Both sides are brought to equal size by random sub-sampling, losses are clipped to 100 nats, and
    a logistic regression is judged by stratified shuffle splits that hold out 10 %. Source:
    Kurmanji et al., "Towards unbounded machine unlearning" (SCRUB), NeurIPS 2023.

    Args:
        forget_nll: `[F]` cross-entropy of the forget samples.
        forget_label: `[F]`; only test samples of these classes are used.
        test_nll: `[T]`.
        test_label: `[T]`.
        seed: of the sub-sampling and of the splits.
        splits: number of shuffle splits.

    Raises:
        InputError: when fewer than ten samples remain on either side.
    """
    forget = _values(forget_nll, "forget_nll").cpu()
    test = _values(test_nll, "test_nll").cpu()[torch.isin(test_label.cpu(), forget_label.cpu())]
    size = min(len(forget), len(test))
    if size < 10:
        raise InputError(
            "the SCRUB attack needs ten samples of the same classes on either side, but has "
            f"{len(forget)} forget and {len(test)} test samples."
        )
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

    draw = np.random.default_rng(seed)
    sides = [side.numpy()[np.sort(draw.permutation(len(side))[:size])] for side in (forget, test)]
    features = np.clip(np.concatenate(sides), -100.0, 100.0)[:, None]
    folds = StratifiedShuffleSplit(n_splits=splits, random_state=seed)
    return float(
        np.mean(
            cross_val_score(
                LogisticRegression(),
                features,
                np.repeat([1, 0], size),
                cv=folds,
                scoring="accuracy",
            )
        )
    )


def loss_threshold_auc(forget_nll: Tensor, test_nll: Tensor) -> float:
    """Area under the ROC curve of "a small loss means member", forget samples as members: in [0,
    1], 0.5 = cannot be told apart.

    This is the share of (forget, test) pairs in which the forget sample has the smaller loss; ties
    count half. Above 0.5 the forget set still looks trained on, below 0.5 it stands out as
    unusually badly known (the Streisand effect). The counts are exact integers, so equal multisets
    give exactly 0.5. Source of the attack: Yeom et al., "Privacy risk in machine learning", CSF
    2018.

    Args:
        forget_nll: `[F]`, infinity allowed.
        test_nll: `[T]`, infinity allowed.
    """
    forget = _values(forget_nll, "forget_nll").cpu()
    test = _values(test_nll, "test_nll").cpu().sort().values
    not_greater = torch.searchsorted(test, forget, right=True)
    smaller = torch.searchsorted(test, forget, right=False)
    twice = 2 * len(test) * len(forget) - int((smaller + not_greater).sum())
    return twice / (2 * len(test) * len(forget))


def tpr_at_fpr(member_score: Tensor, nonmember_score: Tensor, fpr: float) -> float:
    """Largest share of members found by any threshold that calls at most a share `fpr` of the
    non-members members, in [0, 1].

    A sample is called a member when its score exceeds the threshold; the curve is not interpolated.

    Args:
        member_score: `[M]`, large = member (for a loss, give its negative).
        nonmember_score: `[T]`.
        fpr: tolerated false positive rate in [0, 1], e.g. 0.001. Below 1 / T no false positive at
            all is tolerated.
    """
    if not 0 <= fpr <= 1:
        raise InputError(f"a false positive rate lies in [0, 1], but {fpr} was asked for.")
    members = _values(member_score, "member_score").cpu()
    others = _values(nonmember_score, "nonmember_score").cpu().sort(descending=True).values
    allowed = int(fpr * len(others) + 1e-9)  # 0.001 * 1000 must allow one
    if allowed >= len(others):
        return 1.0
    return (members > others[allowed]).to(torch.float64).mean().item()


@dataclass(frozen=True)
class ThresholdAttack:
    """Per-class thresholds on a score that is large for members (Song and Mittal, USENIX Security
    2021).

    Attributes:
        thresholds: `{class: threshold}`; a sample of that class with a score at or above it is
            called a member.
    """

    thresholds: dict[int, float]

    @classmethod
    def fit(
        cls, member_score: Tensor, member_label: Tensor, other_score: Tensor, other_label: Tensor
    ) -> ThresholdAttack:
        """Choose for every class the score that maximises (TPR + TNR) / 2 on known members and
        non-members; `[N]` each.
        """
        member = _values(member_score, "member_score").cpu()
        other = _values(other_score, "other_score").cpu()
        thresholds: dict[int, float] = {}
        for label in sorted(set(member_label.tolist()) | set(other_label.tolist())):
            inside = member[member_label.cpu() == label].sort().values
            outside = other[other_label.cpu() == label].sort().values
            candidates = torch.cat([inside, outside]).unique()
            found = (len(inside) - torch.searchsorted(inside, candidates)).to(torch.float64) / max(
                len(inside), 1
            )
            cleared = torch.searchsorted(outside, candidates).to(torch.float64) / max(
                len(outside), 1
            )
            thresholds[label] = candidates[(found + cleared).argmax()].item()
        return cls(thresholds)

    def accuracy(
        self, member_score: Tensor, member_label: Tensor, other_score: Tensor, other_label: Tensor
    ) -> float:
        """Mean of the accuracy on members and that on non-members, in percent; 50 is chance.

        Args:
            member_score: `[M]` scores of target samples that were trained on.
            member_label: `[M]`.
            other_score: `[T]` scores of those that were not.
            other_label: `[T]`.
        """
        found = (member_score.cpu() >= self._at(member_label)).to(torch.float64).mean()
        cleared = (other_score.cpu() < self._at(other_label)).to(torch.float64).mean()
        return 50.0 * (found + cleared).item()

    def _at(self, label: Tensor) -> Tensor:
        unknown = sorted(set(label.tolist()) - set(self.thresholds))
        if unknown:
            raise InputError(
                f"the threshold attack was fitted without any sample of class {unknown[0]}."
            )
        return torch.tensor([self.thresholds[each] for each in label.tolist()], dtype=torch.float64)


def _fit(member: Array, nonmember: Array) -> SVCFit:
    sides = [side.reshape(len(side), -1) for side in (member, nonmember)]
    return fit_svc(np.concatenate(sides), np.repeat([True, False], [len(side) for side in sides]))


def _values(values: Tensor, name: str) -> Tensor:
    if values.ndim != 1 or len(values) == 0:
        raise InputError(
            f"{name} must be [N] with at least one example, but has shape {tuple(values.shape)}."
        )
    if bool(values.isnan().any()):
        raise RunError(
            f"{name} holds NaN: the model that was tested has diverged, so nothing can be "
            "measured on it."
        )
    return values.detach().to(torch.float64)
