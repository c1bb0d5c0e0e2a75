"""Checks of a language model by one forward pass: causality, and layers that are never called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mu.utils.errors import InputError

_LENGTH = 6
"""Tokens of the sequence on which causality is measured."""


def check_causal(network: nn.Module, source: str) -> None:
    """Check that a language model's logits depend on no later token.

    The gradient of the logits at positions 0..L-2 with respect to the embedding of token L-1 is
    exactly zero where attention is causal, in every precision. An encoder such as BERT predicts
    each token from itself, so its losses as a causal model would mean nothing.

    Args:
        network: a language model of transformers, on a device that computes.
        source: the model, for messages.

    Raises:
        InputError: the gradient is not zero, or the network returns no logits for token ids.
    """
    gradient = later_token_gradient(network, source)
    if gradient is not None and bool((gradient != 0).any()):
        raise InputError(
            f"{source} is no causal language model: {type(network).__name__} sees the tokens that "
            "it would have to predict; take a model that generates text, such as Llama or Qwen."
        )


def later_token_gradient(network: nn.Module, source: str) -> Tensor | None:
    """Gradient `[D]` of all earlier logits with respect to the last token's embedding.

    Returns:
        The gradient; None where it cannot be computed (weights without values, or not finite).

    Raises:
        InputError: the network returns no logits for token ids.
    """
    model: Any = network
    embedding: nn.Module = model.get_input_embeddings()
    weight = next(embedding.parameters())
    if weight.is_meta or not bool(torch.isfinite(weight.sum())):
        return None
    embedded: list[Tensor] = []

    def detach(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = embedding.register_forward_hook(detach)
    devices = [weight.device] if weight.is_cuda else []
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad(), _computable(model):
            logits = _logits(model, source)
            (gradient,) = torch.autograd.grad(
                logits[:, :-1].float().sum(), embedded[:1], allow_unused=True
            )
    finally:
        hook.remove()
    return None if gradient is None else gradient[0, -1]


def bypassed_layers(network: nn.Module, source: str) -> set[str]:
    """Linear layers and convolutions whose weights are read without a call of the layer.

    An adapter of such a layer would have no effect (`dt_proj` of Mamba). Of experts that are
    modules, it is enough that one is called.

    Args:
        network: a language model of transformers, on a device that computes.
        source: the model, for messages.
    """
    if next(network.parameters()).is_meta:
        return set()
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if any(True for _ in layer.parameters(recurse=False)) and not list(layer.children())
    }
    called: set[str] = set()
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, layer in layers.items()
    ]
    device = next(network.parameters()).device
    try:
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad(), _computable(network):
            _logits(network, source)
    finally:
        for hook in hooks:
            hook.remove()

    def position(name: str) -> tuple[type, str]:
        parent, _, child = name.rpartition(".")
        return type(network.get_submodule(parent)), child

    called_positions = {position(name) for name in called}
    return {name for name in layers if position(name) not in called_positions}


@contextmanager
def _computable(model: Any) -> Iterator[None]:
    """Context with eager attention in place of flash attention, which needs a GPU."""
    name = getattr(model.config, "_attn_implementation", None) or ""
    if not name.startswith("flash"):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(name)


def _logits(model: Any, source: str) -> Tensor:
    weight = next(model.get_input_embeddings().parameters())
    vocabulary = weight.shape[0]
    tokens = torch.arange(_LENGTH, device=weight.device)[None] * max(vocabulary // 7, 1)
    tokens = tokens % vocabulary
    try:
        output = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"{source} computes no logits from token ids ({reason}); take a causal language model "
            "whose config.json is its own."
        ) from error
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.dim() != 3:
        raise InputError(
            f"{source} is a {type(model).__name__}, which returns no logits of tokens; take a "
            "causal language model, such as Llama or Qwen."
        )
    return logits
