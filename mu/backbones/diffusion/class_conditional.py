"""Class-conditional diffusion in pixel space: a UNet with a null label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from mu.backbones.diffusion.base import Diffusion
from mu.backbones.diffusion.conditions import Condition
from mu.backbones.diffusion.sampler import Sampler
from mu.backbones.diffusion.schedulers import scheduler_class, scheduler_settings
from mu.backbones.vision.task_checks import check_labels
from mu.data.batch import Batch
from mu.utils.errors import InputError
from mu.utils.extras import require
from mu.utils.hub import reading
from mu.utils.pretrained import load_pretrained
from mu.utils.spec import init_args_of


class ClassConditionalDiffusion(Diffusion):
    """Class-conditional diffusion model of images in pixel space.

    The last class embedding is that of the null label. Samples have `image` `[B, C, H, W]` in [0,
    1] and `label` `[B]`.

    Args:
        model: folder with `unet/` and `scheduler/` as diffusers saves them, or as `mu import` makes
            them of a checkpoint of the DDPM code (SA, SalUn, SFD); `embedded:NAME` for a model that
            comes with mu, or None to build one from `unet` and `scheduler`.
        unet: arguments of UNet2DModel, without `num_class_embeds`; for a new model.
        num_classes: K, for a new model.
        scheduler: settings of the noise schedule, for a new model.
        weights: tensors that replace the model's: a run folder, a checkpoint or a safetensors file.
        part: `full`, or words that the names of the trained weights contain, joined by `+` (`attn`,
            `mid_block`).
        init_seed: begin with new weights from this seed.
        sampler: sampler of images; None takes DDIM with 50 steps and guidance 3 (the DDPM
            family's w = 2).
        condition_dropout: share of training samples with the null label.
        min_snr_gamma: see Diffusion.
        reduction: see Diffusion.
    """

    def __init__(
        self,
        model: str | None = "embedded:digits",
        unet: dict[str, Any] | None = None,
        num_classes: int | None = None,
        scheduler: dict[str, Any] | None = None,
        weights: str | None = None,
        part: str = "full",
        init_seed: int | None = None,
        sampler: Sampler | None = None,
        condition_dropout: float = 0.0,
        min_snr_gamma: float | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        require("ClassConditionalDiffusion", "diffusers", extra="diffusion")
        network: Any
        network, schedule = (
            _build(unet, num_classes, scheduler) if unet is not None else _load(str(model))
        )
        super().__init__(
            schedule,
            sampler or Sampler(guidance_scale=3.0),
            reduction,
            condition_dropout,
            min_snr_gamma,
        )
        if init_seed is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(init_seed)
                network = type(network).from_config(network.config)
        self.unet: nn.Module = network
        config: Any = network.config
        self.num_classes = int(config.num_class_embeds) - 1
        size = (
            config.sample_size
            if isinstance(config.sample_size, list | tuple)
            else (config.sample_size,) * 2
        )
        self.sample_shape = (config.in_channels, *size)
        self.part = part
        self._select(part)
        if weights is not None:
            self._assign(weights)

    def _select(self, part: str) -> None:
        words = part.split("+")
        chosen = {
            name
            for name, _ in self.named_parameters()
            if "full" in words or any(word in name for word in words)
        }
        if not chosen:
            raise InputError(
                f"the part {part!r} selects no weight of this model, so nothing would be trained; "
                "choose another, as full."
            )
        for name, weight in self.named_parameters():
            weight.requires_grad_(name in chosen)

    def _assign(self, weights: str) -> None:
        from mu.utils.weights import assign_weights, load_weights

        tensors, self.weights_metadata = load_weights(weights)
        assign_weights(self, tensors, weights)

    def check_task(self, task: Any) -> None:
        """Check that every label of the task is a class of the model."""
        check_labels(task, self.num_classes)

    def fresh(self, seed: int) -> Self:
        """New model of the same architecture."""
        twin = type(self)(**{**init_args_of(self), "weights": None, "init_seed": seed})
        return twin.to(device=self.alphas_cumprod.device).train(self.training)

    def condition(self, batch: Batch) -> Condition:
        """Class labels of the samples, the null label where `dropped`."""
        label = batch["label"]
        return Condition(
            label.masked_fill(batch["dropped"], self.num_classes) if "dropped" in batch else label
        )

    def substitute_condition(self, batch: Batch, target: Any = None) -> Condition:
        """Substitute labels of the samples."""
        return Condition(batch["substitute"] if target is None else target)

    def null(self, count: int) -> Condition:
        """Null label, `count` times."""
        return Condition(
            torch.full(
                (count,), self.num_classes, dtype=torch.int64, device=self.alphas_cumprod.device
            )
        )

    def labels(self, labels: list[int] | Tensor) -> Condition:
        """Conditions of class labels.

        Raises:
            InputError: for a class that the model does not have.
        """
        classes = torch.as_tensor(labels, dtype=torch.int64, device=self.alphas_cumprod.device)
        wrong = classes[(classes < 0) | (classes >= self.num_classes)]
        if len(wrong):
            raise InputError(
                f"there is no class {int(wrong[0])}; the model has {self.num_classes}, numbered "
                "from 0."
            )
        return Condition(classes)

    def denoise(self, noised: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Output `[B, C, H, W]` of the UNet."""
        return self.unet(noised, t, class_labels=condition.states, return_dict=False)[0]

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Pixels in [−1, 1]."""
        return images.to(self.dtype) * 2 - 1

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels in [0, 1]."""
        return (latents / 2 + 0.5).clamp(0, 1)


def _build(
    unet: Mapping[str, Any], num_classes: int | None, scheduler: Mapping[str, Any] | None
) -> tuple[nn.Module, dict[str, Any]]:
    from diffusers import DDPMScheduler, UNet2DModel

    if num_classes is None:
        raise InputError("a new class-conditional model needs num_classes.")
    network = UNet2DModel(**{**unet, "num_class_embeds": num_classes + 1})
    return network, scheduler_settings(DDPMScheduler(**(scheduler or {})))


def _load(model: str) -> tuple[nn.Module, dict[str, Any]]:
    from diffusers import DDPMScheduler, UNet2DModel

    folder = model
    if model.startswith("embedded:"):
        from mu.backbones.embedded import path

        folder = str(path(model.removeprefix("embedded:")))
    if Path(folder).is_file():
        raise InputError(
            f"{model} is one file; turn it into a folder with `mu import {model} FOLDER`."
        )
    for name in ("unet", "scheduler"):
        if Path(folder).is_dir() and not (Path(folder) / name).is_dir():
            raise InputError(
                f"the folder {model} has no {name}/, so it is not a class-conditional model as "
                "diffusers saves it."
            )
    with reading("the unet", folder):
        config: Any = UNet2DModel.load_config(folder, subfolder="unet")
    network_class: Any = UNet2DModel
    if config.get("_class_name") == "ConditionalDDPM":
        from mu.backbones.diffusion.ddpm_unet import ConditionalDDPM

        network_class = ConditionalDDPM
    network: Any = load_pretrained(
        network_class, folder, "the unet", subfolder="unet", torch_dtype=torch.float32
    )
    with reading("the scheduler", folder):
        schedule: Any = DDPMScheduler.load_config(folder, subfolder="scheduler")
        scheduler = scheduler_class(schedule.get("_class_name", "DDPMScheduler"))
    if not network.config.num_class_embeds:
        raise InputError(
            f"{model} is a UNet without class labels; a class-conditional model has "
            "num_class_embeds."
        )
    return network, scheduler_settings(scheduler.from_config(schedule))
