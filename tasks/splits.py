"""Split builders: the protocol of mu, and that of published code (`optml`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mu.data.split import Split
from mu.utils.errors import InputError
from tasks.selectors import Selector, ValueRange, draw, portion
from tasks.tensor_data import Source

NO_INDICES = np.empty(0, dtype=np.int64)


def build_split(
    task: str,
    *,
    train_labels: np.ndarray,
    train_indices: np.ndarray,
    test_labels: np.ndarray,
    test_indices: np.ndarray,
    selector: Selector,
    seed: int = 0,
    validation_fraction: float = 0.0,
    validation_indices: np.ndarray = NO_INDICES,
    forgotten_class_leaves_test: bool = True,
) -> Split:
    """Build a split: stratified validation set, then the forget set from the other samples.

    The validation draw depends on the seed alone, so all selectors of one seed share one original.
    Exception: samples that a selector lists (`IndexFile`) stay in training. For a sub-class task
    (CIFAR-100 trained on superclasses, one fine class forgotten) pass the fine labels.

    Args:
        task: name and version of the data.
        train_labels, test_labels: `[N]` integer classes, or float targets (regression, without
            stratification).
        train_indices, test_indices: `[N]` stable int64 indices, distinct over both.
        selector: chooses the forget set.
        seed: the split seed.
        validation_fraction: share of each class that is held out, in [0, 1), rounded half up.
        validation_indices: further training samples to hold out (defined by the source).
        forgotten_class_leaves_test: if all training samples of a class are forgotten, move its test
            samples from `test` to `test_forget`, as class-wise forgetting is measured (for
            `ValueRange`: the test samples in the range).

    Returns:
        A split with `forget`, `retain`, `test`, and, where they are not empty, `validation` and
        `test_forget`.

    Raises:
        InputError: when lengths differ, an index repeats, the fraction is out of range, the forget
            set is empty or complete, or no training or test sample remains.
    """
    train_labels, train_indices = _check_lengths(train_labels, train_indices, "training")
    test_labels, test_indices = _check_lengths(test_labels, test_indices, "test")
    if not 0 <= validation_fraction < 1:
        raise InputError(f"validation_fraction must lie in [0, 1), not {validation_fraction}.")
    fixed = _check_validation(validation_indices, train_indices)
    free = ~np.isin(train_indices, np.union1d(fixed, selector.required_indices()))
    drawn = _stratified(train_labels, train_indices, free, validation_fraction, seed)
    validation = np.union1d(fixed, drawn)
    training = ~np.isin(train_indices, validation)
    if not training.any():
        raise InputError("validation takes every training sample; hold out less.")
    labels = train_labels[training]
    indices = train_indices[training]
    forget = selector.select(labels, indices, seed)
    moved = np.zeros(len(test_labels), dtype=bool)
    if forgotten_class_leaves_test:
        moved = _forgotten_tests(labels, np.isin(indices, forget), test_labels, selector)
    parts = {
        "forget": forget,
        "retain": np.setdiff1d(indices, forget),
        "validation": validation,
        "test": test_indices[~moved],
        "test_forget": test_indices[moved],
    }
    return _split(task, parts, selector.describe(), seed)


def split_source(
    source: Source,
    selector: Selector,
    seed: int = 0,
    validation_fraction: float = 0.0,
    *,
    by: str | None = None,
    forgotten_class_leaves_test: bool = True,
) -> Split:
    """Build a split of a source, see `build_split`.

    Args:
        source: the data.
        selector: chooses the forget set.
        seed: the split seed.
        validation_fraction: share of each class that is held out, in [0, 1).
        by: field that the selector reads in place of the label (`fine_label`).
        forgotten_class_leaves_test: see `build_split`.
    """
    for fields in (source.train, source.test):
        if by is not None and by not in fields:
            raise InputError(
                f"`{source.name}` has no field `{by}` to select by; it has "
                f"{', '.join(sorted(fields))}."
            )
    names = source.class_names if by is None else source.label_names.get(by, ())
    return build_split(
        source.name,
        train_labels=source.labels("train") if by is None else source.field(by).numpy(),
        train_indices=source.train_indices,
        test_labels=source.labels("test") if by is None else source.field(by, "test").numpy(),
        test_indices=source.test_indices,
        selector=selector.resolve_names(names),
        seed=seed,
        validation_fraction=validation_fraction,
        validation_indices=source.validation_indices,
        forgotten_class_leaves_test=forgotten_class_leaves_test,
    )


class OptmlSplit(NamedTuple):
    """Split of the published code, and the split that its original was trained on.

    Attributes:
        split: forget, retain, validation and test sets.
        original: split with the training and validation sets of the original model; the same object
            as `split` without the mismatch of seeds.
    """

    split: Split
    original: Split

    @property
    def never_seen(self) -> np.ndarray:
        """Sorted samples of `split.train` that the original was not trained on."""
        return np.setdiff1d(self.split.train, self.original.train)


def optml_split(
    task: str,
    *,
    train_labels: np.ndarray,
    train_indices: np.ndarray,
    test_labels: np.ndarray,
    test_indices: np.ndarray,
    forget_class: int | None = None,
    count: int | None = 4500,
    seed: int = 2,
    mismatch: bool = False,
    original_seed: int = 1,
    validation_fraction: float = 0.1,
) -> OptmlSplit:
    """Split of Unlearn-Sparse and Unlearn-Saliency (OPTML-Group, `dataset.py`), draw for draw.

    Validation: `int(0.1 * n)` of every class in ascending order, from one `RandomState(seed)`,
    without replacement. Forget: `count` of the remaining training samples (of `forget_class`, or of
    all), from `RandomState(seed - 1)`, without replacement. The forgotten class leaves the test set
    when all its training samples are forgotten. (The released code tests whether the count is
    4500 on CIFAR-10, 4454 on SVHN, absent on CIFAR-100; the result differs for `count=450` on
    CIFAR-100 only, where the class stays.)

    The released scripts train the original with the default seed 1 and unlearn with seed 2, so
    about a tenth of the "training" samples were the original's validation samples. By default one
    split serves both; `mismatch=True` reproduces the published setting.

    Args:
        task, train_labels, train_indices, test_labels, test_indices: as in `build_split`, classes
            only, in the data's official order.
        forget_class: a class, or None for all classes.
        count: number of samples to forget; None forgets the whole class.
        seed: seed of the split, at least 1.
        mismatch: train the original under `original_seed`.
        original_seed: seed of the original's split, at least 1.
        validation_fraction: share of each class held out, in [0, 1); TinyImageNet has 0.

    Raises:
        InputError: as `build_split`; also if the class does not exist or has fewer samples than
            `count`.
    """
    train_labels, train_indices = _check_lengths(train_labels, train_indices, "training")
    test_labels, test_indices = _check_lengths(test_labels, test_indices, "test")
    if not np.issubdtype(train_labels.dtype, np.integer) or not 0 <= validation_fraction < 1:
        raise InputError("the optml split needs class labels and a validation_fraction in [0, 1).")
    if not all(1 <= split_seed < 2**32 for split_seed in (seed, original_seed)):
        raise InputError(
            f"the optml split needs seeds from 1 to 2**32 - 1, not {seed} and {original_seed}."
        )
    choice: dict[str, Any] = {"selector": "optml", "forget_class": forget_class, "count": count}
    choice["validation_fraction"] = validation_fraction
    if mismatch:
        choice["original_seed"] = original_seed

    def split_for_seed(split_seed: int) -> Split:
        validation = _optml_validation(train_labels, split_seed, validation_fraction)
        training = np.setdiff1d(np.arange(len(train_labels)), validation)
        forget = _optml_forget(train_labels, training, forget_class, count, split_seed)
        retain = np.setdiff1d(training, forget)
        leaves = np.zeros(len(test_labels), dtype=bool)
        if forget_class is not None and forget_class not in train_labels[retain]:
            leaves = test_labels == forget_class
        parts = {"forget": train_indices[forget], "retain": train_indices[retain]}
        held_out = {"validation": train_indices[validation], "test": test_indices[~leaves]}
        return _split(
            task, {**parts, **held_out, "test_forget": test_indices[leaves]}, choice, split_seed
        )

    split = split_for_seed(seed)
    return OptmlSplit(split, split_for_seed(original_seed) if mismatch else split)


def _optml_validation(labels: np.ndarray, seed: int, fraction: float) -> np.ndarray:
    rng = np.random.RandomState(seed)
    drawn: list[np.ndarray] = [NO_INDICES]
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        # RandomState cannot choose from an empty class
        if len(members):
            drawn.append(rng.choice(members, int(fraction * len(members)), replace=False))
    return np.concatenate(drawn)


def _optml_forget(
    labels: np.ndarray, training: np.ndarray, label: int | None, count: int | None, seed: int
) -> np.ndarray:
    candidates = training if label is None else training[labels[training] == label]
    if label is not None and not len(candidates):
        raise InputError(
            f"there is no class {label} in the training set; it has "
            f"{', '.join(map(str, np.unique(labels)))}."
        )
    if count is None:
        return candidates
    if not 1 <= count <= len(candidates):
        owner = "the training set has" if label is None else f"class {label} has"
        raise InputError(
            f"{owner} {len(candidates)} samples to forget from, so the count cannot be {count}."
        )
    return np.random.RandomState(seed - 1).choice(candidates, size=count, replace=False)


def _stratified(
    labels: np.ndarray, indices: np.ndarray, free: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    if np.issubdtype(labels.dtype, np.floating):
        groups: Sequence[np.ndarray] = [np.ones(len(labels), dtype=bool)]
    else:
        groups = [labels == label for label in np.unique(labels)]
    drawn = [
        draw(indices[group & free], portion(int(group.sum()), fraction), seed, "validation")
        for group in groups
    ]
    return np.concatenate(drawn)


def _forgotten_tests(
    labels: np.ndarray, forgotten: np.ndarray, test_labels: np.ndarray, selector: Selector
) -> np.ndarray:
    """Mask of test samples whose class is completely forgotten: bool `[N_test]`."""
    if isinstance(selector, ValueRange):
        return selector.matches(test_labels)
    if np.issubdtype(labels.dtype, np.floating):
        return np.zeros(len(test_labels), dtype=bool)
    return np.isin(test_labels, np.setdiff1d(labels[forgotten], labels[~forgotten]))


def _split(task: str, parts: dict[str, np.ndarray], selector: dict[str, Any], seed: int) -> Split:
    nonempty = {
        name: ids
        for name, ids in parts.items()
        if len(ids) or name not in ("validation", "test_forget")
    }
    split = Split(task, nonempty, selector, seed)
    if not len(split.parts["test"]):
        raise InputError(
            "no test sample remains without the forgotten classes; set "
            "forgotten_class_leaves_test to false."
        )
    return split


def _check_lengths(
    labels: np.ndarray, indices: np.ndarray, what: str
) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels)
    indices = np.asarray(indices, dtype=np.int64)
    if labels.ndim != 1 or labels.shape != indices.shape:
        raise InputError(
            f"the {what} labels and indices differ in length ({labels.shape} and {indices.shape}); "
            "every sample needs one of each."
        )
    if not len(labels):
        raise InputError(f"there are no {what} samples.")
    if len(np.unique(indices)) != len(indices):
        raise InputError(f"two {what} samples share one index; every index must be distinct.")
    return labels, indices


def _check_validation(requested: np.ndarray, train_indices: np.ndarray) -> np.ndarray:
    requested = np.unique(np.asarray(requested, dtype=np.int64))
    unknown = requested[~np.isin(requested, train_indices)]
    if len(unknown):
        raise InputError(
            f"validation index {unknown[0]} is no training sample ({len(unknown)} of "
            f"{len(requested)} are not)."
        )
    return requested
