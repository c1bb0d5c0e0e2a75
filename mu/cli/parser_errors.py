"""Plain sentences for a command whose arguments the parser refuses.

The configuration files and the words of the command line are laid over one another as the parser
does it, and walked along the types of the trainer, the method and the task. The parser's error
texts are not read; one is printed as it is, on one line, where the walk locates no fault.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mu.cli.options import Options
from mu.config import class_faults
from mu.config.argument_types import Argument, hints
from mu.config.class_faults import NOUNS
from mu.config.classes import did_you_mean, find
from mu.config.spec_faults import (
    CommandLineValue,
    accepted_names,
    plain_data,
    spec_fault,
    value_fault,
)
from mu.utils.errors import InputError

_OURS = ("config", "run", "resume", "debug", "model", "data", "seed_everything", "print_config")


def sentence(error: Exception, command: str, options: Options, config: Mapping[str, Any]) -> str:
    """One sentence that names the fault and its cure.

    Args:
        error: what the parser raised.
        command: `fit`, `validate`, `test` or `predict`.
        options: words of the command line.
        config: merged configuration files.
    """
    fault = locate(command, options, config)
    return fault or f"{' '.join(str(error).split()).rstrip('.')}."


def locate(command: str, options: Options, config: Mapping[str, Any]) -> str | None:
    """A sentence about the first fault in the words or in the configuration, if one is located."""
    return next(_faults(command, options, config), None)


def _faults(command: str, options: Options, config: Mapping[str, Any]) -> Iterator[str]:
    from lightning.pytorch import Trainer

    from mu.core.module import UnlearningModule
    from mu.data.datamodule import UnlearningDataModule

    trainer = hints(Trainer.__init__)
    settings = {"seed_everything": bool | int, **hints(getattr(Trainer, command))}
    names = [*_OURS, "ckpt_path", *(f"trainer.{name}" for name in _parameters(Trainer.__init__))]
    # 1. words and entries that the command does not have
    yield from _unknown_words(command, options, names)
    yield from _unknown_entries(command, config, names)
    # 2. trainer, method and task, with the words laid over the files
    merged_config = overlaid(config, options)
    for name, value in (merged_config.get("trainer") or {}).items():
        yield from _of(value_fault(value, Argument(f"trainer.{name}", trainer.get(name))))
    for name in settings.keys() & merged_config.keys() - {"model"}:
        yield from _of(value_fault(merged_config[name], Argument(name, settings[name])))
    absent = [key for key in ("data", "model") if not merged_config.get(key)]
    if len(absent) == 2:
        yield (
            f"mu {command} needs a task and a method: mu {command} -c "
            "configs/task/digits_random.yaml -c configs/method/salun.yaml (or --run RUN, for a "
            "finished run)."
        )
    for key, base in {"model": UnlearningModule, "data": UnlearningDataModule}.items():
        if key not in absent:
            yield from _of(spec_fault(merged_config[key], Argument(key, base, default=base)))
    # 3. no task, or no method
    for key in absent:
        noun = NOUNS[key]
        yield (
            f"no {noun} is given; add -c configs/{noun}/NAME.yaml or --{key} NAME (mu list "
            f"{noun}s lists them)."
        )


def check_values(command: str, options: Options, config: Mapping[str, Any]) -> None:
    """Refuse entries that the command does not have, and values that no parser should get.

    These are class paths that lead to anything but what their argument takes, null where a value
    is needed, and NaN.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        options: words of the command line.
        config: merged configuration files.

    Raises:
        InputError: names the first such value, before a module is imported for it.
    """
    from lightning.pytorch import Trainer

    from mu.core.module import UnlearningModule
    from mu.data.datamodule import UnlearningDataModule

    settings = hints(getattr(Trainer, command))
    names = [
        *_OURS,
        "ckpt_path",
        *settings,
        *(f"trainer.{name}" for name in _parameters(Trainer.__init__)),
    ]
    fault = next(_unknown_entries(command, config, names), None)
    if fault is not None:
        raise InputError(fault)
    merged_config = plain_data(overlaid(config, options))
    seed = merged_config.get("seed_everything")
    if type(seed) is int and not 0 <= seed < 2**32:
        raise InputError(f"--seed_everything is {seed}; it should be from 0 to {2**32 - 1}.")
    trainer = hints(Trainer.__init__)
    for name, value in (merged_config.get("trainer") or {}).items():
        class_faults.check_components(value, Argument(f"trainer.{name}", trainer.get(name)))
    for key, base in {"model": UnlearningModule, "data": UnlearningDataModule}.items():
        argument = Argument(key, base, default=base)
        class_faults.check_components(merged_config.get(key), argument)


def _of(fault: str | None) -> Iterator[str]:
    if fault is not None:
        yield fault


def _parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


# ---- words ---------------------------------------------------------------------------------------


def _split(rest: list[str]) -> Iterator[tuple[str, str | None]]:
    """Options with their values; a word that belongs to no option comes with None."""
    words = list(rest)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if equals:
            yield name, value
        elif word.startswith("-") and words and not words[0].startswith("--"):
            yield word, words.pop(0)
        else:
            yield word, None


def _unknown_words(command: str, options: Options, names: list[str]) -> Iterator[str]:
    for name, value in _split(options.rest):
        if not name.startswith("-"):
            is_file = name.endswith((".yaml", ".yml"))
            cure = f"give a file with -c {name}." if is_file else "an option begins with --."
            yield f"mu {command} does not take {name!r}; {cure}"
            continue
        key = name.removeprefix("--").removesuffix("+")
        if not _is_accepted(key, names):
            choices = [f"--{name}" for name in names]
            hint = did_you_mean(name, choices, f"mu {command} --help lists them.")
            yield f"mu {command} has no option {name!r}; {hint}"
        elif value is None and key != "print_config":
            yield f"{name} needs a value: {name} VALUE."


def _is_accepted(key: str, names: list[str]) -> bool:
    section, _, rest = key.partition(".")
    if section == "trainer":
        return f"trainer.{rest.partition('.')[0]}" in names
    return section in names or section == "weights_only"


def _unknown_entries(command: str, config: Mapping[str, Any], names: list[str]) -> Iterator[str]:
    trainer = config.get("trainer") or {}
    for key in [*config, *(f"trainer.{name}" for name in trainer)]:
        if key != "trainer" and not _is_accepted(key, names):
            hint = did_you_mean(key, names, f"mu {command} --print_config shows them.")
            yield f"mu {command} has no entry {key!r}; {hint}"


# ---- words over files ----------------------------------------------------------------------------


def overlaid(config: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The configuration with the values of the command line, in their order."""
    merged_config = _copied(config)
    for name, value in _split(options.rest):
        if value is None or not name.startswith("--"):
            continue
        key = name.removeprefix("--")
        words = [word for word in key.removesuffix("+").split(".") if word != "init_args"]
        if words[-1] == "class_path":
            words = words[:-1]
        section, *path = words
        if section == "trainer" and path:
            merged_config["trainer"] = merged_config.get("trainer") or {}
            _put(merged_config["trainer"], path, value, append=key.endswith("+"))
        else:
            _put(merged_config, words, value, append=False)
    return merged_config


