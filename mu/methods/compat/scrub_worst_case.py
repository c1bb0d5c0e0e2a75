"""SCRUB as the worst-case benchmark ports it: forget *or* retain in an epoch.

Fan et al., "Challenging Forgets: Unveiling the Worst-Case Forget Sets in Machine Unlearning", ECCV
2024, arXiv 2403.07362; code Unlearn-WorstCase. Epoch e, counted from 0, shows the forget set alone
if e <= msteps, else the retain set alone.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable

from mu.backbones import Backbone
from mu.data.plan import Forget, Phases, Retain
from mu.methods.general.scrub import SCRUB


class SCRUBWorstCase(SCRUB):
    """SCRUB with max epochs, then min epochs.

    Args:
        backbone: the original.
        msteps: the last max epoch, counted from 0.
        lr_decay_epochs: see SCRUB; none there.
        optimizer: momentum and weight decay of the OPTML code; the learning rate is searched in
            [1e-4, 1e-1] there.
    """

    default_epochs = 10

    def __init__(
        self,
        backbone: Backbone,
        msteps: int = 1,
        lr_decay_epochs: tuple[int, ...] = (),
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=1e-3, momentum=0.9, weight_decay=5e-4
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone, msteps=msteps, lr_decay_epochs=lr_decay_epochs, optimizer=optimizer, **kwargs
        )
        self.plan = Phases(Forget(epochs=msteps + 1), Retain(after=msteps + 1))
