"""Image folders by class with captions, for text-to-image models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from unicodedata import normalize

import numpy as np
from torch.utils.data import Dataset

from mu.utils.errors import InputError
from tasks.images import ImageFolder
from tasks.tensor_data import Source, TensorData


class CaptionedFolder(ImageFolder):
    """Captioned images by class: forget how some classes look (class-wise forgetting, nudity).

    Samples have `image`, `label`, `prompt` (the template with the class name), `concept` (the class
    name of forgotten classes, empty for others) and `substitute` (the caption of another class).
    Parts of the split as in ImageFolder.

    Args:
        root: `root/train/CLASS/*` and `root/test/CLASS/*`, or `root/CLASS/*`, see ImageFolder.
        selector: chooses the forgotten classes, by folder name or index among sorted folders.
        template: caption with {} in place of the class name.
        names: class names in captions, by folder; by default the folder name with spaces for
            underscores.
        anchor: class name in all substitutes; None uses the next class that is not forgotten (after
            the last, the first), as SalUn's code does for one class.
        size: side of the resized images, or (height, width).
        augmentation: augmentation of training images; `none` switches it off.
        **kwargs: see ImageFolder.

    Example: `CaptionedFolder("data/imagenette", ByClass(0), template="a photo of a {}")`.
    """

    provides = frozenset({"labels", "substitute"})

    def __init__(
        self,
        root: str,
        selector: Any,
        template: str = "an image of a {}",
        names: dict[str, str] | None = None,
        anchor: str | None = None,
        size: int | tuple[int, int] = 512,
        augmentation: Any = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, selector, size=size, augmentation=augmentation, **kwargs)
        if template.count("{}") != 1:
            raise InputError(
                f"the template {template!r} should have {{}} once, in place of the class name."
            )
        self.template = template
        # as the reader names the classes
        self.names = {normalize("NFC", folder): name for folder, name in (names or {}).items()}
        self.anchor = anchor
        self._folders: tuple[str, ...] = ()

    def source(self) -> Source:
        """Read the folder."""
        source = super().source()
        unknown = sorted(set(self.names) - set(source.class_names))
        if unknown:
            raise InputError(
                f"{self.root} has no class folder {unknown[0]!r}, for which names gives a name; "
                f"it has {', '.join(source.class_names[:10])}."
            )
        if self.anchor is None and len(source.class_names) < 2:
            raise InputError(
                f"{self.root} has a single class, so there is no next one to take its place; give "
                "an anchor."
            )
        self._folders = source.class_names
        return source

    def make(self) -> None:
        """Read the folder and add captions."""
        super().make()
        names = [self.names.get(folder, folder.replace("_", " ")) for folder in self._folders]
        forgotten = set(np.unique(self.datasets["forget"].stored("label").numpy()).tolist())  # type: ignore[attr-defined]
        anchors = (
            [names[label] for label in self._next_labels(forgotten)]
            if self.anchor is None
            else [self.anchor] * len(names)
        )
        texts = {
            "prompt": [self.template.format(name) for name in names],
            "substitute": [self.template.format(name) for name in anchors],
            "concept": [name if label in forgotten else "" for label, name in enumerate(names)],
        }
        self.datasets = {part: Captioned(data, texts) for part, data in self.datasets.items()}  # type: ignore[arg-type]

    def _next_labels(self, forgotten: set[int]) -> list[int]:
        """For each class the next one; for a forgotten class the next that is not forgotten."""
        count = len(self._folders)
        if len(forgotten) == count:
            raise InputError(
                f"every class of {self.root} is forgotten, so there is no next one to take its "
                "place; give an anchor."
            )
        labels = []
        for label in range(count):
            following = (label + 1) % count
            while label in forgotten and following in forgotten:
                following = (following + 1) % count
            labels.append(following)
        return labels


class Captioned(Dataset):
    """Labelled data with texts determined by the label.

    Args:
        data: data with a field `label`.
        texts: text fields by name, one text for each label.
    """

    def __init__(self, data: TensorData, texts: Mapping[str, Sequence[str]]) -> None:
        self.data = data
        self.texts = {name: list(values) for name, values in texts.items()}
        self.indices = data.indices
        self.weights = data.weights

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """One sample, without a batch dimension; texts are strings."""
        sample = self.data[position]
        return {
            **sample,
            **{name: values[int(sample["label"])] for name, values in self.texts.items()},
        }

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Any]:
        """Batch of the samples at `positions`; texts are lists of strings."""
        batch = self.data.__getitems__(positions)
        labels = batch["label"].tolist()
        return {
            **batch,
            **{name: [values[label] for label in labels] for name, values in self.texts.items()},
        }

    def stored(self, name: str) -> Any:
        """Stored tensor field, in the order of the view."""
        return self.data.stored(name)
