"""Retain terms: NLL or KL to the original on the retain part, added to a forget loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mu.core.protocols import Method
from mu.data.batch import Batch
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible


class RetainTerm(Reconstructible, ABC):
    """Base of retain terms: a scalar loss on the retain part.

    Attributes:
        needs_reference: whether the term compares with the frozen original; a method with such a
            term then needs the reference too.
    """

    needs_reference: bool = False

    @abstractmethod
    def term(self, module: Method, part: Batch, prediction: Tensor) -> Tensor:
        """The term, a scalar.

        Args:
            module: the method, whose backbone and reduction are used.
            part: the retain part.
            prediction: of the backbone for the part; of more positions than the part where it comes
                from a joint forward pass of sequences.
        """


class NLL(RetainTerm):
    """The backbone's loss: negative log-likelihood of retain answers, cross-entropy of labels."""

    def term(self, module: Method, part: Batch, prediction: Tensor) -> Tensor:
        return module.reduce(module.backbone.loss(part, prediction=prediction), part)


class KL(RetainTerm):
    """Divergence from the original's predictions, KL(p_θo || p_θ) for distributions.

    It takes one more forward pass, of the original. `CausalLM(divergence_mask=...)` selects the
    positions of a text: those that predict an answer's token; the code of TOFU and of
    OpenUnlearning averages over all, prompts and padding too (`divergence_mask: all` with the
    module's `reduction: micro`).

    Args:
        temperature: T > 0 of both distributions; the divergence is multiplied by T².
    """

    needs_reference = True

    def __init__(self, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise InputError(f"the temperature of KL is {temperature}; it is above 0.")
        self.temperature = temperature

    def term(self, module: Method, part: Batch, prediction: Tensor) -> Tensor:
        assert module.reference is not None, "the method needs what its retain term needs"
        with torch.no_grad():
            original = module.reference.predict(part)
        return module.reduce(
            module.backbone.divergence(prediction, original, part, self.temperature), part
        )
