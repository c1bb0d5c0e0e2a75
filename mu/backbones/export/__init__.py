"""Export of models in the formats of timm, torchvision, diffusers, transformers and PEFT."""

from mu.backbones.export import diffusion, language, vision
from mu.backbones.export.base import Form, export

__all__ = ["Form", "diffusion", "export", "language", "vision"]
