"""Membership inference from losses and scores: AUC, TPR at a low FPR, thresholds, SCRUB's attack.

Every attack works on values of *one* model, cached per example; no shadow models are trained. Areas
under the curve, rates and the SCRUB accuracy are in [0, 1], as their sources print them; the
threshold attack's accuracy is in percent. All values are judged by their distance to the oracle's.
`mu.metrics.svc_membership` has the attacks by a support vector classifier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mu.metrics.checks import as_vector, check_differing
from mu.utils.errors import InputError, UndefinedError


def scrub_mia(
    forget_nll: Tensor,
    forget_label: Tensor,
    test_nll: Tensor,
    test_label: Tensor,
    seed: int = 0,
    splits: int = 5,
) -> float:
    """SCRUB's attack: cross-validated accuracy of a classifier of forget against test losses.

    In [0, 1]; 0.5 is ideal. Test samples are those of the forget set's classes.

    Both sides are brought to equal size by random sub-sampling, losses are clipped to 100 nats, and
    a logistic regression is judged by stratified shuffle splits that hold out 10 %. Source:
    Kurmanji et al., "Towards unbounded machine unlearning" (SCRUB), NeurIPS 2023.

    Args:
        forget_nll: `[F]` cross-entropy of the forget samples.
        forget_label: `[F]`; only test samples of these classes are used.
        test_nll: `[T]`.
        test_label: `[T]`.
        seed: seed of the sub-sampling and of the splits.
        splits: number of shuffle splits.

    Raises:
        UndefinedError: fewer than ten samples remain on either side, or all losses are equal.

    Example: the losses do not overlap.

        >>> label = torch.zeros(20, dtype=torch.int64)
        >>> scrub_mia(torch.zeros(20), label, torch.full((20,), 9.0), label)
        1.0
    """
    # keep test samples of the forget set's classes
    forget = as_vector(forget_nll, "forget_nll").cpu()
    test = as_vector(test_nll, "test_nll").cpu()[torch.isin(test_label.cpu(), forget_label.cpu())]
    size = min(len(forget), len(test))
    if size < 10:
        raise UndefinedError(
            "the SCRUB attack needs ten samples of the same classes on either side, but has "
            f"{len(forget)} forget and {len(test)} test samples."
        )
    check_differing("the losses", forget, test)
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

    # bring both sides to equal size
    draw = np.random.default_rng(seed)
    sides = [side.numpy()[np.sort(draw.permutation(len(side))[:size])] for side in (forget, test)]
    features = np.clip(np.concatenate(sides), -100.0, 100.0)[:, None]
    # cross-validate
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
    """Area under the ROC curve of the loss-threshold attack, forget samples as members, in [0, 1].

    This is the share of (forget, test) pairs in which the forget sample has the smaller loss; ties
    count half. 0.5 = no attack by a threshold succeeds. Above it the forget set still looks trained
    on; below it its losses are unusually large (the Streisand effect). The counts are exact
    integers, so equal multisets give exactly 0.5. Source of the attack: Yeom et al., "Privacy risk
    in machine learning", CSF 2018.

    Args:
        forget_nll: `[F]`, infinity allowed.
        test_nll: `[T]`, infinity allowed.

    Raises:
        UndefinedError: a loss is NaN, or all are equal, as those of a model without an output.

    Example: 1 < 2 and 1 < 3; 3 > 2; 3 = 3 counts half: 2.5 of 4 pairs.

        >>> loss_threshold_auc(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0]))
        0.625
    """
    forget = as_vector(forget_nll, "forget_nll").cpu()
    test = as_vector(test_nll, "test_nll").cpu().sort().values
    check_differing("the losses", forget, test)
    not_greater = torch.searchsorted(test, forget, right=True)
    smaller = torch.searchsorted(test, forget, right=False)
    twice = 2 * len(test) * len(forget) - int((smaller + not_greater).sum())
    return twice / (2 * len(test) * len(forget))


def tpr_at_fpr(member_score: Tensor, nonmember_score: Tensor, fpr: float) -> float:
    """True positive rate of a threshold attack at a tolerated false positive rate, in [0, 1].

    The largest one of all thresholds. A sample is predicted a member when its score exceeds the
    threshold; the curve is not interpolated.

    Args:
        member_score: `[M]`, large = member (for a loss, give its negative).
        nonmember_score: `[T]`.
        fpr: tolerated false positive rate in [0, 1], e.g. 0.001. Below 1 / T no false positive at
            all is tolerated.

    Raises:
        InputError: the rate is outside [0, 1].
        UndefinedError: a score is NaN, or all are equal.

    Example: with no false positive, one of two members exceeds all non-members.

        >>> tpr_at_fpr(torch.tensor([0.9, 0.2]), torch.tensor([0.5, 0.1]), fpr=0.0)
        0.5
    """
    if not 0 <= fpr <= 1:
        raise InputError(f"a false positive rate lies in [0, 1], not {fpr}.")
    members = as_vector(member_score, "member_score").cpu()
    nonmembers = as_vector(nonmember_score, "nonmember_score").cpu().sort(descending=True).values
    check_differing("the scores", members, nonmembers)
    allowed = int(fpr * len(nonmembers) + 1e-9)  # 0.001 * 1000 must allow one
    if allowed >= len(nonmembers):
        return 1.0
    return (members > nonmembers[allowed]).to(torch.float64).mean().item()


@dataclass(frozen=True)
class ThresholdAttack:
    """Threshold attack with one threshold a class (Song and Mittal, USENIX Security 2021).

    The score is large for members.

    Attributes:
        thresholds: `{class: threshold}`; a sample of that class with a score at or above it is
            predicted a member.

    Example: 2 is the threshold that separates the members 2, 3 from 0, 1.

        >>> member, other = torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])
        >>> label = torch.tensor([0, 0])
        >>> attack = ThresholdAttack.fit(member, label, other, label)
        >>> attack.thresholds, attack.accuracy(member, label, other, label)
        ({0: 2.0}, 100.0)
    """

    thresholds: dict[int, float]

    @classmethod
    def fit(
        cls, member_score: Tensor, member_label: Tensor, other_score: Tensor, other_label: Tensor
    ) -> ThresholdAttack:
        """Thresholds that maximise (TPR + TNR) / 2 in every class.

        Args:
            member_score: `[M]` scores of samples that were trained on.
            member_label: `[M]`.
            other_score: `[T]` scores of samples that were not.
            other_label: `[T]`.

        Raises:
            UndefinedError: a score is NaN, or all are equal.
        """
        member = as_vector(member_score, "member_score").cpu()
        other = as_vector(other_score, "other_score").cpu()
        check_differing("the scores", member, other)
        thresholds: dict[int, float] = {}
        for label in sorted(set(member_label.tolist()) | set(other_label.tolist())):
            inside = member[member_label.cpu() == label].sort().values
            outside = other[other_label.cpu() == label].sort().values
            candidates = torch.cat([inside, outside]).unique()
            caught = (len(inside) - torch.searchsorted(inside, candidates)).to(torch.float64) / max(
                len(inside), 1
            )
            cleared = torch.searchsorted(outside, candidates).to(torch.float64) / max(
                len(outside), 1
            )
            thresholds[label] = candidates[(caught + cleared).argmax()].item()
        return cls(thresholds)

    def accuracy(
        self, member_score: Tensor, member_label: Tensor, other_score: Tensor, other_label: Tensor
    ) -> float:
        """Balanced accuracy on members and non-members in percent; 50 is chance.

        Args:
            member_score: `[M]` scores of target samples that were trained on.
            member_label: `[M]`.
            other_score: `[T]` scores of target samples that were not.
            other_label: `[T]`.
        """
        member = as_vector(member_score, "member_score").cpu()
        other = as_vector(other_score, "other_score").cpu()
        caught = (member >= self._at(member_label)).to(torch.float64).mean()
        cleared = (other < self._at(other_label)).to(torch.float64).mean()
        return 50.0 * (caught + cleared).item()

    def _at(self, label: Tensor) -> Tensor:
        unknown = sorted(set(label.tolist()) - set(self.thresholds))
        if unknown:
            raise InputError(
                f"the threshold attack was fitted without any sample of class {unknown[0]}."
            )
        return torch.tensor([self.thresholds[k] for k in label.tolist()], dtype=torch.float64)
