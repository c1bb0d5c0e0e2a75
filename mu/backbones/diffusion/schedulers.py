"""Schedulers of diffusers: the noise schedule of a model, and samplers on it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mu.utils.errors import InputError

NOISE_SCHEDULE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)
"""Settings of a scheduler that belong to the trained model; all others belong to the sampler."""
_STEP_ARGUMENTS = {"self", "model_output", "timestep", "sample"}


def scheduler_class(name: str) -> Any:
    """Class of diffusers by its name, for a model with a schedule of betas.

    Raises:
        InputError: for an unknown class, and for one of another kind of model.
    """
    import diffusers

    try:
        cls: Any = getattr(diffusers, name, None)
        settings = set(inspect.signature(cls.__init__).parameters) if cls else set()
        step = inspect.signature(cls.step).parameters if hasattr(cls, "step") else {}
    except ImportError as error:
        reason = str(error).strip().split(". ")[0]
        raise InputError(f"the scheduler {name} cannot be used: {reason}.") from error
    if cls is None or not hasattr(cls, "from_config"):
        raise InputError(
            f"diffusers has no scheduler {name!r}; DDIMScheduler and LMSDiscreteScheduler are some."
        )
    if not {"num_train_timesteps", "beta_start", "prediction_type"} <= settings:
        raise InputError(
            f"the scheduler {name} does not take the noise schedule of a model with betas; choose "
            "another, as DDIMScheduler."
        )
    required = {key for key, argument in step.items() if argument.default is argument.empty}
    if "Inverse" in name or not required - {"kwargs", "args"} <= _STEP_ARGUMENTS:
        raise InputError(
            f"the scheduler {name} cannot be used to draw images from noise; choose another, as "
            "DDIMScheduler."
        )
    return cls


def scheduler_settings(scheduler: Any) -> dict[str, Any]:
    """Settings of a scheduler; its noise schedule stays when they go to another class.

    Diffusers drops a setting that a configuration leaves to the defaults of its class when another
    class is made from it. That is right for sampling, and wrong for the betas that the model was
    trained with.

    Raises:
        InputError: when the scheduler has no betas, as that of a flow model.
    """
    settings = dict(scheduler.config)
    if "beta_start" not in settings or settings.get("use_flow_sigmas"):
        raise InputError(
            f"the model's scheduler, {type(scheduler).__name__}, has no noise schedule of betas; "
            "mu reads models that predict the noise, v, or the sample."
        )
    defaults = settings.get("_use_default_values", [])
    settings["_class_name"] = type(scheduler).__name__
    settings["_use_default_values"] = [name for name in defaults if name not in NOISE_SCHEDULE]
    return settings


def make_scheduler(
    name: str,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    fixed: Mapping[str, Any],
) -> Any:
    """Scheduler of a class with the settings of a model.

    Args:
        name: class of diffusers.
        settings: settings as from `scheduler_settings`.
        options: settings that outweigh those of the model.
        fixed: settings that the pipeline of diffusers fixes, for classes that have them.

    Raises:
        InputError: for an option that the class does not have, and for one that is fixed.
    """
    cls = scheduler_class(name)
    accepted = inspect.signature(cls.__init__).parameters
    unknown = [option for option in options if option not in accepted]
    if unknown:
        raise InputError(
            f"the scheduler {name} has no option {unknown[0]!r}; it has "
            f"{', '.join(key for key in accepted if key not in ('self', 'kwargs'))}."
        )
    overruled = [key for key in fixed if key in options and options[key] != fixed[key]]
    if overruled:
        raise InputError(
            f"the pipelines of diffusers set {overruled[0]} to {fixed[overruled[0]]}, so the "
            f"option {overruled[0]}: {options[overruled[0]]} would be lost in an export; leave it "
            "out."
        )
    explicit = {key: value for key, value in fixed.items() if key in accepted} | dict(options)
    try:
        return cls.from_config(dict(settings), **explicit)
    except (ValueError, NotImplementedError, TypeError) as error:
        raise InputError(f"the scheduler {name} refuses its settings: {error}") from error
