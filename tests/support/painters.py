"""A diffusion model whose pictures are known: one colour each, said by the prompt or the class. And
judges that measure colours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mu.backbones import Condition, Diffusion
from mu.backbones.diffusion.sampler import Sampler
from mu.data.batch import Batch
from mu.data.datamodule import UnlearningDataModule
from mu.data.split import Split
from mu.evaluation.images.clip import OpenCLIP
from mu.evaluation.images.judges import Judge
from tasks.prompts import PromptData

COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.8, 0, 0),
    "green": (0, 0.7, 0),
    "blue": (0, 0, 0.6),
}
WORDS = (*COLOURS, "dark", "light")
SIZE = 8


class Painter(Diffusion):
    """A bag of words, a linear layer from words to red, green and blue, and no noise that matters:
    it predicts x_0.

    Args:
        noise: how much of the starting noise is left in the picture, so that seeds differ.
    """

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__(
            {"num_train_timesteps": 20, "prediction_type": "sample", "clip_sample": False},
            Sampler(num_inference_steps=2, guidance_scale=1.0),
        )
        self.sample_shape = (3, SIZE, SIZE)
        self.num_classes = len(COLOURS)
        self.noise = noise
        self.paint = nn.Linear(len(WORDS), 3, bias=False)
        with torch.no_grad():
            self.paint.weight.copy_(torch.tensor([*COLOURS.values(), (0, 0, 0), (0.3, 0.3, 0.3)]).T)

    def texts(self, prompts: Sequence[str]) -> Condition:
        words = [[float(word in prompt.split()) for word in WORDS] for prompt in prompts]
        return Condition(torch.tensor(words, device=self.paint.weight.device))

    def labels(self, labels: Sequence[int]) -> Condition:
        return self.texts([tuple(COLOURS)[label] for label in labels])

    def condition(self, batch: Batch) -> Condition:
        return self.texts(batch["prompt"])

    def substitute_condition(self, batch: Batch, target: Any = None) -> Condition:
        return self.texts(batch["substitute"] if target is None else target)

    def null(self, count: int) -> Condition:
        return self.texts([""] * count)

    def start(self, seeds: Sequence[int | torch.Generator]) -> Tensor:
        generators = [
            seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
            for seed in seeds
        ]
        return torch.stack([torch.randn(self.sample_shape, generator=g) for g in generators])

    def denoise(self, noised: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return 2 * self.paint(condition.states)[:, :, None, None] - 1 + self.noise * noised

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return images * 2 - 1

    def decode(self, latents: Tensor) -> Tensor:
        return (latents / 2 + 0.5).clamp(0, 1)

    def forget(self, word: str, becomes: str) -> Painter:
        """Paint `word` as `becomes` is painted."""
        with torch.no_grad():
            self.paint.weight[:, WORDS.index(word)] = self.paint.weight[:, WORDS.index(becomes)]
        return self


class ColourJudge(Judge):
    """By the distance of the mean colour to each colour's own."""

    def __init__(self, threshold: float | None = None, top: int = 1) -> None:
        super().__init__(
            "colours",
            threshold,
            top,
            {"red": ["crimson"]},
            {"warm": ["red"], "cold": ["green", "blue"]},
        )

    labels = tuple(COLOURS)
    version = "1"

    def judge(self, images: Tensor) -> Tensor:
        mean = images.mean((2, 3))
        mean = mean - mean.amin(1, keepdim=True)
        return (
            -20 * torch.cdist(mean, torch.tensor(list(COLOURS.values()), device=images.device))
        ).softmax(1)


class LightJudge(Judge):
    """Whether the darkest channel is dark."""

    def __init__(self) -> None:
        super().__init__("light", None, 1, None, None)

    labels = ("dark", "light")
    version = "2"

    def judge(self, images: Tensor) -> Tensor:
        light = torch.sigmoid(40 * (images.mean((2, 3)).amin(1) - 0.15))
        return torch.stack([1 - light, light], 1)


class Colours(UnlearningDataModule):
    """Prompts for each colour, dark and light, with pictures; red is to be forgotten."""

    provides = frozenset({"labels", "substitute"})

    def __init__(self, repeats: int = 3, images: bool = True, **kwargs: Any) -> None:
        super().__init__(**{"batch_size": 4, "curves": [], **kwargs})
        self.repeats = repeats
        self.images = images

    def make(self) -> None:
        colours = [
            (colour, light)
            for colour in COLOURS
            for light in ("dark", "light")
            for _ in range(self.repeats)
        ]
        index = np.arange(len(colours))
        red = np.array([colour == "red" for colour, _ in colours])
        self.split = Split(
            "colours", {"forget": index[red], "retain": index[~red]}, {"concept": "red"}, 0
        )
        self.datasets = {}
        for part, rows in self.split.parts.items():
            names = [colours[row] for row in rows]
            fields = {"label": torch.tensor([tuple(COLOURS).index(colour) for colour, _ in names])}
            if self.images:
                noise = (
                    torch.rand(
                        len(rows), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(len(rows))
                    )
                    / 5
                )
                paint = torch.tensor([COLOURS[colour] for colour, _ in names])[:, :, None, None]
                fields["image"] = ((paint + noise).clamp(0, 1) * 255).to(torch.uint8)
            texts = {
                "prompt": [f"a {colour} {light} picture" for colour, light in names],
                "concept": [colour if part == "forget" else "" for colour, _ in names],
                "substitute": [f"a green {light} picture" for _, light in names],
            }
            self.datasets[part] = PromptData(fields, texts, rows)


def tiny_clip(folder: Path) -> OpenCLIP:
    """A real CLIP of random weights (half a million, most of them words), saved as open_clip reads
    it.
    """
    import open_clip

    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 16,
            "layers": 1,
            "width": 16,
            "patch_size": 8,
            "head_width": 8,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 8,
            "heads": 2,
            "layers": 1,
        },
    }
    (folder / "mu-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "mu-tiny.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = open_clip.create_model("mu-tiny", pretrained=None)
    torch.save(network.state_dict(), folder / "weights.pt")
    return OpenCLIP("mu-tiny", str(folder / "weights.pt"))
