"""KL minimisation: gradient ascent on forget, KL divergence to the original on retain.

Maini, Feng, Schwarzschild, Lipton and Kolter, "TOFU: A Task of Fictitious Unlearning for LLMs",
COLM 2024, arXiv 2401.06121.

    min_θ −γ ℓ(D_f) + α KL(p_θo ‖ p_θ) on D_r

For language models the divergence is the mean over the positions that predict an answer's token.
The released code (and OpenUnlearning) averages over all positions, prompts and padding too:
`divergence_mask: all` of the backbone with `reduction: micro`. Defaults: as GradDiff.
"""

from typing import Any

from mu.backbones import Backbone
from mu.methods.components.retain_terms import KL
from mu.methods.general.grad_diff import GradDiff


class KLMin(GradDiff):
    """GradDiff with the divergence from the original for its retain term.

    Args:
        backbone: the original.
    """

    def __init__(self, backbone: Backbone, **kwargs: Any) -> None:
        super().__init__(backbone, retain=KL(), **kwargs)
