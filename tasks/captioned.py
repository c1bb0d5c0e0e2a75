"""Folders of images by class, with a caption of each class: images and prompts for text-to-image
models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from mu.utils.errors import InputError
from tasks.images import ImageFolder
from tasks.tensor_data import Source, TensorData


class CaptionedFolder(ImageFolder):
    """Images with captions: forget what some classes look like (class-wise forgetting of SalUn and
    EraseDiff, nudity).

    Samples have `image`, `label`, `prompt` (the template with the class's name), `concept` (that
    name, of classes that are forgotten; empty otherwise) and `substitute` (the caption of another
    class).

    Args:
        root: `root/train/CLASS/*` and `root/test/CLASS/*`, or `root/CLASS/*`, see ImageFolder.
        selector: which classes are to be forgotten, by their place among the sorted folders.
        template: caption, with {} for the class's name.
        names: of the classes, by folder, as captions say them; the folder's name with spaces for
            underscores where it is not given.
        anchor: what the substitute shows, for every class; None takes the next class (the first
            after the last), as SalUn's code does.
        size: side to which images are resized, or (height, width).
        augmentation: of training images; `none` shows them as they are.
        **kwargs: see ImageFolder.
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
                f"the template {template!r} should have {{}} once, where the class's name goes."
            )
        self.template = template
        self.names = dict(names or {})
        self.anchor = anchor
        self._folders: tuple[str, ...] = ()

    def source(self) -> Source:
        """The folder; its class names are looked up later."""
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
        """Read the folder, and say what each class is called."""
        super().make()
        names = [self.names.get(folder, folder.replace("_", " ")) for folder in self._folders]
        forgotten = set(np.unique(self.datasets["forget"].stored("label").numpy()).tolist())  # type: ignore[attr-defined]
        anchors = [*names[1:], names[0]] if self.anchor is None else [self.anchor] * len(names)
        texts = {
            "prompt": [self.template.format(name) for name in names],
            "substitute": [self.template.format(name) for name in anchors],
            "concept": [name if label in forgotten else "" for label, name in enumerate(names)],
        }
        self.datasets = {part: Captioned(data, texts) for part, data in self.datasets.items()}  # type: ignore[arg-type]


class Captioned(Dataset):
    """Labelled data with texts that follow from the label.

    Args:
        data: with a field `label`.
        texts: by name, one text for each label.
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
        """The samples at `positions`, stacked; texts are lists of strings."""
        batch = self.data.__getitems__(positions)
        labels = batch["label"].tolist()
        return {
            **batch,
            **{name: [values[label] for label in labels] for name, values in self.texts.items()},
        }

    def stored(self, name: str) -> Any:
        """A tensor field as it is stored."""
        return self.data.stored(name)
