"""What jsonargparse says over twenty lines, in one plain sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mu.config.classes import accepted, components, did_you_mean, find, subclasses

_KEY = re.compile(r'Parser key "([^"]+)":?')
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
NOUNS = {
    "model": "method",
    "data": "task",
    "backbone": "backbone",
    "callbacks": "callback",
    "mask": "mask",
    "selector": "selector",
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "substitute": "law of substitutes",
    "plan": "data plan",
    "augmentation": "augmentation",
}
"""Arguments and what stands in them, in words."""
LISTS = {"model": "methods", "data": "tasks", "backbone": "backbones", "mask": "masks"}
"""What `mu list` shows of an argument's kind."""
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "dict": "a mapping",
}


@dataclass(frozen=True)
class Fault:
    """One complaint of the parser's.

    Attributes:
        keys: where, from the top: `("model", "optimizer", "lr")`.
        owner: the class whose argument it is, by path; empty at the top.
        said: the complaint.
        around: the lines that belong to it (types that were asked for, value that was given).
    """

    keys: tuple[str, ...]
    owner: str
    said: str
    around: str

    @property
    def key(self) -> str:
        """As it is written on the command line."""
        return ".".join(self.keys)


def sentence(message: str, command: str) -> str:
    """One sentence that names the thing and what would be right.

    Args:
        message: the parser's.
        command: `fit`, `validate`, `test` or `predict`.
    """
    for pattern, answer in _AT_THE_TOP:
        found = re.search(pattern, message)
        if found:
            return answer(found, command)
    faults = sorted(
        _faults(message),
        key=lambda fault: (len(fault.keys), bool(fault.owner), _rank(fault)),
        reverse=True,
    )
    for fault in faults:
        if not fault.keys:  # not the layout that is known here
            continue
        for pattern, answer in _INSIDE:
            found = re.search(pattern, fault.said)
            if found:
                return answer(found, fault)
    return f"{' '.join(message.split()).rstrip('.')}."


# ---- reading the parser's message ----------------------------------------------------------------


def _faults(message: str) -> Iterator[Fault]:
    """Every complaint with the keys and the class above it, by indentation."""
    above: list[tuple[int, str, str]] = []  # indentation, kind, value
    lines = message.splitlines()
    for number, line in enumerate(lines):
        bare = line.lstrip(" ")
        indent = len(line) - len(bare)
        if bare.startswith("- "):
            bare = bare[2:]
            indent = indent + 2
        if not bare:
            continue
        above = [entry for entry in above if entry[0] < indent]
        while header := min(
            (m for m in (_KEY.search(bare), _CLASS.search(bare)) if m),
            key=lambda m: m.start(),
            default=None,
        ):
            above.append((indent, "key" if header.re is _KEY else "class", header[1]))
            bare = bare[header.end() :].lstrip(": ")
        if bare:
            keys = tuple(
                word for _, kind, value in above if kind == "key" for word in value.split(".")
            )
            owners = [value for _, kind, value in above if kind == "class"]
            inner = re.search(r"Got value: Namespace\(class_path='([^']+)'", bare)
            yield Fault(
                keys,
                inner[1] if inner else owners[-1] if owners else "",
                bare,
                "\n".join(_around(lines, number)),
            )


def _around(lines: list[str], number: int) -> list[str]:
    """The block of a union's complaint: from `Subtypes:` before the line to `Given value:` after
    it.
    """
    first = next(
        (i for i in range(number, -1, -1) if lines[i].lstrip().startswith("Subtypes:")), number
    )
    last = next(
        (i for i in range(number, len(lines)) if lines[i].lstrip().startswith("Given value:")),
        number,
    )
    return [line.strip() for line in lines[first : last + 1]]


def _rank(fault: Fault) -> int:
    """Of two complaints at one place the one that says more: an optional entry's `Expected
    NoneType` says nothing.
    """
    if "NoneType" in fault.said or fault.said.startswith(
        ("Expected a path but", "Given value", "Subtypes", "Errors", "Does not validate")
    ):
        return -1
    return 0 if fault.said.startswith("Expected a <class") else 1


# ---- answers -------------------------------------------------------------------------------------


def _required(found: re.Match[str], command: str) -> str:
    missing = [name.strip().rpartition(".")[2] for name in found[1].split(",")]
    if "data" in missing and "model" in missing:
        return (
            f"mu {command} needs a task and a method: mu {command} -c "
            "configs/task/digits_random.yaml -c configs/method/salun.yaml "
            "(or --run RUN, for a run that was made)."
        )
    what, folder = ("task", "task") if "data" in missing else ("method", "method")
    option = "data" if what == "task" else "model"
    return f"no {what} is given; add -c configs/{folder}/NAME.yaml or --{option} NAME (mu list {what}s shows them)."


