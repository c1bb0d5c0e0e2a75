"""ESD's rewrite of 2025: a concept erased from another prompt (`--erase_from`).

    min_θ ‖ε_θ(x_t, t, c_from) − [ε*(x_t, t, c_from) − η (ε*(x_t, t, c) − ε*(x_t, t, ∅))]‖²

x_t is sampled under c_from. With c_from "a cowboy" and c "cowboy hat", cowboys lose their hats. The
script is the authors' `esd_sd.py`. Defaults: η = 2, the original samples, exact timesteps, guidance
3; Adam 5e-5, 200 steps, batch 1 (that script).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Condition, TextToImage
from mu.functional.diffusion import esd_from_target
from mu.methods.components.latents import LatentSource, PartialSampling
from mu.methods.diffusion.esd import ESD


class ESDFrom(ESD):
    """`ESD` whose samples' prompts are c_from.

    Args:
        backbone: the original.
        erase: the concept c; None is the samples' own prompt (then `ESD` with η − 1 does the same).
        eta: η of the rewrite.
        latents: `PartialSampling(by="reference")` when None.
        optimizer: optimizer factory; for the source of the default see above.
    """

    def __init__(
        self,
        backbone: TextToImage,
        erase: str | None = None,
        eta: float = 2.0,
        latents: LatentSource | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=5e-5),
        **kwargs: Any,
    ) -> None:
        latents = PartialSampling(by="reference") if latents is None else latents
        super().__init__(backbone, eta=eta, latents=latents, optimizer=optimizer, **kwargs)
        self.erase = erase

    def target(self, noised: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """As `ESD.target`, from three passes in one batch."""
        original = self.original
        assert isinstance(original, TextToImage)
        concept = condition if self.erase is None else original.texts([self.erase] * len(condition))
        conditions = Condition.cat([condition, concept, original.null(len(condition))])
        prompted, conditional, unconditional = original.denoise(
            noised.repeat(3, *[1] * (noised.dim() - 1)), t.repeat(3), conditions
        ).chunk(3)
        return esd_from_target(prompted, conditional, unconditional, self.eta)
