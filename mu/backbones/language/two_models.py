"""Language models with the combined logits of two models."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Generator, Sequence
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn

from mu.backbones.language.causal_lm import CausalLM
from mu.backbones.language.causality import bypassed_layers
from mu.backbones.language.decoder import text_config, text_weights
from mu.backbones.language.generation import Decoding
from mu.backbones.language.sampling import NextToken
from mu.backbones.language.tokenizer import left_padded
from mu.backbones.lora import LoRA, output_names
from mu.data.batch import Batch
from mu.functional.combined_logits import generic_logits, logit_difference
from mu.utils.errors import InputError


class TwoModels(CausalLM):
    """Base of language models that combine the logits of two models at every position.

    Tokenizer, end tokens and hidden states are those of the first model.

    Args:
        base: first model.
        other: second model, with the same vocabulary.
    """

    def __init__(self, base: CausalLM, other: CausalLM) -> None:
        nn.Module.__init__(self)  # the combination has no network of its own
        if base.vocabulary != other.vocabulary:
            raise InputError(
                f"two models of {base.vocabulary} and {other.vocabulary} tokens cannot answer as "
                "one; take two of the same family."
            )
        self.base = base
        self.other = other
        self.model = base.model
        self.part = base.part
        self.lora = None
        self.divergence_mask = base.divergence_mask
        self.weights_metadata = base.weights_metadata

    @abstractmethod
    def combined(self, base: Tensor, other: Tensor) -> Tensor:
        """Combined logits `[..., V]` of the logits of both models."""

    def predict(self, batch: Batch) -> Tensor:
        """Combined logits `[B, L, V]`."""
        return self.combined(self.base.predict(batch), self.other.predict(batch))

    # ---- generation ------------------------------------------------------------------------------

    def _continue(
        self,
        prompts: list[Sequence[int]],
        max_new_tokens: int,
        positions: Sequence[int],
        decoding: Decoding,
    ) -> list[list[int]]:
        """Generated token ids of a batch of prompts, with a cache for each model.

        Rows that have ended are computed further until all have, without effect.
        """
        if decoding.num_beams > 1:
            raise InputError(
                f"{type(self).__name__} answers token by token with two models, which a beam "
                "search does not do; set num_beams to 1."
            )
        ends = self.end_tokens
        tokens, mask = left_padded(prompts, ends[0], next(self.parameters()).device)
        process = NextToken(mask, positions, decoding.sampling, decoding.repetition_penalty)
        ids = tokens
        speakers = [_logits_by_token(model, tokens, mask) for model in (self.base, self.other)]
        generated_ids: list[list[int]] = [[] for _ in prompts]
        ended = [False] * len(prompts)
        model_logits = [next(speaker) for speaker in speakers]
        for step in range(max_new_tokens):
            token = process(ids, self.combined(*model_logits)).argmax(-1)
            ids = torch.cat([ids, token[:, None]], 1)
            for row, token_id in enumerate(token.tolist()):
                if not ended[row]:
                    generated_ids[row].append(token_id)
                    ended[row] = token_id in ends or self._has_stopped(
                        generated_ids[row], decoding.stop_strings
                    )
            if all(ended) or step + 1 == max_new_tokens:
                break
            model_logits = [speaker.send(token) for speaker in speakers]
        return generated_ids

    def _has_stopped(self, ids: Sequence[int], stop_strings: Sequence[str]) -> bool:
        """Whether the text of generated token ids has a stop string."""
        if not stop_strings:
            return False
        text = self.tokenizer.decode(ids)
        return any(mark in text for mark in stop_strings)

    # ---- attributes of the base ------------------------------------------------------------------

    @property
    def tokenizer(self) -> Any:
        """Tokenizer of the base."""
        return self.base.tokenizer

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the base's weights."""
        return self.base.dtype

    @property
    def vocabulary(self) -> int:
        """Size V of the common vocabulary."""
        return self.base.vocabulary

    @property
    def context(self) -> int | None:
        """Smaller context of both models: largest number of tokens, where one limits it."""
        limits = [model.context for model in (self.base, self.other) if model.context is not None]
        return min(limits, default=None)

    @property
    def repetition_penalty(self) -> float:
        """Repetition penalty of the base's generation config, 1 where it has none."""
        return self.base.repetition_penalty

    @property
    def end_tokens(self) -> list[int]:
        """Token ids at which an answer of the base ends."""
        return self.base.end_tokens

    @property
    def layers(self) -> int:
        """Number of decoder layers of the base."""
        return self.base.layers

    def hidden(self, batch: Batch, layer: int) -> Tensor:
        """Output `[B, L, D]` of decoder layer `layer` of the base."""
        return self.base.hidden(batch, layer)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Combination of deep copies of both models."""
        return super(CausalLM, self).__deepcopy__(memo)

    def fresh(self, seed: int) -> Self:
        """Raise InputError, because the combination has no architecture of its own."""
        raise InputError(
            f"{type(self).__name__} is made of two trained models and has no architecture of its "
            "own to begin anew; take its base."
        )


class LogitDifference(TwoModels):
    """Logit difference of ULD, `z_base + weight z_assistant`.

    Source: Ji et al., NeurIPS 2024, arXiv 2406.08607; see `mu.functional.logit_difference`.

    Args:
        base: original model.
        assistant: model trained to remember the forget set only.
        weight: weight of the assistant's logits, negative.
        top: τ of the relative top filter in [0, 1]; 0 switches it off.
    """

    def __init__(
        self, base: CausalLM, assistant: CausalLM, weight: float = -0.8, top: float = 0.01
    ) -> None:
        super().__init__(base, assistant)
        if not 0 <= top <= 1:
            raise InputError(
                f"top is {top}; the relative top filter takes a share of the largest probability, "
                "in [0, 1]."
            )
        self.weight = weight
        self.top = top

    def combined(self, base: Tensor, other: Tensor) -> Tensor:
        return logit_difference(base, other, self.weight, self.top)


class GenericLogits(TwoModels):
    """Generic logits of WHP, `v_base − α relu(v_reinforced − v_base)`, at every token.

    Source: Eldan and Russinovich, arXiv 2310.02238.

    Args:
        base: original model.
        reinforced: original trained further on the forget set.
        alpha: factor α >= 0.
    """

    def __init__(self, base: CausalLM, reinforced: CausalLM, alpha: float = 5.0) -> None:
        super().__init__(base, reinforced)
        if alpha < 0:
            raise InputError(
                f"alpha is {alpha}; below 0, the reinforced answers would become likelier; give "
                "at least 0."
            )
        self.alpha = alpha

    def combined(self, base: Tensor, other: Tensor) -> Tensor:
        return generic_logits(base, other, self.alpha)


def _logits_by_token(
    model: CausalLM, tokens: Tensor, mask: Tensor
) -> Generator[Tensor, Tensor, None]:
    """Generator of next-token logits `[B, V]` with a cache; each chosen token `[B]` is sent."""
    network: Any = model.network
    forward_parameters = inspect.signature(network.forward).parameters
    last = {"logits_to_keep": 1} if "logits_to_keep" in forward_parameters else {}
    position_ids = (mask.cumsum(1) - 1).clamp_min(0)
    cache = None
    while True:
        position_arguments = (
            {"position_ids": position_ids} if "position_ids" in forward_parameters else {}
        )
        output = network(
            input_ids=tokens,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **position_arguments,
            **last,
        )
        cache = output.past_key_values
        chosen = yield output.logits[:, -1]
        tokens = chosen[:, None]
        mask = torch.cat([mask, torch.ones_like(tokens)], 1)
        position_ids = position_ids[:, -1:] + 1


def first_layers(model: CausalLM, count: int, lora: LoRA) -> CausalLM:
    """Language model of the first `count` decoder layers of another, with adapters.

    Embeddings, final norm and output matrix are those of the other model. All weights are shared
    with it; only the adapters are new, and trained.

    Args:
        model: model without adapters.
        count: number of layers, from 1 to all.
        lora: adapters of all linear layers but the output matrix, or of its `target_modules`.

    Raises:
        InputError: when the model has adapters, or not so many layers.
    """
    if model.lora is not None:
        raise InputError(
            "an assistant is made from a model without adapters; merge them into the model, and "
            "leave out its lora."
        )
    if not 1 <= count <= model.layers:
        raise InputError(
            f"an assistant of {count} layers cannot be made from a model of {model.layers}."
        )
    twin = deepcopy(model, {id(p): p for p in model.parameters()})
    short: Any = twin.network
    first_decoder_layers = twin.decoder_layers[:count]
    base: Any
    base, name = twin._stack
    setattr(base, name, first_decoder_layers)
    configs = (short.config, base.config, text_config(short))
    for config in {id(entry): entry for entry in configs}.values():
        config.num_hidden_layers = count
        if getattr(config, "layer_types", None) is not None:
            config.layer_types = config.layer_types[:count]
    twin.lora = lora
    names = sorted(set(text_weights(short)) - output_names(short))
    bypassed = bypassed_layers(short, model.model)
    lora.inject(short, lora.select(names), strict=lora.names_layers, bypassed=bypassed)
    return twin
