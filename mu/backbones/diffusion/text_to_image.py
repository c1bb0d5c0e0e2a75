"""Text-to-image latent diffusion: a Stable Diffusion pipeline of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from mu.backbones.diffusion.base import Diffusion
from mu.backbones.diffusion.conditions import Condition
from mu.backbones.diffusion.pipeline_parts import components_of, load_components
from mu.backbones.diffusion.posteriors import Posteriors
from mu.backbones.diffusion.sampler import Sampler
from mu.backbones.diffusion.schedulers import scheduler_settings
from mu.backbones.diffusion.text_encoder import TextStates, TokenIds, hidden_states
from mu.backbones.diffusion.trained_parts import trained_names
from mu.backbones.diffusion.weight_files import assign_file
from mu.backbones.lora import LoRA, base_name
from mu.data.batch import Batch
from mu.utils.errors import InputError
from mu.utils.extras import require
from mu.utils.spec import init_args_of


class TextToImage(Diffusion):
    """Text-to-image latent diffusion model: Stable Diffusion 1.x or 2.x.

    Samples have `prompt` (list of B strings), and optionally `concept` (the words in the prompt
    that are to be erased), `substitute` (the anchor prompt) and `image` `[B, 3, H, W]` in [0, 1].

    Args:
        model: folder of a diffusers pipeline, a hub id, or `embedded:NAME` for a model that comes
            with mu.
        part: which weights are trained (see `mu.backbones.diffusion.trained_parts.trained_names`);
            everything else is frozen. The image encoder always is.
        weights: tensors that replace the model's: a run folder, a checkpoint, a file of edited
            tensors (`unet....`, or a UNet's own names as ESD saves them), a checkpoint in CompVis'
            names; or a file of adapters, which are merged where there is no `lora`.
        lora: adapters in the linear and convolution layers of `part`, which is then itself frozen.
        init_seed: begin with new weights of UNet and text encoder, drawn from this seed; the image
            encoder keeps its own.
        sampler: sampler of images; None takes DDIM with 50 steps and guidance 7.5.
        condition_dropout: share of training samples with the empty prompt.
        min_snr_gamma: see Diffusion.
        reduction: see Diffusion.
        dtype: `float32`, `bfloat16` or `float16` of the weights.
        gradient_checkpointing: checkpoint UNet and text encoder: less memory, more time.
        height: height of images in pixels; None takes that of the model.
        width: width of images, likewise.
        pipeline: a live `StableDiffusionPipeline`, in place of `model`.
    """

    samples_posterior = True
    scheduler_overrides: Mapping[str, Any] = {"steps_offset": 1, "clip_sample": False}

    def __init__(
        self,
        model: str = "embedded:shapes",
        part: str = "full",
        weights: str | None = None,
        lora: LoRA | None = None,
        init_seed: int | None = None,
        sampler: Sampler | None = None,
        condition_dropout: float = 0.0,
        min_snr_gamma: float | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        dtype: str = "float32",
        gradient_checkpointing: bool = False,
        height: int | None = None,
        width: int | None = None,
        pipeline: Any = None,
    ) -> None:
        require("TextToImage", "diffusers", "transformers", extra="diffusion")
        components = (
            components_of(pipeline) if pipeline is not None else load_components(model, dtype)
        )
        super().__init__(
            scheduler_settings(components["scheduler"]),
            sampler,
            reduction,
            condition_dropout,
            min_snr_gamma,
        )
        self.model = model
        self.part = part
        self.tokenizer = components["tokenizer"]
        self.unet: nn.Module = components["unet"]
        self.text_encoder: nn.Module = components["text_encoder"]
        self.vae: nn.Module = components["vae"]
        if init_seed is not None:
            self._renew(init_seed)
        config: Any = self.unet.config
        scale = 2 ** (len(self.vae.config.block_out_channels) - 1)  # type: ignore[union-attr]
        latent_size = (
            config.sample_size
            if isinstance(config.sample_size, list | tuple)
            else (config.sample_size, config.sample_size)
        )
        self.sample_shape = (
            config.in_channels,
            height // scale if height else latent_size[0],
            width // scale if width else latent_size[1],
        )
        self._states = TextStates()
        self._posteriors = Posteriors()
        self._token_ids = TokenIds(self.tokenizer, self.length)
        self._check_vocabulary()
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()  # type: ignore[operator]
            self.text_encoder.gradient_checkpointing_enable()  # type: ignore[operator]
        self._select(part, lora)
        if pipeline is None:
            self.mark_base("" if init_seed is None else "vae.")
        if weights is not None:
            assign_file(self, weights)

    # ---- building --------------------------------------------------------------------------------

    def _select(self, part: str, lora: LoRA | None) -> None:
        names = [name for name, _ in self.named_parameters()]
        chosen = trained_names(names, part)
        for name, weight in self.named_parameters():
            weight.requires_grad_(name in chosen)
        self.lora = lora
        if lora is not None:
            targets = set(lora.select(name.partition(".")[2] for name in sorted(chosen)))
            for component in ("unet", "text_encoder"):
                inside = [
                    name.removeprefix(f"{component}.")
                    for name in chosen
                    if name.startswith(f"{component}.")
                ]
                adapted = [name for name in inside if name in targets]
                if adapted:
                    lora.inject(getattr(self, component), adapted, strict=lora.names_layers)
                else:
                    getattr(self, component).requires_grad_(False)

    def _renew(self, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for component in ("unet", "text_encoder"):
                old: Any = getattr(self, component)
                new = (
                    type(old).from_config(old.config)
                    if component == "unet"
                    else type(old)(old.config)
                )
                setattr(self, component, new.to(dtype=old.dtype))

    def base_hash(self) -> str:
        """Hash of UNet and text encoder without adapters, to match edited tensors to their base."""
        from mu.utils.weights import weights_hash

        return weights_hash(
            {
                base_name(name): value
                for name, value in self.state_dict().items()
                if not name.startswith("vae.") and ".lora_" not in name
            }
        )

    def fresh(self, seed: int) -> Self:
        """New UNet and text encoder of the same architecture, same image encoder and tokenizer."""
        arguments = init_args_of(self)
        twin = type(self)(**{**arguments, "weights": None, "init_seed": seed})
        return twin.to(device=self.alphas_cumprod.device).train(self.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Deep copy with a shared tokenizer.

        It holds no weights, and a deep copy of CLIPTokenizer decodes with `</w>` in the text.
        """
        memo[id(self.tokenizer)] = self.tokenizer
        memo[id(self._token_ids)] = self._token_ids
        return super().__deepcopy__(memo)

    def _check_vocabulary(self) -> None:
        rows, words = self.text_encoder.get_input_embeddings().num_embeddings, len(self.tokenizer)  # type: ignore[operator]
        if words > rows:
            raise InputError(
                f"the tokenizer of {self.model} has {words} tokens and its text encoder {rows}; "
                "they belong to two models."
            )

    # ---- text ------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        """Number L of token positions, start and end included."""
        limit = int(self.text_encoder.config.max_position_embeddings)  # type: ignore[union-attr]
        return min(int(self.tokenizer.model_max_length), limit)

    def check_task(self, task: Any) -> None:
        """Check that the encoder reads the concept of every prompt to forget.

        Raises:
            InputError: as `tokenise`.
        """
        data = getattr(task, "datasets", {}).get("forget")
        texts = getattr(data, "texts", {})
        if "prompt" in texts and "concept" in texts:
            self.tokenise(texts["prompt"], texts["concept"])

    def tokenise(
        self, prompts: Sequence[str], concepts: Sequence[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Token ids `[B, L]` of prompts, and token spans `[start, end)` of concepts, `[B, 2]`.

        The span of an empty concept is (0, 0). A prompt that is too long is cut, as in diffusers'
        pipelines, with a warning.

        Raises:
            InputError: when a concept has no token, or is not in its prompt (as far as the
                encoder reads it).
        """
        ids = torch.tensor(
            self._token_ids.tokenise(prompts), dtype=torch.int64, device=self.alphas_cumprod.device
        ).view(-1, self.length)
        spans = [(0, 0)] * len(ids)
        if concepts is not None:
            spans = [
                self._token_ids.span(prompt, concept)
                for prompt, concept in zip(prompts, concepts, strict=True)
            ]
        return ids, torch.tensor(spans, dtype=torch.int64, device=ids.device).view(-1, 2)

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings `[B, L, D]`, before positions are added."""
        return self.text_encoder.get_input_embeddings()(ids)  # type: ignore[operator]

    def encode_text(
        self, ids: Tensor, tokens: Tensor | None = None, span: Tensor | None = None
    ) -> Condition:
        """Conditions of token ids `[B, L]`.

        Args:
            ids: token ids; with `tokens` they only mark the end of the text.
            tokens: token embeddings `[B, L, D]` to read in place of the ids' own; gradients flow
                back to them.
            span: token spans of the concepts, passed on.
        """
        if tokens is not None:
            return Condition(hidden_states(self.text_encoder, ids, tokens), ids, tokens, span)
        return Condition(self._states.encode(self.text_encoder, ids), ids, None, span)

    def texts(self, prompts: Sequence[str], concepts: Sequence[str] | None = None) -> Condition:
        """Conditions of prompts."""
        ids, span = self.tokenise(prompts, concepts)
        return self.encode_text(ids, span=span)

    def null(self, count: int) -> Condition:
        """Conditions of the empty prompt, `count` times."""
        empty_prompt = self.texts([""])
        return Condition(
            empty_prompt.states.expand(count, -1, -1),
            None if empty_prompt.ids is None else empty_prompt.ids.expand(count, -1),
            None,
            torch.zeros(count, 2, dtype=torch.int64, device=empty_prompt.states.device),
        )

    def condition(self, batch: Batch) -> Condition:
        """Conditions of the samples' prompts, of the empty prompt where `dropped`."""
        states = self.encode_text(self._ids(batch), span=batch.get("span"))
        return (
            states.where(~batch["dropped"], self.null(len(states)))
            if "dropped" in batch
            else states
        )

    def substitute_condition(self, batch: Batch, target: Any = None) -> Condition:
        """Conditions of the anchor prompts: ids `[B, L]`, or strings."""
        chosen = batch.get("substitute") if target is None else target
        if chosen is None:
            raise InputError(
                "the method needs substitute prompts, and the task gives none; give the task an "
                "anchor."
            )
        return self.encode_text(chosen if isinstance(chosen, Tensor) else self.tokenise(chosen)[0])

    @staticmethod
    def _ids(batch: Batch) -> Tensor:
        if "input_ids" not in batch:
            raise InputError(
                "a text-to-image model reads samples with a `prompt`, which the task does not give."
            )
        return batch["input_ids"]

    # ---- images and the denoiser -----------------------------------------------------------------

    def prepare(self, batch: Batch, seed: int) -> dict[str, Any]:
        """Batch of `Diffusion.prepare` with token ids of prompts and substitutes.

        A trained text encoder encodes them in `predict`.
        """
        part = super().prepare(batch, seed)
        if isinstance(part.get("prompt"), list):
            part["input_ids"], part["span"] = self.tokenise(part["prompt"], part.get("concept"))
        if isinstance(part.get("substitute"), list):
            part["substitute"] = self.tokenise(part["substitute"])[0]
        return part

    def denoise(self, noised: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Output `[B, 4, h, w]` of the UNet."""
        added = {"added_cond_kwargs": dict(condition.added)} if condition.added else {}
        return self.unet(
            noised, t, encoder_hidden_states=condition.states, return_dict=False, **added
        )[0]

    @torch.no_grad()
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents, scaled as the UNet expects them."""
        vae: Any = self.vae
        mean, deviation = self._posteriors.encode(vae, images)
        latent = mean if noise is None else mean + deviation * noise.to(mean.dtype)
        return (
            latent - (getattr(vae.config, "shift_factor", None) or 0.0)
        ) * vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Images in [0, 1]."""
        vae: Any = self.vae
        latents = latents.to(next(vae.parameters()).dtype) / vae.config.scaling_factor + (
            getattr(vae.config, "shift_factor", None) or 0.0
        )
        return (vae.decode(latents, return_dict=False)[0] / 2 + 0.5).clamp(0, 1)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the UNet's weights."""
        return next(self.unet.parameters()).dtype

    def generate_prompts(
        self, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler | None = None
    ) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] of prompts."""
        with torch.no_grad():
            return self.generate(self.texts(prompts), seeds, sampler)

    def pipeline(self) -> Any:
        """`StableDiffusionPipeline` of diffusers with the same components, not copied."""
        from diffusers import StableDiffusionPipeline

        parts: dict[str, Any] = {
            "unet": self.unet,
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "safety_checker": None,
            "feature_extractor": None,
        }
        return StableDiffusionPipeline(
            **parts,
            tokenizer=self.tokenizer,
            scheduler=self.sampler.make(self),
            requires_safety_checker=False,
        )
