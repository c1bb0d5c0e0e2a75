"""Membership attacks against scikit-learn and brute force, with pools of unequal sizes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC
from torch import Tensor

from mu import metrics
from mu.utils.errors import InputError, RunError, UndefinedError
from tests.support.pools import logits, pools

losses = st.lists(
    st.sampled_from([0.0, 0.1, 0.1 + 1e-12, 1.0, 2.5, float("inf")]) | st.floats(0, 5),
    min_size=1,
    max_size=12,
)


def probability(values: Tensor) -> np.ndarray:
    return values.double().softmax(dim=1).numpy()


def feature(attack: str, values: Tensor, label: Tensor) -> np.ndarray:
    """The papers' definitions, in plain numpy."""
    p = probability(values)
    y = label.numpy()
    label_probability = p[np.arange(len(p)), y]
    if attack == "correctness":
        return (p.argmax(1) == y).astype(float)[:, None]
    if attack == "confidence":
        return label_probability[:, None]
    if attack == "entropy":
        return -(p * np.log(p)).sum(1)[:, None]
    if attack == "m_entropy":
        other_classes = np.arange(p.shape[1]) != y[:, None]
        return (
            -(1 - label_probability) * np.log(label_probability)
            - np.where(other_classes, p * np.log1p(-np.where(other_classes, p, 0)), 0).sum(1)
        )[:, None]
    return p


def attack(members: np.ndarray, others: np.ndarray) -> Any:
    return SVC(C=3, kernel="rbf", gamma="auto").fit(
        np.concatenate([members, others]), [1] * len(members) + [0] * len(others)
    )


def test_svc_mia_is_the_share_called_non_member() -> None:
    """Counting members instead, or taking other members than the first ones, fails this."""
    member_z, member_y, other_z, other_y, forget_z, forget_y = pools(400, 3, forget=211)
    # the papers' case: more retain samples than test samples
    other_z = other_z[:333]
    other_y = other_y[:333]
    score = metrics.svc_mia(member_z, member_y, other_z, other_y, forget_z, forget_y)
    assert (
        tuple(score)
        == metrics.ATTACKS
        == ("correctness", "confidence", "entropy", "m_entropy", "prob")
    )
    assert (score.members, score.nonmembers, score.forget) == (333, 333, 211)
    for name, value in score.items():
        model = attack(
            feature(name, member_z[:333], member_y[:333]), feature(name, other_z, other_y)
        )
        stated = model.predict(feature(name, forget_z, forget_y)) == 0
        # scikit-learn's own tolerance may turn one sample
        assert abs(value - 100 * stated.mean()) <= 100 / 211 + 1e-9, name
        assert score.detail(name)["solver"] == "low-rank" and score.detail(name)["members"] == 333
    assert score.non_member == json.loads(json.dumps(score.non_member))
    json.dumps(score.detail("prob"))


