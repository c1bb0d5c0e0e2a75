"""EraseDiff: a low retain loss under the constraint of substitute predictions; first-order bilevel.

Wu, Le, Hayat and Harandi, "Erasing Undesirable Influence in Diffusion Models", CVPR 2025, arXiv
2401.05779.

    min_θ L_r(θ)  subject to  q(θ) = L_f(θ) − min_φ L_f(φ) <= 0
    L_f = ‖ε_θ(x_t, t, c) − sg ε_θ(x_t, t, c')‖²,  x ∈ D_f
    in each epoch: φ from θ by K epochs of descent on L_f,
                   then steps along −(∇L_r + λ ∇q), q̂ = L_f(θ) − L_f(φ)

λ is a constant, or BOME's max(0, η − ⟨∇L_r, ∇q⟩ / ‖∇q‖²) (Liu et al., NeurIPS 2022, arXiv
2209.08709). L_f(φ) is a number, so the descent changes the value of q̂ and no gradient:
`inner_epochs=0` makes the same steps (with other draws) and saves K passes over D_f. It matters in
the released code, where descent and steps share Adam's moments, so that the descent steers the
steps after it; that, a cosine in place of the quotient, and L_r summed but L_f averaged over
elements: `mu.methods.compat.EraseDiffReference`, with its preset. Defaults: K = 2, λ = 0.1, η =
0.1, Adam 1e-4, 8 epochs (4 epochs with S = 2), batch 128, a random other class, at most 4,500
retain images an epoch (code, CIFAR-10 DDPM; Stable Diffusion: λ = 1, Adam 1e-5, batch 16; nudity 5
epochs, K = 2, noxattn; a class 2 epochs, K = 1).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import ClassConditionalDiffusion, Diffusion
from mu.core.substitutes import Substitute
from mu.data.batch import Batch
from mu.data.plan import Forget, Paired, Phases
from mu.functional.balancing import bome_weight
from mu.methods.bases.balanced_terms import balanced_terms
from mu.methods.bases.diffusion import DiffusionMethod
from mu.methods.bases.inner_loop import InnerLoopMethod
from mu.methods.components.substitutes import GivenByTask, UniformLabel
from mu.utils.errors import InputError


class EraseDiff(InnerLoopMethod, DiffusionMethod):
    """In every epoch, descent on forget alone, back to its start, then steps on both parts.

    Args:
        backbone: the original.
        inner_epochs: K >= 0.
        lam: λ >= 0; None weighs by BOME.
        eta: η > 0 of BOME.
        limit: retain samples an epoch at most; None takes as many batches of retain as of forget.
        substitute: draws c'; None is a random other class for class-conditional models, and the
            task's substitute prompt for text.
        optimizer: optimizer factory; for the source of the default see above. The inner
            descent has its own moments, which start at zero in each epoch.
    """

    default_epochs = 8
    needs_substitute = True

    def __init__(
        self,
        backbone: Diffusion,
        inner_epochs: int = 2,
        lam: float | None = 0.1,
        eta: float = 0.1,
        limit: int | None = None,
        substitute: Substitute | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=1e-4),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, inner_epochs, optimizer=optimizer, **kwargs)
        if inner_epochs < 0 or (lam is not None and lam < 0) or not eta > 0:
            raise InputError(
                "EraseDiff needs inner_epochs and lam of at least 0 and a positive eta, not "
                f"{inner_epochs}, {lam} and {eta}."
            )
        if substitute is None:
            substitute = (
                UniformLabel(exclude_true=True)
                if isinstance(backbone, ClassConditionalDiffusion)
                else GivenByTask()
            )
        self.lam = lam
        self.eta = eta
        self.substitute = substitute
        both = Paired(length="forget") if limit is None else Paired(length="retain", limit=limit)
        self.plan = Phases(*[Forget()] * inner_epochs, both)

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        if self.phase < self.inner_epochs:
            loss = self.reduce(self.denoiser.substitute_loss(forget), forget)
            self.add_inner_loss(loss, forget)
            return {"inner": loss}
        assert retain is not None
        if self.lam is not None:
            forget_output, retain_output = self.predictions(forget, retain)
        else:  # two gradients are taken apart, each through its own pass
            forget_output = self.denoiser.predict(forget)
            retain_output = self.denoiser.predict(retain)
        forget_loss = self.denoiser.substitute_loss(forget, prediction=forget_output)
        constraint = self.reduce(forget_loss, forget) - self.inner_loss
        retain_term = self.retain_loss(retain, retain_output)
        if self.lam is not None:
            return {"retain": retain_term, "constraint": self.lam * constraint}
        retain_term, constraint = balanced_terms(self, retain_term, constraint, self.weight)
        return {"retain": retain_term, "constraint": constraint}

    def retain_loss(self, retain: Batch, prediction: Tensor) -> Tensor:
        """L_r."""
        return self.reduce(self.denoiser.loss(retain, prediction=prediction), retain)

    def weight(self, objective: Tensor, constraint: Tensor) -> Tensor:
        """λ from the flat gradients of L_r and q."""
        return bome_weight(objective, constraint, self.eta)
