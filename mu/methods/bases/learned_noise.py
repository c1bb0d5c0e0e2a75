"""Noise images that maximise a classifier's error on given classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mu.backbones import Backbone
from mu.backbones.vision.normalisation import Normalize
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.utils import rng
from mu.utils.errors import MissingMethodError
from mu.utils.modules import eval_mode


def error_maximising_noise(
    module: UnlearningModule,
    label: Tensor,
    shape: tuple[int, ...],
    steps: int,
    lr: float,
    penalty: float,
) -> Tensor:
    """Minimise `-ℓ(f(n), c) + λ mean_b ‖n_b‖²` over noise images n by Adam, from n ~ N(0, 1).

    Source: Tarun et al., "Fast Yet Effective Machine Unlearning" (IEEE TNNLS 2023, arXiv
    2111.08947).

    Args:
        module: in a fit; its classifier is in eval mode during the descent, and does not change.
        label: c of each image, `[N]` int64.
        shape: of one image, `(C, H, W)`.
        steps: of Adam, at least 1.
        lr: learning rate of Adam.
        penalty: λ >= 0.

    Returns:
        `[N, C, H, W]`, in the units of normalised pixels; rank 0's on every rank.
    """
    rows = torch.arange(len(label), device=label.device)
    noise = rng.normal(module.seed, rows, 0, "unsir-noise", *shape).requires_grad_(True)
    optimizer = torch.optim.Adam([noise], lr=lr)
    with eval_mode(module.backbone), torch.enable_grad():
        for _ in range(steps):
            logits = module.backbone.predict({"image": network_input(module.backbone, noise)})
            error = nn.functional.cross_entropy(logits, label)
            loss = penalty * noise.square().flatten(1).sum(1).mean() - error
            noise.grad = torch.autograd.grad(loss, noise)[0]
            optimizer.step()
    # zero but on rank 0, so that the sum over ranks is rank 0's noise
    local = noise.detach() if module.trainer.is_global_zero else torch.zeros_like(noise)
    return module.sum_over_ranks([local])[0]


def network_input(backbone: Backbone, noise: Tensor) -> Tensor:
    """Noise in the units of the network's input, which a `normalize` layer brings back.

    Args:
        backbone: a network without that layer takes the noise as it is.
        noise: `[N, C, H, W]`, in the units of normalised pixels.
    """
    normalize = getattr(backbone.network, "normalize", None)
    if not isinstance(normalize, Normalize):
        return noise
    return noise * normalize.std[:, None, None] + normalize.mean[:, None, None]


class LearnsNoise(UnlearningModule):
    """A method that learns noise images before its first step, and keeps them in its checkpoints.

    Attributes:
        noise: `[N, C, H, W]` once it is learned, in the units of normalised pixels.
        noise_label: class of each image, `[N]` int64.
    """

    noise: Tensor
    noise_label: Tensor

    def __init__(self, backbone: Backbone, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.register_buffer("noise", torch.empty(0))
        self.register_buffer("noise_label", torch.empty(0, dtype=torch.int64))

    def learn_noise(self) -> None:
        """Set `noise` and `noise_label`."""
        raise MissingMethodError(f"{type(self).__name__} does not override learn_noise().")

    def on_fit_start(self) -> None:
        """Learn the noise, unless a checkpoint brought it."""
        super().on_fit_start()
        if not len(self.noise):
            with self.stopwatch("noise"):
                self.learn_noise()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As the base class, with noise of the checkpoint's size."""
        for name in ("noise", "noise_label"):
            if name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[name], device=self.device))
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def noise_rows(self, part: Batch, ratio: float) -> Tensor:
        """Rows of the noise to show beside the samples of a part, drawn for each sample.

        Args:
            part: with `index` and `visit` `[B]`; padded samples draw none.
            ratio: mean number of rows a sample, >= 0.

        Returns:
            `[R]` int64 in [0, N), R about `ratio * B`.
        """
        index = part["index"]
        visit = part["visit"]
        count = (ratio + rng.uniform(self.seed, index, visit, "unsir-count")).floor()
        if "padded" in part:
            count = count * ~part["padded"]
        limit = int(ratio) + 1
        rows = rng.integers(self.seed, index, visit, "unsir-row", len(self.noise), limit)
        return rows[torch.arange(limit, device=rows.device) < count[:, None]]