def _unrecognized(found: re.Match[str], command: str) -> str:
    word = found[1].split()[0]
    name = word.partition("=")[0]
    if not name.startswith("-"):
        hint = (
            f"give a file with -c {name}."
            if name.endswith((".yaml", ".yml"))
            else "an option begins with two dashes."
        )
        return f"mu {command} does not take {name!r}; {hint}"
    return f"mu {command} has no option {name!r}; {did_you_mean(name, _options(), f'mu {command} --help lists them.')}"


def _unknown_key(found: re.Match[str], command: str) -> str:
    known = [option.removeprefix("--") for option in _options()]
    return f"mu {command} has no entry {found[1]!r}; {did_you_mean(found[1], known, f'mu {command} --print_config shows them.')}"


def _options() -> list[str]:
    import inspect

    from lightning.pytorch import Trainer

    trainer = [
        f"--trainer.{name}"
        for name in inspect.signature(Trainer.__init__).parameters
        if name != "self"
    ]
    return [
        "--config",
        "--run",
        "--resume",
        "--debug",
        "--model",
        "--data",
        "--ckpt_path",
        "--seed_everything",
        "--print_config",
        *trainer,
    ]


def _not_accepted(found: re.Match[str], fault: Fault) -> str:
    given = found[1]
    cls = find(fault.owner)
    owner = fault.owner.rpartition(".")[2]
    if cls is None:
        return f"{owner or fault.key} takes no {given!r}."
    bare = given.split(".")[0]
    able = [child.__name__ for child in subclasses(cls) if bare in accepted(child)]
    if able and bare not in accepted(cls):
        return f"{fault.key} has no class yet that takes {given!r}; name it first, for example --{fault.key} {able[0]}."
    names = [name for name in accepted(cls) if name not in ("params", "network")]
    return f"{owner} takes no {given!r}; {did_you_mean(given, names, 'it takes ' + ', '.join(names) + '.')}"


def _missing(found: re.Match[str], fault: Fault) -> str:
    owner = fault.owner.rpartition(".")[2]
    names = [name.strip() for name in found[1].rstrip(". ").split(".")[0].split(",")]
    if "backbone" in names:
        return f"{owner} needs a backbone, which a task's file names; add -c configs/task/NAME.yaml or --model.backbone Classifier."
    return f"{owner} needs {' and '.join(names)}; give --{fault.key}.{names[0]} VALUE."


def _no_such_class(found: re.Match[str], fault: Fault) -> str:
    # a torch.Tensor would do too, but is not what is meant
    if re.search(r"^Subtypes: .*<class '(int|float|bool|str)'>", fault.around):
        return _wrong_type(found, fault)
    path = ".".join(found.groups())
    last = fault.keys[-1] if fault.keys else ""
    noun = NOUNS.get(last, "class")
    name = path.rpartition(".")[2]
    listed = f"mu list {LISTS[last]} shows them." if last in LISTS else "check its name."
    return f"there is no {noun} {path!r}; {did_you_mean(name, _known(last), listed)}"


def _known(key: str) -> list[str]:
    from lightning.pytorch import Callback
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from mu.backbones import Backbone
    from mu.core.lr import LRSchedule
    from mu.core.masks import WeightMask
    from mu.core.module import UnlearningModule
    from mu.core.substitutes import Substitute
    from mu.data.datamodule import UnlearningDataModule
    from mu.data.plan import DataPlan

    roots: dict[str, tuple[type, ...]] = {
        "model": (UnlearningModule,),
        "data": (UnlearningDataModule,),
        "backbone": (Backbone,),
        "callbacks": (Callback,),
        "mask": (WeightMask,),
        "optimizer": (Optimizer,),
        "scheduler": (LRSchedule, LRScheduler),
        "plan": (DataPlan,),
        "substitute": (Substitute,),
    }
    found = (
        [cls for root in roots[key] for cls in subclasses(root)] if key in roots else components()
    )
    return [cls.__name__ for cls in found]


def _no_module(found: re.Match[str], fault: Fault) -> str:
    root = fault.owner.split(".")[0]
    if found[1] == root:
        return f"there is no module {root!r} for {fault.owner!r}; a file {root}.py is looked for in the working directory."
    return f"{fault.owner!r} cannot be imported: there is no module {found[1]!r}; install it or correct the import."


def _syntax(found: re.Match[str], fault: Fault) -> str:
    return f"{found[2]} cannot be imported: {found[1]} in line {found[3]}."