def test_fewer_members_than_non_members_thins_the_non_members_evenly() -> None:
    member_z, member_y, other_z, other_y, forget_z, forget_y = pools(300, 4)
    score = metrics.svc_mia(
        member_z[:120], member_y[:120], other_z, other_y, forget_z, forget_y, attacks=["confidence"]
    )
    assert (score.members, score.nonmembers) == (120, 120)
    thinned = [i * 300 // 120 for i in range(120)]
    assert thinned[:4] == [0, 2, 5, 7] and thinned[-1] == 297
    same = metrics.svc_mia(
        member_z[:120],
        member_y[:120],
        other_z[thinned],
        other_y[thinned],
        forget_z,
        forget_y,
        attacks=["confidence"],
    )
    assert dict(score) == dict(same)


def test_only_the_first_members_matter() -> None:
    member_z, member_y, other_z, other_y, forget_z, forget_y = pools(200, 5)
    changed = torch.cat([member_z[:150], -member_z[150:]])
    expected = metrics.svc_mia(
        member_z, member_y, other_z[:150], other_y[:150], forget_z, forget_y, attacks=["entropy"]
    )
    other = metrics.svc_mia(
        changed, member_y, other_z[:150], other_y[:150], forget_z, forget_y, attacks=["entropy"]
    )
    first = metrics.svc_mia(
        -member_z, member_y, other_z[:150], other_y[:150], forget_z, forget_y, attacks=["entropy"]
    )
    assert dict(expected) == dict(other) != dict(first)


def test_an_untouched_model_has_forgotten_nothing_and_a_perfect_one_everything() -> None:
    member = logits(300, 10, 0, wrong=0.0)
    other = logits(300, 10, 1, wrong=0.7, centre=1.0)
    untouched = metrics.svc_mia(
        *member, *other, *logits(200, 10, 2, wrong=0.0), attacks=["confidence"]
    )
    forget, _ = logits(200, 10, 3, wrong=0.0)
    erased = metrics.svc_mia(*member, *other, forget, forget.argmin(dim=1), attacks=["correctness"])
    assert untouched["confidence"] < 5 and erased["correctness"] == 100
    equal = metrics.svc_mia(*member, *member, *member, attacks=["confidence"])
    # nothing to tell members by is no sign of forgetting
    assert equal["confidence"] == 0


def test_the_reference_variant_and_an_unknown_attack() -> None:
    given_pools = pools(120, 6)
    score = metrics.svc_mia(*given_pools, attacks=["m_entropy_ref"])
    parts = [
        metrics.modified_entropy_reference(given_pools[i], given_pools[i + 1]).numpy()[:, None]
        for i in (0, 2, 4)
    ]
    assert score["m_entropy_ref"] == pytest.approx(
        100 * (attack(*parts[:2]).predict(parts[2]) == 0).mean(), abs=100 / 60
    )
    with pytest.raises(InputError, match="no attack loss"):
        metrics.svc_mia(*given_pools, attacks=["loss"])


def test_training_privacy_is_judged_on_what_the_attacker_has_not_seen() -> None:
    retain_z, retain_y, test_z, test_y, *_ = pools(301, 7)
    test_z = test_z[:241]
    test_y = test_y[:241]
    score = metrics.training_privacy_mia(retain_z, retain_y, test_z, test_y)
    for name, value in score.items():
        retain = feature(name, retain_z, retain_y)
        test = feature(name, test_z, test_y)
        model = attack(retain[:120], test[:120])
        stated = 50 * (
            (model.predict(retain[120:]) == 1).mean() + (model.predict(test[120:]) == 0).mean()
        )
        assert value == pytest.approx(stated, abs=100 / 121), name
    with pytest.raises(UndefinedError, match="give more"):
        metrics.training_privacy_mia(retain_z[:120], retain_y[:120], test_z, test_y)


@given(losses, losses)
@settings(max_examples=80, deadline=None)
def test_loss_threshold_auc_is_the_share_of_ordered_pairs(
    forget: list[float], test: list[float]
) -> None:
    assume(len({*forget, *test}) > 1)
    score = metrics.loss_threshold_auc(
        torch.tensor(forget, dtype=torch.float64), torch.tensor(test, dtype=torch.float64)
    )
    pairs = [1.0 if f < t else 0.5 if f == t else 0.0 for f in forget for t in test]
    assert score == pytest.approx(sum(pairs) / len(pairs), abs=1e-15)
    swapped = metrics.loss_threshold_auc(
        torch.tensor(test, dtype=torch.float64), torch.tensor(forget, dtype=torch.float64)
    )
    assert score + swapped == pytest.approx(1, abs=1e-15)


@given(losses, st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_loss_threshold_auc_is_a_half_on_equal_distributions(
    values: list[float], copies: int
) -> None:
    assume(len(set(values)) > 1)
    forget = torch.tensor(values, dtype=torch.float64)
    assert metrics.loss_threshold_auc(forget, forget.flip(0).repeat(copies)) == 0.5


def test_loss_threshold_auc_equals_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    forget = np.round(draw.exponential(1.0, 401), 2)
    test = np.round(draw.exponential(1.3, 57), 2)
    stated = roc_auc_score([1] * 401 + [0] * 57, -np.concatenate([forget, test]))
    assert metrics.loss_threshold_auc(torch.tensor(forget), torch.tensor(test)) == pytest.approx(
        stated, abs=1e-12
    )
    assert metrics.loss_threshold_auc(torch.tensor([0.1]), torch.tensor([2.0])) == 1


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=15),
    st.lists(st.integers(0, 8), min_size=1, max_size=15),
    st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.5, 1.0]),
)
@settings(max_examples=100, deadline=None)
def test_tpr_at_fpr_is_the_best_of_all_thresholds(
    members: list[int], others: list[int], fpr: float
) -> None:
    assume(len({*members, *others}) > 1)
    best = 0.0
    for threshold in [-1.0, *sorted({*members, *others})]:
        if sum(v > threshold for v in others) / len(others) <= fpr + 1e-12:
            best = max(best, sum(v > threshold for v in members) / len(members))
    score = metrics.tpr_at_fpr(torch.tensor(members), torch.tensor(others), fpr)
    assert score == pytest.approx(best, abs=1e-12)


def test_tpr_at_one_in_a_thousand_allows_one_of_a_thousand() -> None:
    non_members = torch.arange(1000.0)
    assert metrics.tpr_at_fpr(torch.tensor([998.5, 5.0]), non_members, 0.001) == 0.5
    assert metrics.tpr_at_fpr(torch.tensor([998.5, 5.0]), non_members, 0.0009) == 0.0
    with pytest.raises(InputError, match="false positive rate"):
        metrics.tpr_at_fpr(non_members, non_members, 1.5)


