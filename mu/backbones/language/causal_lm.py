"""Causal language models: any `AutoModelForCausalLM` of transformers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from mu import functional
from mu.backbones.base import Backbone, WeightedSum, pick
from mu.backbones.language.sampling import Sampling
from mu.backbones.language.tokenizer import load_tokenizer, model_folder
from mu.backbones.lora import LoRA
from mu.data.batch import Batch
from mu.functional.tokens import IGNORED
from mu.utils.errors import InputError
from mu.utils.extras import require
from mu.utils.hub import reading
from mu.utils.spec import init_args_of


class CausalLM(Backbone):
    """A causal language model over a vocabulary of V tokens.

    A batch has `input_ids`, `attention_mask` and `labels` `[B, L]` (−100 is not learnt), padded on
    the right; the logits at position t − 1 predict label t, and the first label is never used. What
    is padding is said by the mask alone.

    Where a prediction is wider than the batch, it comes from one forward pass over a longer joint
    batch, and is cut to it.

    Args:
        model: folder of a transformers model, a hub id, or `embedded:NAME` for a model that comes
            with mu.
        weights: tensors that replace the model's: a run folder, a checkpoint, a safetensors file,
            another model's folder, or a folder of PEFT adapters (with `lora`).
        part: which weights are trained: `full`, or regular expressions that are looked for in their
            names (`layers\\.[5-7]\\.mlp`).
        lora: adapters in the linear layers of `part`, which is then itself frozen.
        dtype: `float32`, `bfloat16` or `float16` of the weights.
        attention: implementation of attention (`sdpa`, `eager`, `flash_attention_2`); None leaves
            it to transformers.
        gradient_checkpointing: less memory, more time.
        init_seed: begin with new weights of the same architecture, drawn from this seed.
        divergence_mask: over which positions `divergence` is taken: those that predict a `labels`
            token, all that `attention` sees, or `all` with padding, as the code of TOFU and
            OpenUnlearning does. The last two need the module's `reduction: micro`, because the plan
            counts labels.
        network: a live network of transformers, in place of `model`.
        tokenizer: with `network`, its tokenizer.
    """

    def __init__(
        self,
        model: str = "embedded:authors",
        weights: str | None = None,
        part: str | list[str] = "full",
        lora: LoRA | None = None,
        dtype: str = "float32",
        attention: str | None = "sdpa",
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
            network if network is not None else _load(model, dtype, attention, init_seed)
        )
        if gradient_checkpointing:
            live: Any = self.network
            getattr(
                live, "activation_checkpointing_enable", live.gradient_checkpointing_enable
            )()  # its old name warns
        self._select([part] if isinstance(part, str) else list(part), lora)
        if weights is not None:
            self._assign(weights)

    # ---- building --------------------------------------------------------------------------------

    def _select(self, part: list[str], lora: LoRA | None) -> None:
        patterns = [".*" if pattern == "full" else pattern for pattern in part]
        try:
            chosen = [
                name
                for name, _ in self.network.named_parameters()
                if any(re.search(pattern, name) for pattern in patterns)
            ]
        except re.error as error:
            raise InputError(f"part {part} is not a regular expression ({error}).") from error
        if not chosen:
            some = ", ".join(name for name, _ in list(self.network.named_parameters())[:3])
            raise InputError(f"part {part} names no weight of the model; names are like {some}.")
        for name, weight in self.network.named_parameters():
            weight.requires_grad_(name in set(chosen))
        self.lora = lora
        if lora is not None:
            lora.inject(self.network, [name for name in chosen if name not in ("lm_head.weight",)])

    def _assign(self, weights: str) -> None:
        from mu.utils.weights import load_weights

        place = Path(weights)
        if (place / "adapter_config.json").is_file():
            from mu.backbones.lora import load_adapter

            return load_adapter(self, place)
        if (place / "config.json").is_file() and not (place / "checkpoints").is_dir():
            tensors: Mapping[str, Tensor] = _load(
                weights, str(self.dtype).removeprefix("torch."), None, None
            ).state_dict()
        else:
            tensors, self.weights_metadata = load_weights(weights)
        own = self.network.state_dict()
        if self.lora is not None:  # a layer with an adapter keeps its own weights one level deeper
            deeper = {name.replace(".base_layer.", "."): name for name in own}
            tensors = {deeper.get(name, name): value for name, value in tensors.items()}
        tensors = {
            f"model.{name}" if name not in own and f"model.{name}" in own else name: value
            for name, value in tensors.items()
        }
        unknown = sorted(set(tensors) - set(own))
        # a matrix that serves as embedding and as output stands in a file once, under either name
        held = {own[name].data_ptr() for name in tensors if name in own}
        absent = [
            name
            for name, value in own.items()
            if name not in tensors and value.data_ptr() not in held and ".lora_" not in name
        ]
        if unknown or absent:
            fault = (
                f"has {unknown[0]}, which the model has not" if unknown else f"lacks {absent[0]}"
            )
            raise InputError(
                f"{weights} does not fit {self.model}: it {fault}; it was saved for another model "
                "or with other adapters."
            )
        misshaped = next(
            (name for name, value in tensors.items() if own[name].shape != value.shape), None
        )
        if misshaped is not None:
            raise InputError(
                f"{weights} holds {misshaped} of shape {list(tensors[misshaped].shape)} where "
                f"{self.model} has {list(own[misshaped].shape)}; it was saved for another model."
            )
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)

    def fresh(self, seed: int) -> Self:
        """The same architecture with new weights; the tokenizer stays."""
        arguments = init_args_of(self)
        first = next(self.parameters())
        if arguments.get("network") is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                live: Any = type(self.network)(self.network.config)  # type: ignore[call-arg]
            twin = type(self)(**{**arguments, "network": live, "weights": None})
        else:
            twin = type(self)(**{**arguments, "weights": None, "init_seed": seed})
        return twin.to(device=first.device, dtype=first.dtype).train(self.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """The tokenizer is shared: it holds no weights."""
        memo[id(self._tokenizer)] = self._tokenizer
        return super().__deepcopy__(memo)

    @property
    def tokenizer(self) -> Any:
        """Of the model's folder."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.model)
        return self._tokenizer

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.network.parameters()).dtype

    @property
    def vocabulary(self) -> int:
        """V, rows of the output matrix."""
        return int(self.network.config.vocab_size)  # type: ignore[union-attr]

    @property
    def context(self) -> int | None:
        """Places of a sequence, where the model limits them."""
        limit = getattr(self.network.config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    def check_task(self, task: Any) -> None:
        """Refuse a task without texts, a tokenizer that is not this model's, and sequences that are
        longer than its context.
        """
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
        """By decoder layers, and what is left as one group."""
        from torch.distributed.fsdp import fully_shard

        for layer in getattr(*self._stack):
            fully_shard(layer, mesh=mesh)
        fully_shard(self.network, mesh=mesh)

    # ---- operations ------------------------------------------------------------------------------

    def predict(self, batch: Batch) -> Tensor:
        """Logits `[B, L, V]`; those at position t predict token t + 1."""
        return self.network(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits

    def token_logits(self, batch: Batch, prediction: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The shifted pair: logits `[B, L−1, V]` and the labels `[B, L−1]` that they predict (−100
        is not learnt).
        """
        labels = batch["labels"]
        logits = self.predict(batch) if prediction is None else prediction
        return logits[:, : labels.shape[1] - 1], labels[:, 1:]

    def token_nll(self, batch: Batch, prediction: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """−log p(label t | before) `[B, L]` and its mask `[B, L]`, both 0 where nothing is learnt,
        and at the first place.

        Computed in single precision at least, at the labelled places alone.
        """
        logits, labels = self.token_logits(batch, prediction)
        real = labels != IGNORED
        nll = functional.cross_entropy(_precise(logits[real]), labels[real])
        found = torch.zeros(labels.shape, dtype=nll.dtype, device=nll.device).masked_scatter(
            real, nll
        )
        mask = real.to(nll.dtype)
        if "padded" in batch:
            keep = (~batch["padded"]).to(nll.dtype)[:, None]
            found = found * keep
            mask = mask * keep
        return nn.functional.pad(found, (1, 0)), nn.functional.pad(mask, (1, 0))

    def loss(self, batch: Batch, prediction: Tensor | None = None) -> WeightedSum:
        """Summed negative log-likelihood of the labelled tokens, in nats, and their number."""
        nll, mask = self.token_nll(batch, prediction)
        return nll.sum(1), mask.sum(1)

    def divergence(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float = 1.0
    ) -> WeightedSum:
        """T² KL(teacher ‖ student), summed over positions, and their number; see
        `divergence_mask`.
        """
        width = batch["labels"].shape[1]
        if self.divergence_mask == "labels":
            chosen = nn.functional.pad(batch["labels"][:, 1:] != IGNORED, (0, 1))
        elif self.divergence_mask == "attention":
            chosen = batch["attention_mask"].bool()
        else:
            chosen = torch.ones_like(batch["attention_mask"], dtype=torch.bool)
        given, wanted = (logits[:, :width][chosen] for logits in (student, teacher))
        values = functional.kl_divergence(_precise(given), _precise(wanted), temperature)
        summed = (
            torch.zeros(chosen.shape, dtype=values.dtype, device=values.device)
            .masked_scatter(chosen, values)
            .sum(1)
        )
        return self.count(batch, summed, chosen.sum(1).to(values.dtype))

    def substitute_loss(
        self, batch: Batch, target: Any = None, prediction: Tensor | None = None
    ) -> WeightedSum:
        """As `loss`, of the substitute answer: the nested part `substitute`, or `target`, a part of
        the same form.

        A prediction of the batch itself says nothing about other tokens, so it is not used.
        """
        part = batch["substitute"] if target is None else target
        padded = {"padded": batch["padded"]} if "padded" in batch else {}
        return self.loss({**part, **padded})

    def outputs(
        self, batch: Batch, names: Iterable[str], prediction: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`nll` [B] (summed), `tokens` [B], `mean_nll` [B]."""
        once = cache(lambda: self.loss(batch, prediction))  # not at all where nothing is asked
        known = {
            "nll": lambda: once()[0],
            "tokens": lambda: once()[1],
            "mean_nll": lambda: once()[0] / once()[1].clamp_min(1),
        }
        return pick(known, names, "a language model")

    def scores(self, batch: Batch, prediction: Tensor | None = None) -> dict[str, Tensor]:
        """`loss`, the mean over an answer's tokens, and `accuracy`, the share of its tokens that
        are the likeliest.
        """
        logits = self.predict(batch) if prediction is None else prediction
        summed, count = self.loss(batch, logits)
        shifted, labels = self.token_logits(batch, logits)
        hits = ((shifted.argmax(-1) == labels) & (labels != IGNORED)).sum(1)
        return {"loss": summed / count.clamp_min(1), "accuracy": hits / count.clamp_min(1)}

    # ---- inside ----------------------------------------------------------------------------------

    @cached_property
    def _stack(self) -> tuple[Any, str]:
        """The module that holds the decoder layers, and the name of their list."""
        base: Any = self.network.base_model
        count = self.network.config.num_hidden_layers  # type: ignore[union-attr]
        for name, child in base.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return base, name
        raise InputError(
            f"{type(self.network).__name__} has no list of {count} decoder layers, so nothing can "
            "stop at one of them."
        )

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """The decoder layers, in their order."""
        return getattr(*self._stack)

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return len(self.decoder_layers)

    def hidden(self, batch: Batch, layer: int) -> Tensor:
        """Output `[B, L, D]` of decoder layer `layer` (0-based; negative from the end); the layers
        after it are not computed.

        Raises:
            InputError: when there is no such layer.
        """
        place = layer + self.layers if layer < 0 else layer
        if not 0 <= place < self.layers:
            raise InputError(f"there is no layer {layer}; the model has {self.layers}.")
        seen: list[Any] = []
        with self._first(place + 1):
            hook = self.decoder_layers[place].register_forward_hook(
                lambda *given: seen.append(given[2])
            )
            try:
                self.predict(batch)
            finally:
                hook.remove()
        return seen[0][0] if isinstance(seen[0], tuple) else seen[0]

    @contextmanager
    def _first(self, count: int) -> Iterator[None]:
        """The network with its first layers alone and without its output matrix; still called as a
        whole, which FSDP's hooks need.
        """
        base, name = self._stack
        network: Any = self.network
        every = getattr(base, name)
        output = network.get_output_embeddings()
        setattr(base, name, every[:count])
        network.set_output_embeddings(nn.Identity())
        try:
            yield
        finally:
            setattr(base, name, every)
            network.set_output_embeddings(output)

    # ---- generation ------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        ids: Sequence[Sequence[int]],
        max_new_tokens: int = 200,
        stop: Sequence[str] = (),
        batch_size: int = 32,
        sampling: Sampling | None = None,
    ) -> list[str]:
        """Continuations of prompts, as text, without the prompt and cut at the first stop string.

        Args:
            ids: token ids of each prompt.
            max_new_tokens: at most.
            stop: strings at which an answer ends; they are cut off.
            batch_size: prompts at a time, of similar length, padded on the left.
            sampling: how tokens are drawn; None takes the likeliest.
        """
        from transformers import GenerationConfig

        network: Any = self.network
        eos = self.tokenizer.eos_token_id
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos,
            pad_token_id=eos,
            stop_strings=list(stop) or None,
        )
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        found = [""] * len(ids)
        device = next(network.parameters()).device
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            tokens, mask = left_padded([ids[place] for place in places], eos, device)
            made = network.generate(
                input_ids=tokens,
                attention_mask=mask,
                generation_config=config,
                logits_processor=sampling.processor(places, tokens.shape[1]) if sampling else None,
                **({"tokenizer": self.tokenizer} if stop else {}),
            )
            for place, row in zip(places, made[:, tokens.shape[1] :].tolist(), strict=True):
                found[place] = self.finished(row, stop)
        return found

    def finished(self, row: Sequence[int], stop: Sequence[str] = ()) -> str:
        """Text of generated token ids, up to the end-of-sequence token or a stop string."""
        eos = self.tokenizer.eos_token_id
        kept = list(row[: row.index(eos)]) if eos in row else list(row)
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return text[: min((text.find(mark) for mark in stop if mark in text), default=len(text))]


def _precise(logits: Tensor) -> Tensor:
    """In single precision at least."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def left_padded(
    ids: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Prompts of unequal lengths `[B, L]`, padded on the left, and their mask."""
    width = max(len(row) for row in ids)
    tokens = torch.full((len(ids), width), pad, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for place, row in enumerate(ids):
        tokens[place, width - len(row) :] = torch.as_tensor(list(row))
        mask[place, width - len(row) :] = 1
    return tokens.to(device), mask.to(device)


def _load(model: str, dtype: str, attention: str | None, init_seed: int | None) -> nn.Module:
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    transformers.utils.logging.disable_progress_bar()
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise InputError(f"there is no dtype {dtype!r}; float32, bfloat16 and float16 are some.")
    place = model_folder(model)
    if Path(place).is_dir() and not (Path(place) / "config.json").is_file():
        raise InputError(
            f"the folder {model} has no config.json, so it is not a transformers model; write one "
            "with save_pretrained."
        )
    given = {"dtype": kind, **({"attn_implementation": attention} if attention else {})}
    with reading("the model", place, ImportError, RuntimeError):
        if init_seed is None:
            return AutoModelForCausalLM.from_pretrained(place, **given)
        config = AutoConfig.from_pretrained(place)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(init_seed)
            return AutoModelForCausalLM.from_config(config, **given)
