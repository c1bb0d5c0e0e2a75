"""Causal language models: any `AutoModelForCausalLM` of transformers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, cached_property
from math import nan
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from mu import functional
from mu.backbones.base import Backbone, WeightedSum, select_outputs
from mu.backbones.language.causality import bypassed_layers, check_causal
from mu.backbones.language.checkpoints import assign_checkpoint, load_network
from mu.backbones.language.decoder import cut_after, decoder_stack, text_config, text_weights
from mu.backbones.language.generation import TextGeneration
from mu.backbones.language.tokenizer import load_tokenizer
from mu.backbones.lora import LoRA, output_names
from mu.data.batch import Batch
from mu.functional.checks import at_least_float32
from mu.functional.tokens import IGNORED
from mu.utils.errors import InputError
from mu.utils.extras import require
from mu.utils.spec import init_args_of


class CausalLM(TextGeneration, Backbone):
    """Causal language model over a vocabulary of V tokens.

    A batch has `input_ids`, `attention_mask` and `labels` `[B, L]` (−100 is not learnt), padded on
    the right; the logits at position t − 1 predict label t, and the first label is never used.
    Padding is marked by the mask alone.

    Where a prediction is wider than the batch, it comes from one forward pass over a longer joint
    batch, and is cut to it.

    Args:
        model: folder of a transformers model, a hub id, or `embedded:NAME` for a model that comes
            with mu.
        weights: tensors that replace the model's: a run folder, a checkpoint, a safetensors file,
            another model's folder, or a folder of PEFT adapters, which are merged into the model
            unless `lora` has the same form and trains them on.
        part: which weights are trained: `full`, or regular expressions that are searched in their
            names (`layers\\.[5-7]\\.mlp`); of a model that reads images too, those of texts.
        lora: adapters in the linear layers of `part`, which is then itself frozen; those of `full`
            leave out the embeddings and the output matrix.
        dtype: `float32`, `bfloat16` or `float16` of the weights.
        attention: implementation of attention (`sdpa`, `eager`, `flash_attention_2`); None takes
            transformers' default for the model.
        gradient_checkpointing: less memory, more time.
        init_seed: begin with new weights of the same architecture, drawn from this seed.
        divergence_mask: over which positions `divergence` is taken: those that predict a `labels`
            token, all that `attention` sees, or `all` with padding, as the code of TOFU and
            OpenUnlearning does. The last two need the module's `reduction: micro`, because the plan
            counts labels.
        network: a live network of transformers, in place of `model`.
        tokenizer: tokenizer of `network`.
    """

    def __init__(
        self,
        model: str = "embedded:authors",
        weights: str | None = None,
        part: str | list[str] = "full",
        lora: LoRA | None = None,
        dtype: str = "float32",
        attention: str | None = None,
        gradient_checkpointing: bool = False,
        init_seed: int | None = None,
        divergence_mask: Literal["labels", "attention", "all"] = "labels",
        network: nn.Module | None = None,
        tokenizer: Any = None,
    ) -> None:
        require("CausalLM", "transformers", extra="llm")
        super().__init__()
        if divergence_mask not in ("labels", "attention", "all"):
            raise InputError(
                f"divergence_mask is {divergence_mask!r}; it is labels, attention or all."
            )
        self.model = model
        self.part = part
        self.divergence_mask = divergence_mask
        self.weights_metadata: dict[str, Any] = {}
        self._tokenizer = tokenizer
        self.network: nn.Module = (
            network if network is not None else load_network(model, dtype, attention, init_seed)
        )
        check_causal(self.network, model if network is None else type(network).__name__)
        if gradient_checkpointing:
            live: Any = self.network
            getattr(
                live, "activation_checkpointing_enable", live.gradient_checkpointing_enable
            )()  # its old name warns
        self._select([part] if isinstance(part, str) else list(part), lora)
        if network is None and init_seed is None:
            self.mark_base()
        if weights is not None:
            self.weights_metadata = assign_checkpoint(self, weights)

    # ---- building --------------------------------------------------------------------------------

    def _select(self, part: list[str], lora: LoRA | None) -> None:
        patterns = [".*" if pattern == "full" else pattern for pattern in part]
        try:
            chosen = [
                name
                for name in text_weights(self.network)
                if any(re.search(pattern, name) for pattern in patterns)
            ]
        except re.error as error:
            raise InputError(f"part {part} is not a regular expression ({error}).") from error
        if not chosen:
            examples = ", ".join(name for name, _ in list(self.network.named_parameters())[:3])
            raise InputError(
                f"part {part} names no weight of the model; names are like {examples}."
            )
        for name, weight in self.network.named_parameters():
            weight.requires_grad_(name in set(chosen))
        self.lora = lora
        if lora is not None:
            full = "full" in part
            names = set(chosen) - (output_names(self.network) if full else set())
            bypassed = bypassed_layers(self.network, self.model)
            strict = not full or lora.names_layers
            lora.inject(self.network, lora.select(sorted(names)), strict=strict, bypassed=bypassed)

    def fresh(self, seed: int) -> Self:
        """New model of the same architecture, with the same tokenizer."""
        arguments = init_args_of(self)
        first = next(self.parameters())
        # a test runs in inference mode, in which no causality can be measured
        with torch.inference_mode(False):
            if arguments.get("network") is not None:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    live: Any = type(self.network)(self.network.config)  # type: ignore[call-arg]
                twin = type(self)(**{**arguments, "network": live, "weights": None})
            else:
                twin = type(self)(**{**arguments, "weights": None, "init_seed": seed})
        return twin.to(device=first.device, dtype=first.dtype).train(self.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Deep copy with a shared tokenizer, which holds no weights."""
        memo[id(self._tokenizer)] = self._tokenizer
        return super().__deepcopy__(memo)

    @property
    def tokenizer(self) -> Any:
        """Tokenizer of the model's folder."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.model)
        return self._tokenizer

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.network.parameters()).dtype

    @property
    def vocabulary(self) -> int:
        """Size V of the vocabulary: rows of the output matrix."""
        return int(text_config(self.network).vocab_size)

    @property
    def context(self) -> int | None:
        """Largest number of tokens of a sequence, where the model limits it."""
        limit = getattr(text_config(self.network), "max_position_embeddings", None)
        return None if limit is None else int(limit)

    def check_task(self, task: Any) -> None:
        """Check that a task has texts of the model's tokenizer, of lengths within its context."""
        encoder = getattr(task, "encoder", None)
        if encoder is None:
            raise InputError(
                f"CausalLM reads token sequences, which {type(task).__name__} does not give; take "
                "a task of texts."
            )
        if len(encoder.tokenizer) > self.vocabulary:
            raise InputError(
                f"the tokenizer has {len(encoder.tokenizer)} tokens and the model {self.model} "
                f"{self.vocabulary}; they belong to two models."
            )
        if self.context is not None and encoder.max_length > self.context:
            raise InputError(
                f"max_length is {encoder.max_length}, but the context of {self.model} has "
                f"{self.context} places; give a max_length of at most that."
            )

    def shard(self, mesh: Any) -> None:
        """Shard by decoder layers, and the other weights as one group."""
        from torch.distributed.fsdp import fully_shard

        for layer in self.decoder_layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self.network, mesh=mesh)

    # ---- operations ------------------------------------------------------------------------------

    def predict(self, batch: Batch) -> Tensor:
        """Logits `[B, L, V]`; those at position t predict token t + 1."""
        return self.network(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits

    def token_logits(self, batch: Batch, prediction: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Shifted logits `[B, L−1, V]` and the labels `[B, L−1]` that they predict."""
        labels = batch["labels"]
        logits = self.predict(batch) if prediction is None else prediction
        return logits[:, : labels.shape[1] - 1], labels[:, 1:]

    def token_nll(self, batch: Batch, prediction: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of the labels `[B, L]` and its mask `[B, L]`, 0 at other tokens.

        Computed in single precision at least, at the labelled positions alone.
        """
        logits, labels = self.token_logits(batch, prediction)
        real = labels != IGNORED
        nll = functional.cross_entropy(at_least_float32(logits[real]), labels[real])
        padded_nll = torch.zeros(labels.shape, dtype=nll.dtype, device=nll.device).masked_scatter(
            real, nll
        )
        mask = real.to(nll.dtype)
        if "padded" in batch:
            keep = (~batch["padded"]).to(nll.dtype)[:, None]
            padded_nll = padded_nll * keep
            mask = mask * keep
        return nn.functional.pad(padded_nll, (1, 0)), nn.functional.pad(mask, (1, 0))

    def loss(self, batch: Batch, prediction: Tensor | None = None) -> WeightedSum:
        """Summed negative log-likelihood of the labelled tokens, in nats, and their number."""
        nll, mask = self.token_nll(batch, prediction)
        return nll.sum(1), mask.sum(1)

    def divergence(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float = 1.0
    ) -> WeightedSum:
        """T² KL(teacher ‖ student) summed over `divergence_mask`, and the number of positions."""
        width = batch["labels"].shape[1]
        if self.divergence_mask == "labels":
            mask = nn.functional.pad(batch["labels"][:, 1:] != IGNORED, (0, 1))
        elif self.divergence_mask == "attention":
            mask = batch["attention_mask"].bool()
        else:
            mask = torch.ones_like(batch["attention_mask"], dtype=torch.bool)
        student_logits, teacher_logits = (logits[:, :width][mask] for logits in (student, teacher))
        values = functional.kl_divergence(
            at_least_float32(student_logits), at_least_float32(teacher_logits), temperature
        )
        summed = (
            torch.zeros(mask.shape, dtype=values.dtype, device=values.device)
            .masked_scatter(mask, values)
            .sum(1)
        )
        return self.count(batch, summed, mask.sum(1).to(values.dtype))

    def substitute_loss(
        self, batch: Batch, target: Any = None, prediction: Tensor | None = None
    ) -> WeightedSum:
        """Loss of the substitute answer: the nested part `substitute`, or `target`.

        `prediction` covers the tokens of the batch only, so it is not used.
        """
        part = batch["substitute"] if target is None else target
        padded = {"padded": batch["padded"]} if "padded" in batch else {}
        return self.loss({**part, **padded})

    def outputs(
        self, batch: Batch, names: Iterable[str], prediction: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Outputs: `nll` [B] (summed), `tokens` [B], `mean_nll` [B]."""
        once = cache(lambda: self.loss(batch, prediction))  # computed only on request
        available = {
            "nll": lambda: once()[0],
            "tokens": lambda: once()[1],
            "mean_nll": lambda: once()[0] / once()[1].clamp_min(1),
        }
        return select_outputs(available, names, "a language model")

    def scores(self, batch: Batch, prediction: Tensor | None = None) -> dict[str, Tensor]:
        """Scores: `loss`, mean token loss of answers, and `accuracy`, share of argmax tokens."""
        logits = self.predict(batch) if prediction is None else prediction
        summed, count = self.loss(batch, logits)
        shifted, labels = self.token_logits(batch, logits)
        hits = ((shifted.argmax(-1) == labels) & (labels != IGNORED)).sum(1)
        loss = summed / count.clamp_min(1)
        # the largest of NaN is the first token, which is no choice
        accuracy = (hits / count.clamp_min(1)).masked_fill(loss.isnan(), nan)
        return {"loss": loss, "accuracy": accuracy}

    # ---- decoder layers --------------------------------------------------------------------------

    @cached_property
    def _stack(self) -> tuple[nn.Module, str]:
        """Module that contains the decoder layers, and the name of their list."""
        return decoder_stack(self.network)

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """Decoder layers, in their order."""
        layers: Any = getattr(*self._stack)
        return layers

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return len(self.decoder_layers)

    def hidden(self, batch: Batch, layer: int) -> Tensor:
        """Output `[B, L, D]` of decoder layer `layer`, without computing later layers.

        Layers are counted from 0; negative numbers count from the end.

        Raises:
            InputError: when there is no such layer.
        """
        index = layer + self.layers if layer < 0 else layer
        if not 0 <= index < self.layers:
            raise InputError(f"there is no layer {layer}; the model has {self.layers}.")
        outputs: list[Any] = []
        with cut_after(self.network, self._stack, index + 1):
            hook = self.decoder_layers[index].register_forward_hook(
                lambda *given: outputs.append(given[2])
            )
            try:
                self.predict(batch)
            finally:
                hook.remove()
        return outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
