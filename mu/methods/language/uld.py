"""ULD (unlearning from logit difference): train a small assistant to know what is to be forgotten
and nothing else, and subtract it.

Ji, Liu, Zhang, Liu, Kompella, Liu and Chang, "Reversing the Forget-Retain Objectives: An Efficient
LLM Unlearning Framework from Logit Difference", NeurIPS 2024, arXiv 2406.08607. For language
models.

    min_φ ℓ(D_f ∪ paraphrases) + μ mean over the answer tokens of D_r ∪ wrong answers of KL(uniform ‖ p_φ)
    served:  z = z_θo + w z_φ,  w < 0, where z_φ speaks on likely tokens alone (`mu.functional.relative_top_filter`)

The original is never touched. The assistant is its first K layers with embeddings, final norm and
output matrix, all frozen and shared with it, and trained low-rank adapters: small enough to be
stored beside it. Answers cost the assistant's pass more, and a second cache. Where the rows of the
task have `paraphrased_question` or `paraphrased_answer`, each showing of a forget sample draws one
of its variants (the code shows all: forget and two paraphrases of each); where they have
`perturbed_answer`, one of these is drawn to be unknown. Released code averages the KL over all
positions, prompt and padding too; here over answer tokens, as the first term does. Defaults: K = a
quarter of the layers (8 of the 32 of Llama-2-7B), LoRA of rank 16, α 32, dropout 0.05 on all linear
layers but the output, μ = 5, AdamW 1e-3, weight decay 0.01, 10 epochs, 32 in a step, w = −0.8, τ =
0.01 (TOFU; −1 and 0.1 elsewhere).
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from mu.backbones import CausalLM, LoRA
from mu.backbones.language.two_models import LogitDifference, first_layers
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.encoding import Encoder, Pair, collate, labelled
from mu.data.plan import Paired
from mu.data.questions import QuestionSet, TokenRows
from mu.functional.tokens import uniform_divergence
from mu.methods.bases.joint import predictions
from mu.methods.bases.two_models import refuse_sharding
from mu.utils import rng
from mu.utils.errors import InputError


class ULD(UnlearningModule):
    """Trains the assistant; serves the difference.

    Args:
        backbone: the original, without adapters.
        layers: K; None is a quarter of the backbone's, at least 1.
        uniform_weight: μ >= 0.
        weight: w, of the assistant's logits in what is served.
        top: τ in [0, 1], of the filter; 0 switches it off.
        paraphrases: whether the task's paraphrases are remembered too.
        perturbed: whether the task's wrong answers are to be unknown too.
        lora: the assistant's adapters; rank 16, α 32, dropout 0.05 when None.
        optimizer: see the file's head.
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
            backbone, count, lora or LoRA(rank=16, alpha=32, dropout=0.05)
        )
        self.known: Variants | None = None
        self.wrong: Variants | None = None

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The assistant's adapters."""
        return [(name, p) for name, p in self.assistant.named_parameters() if p.requires_grad]

    def served(self) -> LogitDifference:
        """The original less the assistant."""
        assert isinstance(self.backbone, CausalLM)
        return LogitDifference(self.backbone, self.assistant, self.weight, self.top)

    def configure_model(self) -> None:
        """All weights of the assistant but its adapters are the original's."""
        refuse_sharding(self)
        super().configure_model()

    def setup(self, stage: str) -> None:
        """Look for paraphrases and wrong answers among the task's rows."""
        super().setup(stage)
        task: Any = self.task
        rows = getattr(task, "sets", {}).get("forget")
        # raw text has no paraphrases
        if stage != "fit" or rows is None or not all(row.get("question") for row in rows.rows):
            return
        self.known = (
            Variants.paraphrased(rows, task.encoder, task.datasets["forget"])
            if self.paraphrases
            else None
        )
        self.wrong = Variants.perturbed(rows, task.encoder) if self.perturbed else None

    def set_mode(self) -> None:
        """The original answers in eval mode."""
        self.backbone.eval()
        self.assistant.train()

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and retain is not None
        remembered = forget if self.known is None else self.known.drawn(forget, self.seed)
        unknown = [retain, *([] if self.wrong is None else [self.wrong.drawn(forget, self.seed)])]
        of_forget, *others = predictions(self.assistant, remembered, *unknown)
        values = [
            self.assistant.count(
                part, *uniform_divergence(*self.assistant.token_logits(part, logits))
            )
            for part, logits in zip(unknown, others, strict=True)
        ]
        together = (
            torch.cat([value for value, _ in values]),
            torch.cat([weight for _, weight in values]),
        )
        normaliser = {
            name: torch.stack([part[name] for part in unknown]).sum()
            for name in ("total", "count")
            if name in retain
        }
        return {
            "remember": self.reduce(
                self.assistant.loss(remembered, prediction=of_forget), remembered
            ),
            "uniform": self.uniform_weight * self.reduce(together, normaliser),
        }


