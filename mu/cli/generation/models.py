"""Models of `mu generate`: runs of mu, and pretrained models of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu.backbones import Backbone
from mu.cli.run_folder import of_model, recorded_config
from mu.config.model_source import backbone_spec, model_form, model_name
from mu.data.templates import Chat, Template
from mu.utils.errors import InputError
from mu.utils.spec import from_spec


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        text: as it was written: a run folder, a checkpoint, a folder, a file, a hub id.
        name: name in tables.
        run: run folder of mu; None for other models.
    """

    text: str
    name: str
    run: Path | None


def sources_of(texts: Sequence[str]) -> list[Source]:
    """Sources of models, with distinct names.

    Raises:
        InputError: there is no such model, or one stands twice.
    """
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise InputError(f"{twice} stands twice; name each model once.")
    runs = [of_model(text) for text in texts]
    for text, run in zip(texts, runs, strict=True):
        if run is None:
            model_form(text)
    names = [
        model_name(text) if run is None else run.resolve().name
        for text, run in zip(texts, runs, strict=True)
    ]
    return [
        Source(text, text if names.count(name) > 1 else name, run)
        for text, name, run in zip(texts, names, runs, strict=True)
    ]


def load_backbone(source: Source, backbone: Mapping[str, Any] | None) -> Backbone:
    """The model that a run serves, or a pretrained one, in eval mode.

    Args:
        source: where it comes from.
        backbone: specification of a configuration, for the class and options of pretrained models.

    Raises:
        InputError: it cannot be read.
    """
    if source.run is not None:
        from mu.core.checkpoint import load

        return load(source.text).served().eval()
    model = from_spec(backbone_spec(source.text, backbone))
    if not isinstance(model, Backbone):
        raise InputError(f"{type(model).__name__} is not a backbone (mu list backbones).")
    return model.eval()


def recorded_template(source: Source) -> Template | None:
    """Template of questions that a run's task has; None for other models and tasks."""
    if source.run is None:
        return None
    return template_of(recorded_config(source.run).get("data"))


def template_of(data: Any) -> Template | None:
    """Template of questions of a task's specification; None for other tasks.

    The task is built, and its data are not read.
    """
    if not isinstance(data, Mapping) or "class_path" not in data:
        return None
    return getattr(from_spec(data), "template", None)


def default_template(tokenizer: Any) -> Template | None:
    """Chat template of a tokenizer; None for one without, whose prompts are taken as they are."""
    return Chat() if getattr(tokenizer, "chat_template", None) else None
