"""`mu test MODEL`: a model that mu did not train, measured without a fit, in a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu.cli import config_files as configs
from mu.cli.options import Options
from mu.cli.parser_errors import overlaid
from mu.config.model_source import backbone_spec, model_name, replaced_arguments
from mu.config.spec_faults import plain_data
from mu.utils.errors import InputError
from mu.utils.text_files import shortened

MODULE = "mu.core.PretrainedModel"
"""Class that stands in the place of the method."""


def with_model(options: Options, config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration that measures a pretrained model, with its run folder among the options.

    Args:
        options: words of the command line, with a model; `run` is set where it is None.
        config: merged configuration files.

    Raises:
        InputError: the files name a method, or the model and the backbone do not fit.
    """
    model = str(options.pretrained)
    section = plain_data(overlaid(config, options)).get("model")
    section = section if isinstance(section, Mapping) else {}
    method = options.chosen.get("model") or section.get("class_path")
    if method:
        raise InputError(
            f"{shortened(model)} is measured as it is, and {method} is a method; leave out the "
            "method, or fit it with mu fit."
        )
    backbone = _as_spec(configs.section(section, "init_args").get("backbone"))
    _refuse_sources(options, model)
    name = model_name(model)
    arguments = {"name": name, "backbone": backbone_spec(model, backbone)}
    options.run = options.run or str(Path("runs") / name)
    return {**config, "model": {"class_path": MODULE, "init_args": arguments}}


def _as_spec(backbone: Any) -> Mapping[str, Any]:
    """Specification of a backbone that may be a class path alone."""
    if isinstance(backbone, str):
        return {"class_path": backbone}
    return backbone if isinstance(backbone, Mapping) else {}


def _refuse_sources(options: Options, model: str) -> None:
    """Refuse options that name another model than the one that is measured."""
    for argument in replaced_arguments(model):
        for option in (f"--model.backbone.{argument}", f"--model.backbone.init_args.{argument}"):
            if options.value(option) is not None:
                raise InputError(
                    f"{option} names another model than {shortened(model)}, which is measured; "
                    "leave one of them out."
                )
