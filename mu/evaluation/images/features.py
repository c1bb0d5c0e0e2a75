"""Feature extractors for distances between sets of images (FID, KID)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from mu.evaluation.images.classifier_judge import ClassifierJudge
from mu.evaluation.images.clip import OpenCLIP
from mu.utils.spec import Reconstructible


class Features(Reconstructible, ABC):
    """Base of feature extractors: images to vectors.

    Distances are comparable for one extractor only, so its name and version are reported.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the extractor, for reports."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Identifier of the weights, for reports."""

    @abstractmethod
    def extract(self, images: Tensor) -> Tensor:
        """Features `[B, D]` float32 of images `[B, C, H, W]` in [0, 1], on their device."""

    def load(self) -> None:
        """Read the weights, so that missing files are reported before images are drawn."""
        _ = self.version


class ClassifierFeatures(Features):
    """Penultimate features of a classifier: the input of its last linear layer.

    With `ClassifierJudge(network="torchvision:inception_v3", size=299)` they are the 2,048 pooled
    features of torchvision's Inception, as in UnlearnCanvas; the original FID uses other weights.

    Args:
        judge: the classifier.
    """

    def __init__(self, judge: ClassifierJudge) -> None:
        self.judge = judge

    @property
    def name(self) -> str:
        return f"{self.judge.name}, last layer but one"

    @property
    def version(self) -> str:
        return self.judge.version

    @torch.no_grad()
    def extract(self, images: Tensor) -> Tensor:
        from mu.backbones.vision.layers import head

        network = self.judge.classifier.network
        inputs: list[Any] = []
        hook = head(network)[1].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        try:
            self.judge.classifier.predict({"image": self.judge.preprocess(images)})
        finally:
            hook.remove()
        return inputs[0].float().flatten(1)


class CLIPFeatures(Features):
    """Image embeddings of a CLIP model.

    Args:
        clip: the model; ViT-B/32 of OpenAI when None.
    """

    def __init__(self, clip: OpenCLIP | None = None) -> None:
        self.clip = clip or OpenCLIP()

    @property
    def name(self) -> str:
        return self.clip.name

    @property
    def version(self) -> str:
        return self.clip.version

    def extract(self, images: Tensor) -> Tensor:
        return self.clip.images(images)
