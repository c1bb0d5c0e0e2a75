"""Generation by several models, one after another, with the same prompts, seeds and settings."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mu.backbones import Backbone, Sampler
from mu.cli import config_files as configs
from mu.cli.generation.models import (
    Source,
    default_template,
    load_backbone,
    recorded_template,
    template_of,
)
from mu.cli.generation.outputs import (
    IMAGE_OPTIONS,
    MAX_NEW_TOKENS,
    TEXT_OPTIONS,
    answer,
    decoding_of,
    draw,
    draws_images,
    image_rows,
    sampler_of,
)
from mu.cli.generation.page import Column, save_images
from mu.cli.generation.prompts import PromptRow
from mu.config.classes import find
from mu.data.templates import Template
from mu.utils.errors import InputError
from mu.utils.weights import weights_hash

_RAW = "none"
"""Word of `--template` for prompts without a template."""


class Comparison:
    """Generation by several models with common settings.

    Args:
        options: of the command line.
        rows: the prompts.
        sources: the models, the first of which gives the sampler of all.

    Attributes:
        settings: settings in words, by name, once the first model has generated.
    """

    def __init__(
        self, options: argparse.Namespace, rows: Sequence[PromptRow], sources: Sequence[Source]
    ) -> None:
        self.rows = rows
        self.batch_size: int = options.batch_size
        self.device = _device(options.device)
        self.settings: dict[str, Any] = {"seed": options.seed, "batch size": self.batch_size}
        self._image_options = _set_options(options, IMAGE_OPTIONS)
        self._text_options = _set_options(options, TEXT_OPTIONS)
        decoding_of(self._text_options)
        config = configs.merged(options.config)
        self._backbone = _backbone_of(config)
        self._templates = {source.text: recorded_template(source) for source in sources}
        self._template = _chosen_template(options.template)
        self._fallback = template_of(config.get("data")) or next(
            filter(None, self._templates.values()), None
        )
        self._sampler: Sampler | None = None
        self._draws_images: bool | None = None

    def column(self, source: Source, folder: Path) -> Column:
        """Outputs of one model; image files are written into the folder.

        Raises:
            InputError: the model cannot be read, or is of another domain than the first.
        """
        model = load_backbone(source, self._backbone)
        self._check_domain(model, source.name)
        weights = weights_hash(model)
        model = model.to(self.device)
        if self._draws_images:
            return self._images(model, source, weights, folder)
        template = self._template_for(source, model)
        outputs = answer(model, self.rows, template, self._text_options, self.batch_size)
        self.settings["decoding"] = _decoding_in_words(self._text_options)
        name = "none" if template is None else type(template).__name__
        return Column(source.name, source.text, weights, name, outputs)

    def _check_domain(self, model: Backbone, name: str) -> None:
        """Check that all models generate the same, and that the options belong to it."""
        draws = draws_images(model, name)
        if self._draws_images is None:
            self._draws_images = draws
            unused = self._text_options if draws else self._image_options
            if unused:
                what = "answers" if draws else "images"
                raise InputError(
                    f"--{next(iter(unused))} is an option of {what}, which {name} does not "
                    "generate; leave it out."
                )
        if draws != self._draws_images:
            raise InputError(
                f"{name} generates {'images' if draws else 'texts'}, and the first model does "
                "not; compare models of one domain."
            )

    def _images(self, model: Any, source: Source, weights: str, folder: Path) -> Column:
        """Outputs of a diffusion model."""
        if self._sampler is None:
            self._sampler = sampler_of(model, self._image_options)
            self.settings["sampler"] = self._sampler.describe()
        rows = image_rows(model, self.rows, "guidance_scale" in self._image_options)
        images = draw(model, rows, self._sampler, self.batch_size)
        name = re.sub(r"[^0-9A-Za-z._-]+", "-", source.name).strip(".") or "model"
        paths = save_images(folder, name, images, [row.seed for row in rows])
        return Column(source.name, source.text, weights, "", paths, int(images[0].shape[-1]))

    def _template_for(self, source: Source, model: Any) -> Template | None:
        """Template of the option, the run, the configuration, another run, or the tokenizer."""
        if self._template == _RAW:
            return None
        chosen = self._template or self._templates[source.text] or self._fallback
        return chosen if isinstance(chosen, Template) else default_template(model.tokenizer)


def _device(name: str | None) -> torch.device:
    """Device of a name, or a GPU where there is one.

    Raises:
        InputError: torch does not have it.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"--device {name} cannot be used ({reason}); take --device cpu."
        ) from error
    return device


def _set_options(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Options of these names that were set, with their values."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _backbone_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Specification of the backbone in a configuration; None where it has none."""
    model = configs.section(config, "model")
    backbone = configs.section(model, "init_args").get("backbone")
    if isinstance(backbone, str):
        return {"class_path": backbone}
    return backbone if isinstance(backbone, Mapping) else None


def _chosen_template(word: str | None) -> Template | str | None:
    """Template of a class path, `none`, or None where no template was chosen.

    Raises:
        InputError: the path names no template.
    """
    if word is None or word == _RAW:
        return word
    cls = find(word)
    if cls is None or not issubclass(cls, Template):
        raise InputError(
            f"there is no template {word!r}; take mu.data.Plain, mu.data.Chat, mu.data.Llama2, one "
            "of your own, or none."
        )
    return cls()


def _decoding_in_words(options: Mapping[str, Any]) -> str:
    """Options of answers for the page."""
    search = "sampling" if options.get("do_sample") else "greedy"
    if options.get("num_beams", 1) > 1:
        search = "beam search"
    settings = {"max_new_tokens": MAX_NEW_TOKENS, **options}
    words = [
        f"{name} {value}"
        for name, value in settings.items()
        if name not in ("do_sample", "template")
    ]
    return ", ".join([search, *words])
