"""Options of `mu fit`, `validate`, `test` and `predict` that LightningCLI does not have."""

from __future__ import annotations

from dataclasses import dataclass, field

from mu.utils.errors import InputError

_SHORT = {"-c": "--config"}
_OURS = ("--config", "--run", "--model", "--data")
_FLAGS = ("--help", "--print_config")
"""Options without a value."""


@dataclass
class Options:
    """Words of a command line, sorted into options.

    Attributes:
        files: configuration files, in order.
        run: run folder, or None.
        resume: continue from the run folder's last checkpoint.
        overwrite: train a run anew in its folder.
        chosen: class names by `model` and `data`, where they were named.
        pretrained: model that stands without an option: a folder, a file, a hub id; or None.
        rest: other words, for LightningCLI.
    """

    files: list[str] = field(default_factory=list)
    run: str | None = None
    resume: bool = False
    overwrite: bool = False
    chosen: dict[str, str] = field(default_factory=dict)
    pretrained: str | None = None
    rest: list[str] = field(default_factory=list)

    def value(self, option: str) -> str | None:
        """Last value of an option in `rest`; None where it does not occur."""
        last_value = None
        for index, word in enumerate(self.rest):
            if word == option and index + 1 < len(self.rest):
                last_value = self.rest[index + 1]
            elif word.startswith(f"{option}="):
                last_value = word.partition("=")[2]
        return last_value


def take(words: list[str]) -> Options:
    """Separate our options from LightningCLI's.

    Args:
        words: words of the command line after the command.

    Raises:
        InputError: for an option without its value.
    """
    options = Options()
    pending = list(words)
    awaits_value = False
    while pending:
        word = pending.pop(0)
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if word in ("--resume", "--overwrite"):
            setattr(options, word.removeprefix("--"), True)
        elif name in _OURS:
            if not equals and (not pending or pending[0].startswith("--")):
                raise InputError(f"{word} needs a value: {word} {_example(name)}.")
            value = value if equals else pending.pop(0)
            if not value.strip():
                raise InputError(f"{name} needs a value: {name} {_example(name)}.")
            _put(options, name, value)
        elif awaits_value or word.startswith("-") or not _may_be_model(word, options):
            options.rest.append(word)
            awaits_value = word.startswith("--") and not equals and word not in _FLAGS
            continue
        else:
            options.pretrained = word
        awaits_value = False
    return options


def _may_be_model(word: str, options: Options) -> bool:
    """Whether a word without an option names the model: the first one that is no YAML file."""
    return options.pretrained is None and not word.endswith((".yaml", ".yml"))


def _example(name: str) -> str:
    return {
        "--config": "configs/task/digits_random.yaml",
        "--run": "runs/NAME",
        "--model": "SalUn",
        "--data": "Digits",
    }[name]


def _put(options: Options, name: str, value: str) -> None:
    if name == "--config":
        options.files.append(value)
    elif name == "--run":
        options.run = value
    elif value.lstrip().startswith("{"):  # a whole specification on the command line
        options.rest.append(f"{name}={value}")
    else:
        options.chosen[name.removeprefix("--")] = value
