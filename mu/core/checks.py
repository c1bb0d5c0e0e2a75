"""What stops a run before it does harm: losses and weights that are not finite, and fits that move
nothing.
"""

from __future__ import annotations

from math import isfinite

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from mu.utils.errors import RunError


class Health(LightningModule):
    """Checks of a fit, for `UnlearningModule`."""

    _suspect: tuple[int, Tensor] | None = None

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Names and weights that the method moves."""
        raise TypeError(f"{type(self).__name__} does not say what it trains.")

    def check_finite(self, loss: Tensor) -> None:
        """Stop at a loss that is not a number; on an accelerator one step late, so that nothing
        waits for the device.
        """
        if loss.device.type == "cpu":
            self._suspect = (self.trainer.global_step, loss.detach())
            self.stop_if_not_finite()
        else:
            self.stop_if_not_finite()
            self._suspect = (self.trainer.global_step, loss.detach())

    def stop_if_not_finite(self) -> None:
        if self._suspect is not None and not isfinite(self._suspect[1].item()):
            step, loss = self._suspect
            self._suspect = None
            raise RunError(
                f"the loss of {type(self).__name__} became {float(loss)} at step {step}; the last "
                "good checkpoint is kept; lower the learning rate or the weight of the ascent "
                "term."
            )

    def _check_weights(self) -> None:
        """A finite loss may still have made weights that are not; they must not take the place of
        the last good checkpoint.
        """
        for name, weight in self.trainable():
            if self._on_any_rank(not bool(torch.isfinite(_own(weight)).all())):
                raise RunError(
                    f"{type(self).__name__} made weights that are not finite (in {name}); the "
                    "last good checkpoint is kept; lower the learning rate or the weight of the "
                    "ascent term."
                )

    def _on_any_rank(self, found: bool) -> bool:
        """Whether it is so on some rank, where each holds a part of the weights; elsewhere all hold
        the same.
        """
        if self.device_mesh is None:
            return found
        return bool(
            self.trainer.strategy.reduce(
                torch.tensor(float(found), device=self.device), reduce_op="sum"
            )
        )

    def _fingerprint(self) -> list[float]:
        with torch.no_grad():
            # one at a time: all would be twice a large model's size
            weights = (_own(p).double() for _, p in self.trainable())
            return [float(value.abs().sum() + value.flatten()[::7].sum()) for value in weights]


def _own(weight: Tensor) -> Tensor:
    """A weight, or of a sharded one what this rank holds."""
    return weight.to_local() if hasattr(weight, "to_local") else weight  # type: ignore[operator]
