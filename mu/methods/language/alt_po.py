"""AltPO (alternate preference optimisation): DPO with answers that the model made up.

For language models. Mekala, Dorna, Dubey, Lalwani, Koleczek, Rungta, Hasan and Lobo, "Alternate
Preference Optimization for Unlearning Factual Knowledge in Large Language Models", COLING 2025,
arXiv 2409.13474.

    DPO with y_w ~ π_θo(· | "answer plausibly, with every fact changed", x)

The original generates five alternates of each forget question (temperature 1, at most 200 tokens,
stopped at "Question:"): here before the first step, in our own words, with the truth and empty
answers left out. Left-overs of the prompt become what is learnt: look at them. The code shows a
question five times in an epoch, once with each alternate, for 2 epochs; here the k-th time that a
question is shown it has its k-th alternate, so that 10 epochs show the same pairs. Defaults: β =
0.1, γ = α = 1, AdamW 1e-5, weight decay 0.01 (the authors search 1e-5..5e-5, β 0.05..0.5 and α
1..5).
"""

from typing import Any

from mu.backbones import CausalLM
from mu.core.substitutes import Substitute
from mu.methods.components.generated_answers import GeneratedAnswers
from mu.methods.language.dpo import DPO


class AltPO(DPO):
    """DPO whose winner is an alternate answer.

    Args:
        backbone: the original.
        substitute: the alternates; `GeneratedAnswers()` when None, `AnswersFromFile(file)` for
            those of a file.
    """

    def __init__(
        self, backbone: CausalLM, substitute: Substitute | None = None, **kwargs: Any
    ) -> None:
        super().__init__(
            backbone, substitute=GeneratedAnswers() if substitute is None else substitute, **kwargs
        )
