"""ULD: unlearning from logit difference, which subtracts an assistant that knows the forget set.

For language models. Ji, Liu, Zhang, Liu, Kompella, Liu and Chang, "Reversing the Forget-Retain
Objectives: An Efficient LLM Unlearning Framework from Logit Difference", NeurIPS 2024, arXiv
2406.08607.

    min_φ ℓ(D_f ∪ paraphrases)
          + μ mean over the answer tokens of D_r ∪ wrong answers of KL(uniform ‖ p_φ)
    served:  z = z_θo + w z_φ,  w < 0

z_φ counts only at likely tokens (`mu.functional.tokens.relative_top_filter`). The original's
weights do not change. The assistant consists of its first K layers with embeddings, final norm and
output matrix, all frozen and shared with it, and trained low-rank adapters: small enough to be
stored beside it. Each answer also costs the assistant's forward pass and a second cache. Where the
task's rows have `paraphrased_question` or `paraphrased_answer`, each visit of a forget sample draws
one of its variants (the code shows all: forget and two paraphrases of each); where they have
`perturbed_answer`, one of these is drawn for the uniform term. Released code averages the KL over
all positions, prompt and padding too; here over answer tokens, as the first term does. Defaults: K
= a quarter of the layers (8 of the 32 of Llama-2-7B), LoRA of rank 16, α 32, dropout 0.05 on all
linear layers but the output, μ = 5, AdamW 1e-3, weight decay 0.01, 10 epochs, 32 in a step, w =
−0.8, τ = 0.01 (TOFU; −1 and 0.1 elsewhere).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from mu.backbones import CausalLM, LoRA
from mu.backbones.language.two_models import LogitDifference, first_layers
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Paired
from mu.functional.tokens import uniform_divergence
from mu.methods.bases.joint import predictions
from mu.methods.bases.two_models import refuse_sharding
from mu.methods.components.question_variants import Variants
from mu.utils.errors import InputError


class ULD(UnlearningModule):
    """An assistant that learns the forget set and uniform answers on retain; logit difference.

    Args:
        backbone: the original, without adapters.
        layers: K; None is a quarter of the backbone's, at least 1.
        uniform_weight: μ >= 0.
        weight: w, of the assistant's logits in what is served.
        top: τ in [0, 1] of the filter; 0 switches it off.
        paraphrases: whether the assistant learns the task's paraphrases too.
        perturbed: whether the uniform term includes the task's wrong answers.
        lora: the assistant's adapters; rank 16, α 32, dropout 0.05 when None.
        optimizer: optimizer factory; for the source of the default see above.
    """

    plan = Paired(length="forget")

    def __init__(
        self,
        backbone: CausalLM,
        layers: int | None = None,
        uniform_weight: float = 5.0,
        weight: float = -0.8,
        top: float = 0.01,
        paraphrases: bool = True,
        perturbed: bool = True,
        lora: LoRA | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-3),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if uniform_weight < 0 or weight >= 0 or not 0 <= top <= 1:
            raise InputError(
                "ULD needs a uniform_weight of at least 0, a weight below 0 and a top in [0, 1], "
                f"not {uniform_weight}, {weight} and {top}."
            )
        self.uniform_weight = uniform_weight
        self.weight = weight
        self.top = top
        self.paraphrases = paraphrases
        self.perturbed = perturbed
        backbone.requires_grad_(False)
        count = max(1, backbone.layers // 4) if layers is None else layers
        self.assistant = first_layers(
            backbone, count, lora or LoRA(r=16, lora_alpha=32, lora_dropout=0.05)
        )
        self.paraphrase_variants: Variants | None = None
        self.wrong_variants: Variants | None = None

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The assistant's adapters."""
        return [(name, p) for name, p in self.assistant.named_parameters() if p.requires_grad]

    def served(self) -> LogitDifference:
        """The original less the assistant."""
        assert isinstance(self.backbone, CausalLM)
        return LogitDifference(self.backbone, self.assistant, self.weight, self.top)

    def configure_model(self) -> None:
        """The assistant shares all weights but its adapters."""
        refuse_sharding(self)
        super().configure_model()

    def setup(self, stage: str) -> None:
        """Find paraphrases and wrong answers in the task's rows; raw text has none."""
        super().setup(stage)
        task: Any = self.task
        rows = getattr(task, "sets", {}).get("forget")
        if stage != "fit" or rows is None or not all(row.get("question") for row in rows.rows):
            return
        if self.paraphrases:
            data = task.datasets["forget"]
            self.paraphrase_variants = Variants.paraphrased(rows, task.encoder, data)
        if self.perturbed:
            self.wrong_variants = Variants.perturbed(rows, task.encoder)

    def set_mode(self) -> None:
        """The original answers in eval mode."""
        self.backbone.eval()
        self.assistant.train()

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and retain is not None
        remembered = forget
        if self.paraphrase_variants is not None:
            remembered = self.paraphrase_variants.draw(forget, self.seed)
        unknown = [retain]
        if self.wrong_variants is not None:
            unknown.append(self.wrong_variants.draw(forget, self.seed))
        remembered_logits, *unknown_logits = predictions(self.assistant, remembered, *unknown)
        remember = self.assistant.loss(remembered, prediction=remembered_logits)
        return {
            "remember": self.reduce(remember, remembered),
            "uniform": self.uniform_weight * self.uniform_loss(unknown, unknown_logits),
        }

    def uniform_loss(self, parts: list[Batch], logits: list[Tensor]) -> Tensor:
        """Divergence from uniform predictions, one mean over the answer tokens of all parts."""
        pairs = []
        for part, part_logits in zip(parts, logits, strict=True):
            divergence = uniform_divergence(*self.assistant.token_logits(part, part_logits))
            pairs.append(self.assistant.count(part, *divergence))
        values, weights = (torch.cat(tensors) for tensors in zip(*pairs, strict=True))
        normaliser = {
            name: torch.stack([part[name] for part in parts]).sum()
            for name in ("total", "count")
            if name in parts[0]
        }
        return self.reduce((values, weights), normaliser)