@pytest.mark.parametrize("classifier", ["logistic", "svc"])
def test_entropy_attack_is_the_share_called_member(classifier: str) -> None:
    retain_z, retain_y, test_z, test_y, forget_z, forget_y = pools(250, 8)
    # unequal sides: the class weights matter
    retain_z = torch.cat([retain_z] * 2)
    retain_y = torch.cat([retain_y] * 2)
    retain, test, forget = (
        feature("entropy", z, y)
        for z, y in ((retain_z, retain_y), (test_z, test_y), (forget_z, forget_y))
    )
    if classifier == "svc":
        model = attack(retain, test)
    else:
        model = LogisticRegression(class_weight="balanced").fit(
            np.concatenate([retain, test]), [1] * len(retain) + [0] * len(test)
        )
    score = metrics.entropy_lr_mia(retain_z, test_z, forget_z, classifier)
    assert score == pytest.approx(
        100 * (model.predict(forget) == 1).mean(), abs=1e-9 + 100 / len(forget)
    )
    assert 50 < score < 100
    with pytest.raises(InputError, match="no classifier tree"):
        metrics.entropy_lr_mia(retain_z, test_z, forget_z, "tree")


def test_scrub_attack() -> None:
    draw = torch.Generator().manual_seed(0)
    label = torch.arange(400) % 4
    same = torch.rand(400, generator=draw)
    assert abs(metrics.scrub_mia(same[:150], label[:150], same[150:], label[150:]) - 0.5) < 0.15
    assert metrics.scrub_mia(same, label, same + 50, label) == 1.0
    once, again, other = (
        metrics.scrub_mia(same[:150], label[:150], same[150:] * 1.2, label[150:], seed=s)
        for s in (1, 1, 2)
    )
    assert once == again != other
    # test samples of other classes than the forget set's do not count
    only = label[:160] == 1
    test = torch.where(label == 1, same, 1e6)
    assert metrics.scrub_mia(same[:160][only], label[:160][only], test, label) == metrics.scrub_mia(
        same[:160][only], label[:160][only], same, label
    )
    with pytest.raises(UndefinedError, match="same classes"):
        metrics.scrub_mia(same[:50], torch.full((50,), 9), same, label)


def test_regression_attack_is_the_share_called_member() -> None:
    draw = np.random.default_rng(1)
    train = draw.normal(0, 1, 500)
    test = draw.normal(0, 8, 450)
    forget = draw.normal(0, 3, 130)
    tensors = [torch.tensor(x, dtype=torch.float32) for x in (train, test, forget)]
    absolute = [np.abs(x.double().numpy())[:, None] for x in tensors]
    for size in (400, 2000):
        model = attack(absolute[0][:size], absolute[1][:size])
        score = metrics.svc_mia_regression(*tensors, size=size)
        assert score == pytest.approx(
            100 * (model.predict(absolute[2]) == 1).mean(), abs=100 / 130 + 1e-9
        )
        assert score == metrics.svc_mia_regression(*(-x for x in tensors), size=size)


def test_threshold_attack_maximises_the_balanced_accuracy_of_each_class() -> None:
    draw = torch.Generator().manual_seed(2)
    member = (torch.randn(61, generator=draw) + 0.8).round(decimals=1)
    other = torch.randn(83, generator=draw).round(decimals=1)
    member_y = torch.arange(61) % 3
    other_y = torch.arange(83) % 3
    fitted = metrics.ThresholdAttack.fit(member, member_y, other, other_y)
    for label in range(3):
        inside = member[member_y == label].double()
        outside = other[other_y == label].double()

        def balanced(t: float, inside: Tensor = inside, outside: Tensor = outside) -> float:
            return sum((inside >= t).tolist()) / len(inside) + sum((outside < t).tolist()) / len(
                outside
            )

        best = max(balanced(t) for t in [*inside.tolist(), *outside.tolist()])
        assert balanced(fitted.thresholds[label]) == pytest.approx(best, abs=1e-12)
    right = [
        v.item() >= fitted.thresholds[int(y)]
        for v, y in zip(member.double(), member_y, strict=True)
    ]
    remaining = [
        v.item() < fitted.thresholds[int(y)] for v, y in zip(other.double(), other_y, strict=True)
    ]
    stated = 50 * (sum(right) / 61 + sum(remaining) / 83)
    assert fitted.accuracy(member, member_y, other, other_y) == pytest.approx(stated, abs=1e-9)
    with pytest.raises(InputError, match="class 7"):
        fitted.accuracy(member, member_y + 7, other, other_y)


def test_losses_of_a_diverged_model_are_refused() -> None:
    with pytest.raises(RunError, match="diverged"):
        metrics.loss_threshold_auc(torch.tensor([0.1, float("nan")]), torch.tensor([0.1]))
    with pytest.raises(UndefinedError, match="at least one"):
        metrics.loss_threshold_auc(torch.tensor([]), torch.tensor([0.1]))
