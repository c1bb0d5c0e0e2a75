"""Base classes of tasks on a data source: selector, split seed, augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mu.data.datamodule import UnlearningDataModule
from mu.data.split import Split
from mu.utils.errors import InputError, MissingMethodError
from tasks.augment import Augmentation
from tasks.selectors import NoisyLabels, Selector
from tasks.splits import optml_split, split_source
from tasks.tensor_data import Source


class SourceTask(UnlearningDataModule):
    """Base of tasks that forget a selection of a data set and retain the rest.

    The split has the parts `forget`, `retain` and `test`, and, where they are not empty,
    `validation` and `test_forget` (test samples of forgotten classes). A subclass overrides
    `source()`:

        class MyImages(ImageTask):
            def source(self):
                return npz_source("my_images.npz")

        MyImages(selector=ByClass(3), split_seed=0)

    Args:
        selector: chooses the forget set.
        split_seed: draws validation and forget set, and the training set where the data define
            none.
        validation_fraction: share of the training samples of each class that is held out, in
            [0, 1).
        augmentation: augmentation of training batches; `usual` is the customary one for the data,
            `none` switches it off.
        split: a split file to use in place of a new split (selector, seed and fraction then have no
            effect).
        by: field that the selector reads in place of the label (`fine_label`, to forget a
            sub-class).
        **kwargs: batch sizes, workers and curves, see UnlearningDataModule.
    """

    def __init__(
        self,
        selector: Selector,
        split_seed: int = 0,
        validation_fraction: float = 0.0,
        augmentation: Augmentation | Literal["usual", "none"] = "usual",
        split: str | None = None,
        by: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.selector = selector
        self.split_seed = split_seed
        self.validation_fraction = validation_fraction
        presets = {"usual": self.usual_augmentation, "none": None}
        self.augmentation = presets[augmentation] if isinstance(augmentation, str) else augmentation
        self.split_file = split
        self.by = by
        self._class_names: tuple[str, ...] = ()

    usual_augmentation: Augmentation | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels; empty where they are numbers only."""
        return self._class_names

    def source(self) -> Source:
        """Read the data."""
        raise MissingMethodError(f"{type(self).__name__} does not override source().")

    def build_split(self, source: Source) -> Split:
        """Build the split; a subclass may follow another protocol."""
        return split_source(
            source, self.selector, self.split_seed, self.validation_fraction, by=self.by
        )

    def make(self) -> None:
        """Read the source, build the split, and make a view of each part."""
        source = self.source()
        if isinstance(self.selector, NoisyLabels):
            source = source.relabelled(self.selector.noisy_labels(source.train_indices))
        self._class_names = tuple(source.class_names)
        self.split = self._load_split(source) if self.split_file else self.build_split(source)
        self.datasets = {
            name: source.view(indices) for name, indices in self.split.parts.items() if len(indices)
        }
        if self.original_split is not self.split:
            self.datasets["train"] = source.view(self.original_split.train)

    def _load_split(self, source: Source) -> Split:
        split = Split.load(Path(str(self.split_file)))
        if split.task != source.name:
            raise InputError(
                f"{self.split_file} splits {split.task!r}, but the task reads {source.name!r}."
            )
        return split


class ImageTask(SourceTask):
    """Base of tasks on labelled images, with the split protocol of published code as an option.

    Args:
        protocol: `mu` is the split of `tasks.splits.build_split`; `optml` reproduces that of
            Unlearn-Sparse and SalUn, draw for draw (selector ByClass or RandomCount).
        mismatch: with `optml`, train the original under split seed 1, as the released scripts do
            (see `tasks.splits.optml_split`).
        **kwargs: see SourceTask.
    """

    def __init__(
        self,
        selector: Selector,
        protocol: Literal["mu", "optml"] = "mu",
        mismatch: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(selector, **kwargs)
        if mismatch and protocol != "optml":
            raise InputError(
                "mismatch reproduces a quirk of the optml protocol; set protocol to optml."
            )
        self.protocol = protocol
        self.mismatch = mismatch
        self._original_split: Split | None = None

    @property
    def original_split(self) -> Split:
        """Split that the original was trained on; differs from `split` under `mismatch`."""
        return self._original_split or self.split

    def build_split(self, source: Source) -> Split:
        """Build the split of the chosen protocol."""
        if self.protocol == "mu":
            return super().build_split(source)
        choice = self.selector.resolve_names(source.class_names).describe()
        forget_class = choice.get("classes")
        count = choice.get("count")
        if choice["selector"] not in ("ByClass", "RandomCount") or (
            forget_class is not None and len(forget_class) != 1
        ):
            raise InputError(
                "the optml protocol forgets one class (ByClass) or a number of samples "
                "(RandomCount)."
            )
        splits = optml_split(
            source.name,
            train_labels=source.labels("train"),
            train_indices=source.train_indices,
            test_labels=source.labels("test"),
            test_indices=source.test_indices,
            forget_class=forget_class[0] if forget_class else None,
            count=count,
            seed=self.split_seed,
            mismatch=self.mismatch,
            validation_fraction=self.validation_fraction or 0.1,
        )
        self._original_split = splits.original
        return splits.split
