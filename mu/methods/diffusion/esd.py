"""ESD: train the concept's prediction towards the original's negatively guided prediction.

Gandikota, Materzyńska, Fiotto-Kaufman and Bau, "Erasing Concepts from Diffusion Models", ICCV 2023,
arXiv 2303.07345.

    min_θ ‖ε_θ(x_t, t, c) − [ε*(x_t, t, ∅) − η (ε*(x_t, t, c) − ε*(x_t, t, ∅))]‖²
    ε* the frozen original

x_t is sampled by guided DDIM under c from pure noise, stopped at a random step; no images are
needed. The error is taken in the network's own parametrisation; for ε-prediction that is the
equation literally. The trained weights are the backbone's `part`: `xattn` (ESD-x: art, named
entities), `noxattn` (ESD-u: objects, nudity), `xattn-strict`, `full` and others.

Other code: in the classic code (`train-esd.py`) the model in training samples x_t, and the timestep
passed to the network is 39 to 58 noisier than that of x_t:
`latents=PartialSampling(timestep="jitter")`, preset `esd_reference_code`. In the rewrite of 2025
(`esd_sd.py`) the original samples x_t, t is exact, and the target is ε*(c_from) − η (ε*(c) −
ε*(∅)); for c_from = c, its default, that is the equation above with η one less (its 2 is 1 here):
preset `esd_2025`. For another c_from see `mu.methods.compat.ESDFrom`.

Defaults: η = 1; 50 DDIM steps, guidance 3; Adam 1e-5, 1000 steps, batch 1 (classic code; the
paper's ESD-x and ESD-u of art and nudity).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Condition, Diffusion
from mu.data.batch import Batch
from mu.data.plan import Forget
from mu.functional.diffusion import esd_target
from mu.methods.bases.diffusion import DiffusionMethod
from mu.methods.components.latents import LatentSource, PartialSampling


class ESD(DiffusionMethod):
    """Squared error to the original's negatively guided output, on latents of the concept.

    Args:
        backbone: the original; its `part` names the trained weights.
        eta: η, strength of the negative guidance; 0 trains towards the unconditional prediction, −1
            leaves the model as it is.
        latents: where x_t and t come from; `PartialSampling()` when None. `NoisedData()` takes the
            task's images, which is far cheaper.
        optimizer: optimizer factory; for the source of the default see above.
    """

    default_steps = 1000
    plan = Forget()
    needs_retain = False
    needs_reference = True

    def __init__(
        self,
        backbone: Diffusion,
        eta: float = 1.0,
        latents: LatentSource | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=1e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        self.eta = eta
        self.latents = PartialSampling() if latents is None else latents

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        condition = self.denoiser.condition(forget)
        noised, t = self.latents(self, forget, condition)
        with torch.no_grad():
            target = self.target(noised, t, self.original.condition(forget))
        error = self.denoiser.squared_error(self.denoiser.denoise(noised, t, condition), target)
        return {"erase": self.mean(error, forget)}

    def target(self, noised: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """What the trained model should predict, from the original's two passes in one batch.

        Args:
            noised: x_t, `[B, ...]`.
            t: `[B]`.
            condition: of the samples, by the original's own encoder.
        """
        conditional, unconditional = self.original.pair(noised, t, condition)
        return esd_target(conditional, unconditional, self.eta)
