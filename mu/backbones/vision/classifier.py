"""Image classifiers: any network that maps pixels to logits."""

from __future__ import annotations

from collections.abc import Iterable
from math import nan
from typing import Any, Self

import torch
from torch import Tensor, nn

from mu import functional
from mu.backbones.base import Backbone, WeightedSum, select_outputs
from mu.backbones.vision.task_checks import check_labels, probe_prediction
from mu.data.batch import Batch
from mu.utils.errors import InputError


class Classifier(Backbone):
    """Image classifier over `num_classes` classes.

    Args:
        name: `resnet20_cifar` (and 32, 44, 56), `resnet8_cifar`, `resnet18_cifar`, `timm:NAME`,
            `torchvision:NAME`, or a bare name, looked up in that order.
        num_classes: number of classes K.
        in_channels: channels of the images.
        weights: safetensors file, state dict (read with `weights_only=True`), checkpoint or run
            folder; None starts from new weights.
        mean: per-channel mean of the pixels in [0, 1], or the name of a data set (`cifar10`,
            `cifar100`, `svhn`, `imagenet`, `none`). None takes that of the weights, else
            `none`.
        std: per-channel standard deviation; goes with a numeric `mean`.
        pretrained: take timm's own published weights (needs a network connection or a cache).
        init_seed: seed of new weights; None uses torch's global generator.
        channels_last: keep convolutions in channels-last memory order.
        options: passed to the network's constructor.
        network: a live network that takes pixels in [0, 1] and returns logits `[B, K]`; replaces
            `name`.
    """

    def __init__(
        self,
        name: str = "resnet20_cifar",
        num_classes: int = 10,
        in_channels: int = 3,
        weights: str | None = None,
        mean: str | list[float] | None = None,
        std: list[float] | None = None,
        pretrained: bool | None = None,
        init_seed: int | None = None,
        channels_last: bool = False,
        options: dict[str, Any] | None = None,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.num_classes = num_classes
        self.channels_last = channels_last
        self.weights_metadata: dict[str, Any] = {}
        self.network: nn.Module = (
            network
            if network is not None
            else self._build(
                name, num_classes, in_channels, mean, std, pretrained, init_seed, options or {}
            )
        )
        if weights is not None:
            self._load(weights, keep_normalisation=mean is not None)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @staticmethod
    def _build(
        name: str,
        num_classes: int,
        in_channels: int,
        mean: str | list[float] | None,
        std: list[float] | None,
        pretrained: bool | None,
        init_seed: int | None,
        options: dict[str, Any],
    ) -> nn.Module:
        from mu.backbones.vision.networks import image_network

        def make() -> nn.Module:
            return image_network(
                name,
                num_classes,
                in_channels,
                mean=mean,
                std=std,
                pretrained=bool(pretrained),
                **options,
            )

        if init_seed is None:
            return make()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(init_seed)
            return make()

    def _load(self, weights: str, keep_normalisation: bool) -> None:
        from mu.backbones.vision.networks import assign_image_weights
        from mu.utils.weights import load_weights

        tensors, self.weights_metadata = load_weights(weights)
        assign_image_weights(
            self.network,
            tensors,
            self.weights_metadata,
            weights,
            keep_normalisation=keep_normalisation,
        )

    def check_task(self, task: Any) -> None:
        """Check image shape, number of logits and labels on the task's samples."""
        logits = probe_prediction(self, task, "image")
        if logits is None:
            return
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise InputError(
                f"the network returns logits of shape {list(logits.shape)} for one image where "
                f"[1, {self.num_classes}] is expected; set num_classes to its number of logits."
            )
        check_labels(task, self.num_classes)

    def fresh(self, seed: int) -> Self:
        """New model of the same architecture, with the same mean and std of the pixels."""
        twin = super().fresh(seed)
        ours = getattr(self.network, "normalize", None)
        normalize = getattr(twin.network, "normalize", None)
        if isinstance(ours, nn.Module) and isinstance(normalize, nn.Module):
            normalize.load_state_dict(ours.state_dict())
        return twin

    def prepare(self, batch: Batch, seed: int) -> dict[str, Any]:
        """Batch with its images in the memory order of the network, see `Backbone`."""
        prepared = super().prepare(batch, seed)
        if self.channels_last and "image" in prepared:
            # here and not in `predict`, because torch.func transforms no memory order
            image = prepared["image"]
            prepared["image"] = image.contiguous(memory_format=torch.channels_last)
        return prepared

    def predict(self, batch: Batch) -> Tensor:
        """Logits `[B, K]`."""
        image = self.as_input(batch["image"])
        return self.network(
            image.contiguous(memory_format=torch.channels_last) if self.channels_last else image
        )

    def loss(self, batch: Batch, prediction: Tensor | None = None) -> WeightedSum:
        """Cross-entropy to `label`, in nats."""
        logits = self.predict(batch) if prediction is None else prediction
        return self.count(batch, functional.cross_entropy(logits, batch["label"]))

    def divergence(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float = 1.0
    ) -> WeightedSum:
        """T² KL(softmax(teacher / T) ‖ softmax(student / T))."""
        return self.count(batch, functional.kl_divergence(student, teacher, temperature))

    def substitute_loss(
        self, batch: Batch, target: Tensor | None = None, prediction: Tensor | None = None
    ) -> WeightedSum:
        """Cross-entropy to the substitute label."""
        logits = self.predict(batch) if prediction is None else prediction
        return self.count(
            batch,
            functional.cross_entropy(logits, batch["substitute"] if target is None else target),
        )

    def outputs(
        self, batch: Batch, names: Iterable[str], prediction: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Outputs: `logits` [B, K], `label` [B], `nll` [B]."""
        logits = (self.predict(batch) if prediction is None else prediction).float()
        available = {
            "logits": lambda: logits,
            "label": lambda: batch["label"],
            "nll": lambda: functional.cross_entropy(logits, batch["label"]),
        }
        return select_outputs(available, names, "a classifier")

    def scores(self, batch: Batch, prediction: Tensor | None = None) -> dict[str, Tensor]:
        """Scores: `loss` in nats and `accuracy` in {0, 1}."""
        logits = (self.predict(batch) if prediction is None else prediction).float()
        loss = functional.cross_entropy(logits, batch["label"])
        # the largest of NaN is the first class, which is no choice
        hits = (logits.argmax(1) == batch["label"]).float().masked_fill(loss.isnan(), nan)
        return {"loss": loss, "accuracy": hits}
