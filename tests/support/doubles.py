"""Tiny diffusion models made of the real components, and tasks for them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mu.backbones import ClassConditionalDiffusion, TextToImage
from mu.backbones.diffusion.sampler import Sampler
from mu.data.datamodule import UnlearningDataModule
from mu.data.split import Split
from tests.support.helpers import State, digits, with_state

WORDS = [
    "a",
    "red",
    "green",
    "blue",
    "circle",
    "square",
    "star",
    "on",
    "dark",
    "light",
    "background",
    "picture",
    "of",
    "round",
    "boxy",
    "nice",
]
SHAPES = ("circle", "square", "star")
COLOURS = ("red", "green", "blue")
STEPS = 100
"""Noise levels of the tiny models."""


def vocabulary(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges by which each word is one token, and any other is spelled; start and
    end have the highest ids.
    """
    letters = sorted(set("".join(words)))
    tokens = {
        letter: index
        for index, letter in enumerate([*letters, *(letter + "</w>" for letter in letters)])
    }
    merges: list[tuple[str, str]] = []
    for word in words:
        merged, *rest = [*word[:-1], word[-1] + "</w>"]
        for right in rest:
            if (merged, right) not in merges:
                merges.append((merged, right))
            merged += right
            tokens.setdefault(merged, len(tokens))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        tokens[special] = len(tokens)
    return tokens, merges


@functools.cache
def pipeline_folder(layers: int = 2, prediction: str = "epsilon", places: int = 16) -> str:
    """A Stable Diffusion of some 40,000 weights with random values, as diffusers saves it: two
    cross-attention blocks down and one mid.
    """
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from diffusers.utils import logging as diffusers_logging
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    tokens, merges = vocabulary(WORDS)
    last = len(tokens) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text: Any = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokens),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=layers,
                num_attention_heads=2,
                max_position_embeddings=places,
                bos_token_id=last - 1,
                eos_token_id=last,
                pad_token_id=last,
            )
        )
        unet = UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(8, 8),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=8,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
    parts: dict[str, Any] = {
        "unet": unet,
        "vae": vae,
        "text_encoder": text,
        "safety_checker": None,
        "feature_extractor": None,
    }
    pipeline = StableDiffusionPipeline(
        **parts,
        tokenizer=CLIPTokenizer(vocab=tokens, merges=merges, model_max_length=places),
        requires_safety_checker=False,
        scheduler=DDIMScheduler(
            num_train_timesteps=STEPS,
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.12,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction,
        ),
    )
    folder = Path(tempfile.mkdtemp(prefix="mu-double-"))
    pipeline.save_pretrained(folder)
    return str(folder)


def text_to_image(state: Mapping[str, Any] | None = None, **changes: Any) -> TextToImage:
    """The tiny Stable Diffusion; a sampler of three steps."""
    arguments: dict[str, Any] = {
        "model": pipeline_folder(),
        "sampler": Sampler(num_inference_steps=3, guidance_scale=2.0),
    }
    return with_state(TextToImage(**{**arguments, **changes}), state)


def class_conditional(state: State | None = None, **changes: Any) -> ClassConditionalDiffusion:
    """A UNet2DModel of some 20,000 weights for grey 8x8 images of ten classes."""
    unet = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    arguments: dict[str, Any] = {
        "model": None,
        "unet": unet,
        "num_classes": 10,
        "scheduler": {"num_train_timesteps": STEPS},
        "init_seed": 0,
        "sampler": Sampler(num_inference_steps=3, guidance_scale=2.0),
    }
    return with_state(ClassConditionalDiffusion(**{**arguments, **changes}), state)


class Pictures(UnlearningDataModule):
    """Random 8x8 colour pictures with captions: 13 that name a circle are to be forgotten, 20
    others are kept.

    Args:
        images: whether samples have images, or prompts alone.
        **kwargs: see UnlearningDataModule.
    """

    provides = frozenset({"labels", "substitute"})

    def __init__(self, images: bool = True, **kwargs: Any) -> None:
        super().__init__(**{"batch_size": 5, "curves": [], **kwargs})
        self.images = images

    def make(self) -> None:
        """Captions by index: a third of each shape."""
        count = 40
        shapes = np.arange(count) % 3
        forget = np.flatnonzero(shapes == 0)[:13]
        retain = np.flatnonzero(shapes != 0)
        parts = {
            "forget": forget,
            "retain": retain[:20],
            "validation": retain[20:23],
            "test": retain[23:],
        }
        self.split = Split(
            task="pictures",
            parts={name: rows for name, rows in parts.items()},
            selector={"selector": "circle"},
            seed=0,
        )
        self.datasets = {name: _Captions(rows, self.images) for name, rows in parts.items()}


class _Captions:
    """Samples by position; everything follows from the index."""

    def __init__(self, indices: np.ndarray, images: bool) -> None:
        self.indices = indices.astype(np.int64)
        self.images = images
        generator = torch.Generator().manual_seed(7)
        self._fields: dict[str, Any] = {"image": torch.rand(40, 3, 8, 8, generator=generator)}
        self._fields |= {"label": torch.arange(40) % 3, "colour": torch.arange(40) // 3 % 3}
        self._rows = torch.from_numpy(self.indices)
        self.names = tuple(self._fields)

    def stored(self, name: str) -> torch.Tensor:
        """A field of the samples, in their order."""
        return self._fields[name][self._rows]

    def replace(self, **fields: torch.Tensor) -> _Captions:
        """Captions with other values of some fields, in the order of the samples."""
        captions = _Captions(self.indices, self.images)
        for name in self.names:
            captions._fields[name][self._rows] = fields.get(name, self.stored(name))
        return captions

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {name: value[0] for name, value in self.__getitems__([position]).items()}

    def __getitems__(self, positions: list[int]) -> dict[str, Any]:
        rows = self._rows[torch.as_tensor(positions)]
        label = self._fields["label"][rows].tolist()
        colour = [COLOURS[index] for index in self._fields["colour"][rows].tolist()]
        names = [SHAPES[index] for index in label]
        batch: dict[str, Any] = {
            "index": rows.clone(),
            "prompt": [f"a {c} {name}" for c, name in zip(colour, names, strict=True)],
            "concept": names,
            "substitute": [f"a {c} square" for c in colour],
        }
        return batch | ({"image": self._fields["image"][rows].clone()} if self.images else {})


def pictures(**changes: Any) -> Pictures:
    """Captions with images."""
    return Pictures(**changes)


def digit_pictures(**changes: Any) -> Any:
    """The digits, for a class-conditional model."""
    return digits(**changes)
