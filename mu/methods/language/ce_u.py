"""CE-U: cross-entropy to the model's own distribution without the true token.

For language models; forget alone. Yang, "CE-U: Cross Entropy Unlearning", arXiv 2503.01224.

    min_θ mean over the answer tokens of −Σ_v q_v log p_v,    q = softmax(sg[z] with z_y = −∞)

The gradient with respect to the logits is p − q: bounded, and zero once the true token has
probability zero. No reference and no retain part; one forward and one backward pass. As in the
released code, the first token of each answer is ignored. Defaults: AdamW 1e-5, 10 epochs
(Llama-3.2-1B); the author later found 2e-6 and 9 epochs for Llama-2-7B on forget05.
"""

from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import CausalLM, WeightedSum
from mu.data.batch import Batch
from mu.functional.tokens import ce_u
from mu.methods.bases.forget_retain import ForgetRetainMethod
from mu.utils.errors import InputError


class CEU(ForgetRetainMethod):
    """Cross-entropy to the model's own distribution over the other tokens.

    Args:
        backbone: the original.
        skip: answer tokens at the beginning that are ignored.
        optimizer: optimizer factory; for the source of the default see above.
    """

    def __init__(
        self,
        backbone: CausalLM,
        skip: int = 1,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone, forget_weight=1.0, retain_weight=0.0, optimizer=optimizer, **kwargs
        )
        if skip < 0:
            raise InputError(f"skip is {skip}; it is a number of tokens, at least 0.")
        self.skip = skip
        self._lengths: dict[int, float] = {}

    def forget_loss(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        return ce_u(*self.model.token_logits(forget, prediction), self.skip)

    def forget_total(self, forget: Batch) -> Batch:
        """The part with a total of the step's tokens that does not count the ignored ones."""
        if "step" not in forget or self.task is None:
            return forget
        if not self._lengths:
            data: Any = self.task.datasets["forget"]
            self._lengths = dict(zip(data.indices.tolist(), data.weights.tolist(), strict=True))
        step = forget["step"]
        counted = (
            np.maximum([self._lengths[int(index)] - self.skip for index in step.index], 0).sum()
            / step.accumulate
        )
        return {**forget, "total": torch.tensor(float(counted), device=forget["total"].device)}