def _misfit(found: re.Match[str], fault: Fault) -> str:
    given = found[1]
    wanted = found[2].strip(". ")
    wanted = re.sub(r"<class '(?:.*\.)?(\w+)'>", r"\1", wanted)
    short = given.rpartition(".")[2]
    if fault.keys and fault.keys[-1] == "backbone":
        method = fault.owner.rpartition(".")[2]
        return (
            f"{method} works on {wanted}, not {short}; choose a task whose backbone is {wanted}, "
            f"or a method for {short} (mu list methods shows what each works on)."
        )
    last = fault.keys[-1] if fault.keys else ""
    noun = NOUNS.get(last, "class of that kind")
    listed = (
        f"mu list {LISTS[last]} shows them" if last in LISTS else f"{fault.key} takes {_an(wanted)}"
    )
    return f"{given} is no {noun}; {listed}."


def _an(name: str) -> str:
    return f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def _abstract(found: re.Match[str], fault: Fault) -> str:
    cls = find(found[1])
    names = [child.__name__ for child in subclasses(cls)] if cls is not None else []
    return f"{found[1]} is a base of others and cannot be used itself; choose {' or '.join(names[:4]) or 'one of its subclasses'}."


def _wrong_type(found: re.Match[str], fault: Fault) -> str:
    given = re.search(r"Got value: (.*)$", fault.said) or re.search(
        r"Given value: (.*)$", fault.around
    )
    subtypes = re.search(r"Subtypes: \[(.*)\]$", fault.around, re.M)
    wanted = (
        _in_words(subtypes[1])
        if subtypes and "Got value" not in fault.said
        else _in_words(fault.said.split(". Got value")[0])
    )
    value = given[1].partition(". Got value")[0].rstrip(".") if given else "the value"
    nested = re.fullmatch(r"NestedArg\(key='[^']*', val='?(.*?)'?\)", value)
    return (
        f"{fault.key or 'the value'} is {nested[1] if nested else value!r}; it should be {wanted}."
    )


def _in_words(types: str) -> str:
    """`<class 'int'>, list[int], typing.Literal['a', 'b'], <class 'NoneType'>` as people say it."""
    words: list[str] = []
    for literal in re.findall(r"Literal\[([^\]]*)\]", types):
        words += [word.strip().strip("'") for word in literal.split(",")]
    rest = re.sub(r"typing\.Literal\[[^\]]*\]", "", types)
    for inner in re.findall(r"\b(?:list|tuple|collections\.abc\.Sequence)\[(\w+)[^\]]*\]", rest):
        words.append(
            "a list of "
            + {"int": "whole numbers", "float": "numbers", "str": "words"}.get(
                str(inner), str(inner)
            )
        )
    rest = re.sub(r"\b(?:list|tuple)\[[^\]]*\]", "", rest)
    for path in re.findall(r"<class '([^']+)'>", rest):
        if path not in ("NoneType", "torch.Tensor"):
            words.append(_TYPES.get(path) or _an(path.rpartition(".")[2]))
    words = list(dict.fromkeys(words))
    choice = f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)
    return (choice or "of another type") + (", or null" if "NoneType" in types else "")


def _plain(found: re.Match[str], fault: Fault) -> str:
    return f"{fault.key}: {' '.join(fault.said.split()).rstrip('.')}."


_AT_THE_TOP = (
    (r"^the following arguments are required: (.*)$", _required),
    (r"^unrecognized arguments: (.*)$", _unrecognized),
    (r"does not accept option '([^']+)'", _unknown_key),
)
_INSIDE = (
    (r"Option '([^']+)' is not accepted", _not_accepted),
    (r"the following arguments are required: (.*)", _missing),
    (r"module '([^']+)' has no attribute '([^']+)'", _no_such_class),
    (r"Expected a dot import path string: (\S+)", _no_such_class),
    (r"No module named '([^']+)'", _no_module),
    (r"(invalid syntax|.*) \((\S+\.py), line (\d+)\)", _syntax),
    (r"Import path (\S+) does not correspond to a subclass of (.*)", _misfit),
    (r"Expected '(\S+)' to be a subclass of (.*?)\.\.", _misfit),
    (r"Expected an instantiatable class, but (\S+) is abstract", _abstract),
    (r"Expected an? ", _wrong_type),
    (r"Not a valid subclass of (\w+)", _wrong_type),
    (
        r"^(?!Given value|Subtypes|Errors|Does not validate|Subclass types|a class path|a "
        r"dict|Expected a path but)(.+)",
        _plain,
    ),
)
