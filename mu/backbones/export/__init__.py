"""Export: writers of models as people share them, for timm, torchvision, diffusers, transformers
and PEFT.
"""

from mu.backbones.export import diffusion, language, vision
from mu.backbones.export.base import Form, export

__all__ = ["Form", "diffusion", "export", "language", "vision"]
