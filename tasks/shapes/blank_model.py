"""Untrained text-to-image model of the shapes task: small components of Stable Diffusion.

    python -m tasks.shapes.blank_model runs/shapes_blank [--autoencoder runs/shapes_autoencoder]

writes a folder that `mu.backbones.TextToImage` and diffusers'
`StableDiffusionPipeline.from_pretrained` read. Its autoencoder, text encoder and network then are
trained by the configs `shapes_autoencoder.yaml` and `shapes_pretrain.yaml`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from mu.utils.errors import InputError
from mu.utils.rng import integers, uniform
from tasks.shapes.words import DRAWS, MAX_WORDS, WORDS, Attribute, caption, vocabulary

MAX_TOKENS = 24  # tokens of a prompt, with its start and its end
# vocabulary: fewer tokens than words, so that rare synonyms have several tokens
_TOKENS = 512
_CAPTIONS = 20_000
_START = "<|startoftext|>"
_END = "<|endoftext|>"


def captions(count: int, seed: int = 0, max_words: int = MAX_WORDS) -> list[str]:
    """Captions of images with uniformly drawn attributes, see `tasks.shapes.words.caption`."""
    index = torch.arange(count)
    names = {attribute: list(values) for attribute, values in WORDS.items()}
    drawn = {
        attribute: integers(seed, index, 0, f"shapes-model/{attribute}", len(values)).tolist()
        for attribute, values in names.items()
    }
    draws = uniform(seed, index, 0, "shapes-model/caption", DRAWS).tolist()

    def names_at(row: int) -> dict[Attribute, str]:
        return {attribute: values[drawn[attribute][row]] for attribute, values in names.items()}

    return [caption(names_at(row), draws[row], max_words=max_words) for row in range(count)]


def make_tokenizer() -> Any:
    """CLIPTokenizer trained on captions; start and end have the highest ids, as in CLIP."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learner: Any = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=_END))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    # single letters, at the end of a word and within it, so that no English word is unknown
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    alphabet = [*letters, *(f"{letter}</w>" for letter in letters)]
    trainer = trainers.BpeTrainer(
        vocab_size=_TOKENS - 2,
        end_of_word_suffix="</w>",
        show_progress=False,
        initial_alphabet=letters,
    )
    # without a limit of words, so that endings are frequent
    learner.train_from_iterator([*captions(_CAPTIONS, max_words=100), *vocabulary()], trainer)
    with TemporaryDirectory() as folder:
        learner.model.save(folder)
        pieces = (Path(folder) / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [
        (first, second)
        for first, second in (line.split(" ") for line in pieces if not line.startswith("#"))
    ]
    tokens = dict.fromkeys([*alphabet, *(first + second for first, second in merges), _START, _END])
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)  # type: ignore[arg-type]


def make_text_encoder(tokenizer: Any) -> Any:
    """CLIP text encoder with two layers of width 64, trained together with the network."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=256,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_autoencoder() -> Any:
    """Autoencoder from 32x32 pixels to 8x8 latents with 4 channels."""
    from diffusers import AutoencoderKL  # type: ignore[attr-defined]

    blocks: dict[str, Any] = {
        "block_out_channels": (16, 32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=1.0,
        **blocks,
    )


def make_unet() -> Any:
    """UNet with cross-attention at 8x8 and 4x4 and in the middle, and Stable Diffusion's names."""
    from diffusers import UNet2DConditionModel  # type: ignore[attr-defined]

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=4,
    )


def make_scheduler() -> Any:
    """DDIM scheduler with velocity prediction and zero terminal signal-to-noise ratio."""
    from diffusers import DDIMScheduler  # type: ignore[attr-defined]

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def make_pipeline(seed: int = 0) -> Any:
    """StableDiffusionPipeline with random weights."""
    from diffusers import StableDiffusionPipeline  # type: ignore[attr-defined]

    tokenizer = make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {
            "vae": make_autoencoder(),
            "text_encoder": make_text_encoder(tokenizer),
            "unet": make_unet(),
        }
    return StableDiffusionPipeline(
        **parts,
        tokenizer=tokenizer,
        scheduler=make_scheduler(),
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )


def take_autoencoder(pipeline: Any, weights: str) -> None:
    """Load a trained autoencoder into the pipeline, and scale its latents to deviation 1.

    Args:
        pipeline: the pipeline to change.
        weights: a run folder, or a file of weights.

    Raises:
        InputError: when the weights are not those of this autoencoder.
    """
    from mu.utils.weights import load_weights
    from tasks.shapes.task import pictures

    tensors = {name.removeprefix("vae."): value for name, value in load_weights(weights)[0].items()}
    if set(tensors) != set(pipeline.vae.state_dict()):
        raise InputError(
            f"{weights} does not hold the autoencoder of the shapes task; train it with "
            "configs/task/shapes_autoencoder.yaml."
        )
    pipeline.vae.load_state_dict(tensors)
    images = pictures(np.arange(2000))["image"].float() / 255
    with torch.no_grad():
        posterior = pipeline.vae.eval().encode(images * 2 - 1).latent_dist
        deviation = (posterior.mean.var() + posterior.var.mean()).sqrt().item()
    pipeline.vae.register_to_config(scaling_factor=round(1 / deviation, 4))


def main(arguments: list[str]) -> None:
    """Write the model to the folder named on the command line."""
    about = "Write the untrained text-to-image model of the shapes task."
    parser = argparse.ArgumentParser(prog="python -m tasks.shapes.blank_model", description=about)
    parser.add_argument("folder", help="folder to write, in the layout of diffusers")
    parser.add_argument("--autoencoder", help="run that trained the autoencoder")
    options = parser.parse_args(arguments)
    pipeline = make_pipeline()
    if options.autoencoder:
        take_autoencoder(pipeline, options.autoencoder)
    pipeline.save_pretrained(options.folder, safe_serialization=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"shapes_model: {error}")
