"""Stable Diffusion 1.4 in its true shapes, with random weights: for counting, and for tests of
memory and time.

`python -m tests.support.real_size NAME [float32]` makes one step of a method, or of an attack, on
the CPU in a process of its own, and prints what it measured as JSON. Settings that keep memory low:
bfloat16, latents of 8 x 8 in place of 64 x 64 (the weights have their true shapes), one sample a
part, few sampler and attack steps, and for methods that hold several UNets, SGD or the
cross-attention alone.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mu.data.datamodule import UnlearningDataModule
from mu.data.split import Split

SIDE = 64
"""Pixels of the images; the VAE makes latents of an eighth."""


def stable_diffusion() -> dict[str, nn.Module]:
    """UNet, VAE and text encoder by the public configuration of `CompVis/stable-diffusion-v1-4`, on
    the default device and in its dtype.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text: Any = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            projection_dim=768,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
        norm_num_groups=32,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    return {"unet": unet, "vae": vae, "text_encoder": text}


class Scenes(UnlearningDataModule):
    """Two captioned pictures to forget and two to keep, shown one by one."""

    provides = frozenset({"labels", "substitute"})

    def __init__(self) -> None:
        super().__init__(batch_size=1, curves=[])

    def make(self) -> None:
        """Noise with captions."""
        from tasks.prompts import PromptData

        images = torch.randint(
            256, (4, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
        )
        texts = {
            "prompt": ["a red circle", "a green circle", "a blue square", "a dark star"],
            "concept": ["circle", "circle", "", ""],
            "substitute": ["a red square", "a green square", "", ""],
        }
        parts = {"forget": np.arange(2), "retain": np.arange(2, 4)}
        self.split = Split("scenes", parts, {"concept": "circle"}, 0)
        for name, rows in parts.items():
            self.datasets[name] = PromptData(
                {"image": images[rows]},
                {key: [row[i] for i in rows] for key, row in texts.items()},
                rows,
            )


def backbone(part: str, dtype: torch.dtype, **changes: Any) -> Any:
    """The whole model, random."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    from mu.backbones import TextToImage
    from mu.backbones.diffusion.sampler import Sampler
    from tests.support.doubles import WORDS, vocabulary

    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        components: dict[str, Any] = stable_diffusion()
    finally:
        torch.set_default_dtype(torch.float32)
    tokens, merges = vocabulary(WORDS)
    plan = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    components |= {"safety_checker": None, "feature_extractor": None, "scheduler": plan}
    pipeline = StableDiffusionPipeline(
        **components,
        tokenizer=CLIPTokenizer(vocab=tokens, merges=merges, model_max_length=77),
        requires_safety_checker=False,
    )
    return TextToImage(
        pipeline=pipeline,
        part=part,
        height=SIDE,
        width=SIDE,
        sampler=Sampler(num_inference_steps=2),
        **changes,
    )


# ---- what is run ---------------------------------------------------------------------------------

LR = 1e-2
"""Large enough to be seen in bfloat16."""


def adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=LR)


def sgd(params: Any) -> torch.optim.Optimizer:
    """No moments; gradients of random weights are small."""
    return torch.optim.SGD(params, lr=100 * LR)


def esd(model: Any) -> Any:
    from mu.methods.components.latents import PartialSampling
    from mu.methods.diffusion.esd import ESD

    return ESD(model, latents=PartialSampling(num_inference_steps=2), optimizer=adam)


def adv_unlearn(model: Any) -> Any:
    from mu.attacks import SoftPromptAttack
    from mu.methods.components.latents import CoupledSampling
    from mu.methods.diffusion.adv_unlearn import AdvUnlearn

    return AdvUnlearn(
        model,
        warmup=0,
        attack=SoftPromptAttack(steps=1),
        latents=CoupledSampling(num_inference_steps=2, by="reference"),
        optimizer=adam,
    )


def salun(model: Any) -> Any:
    from mu.methods.components.guided_saliency import GuidedSaliency
    from mu.methods.diffusion.salun_diffusion import SalUnDiffusion

    return SalUnDiffusion(model, alpha=0.5, optimizer=adam, mask=GuidedSaliency(guidance_scale=8.5))


def uce(model: Any) -> Any:
    from mu.methods.diffusion.uce import UCE

    return UCE(model)


def sfd(model: Any) -> Any:
    from mu.methods.diffusion.sfd import SFD

    return SFD(
        model,
        average=None,
        forget_weight=1.0,
        alpha=1.0,
        t_init=0.625,
        t_range=(0.02, 0.98),
        optimizer=sgd,
        fake_optimizer=sgd,
    )


def concept_ablation(model: Any) -> Any:
    from mu.methods.diffusion.concept_ablation import ConceptAblation

    return ConceptAblation(model, images="task", optimizer=adam)


def selective_amnesia(model: Any) -> Any:
    from mu.methods.diffusion.selective_amnesia import SelectiveAmnesia

    return SelectiveAmnesia(
        model, surrogate="task", replay="task", fisher_samples=1, fisher_timesteps=1, optimizer=sgd
    )


def erase_diff(model: Any) -> Any:
    from mu.methods.diffusion.erase_diff import EraseDiff

    return EraseDiff(model, inner_epochs=0, optimizer=sgd)


METHODS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "esd_x": ("xattn", esd),
    "esd_u": ("noxattn", esd),
    "adv_unlearn": ("text_encoder", adv_unlearn),
    "salun": ("full", salun),
    "uce": ("xattn-strict", uce),
    "sfd": ("full", sfd),
    "concept_ablation": ("xattn-strict", concept_ablation),
    "selective_amnesia": ("full", selective_amnesia),
    "erase_diff": ("full", erase_diff),
}


# ---- measuring -----------------------------------------------------------------------------------


def fingerprints(model: nn.Module) -> dict[str, str]:
    """A hash of each parameter's bits, so that no second copy is needed to see what moved."""
    return {
        name: hashlib.sha1(
            p.detach().contiguous().view(-1).view(torch.uint8).numpy().data
        ).hexdigest()
        for name, p in model.named_parameters()
    }


def peak() -> float:
    """Largest resident memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def step_of_method(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """Fit one step of the method, and say what it took and what it moved."""
    from mu.backbones.diffusion.trained_parts import trained_names
    from tests.support.helpers import fit

    part, make = METHODS[name]
    model = backbone(part, dtype)
    before = fingerprints(model)
    built = peak()
    chosen = trained_names(before, part)
    module = make(model)
    start = time.monotonic()
    fit(module, Scenes(), 1, max_steps=1)
    seconds = time.monotonic() - start
    after = fingerprints(model)
    moved = {key for key in after if after[key] != before[key]}
    finite = all(bool(p.isfinite().all()) for p in model.parameters())
    return {
        "part": part,
        "seconds": seconds,
        "built": built,
        "peak": peak(),
        "finite": finite,
        "moved": len(moved),
        "chosen": len(chosen),
        "outside": sorted(moved - chosen),
        "parameters": sum(p.numel() for p in model.unet.parameters()),
    }


def step_of_attack(dtype: torch.dtype) -> dict[str, Any]:
    """One gradient step of UnlearnDiffAtk, with the drawing of the image before and after it."""
    from mu.attacks import UnlearnDiffAtk

    model = backbone("full", dtype).eval()
    before = fingerprints(model)
    built = peak()
    seen = []

    def judge(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.zeros(len(images), dtype=torch.bool)

    task = Scenes()
    task.setup()
    data: Any = task.datasets["forget"]
    batch = {**data.__getitems__([0]), "visit": torch.zeros(1, dtype=torch.int64)}
    start = time.monotonic()
    result = UnlearnDiffAtk(steps=1, timesteps=1)(model, batch, judge)
    seconds = time.monotonic() - start
    after = fingerprints(model)
    return {
        "part": "",
        "seconds": seconds,
        "built": built,
        "peak": peak(),
        "finite": all(bool(image.isfinite().all()) for image in seen),
        "drawn": len(seen),
        "steps": int(result.steps.sum()),
        "outside": sorted(key for key in after if after[key] != before[key]),
        "parameters": sum(p.numel() for p in model.unet.parameters()),
    }


def main(name: str, dtype: str = "bfloat16") -> None:
    """Print the measurement of one name."""
    torch.set_num_threads(1)
    precision = getattr(torch, dtype)
    print(
        json.dumps(
            step_of_attack(precision)
            if name == "unlearn_diff_atk"
            else step_of_method(name, precision)
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
