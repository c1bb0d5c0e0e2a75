"""Results of membership attacks on a language model, for suites of questions and answers."""

from __future__ import annotations

from collections.abc import Sequence

from callbacks.text.base import metric_result
from mu.evaluation.text.graph import Graph, OracleLog
from mu.evaluation.text.membership import (
    MEMBERSHIP_ATTACKS,
    PRIVACY_ATTACKS,
    MembershipAttack,
    MembershipAUC,
    PrivLeak,
)
from mu.metrics.results import Result
from mu.utils.errors import InputError

HOLDOUT = "holdout"
"""Default name of the set of rows that no model was trained on."""
_REFERENCE_ALONE = (
    "the reference attack compares with the oracle's losses; give the suite the oracle, or leave "
    "the attack out."
)


def checked_attacks(attacks: Sequence[MembershipAttack] | None) -> tuple[MembershipAttack, ...]:
    """Names of attacks; the four of OpenUnlearning's privacy score when None.

    Raises:
        InputError: for an unknown name.
    """
    names = tuple(PRIVACY_ATTACKS if attacks is None else attacks)
    unknown = [attack for attack in names if attack not in MEMBERSHIP_ATTACKS]
    if unknown:
        raise InputError(
            f"there is no membership attack {unknown[0]!r}; the attacks are "
            f"{', '.join(MEMBERSHIP_ATTACKS)}."
        )
    return names


def membership_results(
    graph: Graph,
    log: OracleLog | None,
    forget: str,
    holdout: str | None,
    attacks: Sequence[MembershipAttack],
    share: float,
    without_oracle: str,
) -> list[Result]:
    """Results `AUC/ATTACK` and, with an oracle, `PrivLeak`.

    Args:
        graph: metric graph of the model.
        log: log of the oracle, or None.
        forget: name of the forget set.
        holdout: name of the set that no model was trained on; None measures no attack.
        attacks: their names.
        share: share of the tokens, for min-k and min-k++.
        without_oracle: detail of each AUC where there is no oracle.

    Raises:
        InputError: the attack `reference` has no oracle.
    """
    if holdout is None:
        return []
    if holdout == HOLDOUT and HOLDOUT not in graph.sets:
        return [_without_holdout(attack, forget) for attack in attacks]
    if "reference" in attacks and log is None:
        raise InputError(_REFERENCE_ALONE)
    detail = {"oracle": without_oracle if log is None else log.label(graph)}
    results = []
    for attack in attacks:
        source = log if attack == "reference" else None
        node = MembershipAUC(attack, forget, holdout, share, source)
        results.append(metric_result(graph, f"AUC/{attack}", node, None, forget, detail=detail))
    if log is not None:
        leak = PrivLeak(forget, holdout, log, share=share)
        results.append(metric_result(graph, "PrivLeak", leak, None, forget, "%"))
    return results


def _without_holdout(attack: str, split: str) -> Result:
    return Result(
        f"AUC/{attack}",
        None,
        split=split,
        undefined="the task has no set holdout of rows that no model was trained on; give it a "
        "test part (data.test_fraction), or leave the attacks out with holdout: null.",
    )
