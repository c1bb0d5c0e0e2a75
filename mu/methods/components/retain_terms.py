"""What keeps a model as it is on the retain part, while a method's own term forgets: a term that
many methods share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible

if TYPE_CHECKING:
    from mu.core.protocols import Method
    from mu.data.batch import Batch


class RetainTerm(Reconstructible, ABC):
    """A term of an objective on the retain part.

    Attributes:
        needs_reference: the frozen original is asked; a method that takes a retain term needs what
            the term needs.
    """

    needs_reference: bool = False

    @abstractmethod
    def term(self, module: Method, part: Batch, prediction: Tensor) -> Tensor:
        """The term, a scalar.

        Args:
            module: the method, whose backbone and reduction are used.
            part: the retain part.
            prediction: of the backbone for it; may be wider than the part where it comes from a
                joint forward pass of sequences.
        """


class NLL(RetainTerm):
    """The backbone's own loss: negative log-likelihood of the retain answers (cross-entropy of a
    classifier).
    """

    def term(self, module: Method, part: Batch, prediction: Tensor) -> Tensor:
        return module.reduce(module.backbone.loss(part, prediction=prediction), part)


class KL(RetainTerm):
    """Divergence from the original's predictions, `KL(reference || theta)` for distributions; one
    more forward pass, of the original.

    Over which positions of a text is said by `CausalLM(divergence_mask=...)`: those that predict an
    answer's token; the code of TOFU and of OpenUnlearning averages over all, prompts and padding
    too (`divergence_mask: all` with the module's `reduction: micro`).

    Args:
        temperature: T > 0 of both; the divergence is multiplied by T².
    """

    needs_reference = True

    def __init__(self, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise InputError(f"the temperature of KL is {temperature}; it is above 0.")
        self.temperature = temperature

    def term(self, module: Method, part: Batch, prediction: Tensor) -> Tensor:
        assert module.reference is not None, "the method declares what its retain term needs"
        with torch.no_grad():
            original = module.reference.predict(part)
        return module.reduce(
            module.backbone.divergence(prediction, original, part, self.temperature), part
        )
