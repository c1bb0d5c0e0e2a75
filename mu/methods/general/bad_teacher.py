"""Bad Teacher (BadT): distil an incompetent teacher on forget and the original on retain.

Chundawat, Tarun, Mandal and Kankanhalli, "Can Bad Teaching Induce Forgetting? Unlearning in Deep
Networks using an Incompetent Teacher", AAAI 2023, arXiv 2205.08096.

    min_θ E_x KL(u(x) p_bad(x) + (1 − u(x)) p_{θ_o}(x) ‖ p_θ(x))
    u = 1 on D_f, 0 on D_r;  p_bad: the same architecture, random weights

The released code averages the divergence over batch *and* classes, so its loss is this one divided
by C. With Adam that changes nothing but the weight of its epsilon, so there is no preset for it;
with SGD, divide the learning rate by C. ZRF computed against this very random teacher favours this
method; a suite should draw its own. Defaults: union of D_f and a fixed random 30 % of D_r, 1 epoch,
Adam 1e-4, batch 256, temperature 1. No labels.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.data.batch import Batch, concatenate
from mu.data.plan import DataPlan, Union
from mu.utils.rng import stream_id


class BadTeacher(UnlearningModule):
    """Divergence to a random model on forget, to the original on retain.

    Args:
        backbone: the original.
        optimizer: optimizer factory; for the source of the default see above.
        temperature: of both teachers.
        plan: `Union(retain_fraction=0.3, redraw=False)`, or any other.
    """

    default_epochs = 1
    needs_labels = False
    needs_reference = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=1e-4),
        temperature: float = 1.0,
        plan: DataPlan | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        self.temperature = temperature
        self.plan = Union(retain_fraction=0.3, redraw=False) if plan is None else plan
        self.incompetent: Backbone | None = None

    def configure_model(self) -> None:
        """The incompetent teacher is drawn from the seed, and is in the checkpoint."""
        if self.incompetent is None:
            self.incompetent = (
                self.backbone.fresh(stream_id("incompetent-teacher", self.seed))
                .eval()
                .requires_grad_(False)
            )
        super().configure_model()

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert self.incompetent is not None and self.reference is not None
        teachers = {"forget": self.incompetent, "retain": self.reference}
        parts = {
            name: part
            for name, part in (("forget", forget), ("retain", retain))
            if part is not None
        }
        # one forward, so that batch norm sees the mixed batch; each teacher sees only its own
        # samples
        student = self.backbone.predict(concatenate(forget, retain)).split(
            [len(part["index"]) for part in parts.values()]
        )
        terms = {}
        for (name, part), output in zip(parts.items(), student, strict=True):
            with torch.no_grad():
                target = teachers[name].predict(part)
            divergence = self.backbone.divergence(output, target, part, self.temperature)
            terms[name] = self.reduce(divergence, part)
        return terms
