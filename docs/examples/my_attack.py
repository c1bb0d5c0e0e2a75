"""Attack by random noise: the weakest one that changes pixels."""

from typing import Any

from mu.attacks import Attack, AttackResult, Criterion
from mu.backbones import Backbone
from mu.utils import rng


class RandomNoise(Attack):
    """Uniform noise within an L∞ ball, drawn for each sample by its index.

    Args:
        epsilon: radius in pixel units, in [0, 1].
        seed: decides the noise.
    """

    def __init__(self, epsilon: float = 8 / 255, seed: int = 0) -> None:
        self.epsilon = epsilon
        self.seed = seed

    def run(self, backbone: Backbone, batch: dict[str, Any], criterion: Criterion) -> AttackResult:
        """Success of each sample after one draw."""
        image = batch["image"]
        noise = 2 * rng.uniform(self.seed, batch["index"], 0, "noise", *image.shape[1:]) - 1
        changed = {**batch, "image": (image + self.epsilon * noise).clamp(0, 1)}
        return self.judged(backbone, changed, criterion)
