"""Schema of a study file: one dataclass a section.

The checks of `mu bench`, the text of `mu show study` and the table in `docs/studies.md` are derived
from these classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from docstring_parser import google

from mu.config.argument_types import in_words

LARGEST_SEED = 2**32 - 1
CLASS = "a class: {class_path: ..., init_args: {...}}"


@dataclass(frozen=True)
class Interval:
    """Bounds of a whole number; `high` is None where it has none."""

    low: int
    high: int | None = None

    @property
    def description(self) -> str:
        """Bounds in words."""
        if self.high is None:
            return f"a whole number of at least {self.low}"
        return f"a whole number from {self.low} to {self.high}"

    def contains(self, value: int) -> bool:
        """Whether a number lies within the bounds."""
        return self.low <= value and (self.high is None or value <= self.high)


Positive = Annotated[int, Interval(1)]
Seed = Annotated[int, Interval(0, LARGEST_SEED)]
Folder = Annotated[str, "the path of a folder"]
Arguments = Annotated[Mapping[str, Any], "a mapping"]
TrainerArguments = Annotated[Mapping[str, Any], "a mapping of the Trainer's arguments"]


@dataclass(frozen=True)
class ComponentEntry:
    """Class with its arguments.

    Attributes:
        class_path: path of the class (`mu.methods.SalUn`, `my_file.MyMethod`), or the name alone of
            one that comes with mu (`SalUn`).
        init_args: arguments of its constructor; `mu show CLASS` lists them.
        dict_kwargs: further arguments, for a constructor whose `**kwargs` cannot be followed.
    """

    class_path: str
    init_args: Arguments = field(default_factory=dict)
    dict_kwargs: Arguments = field(default_factory=dict)


SuiteEntry = Annotated[str | ComponentEntry, "a class path, or a class with init_args"]


@dataclass(frozen=True)
class SeedsEntry:
    """Three seeds of a repetition.

    Attributes:
        split: seed of the split into forget and retain.
        train: seed of the training of original and oracle.
        unlearn: seed of unlearning.
    """

    split: Seed
    train: Seed
    unlearn: Seed


@dataclass(frozen=True)
class RangeEntry:
    """Range of a number that is searched.

    Attributes:
        low: smallest value.
        high: largest value; whole numbers only where both ends are whole.
        log: search on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class ChoicesEntry:
    """Values among which a search chooses.

    Attributes:
        choices: the values.
    """

    choices: list[Any]


SpaceEntry = Annotated[
    RangeEntry | ChoicesEntry, "{low: ..., high: ..., log: true} or {choices: [...]}"
]


@dataclass(frozen=True)
class ModelEntry:
    """Class of a method and its arguments.

    Attributes:
        class_path: path or name of the method; an override on a task needs none.
        init_args: arguments of the method; its `backbone` is merged over the study's.
        dict_kwargs: further arguments, for a constructor whose `**kwargs` cannot be followed.
    """

    class_path: str = ""
    init_args: Arguments = field(default_factory=dict)
    dict_kwargs: Arguments = field(default_factory=dict)


@dataclass(frozen=True)
class MethodEntry:
    """Method of a study, or what differs of it on one task.

    Attributes:
        preset: configuration of a method (`method/salun`), whose `model` and `trainer` lie below
            the entries here; a text in place of the method means the same.
        model: the method and its arguments.
        trainer: arguments of its Trainer, over the study's.
        forget_batch_size: forget samples a step, in place of the task's.
        search: what `mu bench --search` searches, by argument: `optimizer.lr`, `mask.keep`.
        searched: what a search said about these settings, for the report: trials, gap, seconds.
        skip: reason why the method is not run, for example on one task.
    """

    preset: str = ""
    model: ModelEntry = field(default_factory=ModelEntry)
    trainer: TrainerArguments = field(default_factory=dict)
    forget_batch_size: Positive | None = None
    search: dict[str, SpaceEntry] = field(default_factory=dict)
    searched: Arguments = field(default_factory=dict)
    skip: Annotated[str, "the reason, as text"] = ""