def _put(values: dict[str, Any], path: list[str], value: str, append: bool) -> None:
    """Set the argument at a path; a component's arguments lie in its `init_args`."""
    name, *inner = path
    if not inner:
        before = values.get(name)
        written: Any = CommandLineValue(value)
        if value.lstrip().startswith(("{", "[")):
            written = plain_data(written)
        if append:
            before = before if isinstance(before, list) else [before] if before else []
            written = [*before, written]
        elif isinstance(before, Mapping) and isinstance(written, str):
            written = _changed_class(before, written)
        values[name] = written
        return
    component = values.get(name)
    if isinstance(component, list) and component:  # the last one is meant
        component[-1] = _as_spec(component[-1])
        component = component[-1]
    elif (
        isinstance(component, dict)
        and component
        and not {"class_path", "init_args"} & set(component)
    ):
        component[inner[0]] = CommandLineValue(value)  # an entry of a mapping
        return
    else:
        component = values[name] = _as_spec(component)
    component["init_args"] = component.get("init_args") or {}
    _put(component["init_args"], inner, value, append)


def _as_spec(component: Any) -> dict[str, Any]:
    if isinstance(component, Mapping):
        return dict(component)
    return {"class_path": component} if isinstance(component, str) else {}


def _changed_class(spec: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A specification with another class, which keeps the arguments that it takes too."""
    values = spec.get("init_args") or {}
    cls = find(path)
    names = accepted_names(cls) if cls is not None else ()
    accepted_values = {name: value for name, value in values.items() if name in names}
    return {"class_path": path, "init_args": accepted_values}


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(entry) for name, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value
