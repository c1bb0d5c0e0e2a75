"""EU-k: exact unlearning of the last k layers, retrained from new weights on the retain set.

Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru, "Towards Adversarial Evaluations for Inexact Machine
Unlearning", arXiv 2201.06640.

    min over the last k layers of ℓ(D_r), these from a new initialisation, the others from θ_o

k and the frozen layers are as in `CFk`; k = −1 is retraining. The last layers are initialised
*once*, from the run's seed.

Other code: the worst-case benchmark initialises the layers inside its per-epoch function, so that
its head restarts in every epoch and the momentum is lost: a bug that is not reproduced here.
SCRUB's code copies the layers of the checkpoint from which the original was trained.

Defaults: k = 2; SGD 0.025, momentum 0.9, weight decay 5e-4 (corrective-unlearning-bench). EU-k
trains longer than CF-k: in SCRUB's code as long as the original.
"""

from mu.methods.general.cf_k import CFk, last_layers
from mu.utils.rng import stream_id
from mu.utils.sharded import distribute_like


class EUk(CFk):
    """CFk from newly initialised last layers; arguments as there."""

    default_epochs = 30

    def configure_model(self) -> None:
        """New layers before the first step; a checkpoint loaded afterwards replaces them."""
        first = not self.original_hash
        super().configure_model()
        if first:
            # not the bare seed, which may be the one that the original's own layers began from:
            # these would find their features again
            fresh = self.backbone.fresh(stream_id("eu-k", self.seed))
            for (_, layer), (_, new) in zip(
                last_layers(self.backbone, self.k), last_layers(fresh, self.k), strict=True
            ):
                state = layer.state_dict()  # shards where weights are sharded over ranks
                for name, value in new.state_dict().items():
                    state[name].copy_(distribute_like(value, state[name]))
