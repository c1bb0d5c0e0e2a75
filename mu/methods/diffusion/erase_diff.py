"""EraseDiff: keep the retain loss low under the constraint that the concept is denoised as
something else; first-order bilevel.

Wu, Le, Hayat and Harandi, "Erasing Undesirable Influence in Diffusion Models", CVPR 2025, arXiv
2401.05779.

    min_θ L_r(θ)  subject to  q(θ) = L_f(θ) − min_φ L_f(φ) <= 0,      L_f = ‖ε_θ(x_t, t, c) − sg ε_θ(x_t, t, c')‖²,  x ∈ D_f
    in each epoch: φ from θ by K epochs of descent on L_f; then steps along −(∇L_r + λ ∇q), q̂ = L_f(θ) − L_f(φ)

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

from copy import deepcopy
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import ClassConditionalDiffusion, Diffusion
from mu.core.substitutes import Substitute
from mu.data.batch import Batch
from mu.data.plan import Forget, Paired, Phases
from mu.functional.balancing import bome_weight
from mu.methods.bases.diffusion import DiffusionMethod
from mu.methods.components.substitutes import GivenByTask, UniformLabel
from mu.utils.errors import InputError


class EraseDiff(DiffusionMethod):
    """Descent on forget alone, back to where it began, then steps on both; so in every epoch.

    Args:
        backbone: the original.
        inner_epochs: K >= 0.
        lam: λ >= 0; None weighs by BOME.
        eta: η > 0 of BOME.
        limit: retain samples an epoch at most; None shows as many batches of retain as there are of
            forget.
        substitute: the law of c'; None is a random other class for class-conditional models, and
            what the task gives for text.
        optimizer: see the file's head. The descent has moments of its own, which begin at zero in
            each epoch.
    """

    needs_substitute = True
    inside: Tensor
    inner_loss: Tensor
    inner_count: Tensor

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
        super().__init__(backbone, optimizer=optimizer, **kwargs)
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
        self.inner_epochs = inner_epochs
        self.lam = lam
        self.eta = eta
        self.substitute = substitute
        both = Paired(length="forget") if limit is None else Paired(length="retain", limit=limit)
        self.plan = Phases(*[Forget()] * inner_epochs, both)
        self.register_buffer("inside", torch.tensor(False))  # whether the weights are φ's
        # Σ over the samples of the last inner epoch; then their mean
        self.register_buffer("inner_loss", torch.zeros(()))
        self.register_buffer("inner_count", torch.zeros(()))
        self._moments: dict[Any, Any] = {}

    def configure_model(self) -> None:
        """Room for θ, which a checkpoint written during the descent must hold beside φ."""
        first = not self.original_hash
        super().configure_model()
        if first:
            for name, weight in self.trainable():
                self.register_buffer(_key(name), weight.detach().clone())

    def setup(self, stage: str) -> None:
        """Refuse accumulated batches: some would be shown to θ and some to φ."""
        super().setup(stage)
        if stage == "fit" and self.trainer.accumulate_grad_batches != 1:
            raise InputError(
                "EraseDiff changes weights between batches, so it cannot accumulate them; set "
                "accumulate_grad_batches: 1 and a larger batch."
            )

    # ---- between descent and steps ---------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The first batch of the descent remembers θ; the first after it goes back there."""
        super().on_train_batch_start(batch, batch_idx)
        inner = int(batch.get("phase", self.inner_epochs)) < self.inner_epochs
        inside = bool(self.inside)
        if inner and not inside:
            self.set_out()
        elif inside and not inner:
            self.go_back()

    @torch.no_grad()
    def set_out(self) -> None:
        """Remember θ, and put the moments of its optimizer aside."""
        torch._foreach_copy_(self._kept(), [weight for _, weight in self.trainable()])
        self.set_moments_aside()
        self.inner_loss.zero_()
        self.inner_count.zero_()
        self.inside.fill_(True)

    @torch.no_grad()
    def go_back(self) -> None:
        """θ again; L_f(φ) is the mean over the last epoch of the descent."""
        self.inner_loss /= self.inner_count
        torch._foreach_copy_([weight for _, weight in self.trainable()], self._kept())
        self.bring_moments_back()
        self.inside.fill_(False)

    def _kept(self) -> list[Tensor]:
        return [self.get_buffer(_key(name)) for name, _ in self.trainable()]

    def set_moments_aside(self) -> None:
        """The descent begins with moments of zero."""
        self._moments = deepcopy(self.trainer.optimizers[0].state_dict()["state"])
        self._give_moments({})

    def bring_moments_back(self) -> None:
        """The steps go on with the moments of the steps before."""
        self._give_moments(self._moments)
        self._moments = {}

    def _give_moments(self, state: dict[Any, Any]) -> None:
        optimizer = self.trainer.optimizers[0]
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["moments"] = self._moments

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._moments = checkpoint.get("moments", {})

    # ---- steps -----------------------------------------------------------------------------------

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        if self.phase < self.inner_epochs:
            loss = self.reduce(self.denoiser.substitute_loss(forget), forget)
            self._remember(loss, forget)
            return {"inner": loss}
        assert retain is not None
        if self.lam is not None:
            of_forget, of_retain = self.predictions(forget, retain)
        else:  # two gradients are taken apart, each through its own pass
            of_forget = self.denoiser.predict(forget)
            of_retain = self.denoiser.predict(retain)
        constraint = (
            self.reduce(self.denoiser.substitute_loss(forget, prediction=of_forget), forget)
            - self.inner_loss
        )
        keep = self.retain_loss(retain, of_retain)
        if self.lam is not None:
            return {"retain": keep, "constraint": self.lam * constraint}
        return self.weighed(keep, constraint)

    def retain_loss(self, retain: Batch, prediction: Tensor) -> Tensor:
        """L_r."""
        return self.reduce(self.denoiser.loss(retain, prediction=prediction), retain)

    def _remember(self, loss: Tensor, forget: Batch) -> None:
        if self.phase == self.inner_epochs - 1:
            count = forget.get("count", len(forget["index"]))
            # alike on all ranks, as buffers must be
            self.inner_loss += self.sum_over_ranks([loss.detach()])[0] / self.world_size * count
            self.inner_count += count

    def weighed(self, keep: Tensor, constraint: Tensor) -> dict[str, Tensor]:
        """The two terms with λ from their gradients, which are then handed on, so that nothing is
        differentiated twice.
        """
        weights = [weight for _, weight in self.trainable()]
        of_keep, of_constraint = (
            torch.autograd.grad(term, weights, allow_unused=True, materialize_grads=True)
            for term in (keep, constraint)
        )
        g, q = (
            self.sum_over_ranks(
                [torch.cat([slope.flatten() for slope in slopes]) / self.world_size]
            )[0]
            for slopes in (of_keep, of_constraint)
        )
        lam = self.weight(g, q)
        return {
            "retain": _with_gradient(keep, weights, of_keep),
            "constraint": lam * _with_gradient(constraint, weights, of_constraint),
        }

    def weight(self, objective: Tensor, constraint: Tensor) -> Tensor:
        """λ from the flat gradients of L_r and q."""
        return bome_weight(objective, constraint, self.eta)


def _with_gradient(
    value: Tensor, weights: list[Tensor] | list[Any], slopes: tuple[Tensor, ...]
) -> Tensor:
    """A scalar with this value, whose gradient by the weights is `slopes`."""
    linear = torch.stack(
        [(weight * slope).sum() for weight, slope in zip(weights, slopes, strict=True)]
    ).sum()
    return value.detach() + linear - linear.detach()


def _key(name: str) -> str:
    return "kept_of_" + name.replace(".", "__")
