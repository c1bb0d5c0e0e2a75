"""What `mu fit`, `validate`, `test` and `predict` understand beside LightningCLI's own
arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mu.utils.errors import InputError

_SHORT = {"-c": "--config"}
_OURS = ("--config", "--run", "--model", "--data")


@dataclass
class Options:
    """The words of a command, taken apart.

    Attributes:
        files: configuration files, in order.
        run: the run folder, or None.
        resume: continue from the run folder's last checkpoint.
        chosen: `model` and `data` where a class was named for them.
        rest: every other word, for LightningCLI.
    """

    files: list[str] = field(default_factory=list)
    run: str | None = None
    resume: bool = False
    chosen: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)

    def value(self, option: str) -> str | None:
        """The last value that `rest` gives to an option."""
        found = None
        for place, word in enumerate(self.rest):
            if word == option and place + 1 < len(self.rest):
                found = self.rest[place + 1]
            elif word.startswith(f"{option}="):
                found = word.partition("=")[2]
        return found


def take(words: list[str]) -> Options:
    """Take our own options out of the words after the command.

    Raises:
        InputError: for an option without its value.
    """
    options = Options()
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if word == "--resume":
            options.resume = True
        elif name in _OURS:
            if not equals and (not left or left[0].startswith("--")):
                raise InputError(f"{word} needs a value: {word} {_example(name)}.")
            _put(options, name, value if equals else left.pop(0))
        else:
            options.rest.append(word)
    return options


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
