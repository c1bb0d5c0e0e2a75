"""CLIP models of open_clip: embeddings of images and texts on the unit sphere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible


class OpenCLIP(Reconstructible):
    """CLIP model of open_clip, by architecture and weights; read on first use.

    Args:
        model: architecture (`ViT-B-32`, `ViT-L-14`).
        pretrained: a tag of published weights (`openai`, `laion2b_s34b_b79k`; from the cache or by
            download), or a file.

    Raises:
        InputError: when the weights are not named; on first use, when they cannot be read.
    """

    def __init__(self, model: str = "ViT-B-32", pretrained: str = "openai") -> None:
        if not pretrained:
            raise InputError(
                f"CLIP {model} needs weights: a tag of published ones (openai), or a file."
            )
        self.model = model
        self.pretrained = pretrained
        self._network: Any = None
        self._tokenizer: Any = None
        self._version = ""

    @property
    def network(self) -> Any:
        """CLIP network in eval mode."""
        if self._network is None:
            try:
                import open_clip
            except ImportError as error:
                raise InputError(
                    "CLIP needs the package open_clip_torch; install mu-unlearning[diffusion]."
                ) from error
            # check the names of model and weights
            if self.model not in open_clip.list_models():
                raise InputError(
                    f"open_clip has no model {self.model!r}; open_clip.list_models() lists those "
                    "that it has."
                )
            tags = open_clip.list_pretrained_tags_by_model(self.model)
            if self.pretrained not in tags and not Path(self.pretrained).is_file():
                raise InputError(
                    f"{self.pretrained!r} is neither a file nor weights of {self.model} in "
                    f"open_clip, which has {', '.join(tags) or 'none'}."
                )
            try:
                # OpenAI's weights were trained with QuickGELU, which is not open_clip's default
                network: Any = open_clip.create_model(
                    self.model,
                    pretrained=self.pretrained,
                    force_quick_gelu=self.pretrained == "openai",
                )
            except Exception as error:  # e.g. a failed download, or a file of another model
                raise InputError(
                    f"the weights {self.pretrained} of CLIP {self.model} cannot be read "
                    f"({str(error).splitlines()[0]}); check the connection, or give a file."
                ) from error
            self._network = network.eval().requires_grad_(False)
            self._tokenizer = open_clip.get_tokenizer(self.model)
        return self._network

    @property
    def version(self) -> str:
        """Hash of the weights."""
        from mu.utils.weights import weights_hash

        self._version = self._version or weights_hash(self.network)
        return self._version

    @property
    def name(self) -> str:
        """Name of the model, for reports."""
        return (
            f"CLIP {self.model} {self.pretrained}"
            if not Path(self.pretrained).is_file()
            else f"CLIP {self.model}"
        )

    @property
    def scale(self) -> Tensor:
        """Learned inverse temperature."""
        return self.network.logit_scale.exp()

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """Unit embeddings `[B, D]` float32 of images `[B, 3 or 1, H, W]` in [0, 1].

        The network is moved to the device of the images.
        """
        import open_clip

        network = self.network.to(images.device)
        preprocessing = open_clip.get_model_preprocess_cfg(network)
        size = (
            preprocessing["size"]
            if isinstance(preprocessing["size"], int)
            else preprocessing["size"][0]
        )
        mean, std = (
            torch.tensor(preprocessing[name], device=images.device)[:, None, None]
            for name in ("mean", "std")
        )
        resized = resize_and_crop(images.expand(-1, 3, -1, -1).float(), size, mode="bicubic").clamp(
            0, 1
        )
        return torch.nn.functional.normalize(
            network.encode_image((resized - mean) / std).float(), dim=-1
        )

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings `[N, D]` float32 of texts, truncated to the context of the model."""
        network = self.network
        device = next(network.parameters()).device
        return torch.nn.functional.normalize(
            network.encode_text(self._tokenizer(list(texts)).to(device)).float(), dim=-1
        )


def resize_and_crop(
    images: Tensor, size: int | tuple[int, int], crop_pct: float = 1.0, mode: str = "bilinear"
) -> Tensor:
    """Resize with antialiasing and crop the centre.

    The aspect ratio is kept: images are resized until they cover `size / crop_pct`.

    Args:
        images: `[B, C, H, W]`.
        size: height and width of the result in pixels, one number for squares.
        crop_pct: side of the crop as a share of the resized image, in (0, 1].
        mode: interpolation mode of `torch.nn.functional.interpolate`.

    >>> resize_and_crop(torch.rand(2, 3, 16, 32), 8).shape
    torch.Size([2, 3, 8, 8])
    """
    height, width = (size, size) if isinstance(size, int) else size
    scale = max(height / images.shape[-2], width / images.shape[-1]) / crop_pct
    resized = (
        max(height, round(images.shape[-2] * scale)),
        max(width, round(images.shape[-1] * scale)),
    )
    if resized != tuple(images.shape[-2:]):
        images = torch.nn.functional.interpolate(
            images, resized, mode=mode, align_corners=False, antialias=True
        )
    row = (resized[0] - height) // 2
    column = (resized[1] - width) // 2
    return images[..., row : row + height, column : column + width]
