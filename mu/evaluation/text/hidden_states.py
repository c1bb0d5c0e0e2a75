"""Hidden states of a causal language model: layer outputs, probe features, logit lens.

The equations are in `mu.evaluation.text.probes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mu.backbones import CausalLM
from mu.backbones.language.decoder import decoder_stack
from mu.backbones.language.two_models import TwoModels
from mu.data.sequences import Pair, collate
from mu.functional.tokens import IGNORED
from mu.utils.errors import InputError
from mu.utils.modules import check_whole

_LOGITS_PER_STEP = 2**25
"""Logits of a layer that are computed in one step (128 MiB in single precision)."""
_TOLERANCE = 0.02
"""Share of the largest logit, because half precision rounds the lens and the model differently."""


def probed_model(backbone: Any) -> CausalLM:
    """Causal language model whose hidden states are probed; of two models, the base model.

    Raises:
        InputError: when the backbone is not a causal language model, or its weights are sharded.
    """
    while isinstance(backbone, TwoModels):
        backbone = backbone.base
    if not isinstance(backbone, CausalLM):
        raise InputError(
            f"probes read the layers of a causal language model, which {type(backbone).__name__} "
            "is not."
        )
    check_whole(backbone)
    return backbone


@torch.no_grad()
def layer_outputs(model: CausalLM, batch: dict[str, Tensor]) -> list[Tensor]:
    """Outputs `[B, T, D]` of the decoder layers before the final norm, in one forward pass."""
    outputs: list[Tensor] = []

    def append(layer: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_hook(append) for layer in model.decoder_layers]
    try:
        model.hidden(batch, -1)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


@torch.no_grad()
def fork_features(model: CausalLM, prompts: Sequence[list[int]], choices: Tensor) -> Tensor:
    """Probe features norm(h) ⊙ (u_a - u_b) of every layer at the last token of each prompt.

    `[B, layers, D]` in single precision, on the CPU.

    Args:
        model: the probed model.
        prompts: token ids, B lists.
        choices: `[B, 2]` int64, the tokens a and b.
    """
    norm, head = output_layers(model)
    batch = _batch(model, [(ids, [IGNORED] * len(ids)) for ids in prompts])
    device = batch["input_ids"].device
    rows = torch.arange(len(prompts), device=device)
    last = torch.tensor([len(ids) - 1 for ids in prompts], device=device)
    written = head.weight[choices.to(device)].float()  # type: ignore[index]
    gap = written[:, 0] - written[:, 1]
    return torch.stack(
        [norm(output[rows, last]).float() * gap for output in layer_outputs(model, batch)], 1
    ).cpu()


@torch.no_grad()
def logit_lens(model: CausalLM, pairs: Sequence[Pair], eos: int) -> dict[str, Tensor]:
    """Rank and probability of the true token at every labelled position but the end of sequence.

    Returns:
        On the CPU: `sequence` `[n]` int64, index of the pair of each token; `rank` `[n, layers]`
        int64; `probability` `[n, layers]`.
    """
    norm, head = output_layers(model)
    batch = _batch(model, pairs)
    labels = batch["labels"][:, 1:]
    scored = labels != IGNORED
    # position of the last label after the shift
    last = torch.tensor([len(ids) - 2 for ids, _ in pairs], device=labels.device)
    ended = torch.tensor([ids[-1] == eos for ids, _ in pairs], device=labels.device)
    scored[torch.arange(len(pairs), device=labels.device)[ended], last[ended]] = False
    targets = labels[scored]
    step = max(1, _LOGITS_PER_STEP // model.vocabulary)
    # rank the true token at each layer, some positions at a time
    ranks = []
    probabilities = []
    for output in layer_outputs(model, batch):
        chosen = output[:, :-1][scored]
        parts = [
            _rank_and_probability(
                head(norm(chosen[start : start + step])), targets[start : start + step]
            )
            for start in range(0, len(targets), step)
        ]
        ranks.append(torch.cat([rank for rank, _ in parts]) if parts else targets)
        probabilities.append(torch.cat([value for _, value in parts]) if parts else targets.float())
    return {
        "sequence": scored.nonzero()[:, 0].cpu(),
        "rank": torch.stack(ranks, 1).cpu(),
        "probability": torch.stack(probabilities, 1).cpu(),
    }


def output_layers(model: CausalLM) -> tuple[nn.Module, nn.Module]:
    """Final norm and output matrix of a model.

    Raises:
        InputError: when the model has not exactly one norm after its layers, or no output matrix.
    """
    network: Any = model.network
    module, layers = decoder_stack(network)
    children = list(module.named_children())
    norms = [child for _, child in children if "norm" in type(child).__name__.lower()]
    if len(norms) > 1:  # some norm the embeddings too
        after = [name for name, _ in children].index(layers)
        norms = [child for _, child in children[after:] if child in norms]
    head = network.get_output_embeddings()
    if len(norms) != 1 or head is None:
        raise InputError(
            "the logit lens needs one norm after the layers and an output matrix, and "
            f"{type(network).__name__} has {len(norms)} norms and {'no' if head is None else 'a'} "
            "matrix."
        )
    return norms[0], head


@torch.no_grad()
def check_lens(model: CausalLM, pair: Pair) -> None:
    """Check that the logit lens of the last layer equals the logits of the model.

    Raises:
        InputError: when the model caps or scales its logits.
    """
    norm, head = output_layers(model)
    batch = _batch(model, [pair])
    logits = model.predict(batch)
    lens = head(norm(layer_outputs(model, batch)[-1]))
    if (logits - lens).abs().max() > _TOLERANCE * logits.abs().max():
        raise InputError(
            f"{type(model.network).__name__} does more to its logits than a norm and a matrix, so "
            "the logit lens would show other numbers than the model; leave LogitLens out."
        )


def _batch(model: CausalLM, pairs: Sequence[Pair]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in collate(pairs).items()}


def _rank_and_probability(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Rank and probability of tokens `[n]` under logits `[n, V]`."""
    logits = logits.float()
    target_logits = logits.gather(1, targets[:, None])
    return (logits > target_logits).sum(1), (target_logits[:, 0] - logits.logsumexp(1)).exp()
