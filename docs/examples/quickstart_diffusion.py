"""Erasure of a concept from a small text-to-image model."""

import torch
from lightning import Trainer

from mu.backbones import TextToImage
from mu.methods import ESD, PartialSampling
from tasks import ShapesConcept

# or a diffusers folder, or a hub id; ESD-x, -u and -strict are choices of the part
backbone = TextToImage("embedded:shapes", part="xattn")
method = ESD(
    backbone,
    latents=PartialSampling(10, guidance_scale=2.0),
    optimizer=lambda params: torch.optim.Adam(params, lr=1e-3),
)
task = ShapesConcept("circle", images=False, batch_size=8)
Trainer(max_steps=60, accelerator="cpu").fit(method, datamodule=task)

# [2, 3, 32, 32] in [0, 1]
images = backbone.eval().generate_prompts(["a red circle", "a blue star"], seeds=[0, 1])
