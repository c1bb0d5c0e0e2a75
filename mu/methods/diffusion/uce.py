"""UCE: closed-form edit that gives cross-attention the anchor's keys and values for a concept.

Gandikota, Orgad, Belinkov, Materzyńska and Bau, "Unified Concept Editing in Diffusion Models", WACV
2024, arXiv 2308.14761.

    W' = (λW + a Σ_i W g_i c_iᵀ + b Σ_j W p_j p_jᵀ) (λI + a Σ_i c_i c_iᵀ + b Σ_j p_j p_jᵀ)⁻¹
    for every W in attn2.to_k, attn2.to_v

c_i are keys of the forget prompts, g_i those of their anchors (the task's `substitute`), p_j those
of the retain prompts. No images; the text encoder reads every distinct prompt once. All layers have
the same sums, and the system is solved in float64. Released code (`uce_sd_erase.py`): a prompt's
key is the state of its *last token* alone. Where the task marks the concept within a prompt, it is
the concept's last token here, and the anchor's in its place. The paper's first code moved every
state from that token to the end of the 77 positions (`tokens="onward"`), with λ = 0.1 and b =
max(0.1, 1 / number of preserved prompts): preset `uce_onward`. Defaults: λ = 0.5, a = 1, b = 1,
last token (that script).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mu.backbones import TextToImage
from mu.core.edit import Edit
from mu.data.batch import Batch
from mu.data.plan import Forget, Phases, Retain
from mu.functional.diffusion import uce_update
from mu.methods.bases.prompt_keys import (
    Key,
    Tokens,
    aligned_tokens,
    key_states,
    last_token,
    pair_states,
    union_over_ranks,
)
from mu.methods.components.substitutes import GivenByTask
from mu.utils.errors import InputError


class UCE(Edit):
    """Closed-form edit of the cross-attention's projections of text, from distinct prompts.

    Args:
        backbone: the original; its `part` trains `attn2.to_k` and `attn2.to_v` (`xattn-strict`).
        lam: λ > 0, weight of the penalty on changes.
        erase_scale: a >= 0.
        preserve_scale: b >= 0; with 0 the retain part is not read.
        tokens: `last`, the concept's last token; `onward`, every state from it to the end of the
            encoder's sequence, and every state of the preserved prompts.
        batch_size: prompts encoded at once.
    """

    shard = "rows"
    needs_labels = False
    needs_substitute = True

    def __init__(
        self,
        backbone: TextToImage,
        lam: float = 0.5,
        erase_scale: float = 1.0,
        preserve_scale: float = 1.0,
        tokens: Tokens = "last",
        batch_size: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if not lam > 0 or erase_scale < 0 or preserve_scale < 0 or batch_size < 1:
            raise InputError(
                "UCE needs a lam above 0, scales of at least 0 and a batch_size of at least 1, "
                f"not {lam}, {erase_scale}, {preserve_scale} and {batch_size}."
            )
        if tokens not in ("last", "onward"):
            raise InputError(
                f"tokens is {tokens!r}; UCE takes the `last` token of a concept, or every state "
                "`onward` from it."
            )
        self.lam = lam
        self.erase_scale = erase_scale
        self.preserve_scale = preserve_scale
        self.batch_size = batch_size
        self.tokens: Tokens = tokens
        forget = Forget(shuffle=False)
        self.plan = Phases(forget, Retain(shuffle=False)) if self.needs_retain else forget
        self.substitute = GivenByTask()
        self.concept_keys: set[tuple[Key, Key]] = set()
        self.preserved_keys: set[Key] = set()

    @property
    def needs_retain(self) -> bool:  # type: ignore[override]
        """Whether prompts are to be preserved."""
        return self.preserve_scale > 0

    @property
    def model(self) -> TextToImage:
        """The backbone, by the type TextToImage."""
        assert isinstance(self.backbone, TextToImage)
        return self.backbone

    def setup(self, stage: str) -> None:
        """Refuse a part that trains no projection of text."""
        super().setup(stage)
        if stage == "fit" and not self.projections():
            raise InputError(
                "UCE edits the weights of attn2.to_k and attn2.to_v, and the backbone trains none "
                "of them; give it part: xattn-strict, without adapters."
            )

    def projections(self) -> dict[str, Tensor]:
        """Trained weights of `attn2.to_k` and `attn2.to_v`, by name."""
        ends = ("attn2.to_k.weight", "attn2.to_v.weight")
        return {name: weight.detach() for name, weight in self.trainable() if name.endswith(ends)}

    def observe(self, forget: Batch | None, retain: Batch | None) -> None:
        """Collect the batch's distinct keys."""
        eos = int(self.model.tokenizer.eos_token_id)
        for part in (forget, retain):
            if part is not None and "input_ids" not in part:
                raise InputError("UCE reads samples with a `prompt`, which the task does not give.")
        if forget is not None:
            columns = (forget["input_ids"], forget["substitute"], forget["span"])
            for ids, anchor, (_, end) in zip(*(c.tolist() for c in columns), strict=True):
                concept_end, anchor_end = aligned_tokens(ids, anchor, end, eos)
                self.concept_keys.add(((tuple(ids), concept_end), (tuple(anchor), anchor_end)))
        if retain is not None:
            for ids in retain["input_ids"].tolist():
                self.preserved_keys.add((tuple(ids), last_token(ids, eos)))

    def edited(self) -> Mapping[str, Tensor]:
        """New projections, which every rank computes from the keys of all ranks, in one order."""
        projections = self.projections()
        width = next(iter(projections.values())).shape[1]
        gram = self.lam * torch.eye(width, dtype=torch.float64, device=self.device)
        change = torch.zeros_like(gram)
        concepts = union_over_ranks(self.concept_keys, self.world_size)
        for start in range(0, len(concepts), self.batch_size):
            c, g = pair_states(self.model, concepts[start : start + self.batch_size], self.tokens)
            gram += self.erase_scale * c.mT @ c
            change += self.erase_scale * (g - c).mT @ c
        preserved = union_over_ranks(self.preserved_keys, self.world_size)
        for start in range(0, len(preserved), self.batch_size):
            p = key_states(self.model, preserved[start : start + self.batch_size], self.tokens)
            gram += self.preserve_scale * p.mT @ p
        return {name: uce_update(weight, gram, change) for name, weight in projections.items()}
