"""Data plans: each sample as often as promised, each visit counted, the same on every machine."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu.data.plan import (
    DataPlan,
    Everything,
    Forget,
    Paired,
    Phases,
    Retain,
    Step,
    Stream,
    Union,
    plan_steps,
)
from mu.utils.errors import InputError

SIZES = {"forget": 7, "retain": 23, "train": 30}
BATCH = {"forget": 3, "retain": 5, "train": 5}
PLANS = [
    Forget(),
    Retain(),
    Everything(),
    Paired(),
    Paired(length="forget"),
    Paired(length="max"),
    Union(),
    Union(retain_fraction=0.3),
    Phases(Forget(), Retain()),
    Phases(Forget(epochs=1), Retain()),
    Phases(Retain(), Retain()),
    Phases(Forget(), Union()),
    Phases(Forget(), Paired(), Retain()),
    Phases(Everything(), Forget()),
    Phases(Paired(), Forget(after=1)),
    Retain(shuffle=False),
    Retain(batch_size=1),
    Forget(limit=4),
]


def shown(steps: list[Step], part: str) -> list[tuple[int, int]]:
    """(position, visit) of every row of a part, in order."""
    rows = [step.parts[part] for step in steps if part in step.parts]
    return [
        (int(p), int(v)) for row in rows for p, v in zip(row.positions, row.visits, strict=True)
    ]


def epochs(plan: DataPlan, count: int, seed: int = 0) -> list[Step]:
    return [step for epoch in range(count) for step in plan_steps(plan, epoch, SIZES, BATCH, seed)]


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_no_sample_is_shown_twice_under_one_visit_number(plan: DataPlan) -> None:
    """Fails when two phases of an epoch, or two epochs, give a sample the same visit: its draws
    would repeat.
    """
    steps = epochs(plan, 4)
    for part in ("forget", "retain"):
        # the part `train` holds the samples of both others
        seen = Counter(shown(steps, part) if part in plan.reads() else [])
        assert seen == {} or max(seen.values()) == 1
    if "train" in plan.reads() and len(plan.reads()) > 1:
        visits = [{visit for _, visit in shown(steps, part)} for part in plan.reads()]
        assert not set.intersection(*visits)


@pytest.mark.parametrize(
    "plan",
    [Forget(), Retain(), Everything(), Retain(shuffle=False), Retain(batch_size=1)],
    ids=repr,
)
def test_a_single_part_is_shown_once_an_epoch(plan: DataPlan) -> None:
    """Fails when the last, shorter batch is dropped, or an epoch begins where the one before
    began.
    """
    (part,) = plan.reads()
    for epoch in range(3):
        rows = shown(plan_steps(plan, epoch, SIZES, BATCH, 0), part)
        assert sorted(rows) == [(position, epoch) for position in range(SIZES[part])]


@given(
    forget=st.integers(1, 40),
    retain=st.integers(1, 40),
    f=st.integers(1, 9),
    r=st.integers(1, 9),
    count=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_pairs_show_the_leading_part_once_and_cycle_the_other(
    forget: int, retain: int, f: int, r: int, count: int
) -> None:
    """Fails when the cycled part restarts with each epoch: some of its samples would then never be
    shown.
    """
    sizes = {"forget": forget, "retain": retain}
    batch = {"forget": f, "retain": r}
    steps = [
        step for epoch in range(count) for step in plan_steps(Paired(), epoch, sizes, batch, 1)
    ]
    assert sorted(shown(steps, "retain")) == sorted(
        (p, e) for p in range(retain) for e in range(count)
    )
    cycled = shown(steps, "forget")
    assert len(cycled) == len(steps) * f
    times = Counter(position for position, _ in cycled)
    assert max(times.values()) - min(times.get(p, 0) for p in range(forget)) <= 1
    assert len(set(cycled)) == len(cycled)


def test_pairs_are_as_long_as_the_part_that_is_named() -> None:
    """Fails when `max` counts samples instead of batches."""
    sizes = {"forget": 10, "retain": 30}
    batch = {"forget": 1, "retain": 10}
    lengths = {
        name: len(plan_steps(Paired(length=name), 0, sizes, batch, 0))
        for name in ("forget", "retain", "max")
    }
    assert lengths == {"forget": 10, "retain": 3, "max": 10}
    with pytest.raises(InputError, match="length"):
        Paired(length="longest")


@given(fraction=st.floats(0.05, 1.0), epoch=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_a_union_shows_forget_whole_and_the_share_of_retain(fraction: float, epoch: int) -> None:
    """Fails when the share is taken from the head of the part, or a sample is drawn twice."""
    steps = plan_steps(Union(retain_fraction=fraction), epoch, SIZES, BATCH, 0)
    assert sorted(p for p, _ in shown(steps, "forget")) == list(range(SIZES["forget"]))
    retained = [p for p, _ in shown(steps, "retain")]
    assert len(set(retained)) == len(retained) == round(fraction * SIZES["retain"])
    assert all(step.joint for step in steps)
    assert {sum(len(rows.positions) for rows in step.parts.values()) for step in steps[:-1]} <= {
        BATCH["retain"]
    }


def test_a_union_redraws_its_share_or_keeps_it() -> None:
    """Fails when `redraw` does nothing."""
    share = {
        redraw: [
            {
                p
                for p, _ in shown(
                    plan_steps(Union(retain_fraction=0.3, redraw=redraw), e, SIZES, BATCH, 0),
                    "retain",
                )
            }
            for e in range(3)
        ]
        for redraw in (True, False)
    }
    assert share[False][0] == share[False][1] == share[False][2]
    assert share[True][0] != share[True][1]


@pytest.mark.parametrize(
    "plan", [Forget(limit=4), Retain(limit=4), Union(limit=4), Paired(limit=4)], ids=repr
)
def test_every_plan_respects_a_limit(plan: DataPlan) -> None:
    """Fails when a plan takes `limit` and reads everything all the same."""
    steps = plan_steps(plan, 0, SIZES, BATCH, 0)
    lead = ["retain"] if isinstance(plan, Paired) else sorted(plan.reads())
    assert (
        sum(
            len(step.parts[part].positions) for step in steps for part in lead if part in step.parts
        )
        == 4
    )


def test_phases_keep_their_numbers_where_one_is_left_out() -> None:
    """Fails when a phase is numbered by its place in the epoch: a method would take it for
    another.
    """
    plan = Phases(Forget(epochs=1), Phases(Retain(after=1), Paired()))
    assert [
        sorted({step.phase for step in plan_steps(plan, epoch, SIZES, BATCH, 0)})
        for epoch in range(2)
    ] == [[0, 2], [1, 2]]


def test_repeated_phases_do_not_repeat_the_order() -> None:
    """Fails when the second pass over a part in an epoch goes through it in the order of the
    first.
    """
    steps = plan_steps(Phases(Retain(), Retain()), 0, SIZES, BATCH, 0)
    first, second = (
        [p for s in steps if s.phase == phase for p in s.parts["retain"].positions.tolist()]
        for phase in (0, 1)
    )
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_a_plan_is_a_pure_function_of_its_arguments(plan: DataPlan) -> None:
    """Fails when a plan depends on the plans made before it, or on a global generator."""

    def flat(seed: int) -> list[tuple[str, int, list[int], list[int]]]:
        steps = plan_steps(plan, 2, SIZES, BATCH, seed)
        return [
            (n, s.phase, r.positions.tolist(), r.visits.tolist())
            for s in steps
            for n, r in s.parts.items()
        ]

    before = flat(5)
    np.random.seed(1)
    for seed in range(12):
        flat(seed)
    assert flat(5) == before
    shuffled = not (isinstance(plan, Retain) and not plan.shuffle)
    assert (flat(6) != before) == shuffled


def test_a_stream_is_permutation_after_permutation() -> None:
    """Fails when a place of the stream depends on where the reading began."""
    stream = Stream("retain", 5, seed=3)
    positions = stream.take(0, 20)
    for start in range(15):
        part = stream.take(start, 5)
        assert part.positions.tolist() == positions.positions[start : start + 5].tolist()
    for cycle in range(4):
        assert sorted(positions.positions[5 * cycle : 5 * cycle + 5]) == list(range(5))
        assert set(positions.visits[5 * cycle : 5 * cycle + 5]) == {cycle}


def test_a_part_that_the_task_lacks_is_named() -> None:
    """Fails when a missing part ends in a KeyError, or in an epoch without steps."""
    with pytest.raises(InputError, match="forget"):
        plan_steps(Paired(), 0, {"forget": 0, "retain": 5}, BATCH, 0)


def test_schedules_are_values() -> None:
    """Fails when equal plans differ, so that equal runs would not be known as equal."""
    assert Phases(Forget(), Retain()) == Phases(Forget(), Retain()) != Phases(Retain(), Forget())
    assert hash(Union(retain_fraction=0.3)) == hash(Union(retain_fraction=0.3))


def test_an_unshuffled_union_is_retain_then_forget() -> None:
    steps = plan_steps(
        Union(shuffle=False, batch_size=3), 0, {"forget": 2, "retain": 4}, {"retain": 9}, seed=0
    )
    parts = [{name: rows.positions.tolist() for name, rows in step.parts.items()} for step in steps]
    assert parts == [{"retain": [0, 1, 2]}, {"forget": [0, 1], "retain": [3]}]