@dataclass(frozen=True)
class TaskEntry(ComponentEntry):
    """Data set with a forget part.

    Attributes:
        class_path: path or name of the task; a preset has one.
        init_args: its arguments; the split seed comes from `seeds`.
        dict_kwargs: further arguments, for a constructor whose `**kwargs` cannot be followed.
        preset: configuration of a task (`task/digits_class`), whose `data` lies below the entries
            here; its backbone is the study's where the study names none. A text in place of the
            task means the same.
        methods: what differs of the methods on this task, by name.
        suites: what is measured on this task, beside the study's suites.
    """

    preset: str = ""
    methods: dict[str, MethodEntry] = field(default_factory=dict)
    suites: list[SuiteEntry] = field(default_factory=list)


@dataclass(frozen=True)
class RecipeEntry:
    """Training of the original and of the oracle.

    Attributes:
        model: arguments of `mu.methods.Train` and `mu.methods.Retrain`: optimizer, scheduler.
        trainer: arguments of their Trainer, over the study's.
    """

    model: Arguments = field(default_factory=dict)
    trainer: TrainerArguments = field(default_factory=dict)


@dataclass(frozen=True)
class SearchEntry:
    """Search of the methods' settings by `mu bench --search`.

    Attributes:
        trials: number of trials of each method on each task.
        seeds: seeds of the search, none of them one of the study's.
        objective: metrics of one unit whose mean is made as good as it can be; without, the average
            gap to the search's own oracles.
        oracle: `retrain` trains oracles for the search; `none` does without, and needs an
            objective.
        evaluated: parts of the split that are measured; never `test`.
        data: arguments of the tasks in place of their own: what is forgotten in the search.
    """

    trials: Positive = 12
    seeds: list[Seed] = field(default_factory=lambda: [1000])
    objective: str | list[str] = field(default_factory=list)
    oracle: Literal["retrain", "none"] = "retrain"
    evaluated: list[str] = field(default_factory=lambda: ["forget", "retain", "validation"])
    data: Arguments = field(default_factory=dict)


@dataclass(frozen=True)
class StudyFile:
    """Study of `mu bench`: tasks x methods x seeds, a YAML file.

    Attributes:
        name: name of the study; without, the file's.
        title: title of the report; without, the name.
        output: folder of everything that is written; without, `runs/NAME`.
        seeds: one entry a repetition: a number for all three seeds, or each of them.
        backbone: the model; without weights, unless `original` is `given`.
        original: `trained` by the recipe, or `given`: the backbone with its own weights.
        oracle: `retrain` by the recipe without the forget part; `none`, then there is no gap; or
            arguments of the backbone that is the oracle already (`{model:
            embedded:authors_oracle}`).
        recipe: how original and oracle are trained; needed where one of them is.
        tasks: data sets with a forget part, by name.
        methods: methods by name, the name of their row.
        suites: what is measured: classes, or names of configurations (`suite/tofu`).
        gap: suite of the gap to the oracle (`callbacks.RetrainGap`); without, the report takes gaps
            where every oracle has the papers' four metrics.
        trainer: arguments of every Trainer: `{accelerator: cpu}`; its `callbacks` work in fits,
            beside the suites.
        search: how `mu bench --search` searches.
        threads: torch's threads on a CPU; without, torch's own choice.
    """

    backbone: ComponentEntry
    tasks: dict[str, TaskEntry]
    methods: dict[str, MethodEntry]
    suites: list[SuiteEntry]
    name: str = ""
    title: str = ""
    output: Folder = ""
    seeds: Annotated[
        Seed | list[Seed | SeedsEntry],
        "a list of whole numbers, or of {split: ..., train: ..., unlearn: ...}",
    ] = field(default_factory=lambda: [0])
    original: Literal["trained", "given"] = "trained"
    oracle: Annotated[
        Literal["retrain", "none"] | Mapping[str, Any],
        "retrain or none, or init_args of the backbone that is the oracle",
    ] = "retrain"
    recipe: RecipeEntry = field(default_factory=RecipeEntry)
    gap: Annotated[ComponentEntry | None, CLASS] = None
    trainer: TrainerArguments = field(default_factory=dict)
    search: SearchEntry = field(default_factory=SearchEntry)
    threads: Annotated[int, Interval(1, 1024)] | None = None


