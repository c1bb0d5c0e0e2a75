"""UCE: the keys and values that cross-attention reads from a concept become those of its anchor, in
closed form.

Gandikota, Orgad, Belinkov, Materzyńska and Bau, "Unified Concept Editing in Diffusion Models", WACV
2024, arXiv 2308.14761.

    W' = (λW + a Σ_i W g_i c_iᵀ + b Σ_j W p_j p_jᵀ) (λI + a Σ_i c_i c_iᵀ + b Σ_j p_j p_jᵀ)⁻¹    for every W in attn2.to_k, attn2.to_v

c_i are keys of the forget prompts, g_i those of their anchors (the task's `substitute`), p_j those
of the retain prompts. No images; the text encoder reads every distinct prompt once. The sums are
those of all layers, and the system is solved in float64. Released code (`uce_sd_erase.py`): a
prompt's key is the state of its *last token* alone. Where the task marks the concept within a
prompt, it is the concept's last token here, and the anchor's in its place. The paper's first code
moved every state from there to the end of the 77 places (`tokens="onward"`), with λ = 0.1 and b =
max(0.1, 1 / number of preserved prompts): preset `uce_onward`. Defaults: λ = 0.5, a = 1, b = 1,
last token (that script).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mu.backbones import TextToImage
from mu.core.edit import Edit
from mu.data.batch import Batch
from mu.data.plan import Forget, Phases, Retain
from mu.functional.diffusion import uce_update
from mu.methods.components.substitutes import GivenByTask
from mu.utils.errors import InputError

_EDITED = ("attn2.to_k.weight", "attn2.to_v.weight")
Key = tuple[tuple[int, ...], int]
"""Token ids of a prompt, and the place of the key among its states."""


class UCE(Edit):
    """Collects distinct prompts, then sums their keys and edits the cross-attention's projections
    of text.

    Args:
        backbone: the original; its `part` trains `attn2.to_k` and `attn2.to_v` (`xattn-strict`).
        lam: λ > 0, how dear a change of the weights is.
        erase_scale: a >= 0.
        preserve_scale: b >= 0; with 0 the retain part is not read.
        tokens: `last`, the concept's last token; `onward`, every state from there to the end of the
            encoder's places, and every state of the preserved prompts.
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
        tokens: Literal["last", "onward"] = "last",
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
        self.tokens: Literal["last", "onward"] = tokens
        forget = Forget(shuffle=False)
        self.plan = Phases(forget, Retain(shuffle=False)) if self.needs_retain else forget
        self.substitute = GivenByTask()
        self._pairs: set[tuple[Key, Key]] = set()
        self._kept: set[Key] = set()

    @property
    def needs_retain(self) -> bool:  # type: ignore[override]
        """Prompts to be preserved."""
        return self.preserve_scale > 0

    def setup(self, stage: str) -> None:
        """Refuse a part that trains no projection of text."""
        super().setup(stage)
        if stage == "fit" and not self._projections():
            raise InputError(
                "UCE edits the weights of attn2.to_k and attn2.to_v, and the backbone trains none "
                "of them; give it part: xattn-strict, without adapters."
            )

    # ---- the pass: which keys --------------------------------------------------------------------

    def observe(self, forget: Batch | None, retain: Batch | None) -> None:
        """Remember the batch's distinct keys."""
        for part in (forget, retain):
            if part is not None and "input_ids" not in part:
                raise InputError("UCE reads samples with a `prompt`, which the task does not give.")
        if forget is not None:
            spans = forget["span"].tolist()
            for ids, anchor, (_, end) in zip(
                forget["input_ids"].tolist(), forget["substitute"].tolist(), spans, strict=True
            ):
                place, guide = aligned(ids, anchor, end, self._eos)
                self._pairs.add(((tuple(ids), place), (tuple(anchor), guide)))
        if retain is not None:
            self._kept |= {
                (tuple(ids), last_place(ids, self._eos)) for ids in retain["input_ids"].tolist()
            }

    # ---- the edit --------------------------------------------------------------------------------

    def edited(self) -> Mapping[str, Tensor]:
        """New projections. Every rank computes them from the keys of all ranks, in one order."""
        projections = self._projections()
        width = next(iter(projections.values())).shape[1]
        gram = self.lam * torch.eye(width, dtype=torch.float64, device=self.device)
        change = torch.zeros_like(gram)
        for some in self._batches(self._of_all_ranks(self._pairs)):
            c, g = self._pair_states(some)
            gram += self.erase_scale * c.mT @ c
            change += self.erase_scale * (g - c).mT @ c
        for some in self._batches(self._of_all_ranks(self._kept)):
            p = self._kept_states(some)
            gram += self.preserve_scale * p.mT @ p
        return {name: uce_update(weight, gram, change) for name, weight in projections.items()}

    def _pair_states(self, pairs: list[tuple[Key, Key]]) -> tuple[Tensor, Tensor]:
        """States of concepts and of their anchors, `[N, D]` each."""
        ours = self._encode([key for key, _ in pairs])
        theirs = self._encode([guide for _, guide in pairs])
        concepts = []
        anchors = []
        for our, their, ((_, place), (_, guide)) in zip(ours, theirs, pairs, strict=True):
            count = 1 if self.tokens == "last" else len(our) - max(place, guide)
            concepts.append(our[place : place + count])
            anchors.append(their[guide : guide + count])
        return torch.cat(concepts), torch.cat(anchors)

    def _kept_states(self, keys: list[Key]) -> Tensor:
        states = self._encode(keys)
        if self.tokens == "onward":
            return states.flatten(0, 1)
        return states[torch.arange(len(keys)), [place for _, place in keys]]

    def _encode(self, keys: list[Key]) -> Tensor:
        """States of the prompts, `[N, L, D]` float64."""
        return self._model.encode_text(
            torch.tensor([ids for ids, _ in keys], device=self.device)
        ).states.double()

    def _of_all_ranks(self, found: set[Any]) -> list[Any]:
        """Sorted, so that neither the order of batches nor the number of ranks changes the sums."""
        if self.world_size > 1:
            each: list[Any] = [None] * self.world_size
            torch.distributed.all_gather_object(each, found)
            found = set().union(*each)
        return sorted(found)

    def _batches(self, found: list[Any]) -> Iterator[list[Any]]:
        for start in range(0, len(found), self.batch_size):
            yield found[start : start + self.batch_size]

    def _projections(self) -> dict[str, Tensor]:
        return {
            name: weight.detach() for name, weight in self.trainable() if name.endswith(_EDITED)
        }

    @property
    def _model(self) -> TextToImage:
        assert isinstance(self.backbone, TextToImage)
        return self.backbone

    @property
    def _eos(self) -> int:
        return int(self._model.tokenizer.eos_token_id)


def last_place(ids: list[int], eos: int) -> int:
    """Place of the last token before the end of the text; 0, the start token's, for an empty
    text.
    """
    return ids.index(eos, 1) - 1


def aligned(ids: list[int], anchor: list[int], end: int, eos: int) -> tuple[int, int]:
    """Places of the concept's last token in a prompt and of the anchor's in the substitute.

    Args:
        ids: of the prompt, with start and end.
        anchor: of the substitute.
        end: one past the concept's last token; 0 where no concept is marked: then the whole prompt
            is one.
        eos: the end token.

    Returns:
        The anchor ends where the rest of the two texts agrees; at the last token where it does not.
    """
    if end == 0:
        return last_place(ids, eos), last_place(anchor, eos)
    rest = ids[end : ids.index(eos, 1)]
    stop = anchor.index(eos, 1)
    agrees = anchor[max(stop - len(rest), 0) : stop] == rest
    return end - 1, stop - (len(rest) if agrees else 0) - 1
