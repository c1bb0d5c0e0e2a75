"""Ascent on forget, descent on retain."""

from torch import Tensor

from mu.core import UnlearningModule
from mu.data import Batch, Paired


class PushAndPull(UnlearningModule):
    """The backbone's loss on retain minus a tenth of its loss on forget."""

    plan = Paired()

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        """Both terms, averaged over the step's batch."""
        assert forget is not None and retain is not None
        return {
            "forget": -0.1 * self.reduce(self.backbone.loss(forget), forget),
            "retain": self.reduce(self.backbone.loss(retain), retain),
        }