@dataclass(frozen=True)
class Entry:
    """Entry of a section of the schema.

    Attributes:
        name: its key.
        hint: its type.
        default: its default; `MISSING` for an entry that must be there.
        description: one sentence, from the section's docstring.
    """

    name: str
    hint: Any
    default: Any
    description: str

    @property
    def is_required(self) -> bool:
        """Whether the entry must be there."""
        return self.default is MISSING


def entries(section: type) -> list[Entry]:
    """Entries of a section, in the order of its docstring.

    >>> [entry.name for entry in entries(RecipeEntry)]
    ['model', 'trainer']
    """
    hints = get_type_hints(section, include_extras=True)
    descriptions = {
        name.strip(): " ".join((parameter.description or "").split())
        for parameter in google.parse(section.__doc__ or "").params
        for name in parameter.arg_name.split(",")
    }
    defaults = {
        item.name: item.default if item.default_factory is MISSING else item.default_factory()
        for item in fields(section)
    }
    return [Entry(name, hints[name], defaults[name], text) for name, text in descriptions.items()]


def members(hint: Any) -> Iterator[Any]:
    """Members of a union; annotations with bounds stay, those with words are taken off."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        if any(isinstance(note, Interval) for note in notes):
            yield hint
        else:
            yield from members(inner)
    elif get_origin(hint) is Literal or not get_args(hint) or _container(hint):
        yield hint
    else:
        for member in get_args(hint):
            yield from members(member)


def _container(hint: Any) -> bool:
    return isinstance(get_origin(hint), type) and issubclass(
        get_origin(hint), dict | list | Mapping
    )


def words(hint: Any) -> str:
    """A type in words, for messages and documentation.

    >>> words(Positive | None)
    'a whole number of at least 1'
    """
    if get_origin(hint) is Annotated:
        note = get_args(hint)[1]
        return note.description if isinstance(note, Interval) else str(note)
    phrases = []
    for member in members(hint):
        if member is type(None):
            continue
        if get_origin(member) is Annotated:
            phrases.append(words(member))
        elif is_dataclass(member):
            phrases.append(_section_words(member))
        elif get_origin(member) is list:
            phrases.append(_list_words(get_args(member)[0]))
        elif get_origin(member) is dict:
            phrases.append("a mapping by name")
        else:
            phrases.append(in_words(member))
    return " or ".join(dict.fromkeys(phrases))


def _list_words(hint: Any) -> str:
    plurals = {str: "a list of words", Any: "a list"}
    if hint in plurals:
        return plurals[hint]
    inner = "" if hint is SuiteEntry else f", each {words(hint)}"
    return f"a list{inner}"


def _section_words(section: Any) -> str:
    if issubclass(section, ComponentEntry) or section is ModelEntry:
        return CLASS
    return f"a mapping with {', '.join(entry.name for entry in entries(section))}"


def sections(section: type = StudyFile, key: str = "") -> Iterator[tuple[str, type]]:
    """Sections of the schema, each with its key: `tasks.NAME`, `tasks.NAME.methods.NAME`.

    A section that occurs at several keys stands at the first of them.
    """
    seen: set[type] = set()
    pending = [(key, section)]
    while pending:
        key, section = pending.pop(0)
        if section in seen:
            continue
        seen.add(section)
        yield key, section
        for entry in entries(section):
            inner = f"{key}.{entry.name}" if key else entry.name
            pending += [(f"{inner}{suffix}", cls) for cls, suffix in _inner(entry.hint)]


def _inner(hint: Any) -> Iterator[tuple[type, str]]:
    """Sections inside an entry, each with what its key appends to the entry's."""
    for member in members(hint):
        if is_dataclass(member) and isinstance(member, type):
            yield member, ""
        elif get_origin(member) is dict:
            name = "ARGUMENT" if get_args(member)[1] is SpaceEntry else "NAME"
            yield from ((cls, f".{name}{end}") for cls, end in _inner(get_args(member)[1]))
        elif get_origin(member) is list:
            yield from ((cls, f"[...]{end}") for cls, end in _inner(get_args(member)[0]))
