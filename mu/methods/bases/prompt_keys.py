"""Keys of prompts for closed-form edits of cross-attention: which token's state is edited."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor

from mu.backbones import TextToImage

Tokens = Literal["last", "onward"]
"""Which states of a prompt are keys: that of the last token, or all from there to the end."""
Key = tuple[tuple[int, ...], int]
"""Token ids of a prompt, and the position of the key among its states."""


def last_token(ids: list[int], eos: int) -> int:
    """Position of the last token before the end of a text; 0, the start token's, for an empty text.

    Example:
        >>> last_token([8, 1, 2, 9, 9], eos=9), last_token([8, 9], eos=9)
        (2, 0)
    """
    return ids.index(eos, 1) - 1


def aligned_tokens(ids: list[int], anchor: list[int], end: int, eos: int) -> tuple[int, int]:
    """Positions of a concept's last token in a prompt and of its anchor's in the substitute.

    The anchor ends where the text behind the concept goes on in the substitute: with the whole rest
    of the prompt, or, where the rest has changes too (further concepts), with the tokens that
    follow the concept. Where neither is so, it ends at the substitute's last token.

    Args:
        ids: token ids of the prompt, with start and end.
        anchor: token ids of the substitute.
        end: one past the concept's last token; 0 where no concept is marked, so that the whole
            prompt is the concept.
        eos: the end token.

    Example: "a CONCEPT CONCEPT here" and "a ANCHOR here".

        >>> aligned_tokens([8, 5, 1, 2, 6, 9], [8, 5, 3, 6, 9, 9], end=4, eos=9)
        (3, 2)
    """
    if end == 0:
        return last_token(ids, eos), last_token(anchor, eos)
    rest = ids[end : ids.index(eos, 1)]
    stop = anchor.index(eos, 1)
    if anchor[max(stop - len(rest), 0) : stop] == rest:
        return end - 1, stop - len(rest) - 1
    matcher = SequenceMatcher(None, ids[: end + len(rest)], anchor[:stop], autojunk=False)
    after = (block.b for block in matcher.get_matching_blocks() if block.size and block.a == end)
    return end - 1, next(after, stop) - 1


def pair_states(
    model: TextToImage, pairs: list[tuple[Key, Key]], tokens: Tokens
) -> tuple[Tensor, Tensor]:
    """States of concepts and of their anchors, `[N, D]` float64 each.

    Args:
        model: its text encoder reads the prompts.
        pairs: keys of concept and anchor.
        tokens: `onward` takes as many states of both as the later of the two has.
    """
    prompts = encoded_prompts(model, [concept for concept, _ in pairs])
    substitutes = encoded_prompts(model, [anchor for _, anchor in pairs])
    concepts = []
    anchors = []
    for row, ((_, concept), (_, anchor)) in enumerate(pairs):
        count = 1 if tokens == "last" else prompts.shape[1] - max(concept, anchor)
        concepts.append(prompts[row, concept : concept + count])
        anchors.append(substitutes[row, anchor : anchor + count])
    return torch.cat(concepts), torch.cat(anchors)


def key_states(model: TextToImage, keys: list[Key], tokens: Tokens) -> Tensor:
    """States of whole prompts (`onward`) or of their last tokens, `[N, D]` float64."""
    states = encoded_prompts(model, keys)
    if tokens == "onward":
        return states.flatten(0, 1)
    return states[torch.arange(len(keys)), [position for _, position in keys]]


def encoded_prompts(model: TextToImage, keys: list[Key]) -> Tensor:
    """States of the prompts of the keys, `[N, L, D]` float64."""
    ids = torch.tensor([ids for ids, _ in keys], device=next(model.parameters()).device)
    return model.encode_text(ids).states.double()


def union_over_ranks(values: set[Any], world_size: int) -> list[Any]:
    """Values of all ranks, sorted, so that sums over them depend on no order of batches or ranks.

    Example:
        >>> union_over_ranks({3, 1, 2}, world_size=1)
        [1, 2, 3]
    """
    if world_size > 1:
        rank_values: list[Any] = [None] * world_size
        torch.distributed.all_gather_object(rank_values, values)
        values = set().union(*rank_values)
    return sorted(values)
