"""Judge from an image classifier, and the judges that come with mu."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mu.backbones.embedded import path
from mu.backbones.vision.classifier import Classifier
from mu.backbones.vision.networks import class_names
from mu.evaluation.images.clip import resize_and_crop
from mu.evaluation.images.judges import Judge
from mu.utils.errors import InputError

JUDGES = ("shape", "colour", "background", "digits")
"""Names of the classifiers that come with mu as judges."""


class ClassifierJudge(Judge):
    """Judge that applies an image classifier with named classes.

    Args:
        weights: a run folder or checkpoint of `mu fit`, a safetensors file or exported folder, or
            `embedded:NAME` for a judge that comes with mu (`embedded:judge_shape`). None takes the
            network's published ImageNet weights.
        network: name of the network (see Classifier), where the metadata of the weights lack it
            (`torchvision:resnet50`).
        labels: names of the classes, where the metadata of the weights lack them.
        name: name for reports; derived from the weights when None.
        size: input height and width in pixels; other images are resized, with antialiasing. None
            keeps the size of the images (published weights have an input size).
        crop_pct: side of the centre crop as a share of the resized image, in (0, 1] (timm's term).
        top: a label is recognised if it is among so many most probable ones.
        threshold: a label is recognised from this probability on, in place of `top`.
        synonyms: other words for labels, as prompts use them.
        groups: concepts that consist of several labels.
        confidence: probability of the most probable label from which on the judge sees anything.
            The 0.2 that the shipped configurations give ResNet-50 was not measured on its weights;
            `judge/noise` of a test says how many images of noise pass it.
        reject: labels that stand for nothing to be seen; `none`, if there is one, when None.
        options: arguments of the network's constructor, where the metadata lack them.
        classifier: a Classifier in memory, in place of `weights`.

    Raises:
        InputError: when neither weights, network nor classifier are given, or crop_pct is out of
            range.

    Example: `ClassifierJudge("embedded:judge_shape").recognises(images, "circle")`.
    """

    def __init__(
        self,
        weights: str | None = None,
        network: str | None = None,
        labels: list[str] | None = None,
        name: str | None = None,
        size: int | None = None,
        crop_pct: float = 1.0,
        top: int = 1,
        threshold: float | None = None,
        synonyms: dict[str, list[str]] | None = None,
        groups: dict[str, list[str]] | None = None,
        options: dict[str, Any] | None = None,
        classifier: Classifier | None = None,
        confidence: float | None = None,
        reject: list[str] | None = None,
    ) -> None:
        if weights is None and network is None and classifier is None:
            raise InputError(
                "a ClassifierJudge needs weights, or the name of a network with published ones."
            )
        if not 0 < crop_pct <= 1:
            raise InputError(f"crop_pct is {crop_pct}; it is a share in (0, 1].")
        super().__init__(
            name or _default_name(weights, network),
            threshold,
            top,
            synonyms,
            groups,
            confidence,
            reject,
        )
        self.weights = weights
        self.network = network
        self.class_names = labels
        self.size = size
        self.crop_pct = crop_pct
        self.options = dict(options or {})
        self._live = classifier
        self._loaded: Classifier | None = None
        self._labels: tuple[str, ...] = ()
        self._version = ""

    @property
    def classifier(self) -> Classifier:
        """Classifier in eval mode, read on first use."""
        if self._loaded is None:
            classifier = self._live if self._live is not None else self._read()
            published = self.weights is None and self._live is None
            names = (
                self.class_names
                or class_names(classifier.weights_metadata)
                or (_imagenet_names() if published else [])
            )
            if len(names) != classifier.num_classes:
                problem = "no names for them" if not names else f"names for {len(names)}"
                raise InputError(
                    f"the judge {self.name} has {classifier.num_classes} classes and {problem}; "
                    "give "
                    "labels, one for each."
                )
            self._labels = tuple(names)
            self._loaded = classifier.eval().requires_grad_(False)
        return self._loaded

    def _read(self) -> Classifier:
        if self.weights is None:
            return Classifier(
                str(self.network), num_classes=1000, pretrained=True, options=self.options
            )
        from mu.core.checkpoint import load

        location = self.weights
        if location.startswith("embedded:"):
            location = str(path(location.removeprefix("embedded:")))
        if self.network is None and (
            Path(location).suffix == ".ckpt" or (Path(location) / "checkpoints").is_dir()
        ):
            served = load(location).served()
            if not isinstance(served, Classifier):
                raise InputError(
                    f"{self.weights} holds a {type(served).__name__}; a judge is a classifier."
                )
            return served
        return self._from_metadata(location)

    def _from_metadata(self, location: str) -> Classifier:
        """Classifier from a weights file, with the network and classes of its metadata."""
        from mu.utils.weights import load_weights

        tensors, metadata = load_weights(location)
        # network: the argument, else the metadata
        library = metadata.get("library")
        architecture = metadata.get("architecture")
        network = self.network or (
            f"{library}:{architecture}"
            if library and ":" not in str(architecture)
            else architecture
        )
        if network is None:
            raise InputError(
                f"the metadata of {self.weights} do not name a network; give the judge's network."
            )
        # number of classes: the metadata, else the names, else the size of the last layer
        classes = (
            metadata.get("num_classes")
            or len(self.class_names or class_names(metadata))
            or len(list(tensors.values())[-1])
        )
        options = self.options or json.loads(metadata.get("options", "{}"))
        return Classifier(
            network,
            num_classes=int(classes),
            in_channels=len(metadata.get("mean", [0, 0, 0])),
            weights=location,
            options=options,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        _ = self.classifier
        return self._labels

    @property
    def version(self) -> str:
        """Hash of the weights."""
        from mu.utils.weights import weights_hash

        self._version = self._version or weights_hash(self.classifier.network)
        return self._version

    def preprocess(self, images: Tensor) -> Tensor:
        """Resized and cropped images; the network is moved to the device of the images."""
        published = (
            getattr(self.classifier.network, "input_size", None)
            if self.weights is None and self._live is None
            else None
        )
        size = self.size or (published[1] if published else None)
        self.classifier.to(images.device)
        return images if size is None else resize_and_crop(images, size, self.crop_pct)

    @torch.no_grad()
    def judge(self, images: Tensor) -> Tensor:
        """Softmax of the logits."""
        return self.classifier.predict({"image": self.preprocess(images)}).float().softmax(1)


def _default_name(weights: str | None, network: str | None) -> str:
    return (
        network or "classifier" if weights is None else Path(weights.removeprefix("embedded:")).stem
    )


def _imagenet_names() -> list[str]:
    """Names of the 1,000 ImageNet classes, from torchvision."""
    from torchvision.models import ResNet50_Weights

    return list(ResNet50_Weights.DEFAULT.meta["categories"])


def judge(name: str) -> Classifier:
    """Embedded classifier as a judge, in eval mode.

    `judge(...).weights_metadata["class_names"]` lists the classes of its logits.

    Args:
        name: `shape`, `colour` or `background` (images `[B, 3, 32, 32]`), or `digits` (images
            `[B, 1, 8, 8]`); pixels in [0, 1]. The last class of each is `none`.

    Raises:
        InputError: for another name.
    """
    from mu.utils.weights import load_weights

    if name not in JUDGES:
        raise InputError(f"there is no judge of {name!r}; there are judges of {', '.join(JUDGES)}.")
    folder = path(f"judge_{name}")
    metadata = load_weights(folder)[1]
    classifier = Classifier(
        metadata["architecture"],
        num_classes=metadata["num_classes"],
        in_channels=len(metadata["mean"]),
        weights=str(folder),
    )
    classifier.weights_metadata["class_names"] = json.loads(metadata["class_names"])
    return classifier.eval().requires_grad_(False)
