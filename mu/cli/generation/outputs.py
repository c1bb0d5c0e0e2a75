"""Images and answers of a model for a list of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mu.backbones import Backbone, Sampler
from mu.backbones.language.sampling import Sampling
from mu.cli.generation.prompts import PromptRow
from mu.data.encoding import Encoder
from mu.data.templates import Template
from mu.evaluation.images.drawing import ImageJob, ImageRow, levels
from mu.utils.errors import InputError
from mu.utils.progress import progress_bar
from mu.utils.spec import init_args_of

IMAGE_OPTIONS = ("scheduler", "num_inference_steps", "guidance_scale", "eta")
"""Options of images, by diffusers' names."""
TEXT_OPTIONS = (
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "num_beams",
    "repetition_penalty",
    "stop_strings",
    "template",
)
"""Options of answers, by transformers' names."""
MAX_NEW_TOKENS = 200
"""Most tokens of an answer, by default."""
_SAMPLING_OPTIONS = ("temperature", "top_k", "top_p")
_ANY_LENGTH = 2**31


def draws_images(model: Backbone, name: str) -> bool:
    """Whether a model draws images; else it answers texts.

    Raises:
        InputError: for a model that does neither.
    """
    if hasattr(model, "texts") or hasattr(model, "labels"):
        return True
    if hasattr(model, "tokenizer") and hasattr(model, "generate"):
        return False
    raise InputError(
        f"{name} is a {type(model).__name__}, which generates neither images nor texts; measure "
        "it with mu test."
    )


# ---- images --------------------------------------------------------------------------------------


def sampler_of(model: Any, options: Mapping[str, Any]) -> Sampler:
    """Sampler of a model, with options in place of its own arguments."""
    sampler = getattr(model, "sampler", None) or Sampler()
    return type(sampler)(**{**init_args_of(sampler), **options})


def image_rows(model: Any, rows: Sequence[PromptRow], ignore_guidance: bool) -> list[ImageRow]:
    """Images to draw, of prompts or of classes.

    Args:
        model: a diffusion model.
        rows: the prompts; of a class-conditional model, numbers of classes.
        ignore_guidance: whether the prompt file's guidance does not count.

    Raises:
        InputError: a prompt is no number of a class.
    """
    classes = not hasattr(model, "texts")
    wrong = [row.text for row in rows if classes and not row.text.strip().isdigit()]
    if wrong:
        raise InputError(
            f"the model draws from classes, and the prompt {wrong[0]!r} is no number of a class; "
            'give numbers, for example --prompts 3 "7".'
        )
    return [
        ImageRow(
            row.seed,
            None if classes else row.text,
            int(row.text) if classes else None,
            None if ignore_guidance else row.guidance_scale,
            case=str(index),
        )
        for index, row in enumerate(rows)
    ]


def draw(model: Any, rows: Sequence[ImageRow], sampler: Sampler, batch_size: int) -> list[Tensor]:
    """Images `[C, H, W]` uint8 of the rows, on the CPU."""
    images: dict[int, Tensor] = {}
    for batch, indices in ImageJob(rows, sampler, batch_size).run(model):
        images |= dict(zip(indices, levels(batch).cpu(), strict=True))
    return [images[index] for index in range(len(rows))]


# ---- answers -------------------------------------------------------------------------------------


def decoding_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `generate` for the options of answers, without the sampling.

    Raises:
        InputError: for an option of sampling without `do_sample`.
    """
    if not options.get("do_sample"):
        unused = [name for name in _SAMPLING_OPTIONS if options.get(name) is not None]
        if unused:
            raise InputError(f"--{unused[0]} belongs to sampling; add --do_sample.")
    names = ("max_new_tokens", "num_beams", "repetition_penalty", "stop_strings")
    arguments = {name: options[name] for name in names if options.get(name) is not None}
    return {"max_new_tokens": MAX_NEW_TOKENS, **arguments}


def answer(
    model: Any,
    rows: Sequence[PromptRow],
    template: Template | None,
    options: Mapping[str, Any],
    batch_size: int,
) -> list[str]:
    """Answers to the prompts, in their order.

    Args:
        model: a language model.
        rows: the prompts; the seed of each decides what is sampled.
        template: template around each prompt; None takes it as it is.
        options: of `TEXT_OPTIONS`, those that were set.
        batch_size: prompts at a time.
    """
    decoding = decoding_of(options)
    prompts, merged = encoded_prompts(model, rows, template)
    texts: list[str] = []
    starts = range(0, len(rows), batch_size)
    for start in progress_bar(starts, "answering", unit_scale=batch_size):
        batch = slice(start, start + batch_size)
        sampling = sampling_of(options, [row.seed for row in rows[batch]])
        texts += model.generate(
            prompts[batch], batch_size=batch_size, sampling=sampling, **decoding
        )
    return [text.removeprefix(gap) for text, gap in zip(texts, merged, strict=True)]


def sampling_of(options: Mapping[str, Any], seeds: Sequence[int]) -> Sampling | None:
    """Sampling of tokens by one seed for each prompt; None takes the likeliest token."""
    if not options.get("do_sample"):
        return None
    arguments = {name: options[name] for name in _SAMPLING_OPTIONS if options.get(name) is not None}
    return Sampling(keys=list(seeds), **arguments)


def encoded_prompts(
    model: Any, rows: Sequence[PromptRow], template: Template | None
) -> tuple[list[list[int]], list[str]]:
    """Token ids of each prompt, and the text before the answer that is merged into its first token.

    Raises:
        InputError: a prompt has no token.
    """
    tokenizer = model.tokenizer
    if template is None:
        ids = [_without_end(list(tokenizer(row.text)["input_ids"]), tokenizer) for row in rows]
        empty = [row.text for row, tokens in zip(rows, ids, strict=True) if not tokens]
        if empty:
            raise InputError(f"the prompt {empty[0]!r} has no token; give another text.")
        return ids, [""] * len(rows)
    encoder = Encoder(tokenizer, template, max_length=model.context or _ANY_LENGTH)
    prompts = [encoder.prompt(row.text) for row in rows]
    return prompts, [
        encoder.merged_text(row.text, ids) for row, ids in zip(rows, prompts, strict=True)
    ]


def _without_end(ids: list[int], tokenizer: Any) -> list[int]:
    """Token ids of a text without the end of the sequence, which some tokenizers add."""
    while len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return ids