class Variants:
    """Several ways in which a forget sample can be asked and answered, of which one is drawn for
    each showing.

    Args:
        pairs: the question and answer of each variant, by the sample's index.
        encoder: makes sequences of them.
        stream: names the draw.
        data: the samples themselves, which are one variant more; None leaves them out.
    """

    def __init__(
        self,
        pairs: Mapping[int, list[tuple[str, str]]],
        encoder: Encoder,
        stream: str,
        data: TokenRows | None = None,
    ) -> None:
        self.pairs = dict(pairs)
        self.encoder = encoder
        self.stream = stream
        self.data = data
        self._place = (
            {}
            if data is None
            else {index: place for place, index in enumerate(data.indices.tolist())}
        )
        self._encoded: dict[tuple[str, str], Pair] = {}

    @classmethod
    def paraphrased(cls, rows: QuestionSet, encoder: Encoder, data: TokenRows) -> "Variants | None":
        """Every sample and its paraphrases; None where no row has any."""
        found = {}
        for index, row in zip(rows.indices.tolist(), rows.rows, strict=True):
            ways = [
                (row["question"], row.get("paraphrased_answer")),
                (row.get("paraphrased_question"), row["answer"]),
            ]
            found[index] = [(asked, said) for asked, said in ways if asked and said]
        return cls(found, encoder, "uld-paraphrased", data) if any(found.values()) else None

    @classmethod
    def perturbed(cls, rows: QuestionSet, encoder: Encoder) -> "Variants | None":
        """Every sample's question with its wrong answers; None where a row has none."""
        found = {
            index: [(row["question"], answer) for answer in row.get("perturbed_answer") or ()]
            for index, row in zip(rows.indices.tolist(), rows.rows, strict=True)
        }
        return cls(found, encoder, "uld-perturbed") if all(found.values()) else None

    def drawn(self, part: Batch, seed: int) -> Batch:
        """The part with a variant of each of its samples, and what the variants weigh in the
        optimizer's step.
        """
        device = part["index"].device
        pairs = self._chosen(part["index"].cpu(), part["visit"].cpu(), seed)
        kept = {name: part[name] for name in ("index", "visit", "padded", "count") if name in part}
        found = kept | {name: value.to(device) for name, value in collate(pairs).items()}
        if "step" in part:
            step = part["step"]
            whole = self._chosen(torch.as_tensor(step.index), torch.as_tensor(step.visit), seed)
            found["total"] = torch.tensor(
                sum(labelled(pair) for pair in whole) / step.accumulate, device=device
            )
        return found

    def _chosen(self, index: Tensor, visit: Tensor, seed: int) -> list[Pair]:
        numbers = rng.integers(seed, index, visit, self.stream, 2**31)
        return [
            self._pair(one, number)
            for one, number in zip(index.tolist(), numbers.tolist(), strict=True)
        ]

    def _pair(self, index: int, number: int) -> Pair:
        ways = self.pairs[index]
        way = number % (len(ways) + (self.data is not None))
        if way == len(ways):
            assert self.data is not None
            return self.data.pair(self._place[index])
        if ways[way] not in self._encoded:
            self._encoded[ways[way]] = self.encoder.pair(*ways[way], f"a variant of sample {index}")
        return self._encoded[ways[way]]
